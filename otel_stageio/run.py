"""Runs of a job: which one a stage belongs to, who owns it, and its root span.

A ``Pipeline`` or ``otel-stageio run`` owns a run and hands its id to children. Without an owner the first stage opens
an implicit run, later stages join it, and the same stage again opens the next. Ids are minted when a run begins and
kept in ``.stageio/run.json``; the root span is written once, when the run is over, by whoever sees that (a Python
span can only be ended by the process that opened it, so the root is built directly).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from . import semconv as sc
from .capture.text import clean
from .events import iso
from .fold import fold
from .layout import Job, spooled_attempts
from .otlp import decode
from .runtime import boot_id, host_name, runtime
from .sinks.files import AppendFile, is_locked, locked, replace
from .sinks.spool import share_life

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

KIND = "stageio.run"
SCHEMA_VERSION = 1


class Run:
    """One run's identity. Ids are integers here and hex on disk.

    Attributes:
        pipeline_log: relative to the job, e.g. ``logs/99_pipeline_20251127_101112.log``; fixed once per run.
        parent: trace and span id of the span outside under which this run happens, or None.
        previous: trace and root span id of the run before, for a link.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.run_id: str = data["run_id"]
        self.attempt: int = data["attempt"]
        self.pipeline: str = data["pipeline"]
        self.implicit: bool = data["implicit"]
        self.trace_id = int(data["trace_id"], 16)
        self.root_span_id = int(data["root_span_id"], 16)
        self.pipeline_log: str = data["pipeline_log"]
        self.started_ns: int = data["started_ns"]

    @property
    def parent(self) -> int | None:
        parent = self.data.get("parent_span_id")
        return int(parent, 16) if parent else None

    @property
    def previous(self) -> tuple[int, int] | None:
        previous = self.data.get("previous")
        return (int(previous["trace_id"], 16), int(previous["root_span_id"], 16)) if previous else None


_NEEDED = frozenset(
    {"run_id", "attempt", "pipeline", "implicit", "trace_id", "root_span_id", "pipeline_log", "started_ns", "status"}
)


def load(job: Job) -> dict[str, Any]:
    """``run.json`` as a dict; ``{}`` if there is none or it is damaged."""
    try:
        content = json.loads(job.run_record.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    whole = isinstance(content, dict) and content.get("kind") == KIND and content.keys() >= _NEEDED
    return content if whole else {}


@contextmanager
def edit(job: Job) -> Iterator[dict[str, Any]]:
    """``run.json`` under its lock, written back if it changed. A file system that refuses is no error here."""
    with locked(job.run_lock):
        content = load(job)
        before = json.dumps(content)
        if not content and job.run_record.exists():  # damaged: set aside, not written over
            aside = job.machinery / f"run.json.damaged-{runtime.ids.span_id():016x}"
            with suppress(OSError):
                os.replace(job.run_record, aside)
        yield content
        if json.dumps(content) != before:
            with suppress(OSError):
                text = json.dumps(content, indent=2)
                replace(job.run_record, text.encode() + b"\n", job.temporary)


def find(content: dict[str, Any], run_id: str) -> dict[str, Any] | None:
    """The current or an earlier run by its id."""
    for candidate in (content, *content.get("earlier", ())):
        if candidate.get("run_id") == run_id:
            return dict(candidate)
    return None


def _begin(
    job: Job, content: dict[str, Any], pipeline: str, implicit: bool, outside: SpanContext | None
) -> dict[str, Any]:
    """Put a new run at the top of ``content``; the one before moves to ``earlier``."""
    previous = {key: item for key, item in content.items() if key not in ("earlier", "stage_attempts")}
    earlier = list(content.get("earlier", ()))
    now = runtime.clock.wall_ns()
    trace_id = outside.trace_id if outside is not None else runtime.ids.trace_id()
    run: dict[str, Any] = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "run_id": f"{runtime.ids.trace_id():032x}",
        "attempt": previous.get("attempt", 0) + 1,
        "pipeline": pipeline,
        "implicit": implicit,
        "trace_id": f"{trace_id:032x}",
        "root_span_id": f"{runtime.ids.span_id():016x}",
        "parent_span_id": f"{outside.span_id:016x}" if outside is not None else None,
        "previous": None,
        "pipeline_log": _pipeline_log(job, now),
        "started_at": iso(now),
        "started_ns": now,
        "owner": {"pid": os.getpid(), "host": host_name(), "boot_id": boot_id()},
        "status": "running",
        "stages": [],
    }
    if previous:
        run["previous"] = {key: previous[key] for key in ("run_id", "trace_id", "root_span_id")}
        earlier.append(previous)
    run["stage_attempts"] = content.get("stage_attempts", {})
    run["earlier"] = earlier
    content.clear()
    content.update(run)
    return run


def _pipeline_log(job: Job, now_ns: int) -> str:
    """A name that no other run of this job has; two runs may begin in the same second."""
    stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(now_ns // 1_000_000_000))
    name, number = f"99_pipeline_{stamp}.log", 1
    while (job.logs / name).exists():
        number += 1
        name = f"99_pipeline_{stamp}_{number}.log"
    try:
        job.logs.mkdir(parents=True, exist_ok=True)
        os.close(os.open(job.logs / name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))  # announced, so it exists
    except OSError:
        pass
    return f"logs/{name}"


def begin_owned(
    job: Job, pipeline: str, outside: SpanContext | None, planned: list[str], attributes: dict[str, Any]
) -> Run:
    """A new run, owned by this process."""
    with edit(job) as content:
        run = _begin(job, content, pipeline, False, outside)
        content["planned"] = run["planned"] = planned
        content["attributes"] = run["attributes"] = attributes
        return Run(dict(run))


class Entry:
    """A stage's place in a run: the run, the stage's attempt number, and its journal, open and locked."""

    def __init__(self, run: Run, attempt: int, journal: AppendFile, first: bool, alive: list[int]) -> None:
        self.run = run
        self.attempt = attempt
        self.journal = journal
        self.opened_run = first
        #: Attempts at the same stage that are still running somewhere: two at once are worth a warning.
        self.alive = alive


def enter(job: Job, stage: str, handed: str | None, outside: SpanContext | None, *, durable: bool) -> Entry:
    """Find or begin the run that a stage belongs to, and reserve the stage's next attempt.

    Args:
        handed: run id that an owner handed over, if any.
        outside: a span around everything (an application's, or ``TRACEPARENT``): an implicit run's parent.
    """
    with edit(job) as content:
        chosen = _choose(job, content, stage, handed)
        opened = chosen is None
        if chosen is None:
            chosen = _begin(job, content, clean(job.root.name) or "job", True, outside)
        counters = content.setdefault("stage_attempts", {})
        known = spooled_attempts(job).get(stage, [])
        alive = [number for number in known if is_locked(job.journal(stage, number))]
        attempt = max([counters.get(stage, 0), *known]) + 1
        while True:
            try:
                journal = AppendFile(job.journal(stage, attempt), exclusive=True, durable=durable)
                break
            except FileExistsError:
                attempt += 1
        share_life(journal)
        counters[stage] = attempt
        entry = {"stage": stage, "attempt": attempt, "pid": os.getpid(), "parent_pid": os.getppid()}
        _stages_of(content, chosen["run_id"]).append(entry)
        return Entry(Run(dict(chosen)), attempt, journal, opened, alive)


def _choose(job: Job, content: dict[str, Any], stage: str, handed: str | None) -> dict[str, Any] | None:
    if handed is not None:
        found = find(content, handed)
        if found is not None:
            return found
    if not content or content.get("status") != "running":
        return None
    if content.get("implicit"):
        seen = {item.get("stage") for item in content.get("stages", ())}
        return None if stage in seen else dict(content)
    # An owned run is open to all while its owner lives, even to a stage whose environment was scrubbed.
    return dict(content) if is_locked(job.owner_lock) else None


def _stages_of(content: dict[str, Any], run_id: str) -> list[dict[str, Any]]:
    for candidate in (content, *content.get("earlier", ())):
        if candidate.get("run_id") == run_id:
            stages: list[dict[str, Any]] = candidate.setdefault("stages", [])
            return stages
    return []


def stage_records(job: Job, run: dict[str, Any]) -> list[dict[str, Any]]:
    """The folded record of every stage attempt of a run, in the order of starting, with ``alive`` added."""
    records = []
    for item in run.get("stages", ()):
        path = job.journal(item["stage"], item["attempt"])
        record = fold(decode.events(decode.Lines(path)))
        record["stage"] = record["stage"] or item["stage"]
        record["alive"] = is_locked(path)
        records.append(record)
    return records


def result_of(records: list[dict[str, Any]]) -> str:
    """A run's status from its stages: the last attempt at each counts, the worst word wins."""
    latest = {record["stage"]: record["status"] for record in records}
    for word in ("crashed", "lost", "failed", "timeout", "cancelled", "running", "incomplete"):
        if word in latest.values():
            return "crashed" if word == "running" else word
    return "success" if all(status in sc.GOOD_STATUSES for status in latest.values()) else "failed"


def close(job: Job, run_id: str, status: str | None = None, error: BaseException | None = None) -> bool:
    """Write a run's root span, once. False if that had been done, or if a stage of the run is still alive.

    Args:
        status: the owner's word for how the run went; by default what its stages say.
    """
    from .otlp.root_span import write_root

    with edit(job) as content:
        for run in (content, *content.get("earlier", ())):
            if run.get("run_id") != run_id:
                continue
            if run.get("status") != "running":
                return False
            records = stage_records(job, run)
            if status is None and any(record["alive"] for record in records):
                return False
            ends = [_end_ns(job, item) for item in run.get("stages", ())]
            now = runtime.clock.wall_ns()
            # Closed by its owner: over now. Found idle: over when its last stage was.
            end = now if status is not None else max([*ends, run["started_ns"]])
            run["status"] = status or result_of(records)
            run["ended_at"] = iso(end)
            write_root(job, Run(run), run["status"], max(end, *ends, run["started_ns"]), error)
            return True
    return False


def _end_ns(job: Job, item: dict[str, Any]) -> int:
    latest = 0
    for event in decode.events(decode.Lines(job.journal(item["stage"], item["attempt"]))):
        latest = max(latest, event.time_ns)
    return latest


class OwnerLock:
    """Held by the process that owns a run, for its life."""

    def __init__(self, job: Job) -> None:
        self._file = AppendFile(job.owner_lock)
        share_life(self._file)

    def release(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._file.abandon()
