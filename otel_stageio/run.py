"""Runs of a job: which one a stage belongs to, who owns it, and its root span.

A ``Pipeline`` or ``otel-stageio run`` owns a run and hands its id to children. Without an owner the first stage opens
an implicit run, later stages join it, and the same stage again opens the next. A *detached* run is one that a
scheduler's script begins and ends (:mod:`.handover`): nobody has to live for it meanwhile. Ids are minted when a run
begins and kept in ``.stageio/run.json``; the root span is written once, when the run is over, by whoever sees that (a
Python span can only be ended by the process that opened it, so the root is built directly).

``run.json`` has the newest run, and below ``earlier`` those before it that are not over. What is over moves to a file
of its own, ``.stageio/runs/<attempt>.json``: a job of a thousand runs begins its next as fast as its first.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import life
from . import semconv as sc
from .capture.text import clean
from .events import iso
from .layout import Job, spooled_attempts
from .otlp import decode
from .runtime import boot_id, host_name, never_raises, runtime
from .sinks.files import AppendFile, is_locked, locked, replace
from .sinks.open_spans import left_open
from .sinks.spool import share_life

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

KIND = "stageio.run"
SCHEMA_VERSION = 1

#: Of so many attempts at a stage, the newest, it is asked whether they are alive; of older ones, if they are not over.
_ASKED = 32
#: The end of a journal in which its last word is looked for first.
_TAIL = 256 * 1024


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


_NEEDED: dict[str, type] = {
    "run_id": str, "attempt": int, "pipeline": str, "implicit": bool, "trace_id": str, "root_span_id": str,
    "pipeline_log": str, "started_ns": int, "status": str,
}  # fmt: skip


def load(job: Job) -> dict[str, Any]:
    """``run.json`` as a dict; ``{}`` if there is none or it is damaged."""
    try:
        return _read(job)
    except OSError:
        return {}


def _read(job: Job) -> dict[str, Any]:
    """:func:`load`, except that a file that is there and cannot be read is an error.

    Raises:
        OSError: then nobody knows whether it is damaged.
    """
    try:
        content = json.loads(job.run_record.read_bytes())
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return {}
    return content if is_whole(content) else {}


def is_whole(content: Any) -> bool:
    """Whether this is a run record in which everything is what the code here takes it for."""
    if not isinstance(content, dict) or content.get("kind") != KIND:
        return False
    for name, kind in _NEEDED.items():
        if type(content.get(name)) is not kind:
            return False
    lists = (content.get("earlier", []), content.get("stages", []))
    if not all(isinstance(items, list) and all(isinstance(item, dict) for item in items) for items in lists):
        return False
    return all(isinstance(content.get(name, {}), dict) for name in ("owner", "stage_attempts"))


@contextmanager
def edit(job: Job) -> Iterator[dict[str, Any]]:
    """``run.json`` under its lock, written back if it changed. A file system that refuses is no error here."""
    with locked(job.run_lock):
        try:
            content = _read(job)
        except OSError:  # what is in it is not ours to throw away: this run goes unnoted
            yield {}
            return
        before = json.dumps(content)
        if not content and os.path.lexists(job.run_record):  # damaged: set aside, not written over
            aside = job.machinery / f"run.json.damaged-{runtime.ids.span_id():016x}"
            with suppress(OSError):
                os.replace(job.run_record, aside)
        yield content
        if json.dumps(content) != before:
            with suppress(OSError):
                _write(job, job.run_record, content)


def _write(job: Job, path: Path, content: dict[str, Any]) -> None:
    # On one line: with an indent the encoder is Python's own, which takes ten times as long.
    replace(path, json.dumps(content).encode() + b"\n", job.temporary)


def find(content: dict[str, Any], run_id: str) -> dict[str, Any] | None:
    """The current run, or one before it that is not over, by its id."""
    for candidate in (content, *content.get("earlier", ())):
        if candidate.get("run_id") == run_id:
            return dict(candidate)
    return None


def finished(job: Job) -> Iterator[dict[str, Any]]:
    """The runs that are over and were followed by another, the newest first."""
    for number in sorted(_finished_attempts(job), reverse=True):
        try:
            content = json.loads(job.former_run(number).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if is_whole(content):
            yield content


def all_runs(job: Job) -> list[dict[str, Any]]:
    """Every run of a job, the newest first."""
    content = load(job)
    found = {run["run_id"]: run for run in finished(job)}
    for run in (*content.get("earlier", ()), *([content] if content else ())):
        found.setdefault(run.get("run_id"), run)
    return sorted(found.values(), key=lambda run: run.get("attempt", 0), reverse=True)


def _finished_attempts(job: Job) -> list[int]:
    with suppress(OSError):
        names = (name.partition(".") for name in os.listdir(job.former_runs))
        return [int(number) for number, _, kind in names if number.isdecimal() and kind == "json"]
    return []


def _put_away(job: Job, run: dict[str, Any]) -> bool:
    """Give a run that is over a file of its own. False if it is not over, or the disk refuses: then it stays."""
    if run.get("status") == "running" or type(run.get("attempt")) is not int:
        return False
    try:
        _write(job, job.former_run(run["attempt"]), run)
        return True
    except OSError:
        return False


def open_detached(job: Job) -> dict[str, Any] | None:
    """The run of a job that a scheduler's script has begun and not ended. Stages and pipelines are a part of it."""
    content = load(job)
    return dict(content) if content.get("detached") and content["status"] == "running" else None


def _begin(
    job: Job, content: dict[str, Any], pipeline: str, implicit: bool, outside: SpanContext | None
) -> dict[str, Any]:
    """Put a new run at the top of ``content``; those before it are put away, or to ``earlier`` if they are not over."""
    previous = {key: item for key, item in content.items() if key not in ("earlier", "stage_attempts")}
    before = [*content.get("earlier", ()), *([previous] if previous else ())]
    now = runtime.clock.wall_ns()
    trace_id = outside.trace_id if outside is not None else runtime.ids.trace_id()
    run: dict[str, Any] = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "run_id": f"{runtime.ids.trace_id():032x}",
        "attempt": (previous["attempt"] if previous else _highest(job)) + 1,
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
    run["stage_attempts"] = content.get("stage_attempts", {})
    run["earlier"] = [earlier for earlier in before if not _put_away(job, earlier)]
    content.clear()
    content.update(run)
    return run


def _highest(job: Job) -> int:
    """The highest number that a run of this job has had, where ``run.json`` is missing or was damaged."""
    numbers = _finished_attempts(job)
    with suppress(OSError):
        parts = [name.split(".") for name in os.listdir(job.spool) if name.startswith("@run.")]
        numbers += [int(words[1]) for words in parts if words[1].isdecimal()]
    return max(numbers, default=0)


def _pipeline_log(job: Job, now_ns: int) -> str:
    """A name that no other run of this job has; two runs may begin in the same second."""
    stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(now_ns // 1_000_000_000))
    name, number = f"99_pipeline_{stamp}.log", 1
    while os.path.lexists(job.logs / name):
        number += 1
        name = f"99_pipeline_{stamp}_{number}.log"
    try:
        job.logs.mkdir(parents=True, exist_ok=True)
        os.close(os.open(job.logs / name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))  # announced, so it exists
    except OSError:
        pass
    return f"logs/{name}"


def begin(
    job: Job,
    pipeline: str,
    outside: SpanContext | None,
    planned: list[str],
    attributes: dict[str, Any],
    *,
    detached: bool = False,
) -> Run:
    """A new run, owned by this process or, ``detached``, by nobody who has to live."""
    with edit(job) as content:
        run = _begin(job, content, pipeline, False, outside)
        content["planned"] = run["planned"] = planned
        content["attributes"] = run["attributes"] = attributes
        if detached:
            content["detached"] = run["detached"] = True
        begun = Run(dict(run))
        earlier = run["earlier"]
    _close_superseded(job, earlier)
    return begun


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
        asked = {*known[-_ASKED:], *(left.attempt for left in left_open(job, stage))}
        alive = [number for number in sorted(asked) if is_locked(job.journal(stage, number))]
        attempt = max([counters.get(stage, 0), *known]) + 1
        while True:
            try:
                journal = AppendFile(job.journal(stage, attempt), exclusive=True, durable=durable, lockable=True)
                break
            except FileExistsError:
                attempt += 1
        share_life(journal)
        counters[stage] = attempt
        _note(job, content, chosen["run_id"], stage, attempt)
        entry = Entry(Run(dict(chosen)), attempt, journal, opened, alive)
    if opened:
        _close_superseded(job, chosen["earlier"])
    return entry


def _choose(job: Job, content: dict[str, Any], stage: str, handed: str | None) -> dict[str, Any] | None:
    if handed is not None:
        # Who was started by a run belongs to it, even where it comes so late that another has begun.
        found = find(content, handed) or next((run for run in finished(job) if run["run_id"] == handed), None)
        if found is not None:
            return found
    if not content or content.get("status") != "running":
        return None
    if content.get("implicit"):
        seen = {item.get("stage") for item in content.get("stages", ())}
        return None if stage in seen else dict(content)
    # An owned run is open to all while its owner lives, even to a stage whose environment was scrubbed.
    return dict(content) if life.owner_death(job, content) is None else None


def _note(job: Job, content: dict[str, Any], run_id: str, stage: str, attempt: int) -> None:
    """Write down that a stage is of a run."""
    entry = {
        "stage": stage,
        "attempt": attempt,
        "pid": os.getpid(),
        "parent_pid": os.getppid(),
        "host": host_name(),
        "boot_id": boot_id(),
    }
    for run in (content, *content.get("earlier", ())):
        if run.get("run_id") == run_id:
            run.setdefault("stages", []).append(entry)
            return
    for run in finished(job):
        if run["run_id"] == run_id:
            run.setdefault("stages", []).append(entry)
            _put_away(job, run)
            return


def stage_records(job: Job, run: dict[str, Any]) -> list[dict[str, Any]]:
    """How every stage attempt of a run stands, in the order of starting: ``stage, status, last_ns, alive``."""
    records = []
    for item in run.get("stages", ()):
        path = job.journal(item["stage"], item["attempt"])
        alive = is_locked(path)
        status, last_ns = _last_word(path, alive)
        records.append({"stage": item["stage"], "status": status, "last_ns": last_ns, "alive": alive})
    return records


def _last_word(path: Path, alive: bool) -> tuple[str, int]:
    """A stage's status and when it was last heard of. A long journal is read from its end: its end says all."""
    size = 0
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "lost", 0  # somebody has deleted it: the stage can neither say its end nor be judged by it
    except OSError:
        pass
    status, last_ns = _status_in(decode.Lines(path, max(0, size - _TAIL)))
    if status is None and size > _TAIL and not alive:
        status, last_ns = _status_in(decode.Lines(path))
    return status or "running", last_ns


def _status_in(lines: decode.Lines) -> tuple[str | None, int]:
    status, last_ns = None, 0
    for event in decode.events(lines):
        last_ns = max(last_ns, event.time_ns)
        if event.name == sc.EVENT_ENDED:
            status = str(event.attributes.get(sc.STAGE_STATUS, "incomplete"))
    return status, last_ns


def ended_as(job: Job, stage: str, attempt: int) -> str | None:
    """How an attempt at a stage ended; None if its journal has no end."""
    try:
        status, _ = _last_word(job.journal(stage, attempt), alive=False)
    except OSError:
        return None
    return None if status == "running" else status


def result_of(records: list[dict[str, Any]]) -> str:
    """A run's status from its stages: the last attempt at each counts, the worst word wins."""
    latest = {record["stage"]: record["status"] for record in records}
    for word in ("crashed", "lost", "failed", "timeout", "cancelled", "running", "incomplete"):
        if word in latest.values():
            return "crashed" if word == "running" else word
    return "success" if all(status in sc.GOOD_STATUSES for status in latest.values()) else "failed"


def _without_its_word(job: Job, run: dict[str, Any], result: str, lost_after: float) -> str:
    """A run that somebody owned is no success without that one's word: it was killed, perhaps before its next stage."""
    if run.get("implicit") or result not in sc.GOOD_STATUSES:
        return result
    if run.get("detached"):
        return "incomplete"
    death = life.owner_death(job, run, lost_after)
    return death.status if death is not None else "crashed"


def close(
    job: Job,
    run_id: str,
    status: str | None = None,
    error: BaseException | None = None,
    *,
    lost_lines: int = 0,
    lost_after: float = life.LOST_AFTER,
) -> bool:
    """Write a run's root span, once. False if that had been done, or if a stage of the run may still be alive.

    Args:
        status: the owner's word for how the run went. By default what its stages say, and then each must have ended
            or have been judged dead: a free lock alone says nothing about a stage on another host.
        lost_lines: of the owner's own, that the pipeline log did not take.
        lost_after: seconds of silence that make an owner lost.
    """
    from .otlp.root_span import write_root

    with edit(job) as content:
        for run in (content, *content.get("earlier", ())):
            if run.get("run_id") != run_id:
                continue
            if run.get("status") != "running":
                return False
            if lost_lines:
                run["lost"] = {"pipeline_log": lost_lines}
            try:
                records = stage_records(job, run)
            except OSError:  # what cannot be read now is for the next who can
                if status is not None:
                    run["said"] = status
                return False
            if status is None and any(record["alive"] or record["status"] == "running" for record in records):
                return False
            ends = [record["last_ns"] for record in records]
            now = runtime.clock.wall_ns()
            # Closed by its owner: over now. Found idle: over when its last stage was.
            end = now if status is not None else max([*ends, run["started_ns"]])
            word = status or run.get("said") or _without_its_word(job, run, result_of(records), lost_after)
            lent = None
            if status is None:  # closed by somebody else, whose service, host and process are not the run's
                journals = [job.journal(item["stage"], item["attempt"]) for item in run.get("stages", ())]
                lent = next((path for path in journals if os.path.lexists(path)), None)
            if not write_root(job, Run(run), word, max(end, *ends, run["started_ns"]), error, lent):
                run["said"] = word  # for the next who tries
                return False
            run["status"], run["ended_at"] = word, iso(end)
            if run is not content and _put_away(job, run):
                content["earlier"].remove(run)
            return True
    return False


@never_raises()
def _close_superseded(job: Job, earlier: list[dict[str, Any]]) -> None:
    """No stage joins a run that nobody owns once another has begun: it is over when its stages are."""
    for run in earlier:
        if (run.get("implicit") or run.get("detached")) and run.get("status") == "running":
            close(job, run["run_id"])


def has_owner(job: Job, run: dict[str, Any]) -> bool:
    """Whether somebody owns this run and may be alive, here or on another host."""
    owned = run.get("status") == "running" and not run.get("implicit")
    return is_locked(job.owner_lock) or (owned and life.owner_death(job, run) is None)


class OwnerLock:
    """Held by the process that owns a run, for its life."""

    def __init__(self, job: Job) -> None:
        self._file = AppendFile(job.owner_lock, lockable=True)
        share_life(self._file)
        self.beat()

    def beat(self) -> None:
        """Be heard of on other hosts: see :func:`life.owner_death`."""
        with suppress(OSError, ValueError):  # ValueError: the file could not be opened
            os.utime(self._file.fd)

    def release(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._file.abandon()
