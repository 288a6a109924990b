"""Closing what died: a stage whose journal has no end and whose lock is free.

The fold of its events is its record; what is added is the end that it could not write: ``crashed``, the time it was
last heard of, and the error span with the ids it had. Idempotent, and never touches a stage that lives.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import run as runs
from . import semconv as sc
from .capture import Capture
from .events import ERROR, SEVERITY_TEXT, Event
from .fold import Fold
from .layout import Job, spooled_attempts
from .otlp import decode, encode
from .runtime import never_raises, runtime
from .sinks.files import AppendFile, is_locked
from .sinks.manifest_file import ManifestFile
from .sinks.spool import span_envelope

LAST_LINES = 20
_STAMP = re.compile(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\] \[", re.MULTILINE)


def recover(job_dir: str | os.PathLike[str]) -> list[str]:
    """Close every dead stage of a job, and the runs that are over. Returns ``<stage>.<attempt>`` of what was closed.

    A stage is dead when the lock on its journal is free: the kernel lets go of it when the process dies. An implicit
    run that is idle is closed as well, so the next stage of the job begins a new run.

    Example:
        >>> recover(job)
        []
    """
    job = Job(job_dir)
    closed = close_dead(job)
    _write_missing_spans(job)
    for run in _all_runs(job):
        if run.get("status") == "running" and not _owned_by_the_living(job, run):
            runs.close(job, run["run_id"])
    return closed


@never_raises(list)
def close_dead(job: Job) -> list[str]:
    """Close the dead stages of a job and leave its runs alone: what a stage or a pipeline does before it begins."""
    closed = []
    for stage, attempts in spooled_attempts(job).items():
        for attempt in attempts:
            if _close_stage(job, stage, attempt):
                closed.append(f"{stage}.{attempt}")
    for run in _all_runs(job):
        dead_owner = not run.get("implicit") and not _owned_by_the_living(job, run)
        if run.get("status") == "running" and dead_owner:
            runs.close(job, run["run_id"])
    return closed


def _all_runs(job: Job) -> list[dict[str, Any]]:
    content = runs.load(job)
    return [content, *content.get("earlier", ())] if content else []


def _owned_by_the_living(job: Job, run: dict[str, Any]) -> bool:
    return not run.get("implicit") and run.get("run_id") == runs.load(job).get("run_id") and is_locked(job.owner_lock)


def _close_stage(job: Job, stage: str, attempt: int) -> bool:
    path = job.journal(stage, attempt)
    if _has_end(path):
        return False
    journal = AppendFile(path)
    try:
        try:
            fcntl.flock(journal.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (OSError, ValueError):
            return False  # alive, or somebody else is closing it
        past = _read(job, stage, attempt)
        if past is None or past.ended is not None:
            return False
        _write_end(job, past, journal)
        return True
    finally:
        journal.close()


@dataclass
class _Past:
    """A journal, read.

    Attributes:
        last_ns: when the stage was last heard of.
    """

    stage: str
    attempt: int
    fold: Fold
    started: Event
    ended: Event | None
    last_ns: int

    @property
    def ids(self) -> tuple[int, int]:
        """Trace and span id; zero for a stage that had no span."""
        trace = self.fold.record["trace"]
        return int(trace.get("trace_id", "0"), 16), int(trace.get("span_id", "0"), 16)


def _read(job: Job, stage: str, attempt: int) -> _Past | None:
    """None for a journal in which no stage has begun."""
    fold = Fold()
    started = ended = None
    last_ns = _last_line_ns(job.stage_dir(stage) / "stage.log")
    for _, record in decode.log_records(decode.Lines(job.journal(stage, attempt))):
        last_ns = max(last_ns, int(record.get("timeUnixNano", 0)))
        event = decode.event_of(record)
        if event is not None:
            fold.apply(event)
            if event.name == sc.EVENT_STARTED:
                started = started or event
            elif event.name == sc.EVENT_ENDED:
                ended = event
    return None if started is None else _Past(stage, attempt, fold, started, ended, last_ns)


def _write_end(job: Job, past: _Past, journal: AppendFile) -> None:
    capture = Capture(job)
    tail = _tail(job.stage_dir(past.stage) / "stage.log")
    message = f"stage {past.stage} died without an end (its process is gone)"
    body = capture.paths.text(capture.string(message + (":\n" + tail if tail else "")))
    error = Event(sc.EVENT_ERROR, past.last_ns, {sc.LOCAL_BODY: message}, body, ERROR)
    duration = max(past.last_ns - past.started.time_ns, 0) / 1e9
    ended = Event(
        sc.EVENT_ENDED,
        past.last_ns,
        {sc.STAGE_STATUS: "crashed", sc.DURATION: duration, sc.ERROR_TYPE: "crashed", sc.CAUSE: "the process died"},
        f"stage {past.stage} ended: crashed",
    )
    records = []
    for event in (error, ended):
        past.fold.apply(event)
        severity = SEVERITY_TEXT[event.severity]
        records.append(encode.event_record(event, severity, encode.record_ids(*past.ids)))
    envelope = encode.Envelope("logs", *_envelope_parts(capture, past.started))
    journal.write(envelope.line(",".join(records)))
    past.ended = ended
    _write_span(job, past, body)
    ManifestFile(job, past.stage).write(past.fold.record)


@never_raises()
def _write_missing_spans(job: Job) -> None:
    """A process may die between writing a stage's end and its span; so may one whose program had said the end."""
    for stage, attempts in spooled_attempts(job).items():
        for attempt in attempts:
            if is_locked(job.journal(stage, attempt)):
                continue
            past = _read(job, stage, attempt)
            if past is None or past.ended is None or not past.ids[1]:
                continue
            needle = f'"spanId":"{past.ids[1]:016x}"'.encode()
            try:
                with open(job.journal(stage, attempt, "spans"), "rb") as file:
                    if any(needle in line for line in file):
                        continue
            except OSError:
                pass
            errors = past.fold.record["errors"]
            _write_span(job, past, errors[-1]["message"] if errors else None)


def _write_span(job: Job, past: _Past, message: str | None) -> None:
    """Write the span that the stage's process could not end."""
    from .otlp.root_span import build
    from .otlp.span_events import Bridge

    if not past.ids[1] or past.ended is None:
        return
    collected = _Collected()
    bridge = Bridge(collected)
    for event in decode.events(decode.Lines(job.journal(past.stage, past.attempt))):
        bridge.offer(event)
    bridge.finish()
    status = past.fold.record["status"]
    given = {**past.started.attributes, **past.ended.attributes}
    attributes = {key: item for key, item in given.items() if not key.startswith((sc.LOCAL_PREFIX, sc.LOST_PREFIX))}
    if status in sc.RESULTS:
        attributes[sc.TASK_RESULT] = sc.RESULTS[status]
    parent = past.fold.record["trace"].get("parent_span_id")
    span = build(
        past.stage,
        past.ids,
        int(parent, 16) if parent else None,
        (past.started.time_ns, max(past.ended.time_ns, past.started.time_ns)),
        attributes,
        status,
        error_type=past.ended.attributes.get(sc.ERROR_TYPE),
        message=message,
        events=collected.events,
    )
    capture = Capture(job)
    file = AppendFile(job.journal(past.stage, past.attempt, "spans"))
    file.write(span_envelope(span, capture).line(encode.span(span)))
    file.close()


class _Collected:
    """Takes the bridge's span events for a span that is built, not opened."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        from opentelemetry.sdk.trace import Event as SpanEvent

        self.events.append(SpanEvent(name, attributes, timestamp))


def _envelope_parts(capture: Capture, started: Event) -> tuple[str, str, str, str]:
    from ._version import __version__
    from .otlp.provider import process_resource

    resource = process_resource()
    keys = (sc.PIPELINE_NAME, sc.PIPELINE_RUN_ID, sc.TASK_NAME)
    scope = {key: started.attributes[key] for key in keys if key in started.attributes}
    scope[sc.PROCESS_PID] = os.getpid()
    return (
        encode.resource(capture.attributes(resource.attributes)),
        encode.scope(sc.SCOPE_NAME, __version__, scope),
        resource.schema_url,
        sc.SCHEMA_URL,
    )


def _has_end(path: Path) -> bool:
    """A quick look at the journal's last lines; the full read comes only where there is no end."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 65536))
            return sc.EVENT_ENDED.encode() in file.read()
    except OSError:
        return True


def _last_line_ns(path: Path) -> int:
    """When the stage last said something: the nearest thing to the time of its death. (A copied job's mtimes lie.)"""
    stamps = _STAMP.findall(_tail(path))
    try:
        said = time.mktime(time.strptime(stamps[-1], "%Y-%m-%d %H:%M:%S")) if stamps else 0
    except (ValueError, OverflowError):
        return 0
    return min(int(said) * 1_000_000_000, runtime.clock.wall_ns())


def _tail(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16384))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LAST_LINES:])
