"""Who owns a run of a job, and which one a stage belongs to.

A ``Pipeline`` or ``otel-stageio run`` owns a run and hands its id to children. Without an owner the first stage opens
an implicit run, later stages join it, and the same stage again opens the next. A *detached* run is one that a
scheduler's script begins and ends (:mod:`otel_stageio.pipeline.handover`): nobody has to live for it meanwhile. Ids are
minted when a run begins and kept in ``.stageio/run.json`` (:mod:`.run_file`); the root span is written when it is over
(:mod:`.run_end`).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..capture.text import clean
from ..events import iso
from ..layout import Job, spooled_attempts
from ..recovery import life
from ..recovery.left_open import left_open
from ..runtime import boot_id, host_name, runtime
from ..sinks.files import AppendFile, is_locked, open_to_write
from ..sinks.spool import share_life
from .run_edit import edit, put_away
from .run_end import close_superseded
from .run_file import KIND, Run, find, finished, finished_attempts

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

SCHEMA_VERSION = 1

#: Of so many attempts at a stage, the newest, it is asked whether they are alive; of older ones, if they are not over.
_ASKED = 32


def _begin(
    job: Job, content: dict[str, Any], pipeline: str, implicit: bool, outside: SpanContext | None
) -> dict[str, Any]:
    """Put a new run at the top of ``content``; those before it are put away, or to ``earlier`` if they are not over."""
    if not content:
        _make_machinery(job)
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
    run["earlier"] = [earlier for earlier in before if not put_away(job, earlier)]
    content.clear()
    content.update(run)
    return run


def _make_machinery(job: Job) -> None:
    """The directories that a stage's files of ours lie in. Who finds one missing makes it too, and takes longer."""
    for directory in (job.spool, job.temporary, job.open, job.locks):
        with suppress(OSError):
            os.mkdir(directory)


def _highest(job: Job) -> int:
    """The highest number that a run of this job has had, where ``run.json`` is missing or was damaged."""
    numbers = finished_attempts(job)
    with suppress(OSError):
        parts = [name.split(".") for name in os.listdir(job.spool) if name.startswith("@run.")]
        numbers += [int(words[1]) for words in parts if words[1].isdecimal()]
    return max(numbers, default=0)


def _pipeline_log(job: Job, now_ns: int) -> str:
    """A name that no other run of this job has; two runs may begin in the same second."""
    stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(now_ns // 1_000_000_000))
    name, number = f"99_pipeline_{stamp}.log", 1
    while True:
        try:  # announced, so it exists
            os.close(open_to_write(f"{job.logs}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
        except FileExistsError:
            number += 1
            name = f"99_pipeline_{stamp}_{number}.log"
            continue
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
    close_superseded(job, earlier)
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
        asked = {*known[-_ASKED:]}
        if len(known) > _ASKED:
            asked.update(left.attempt for left in left_open(job, stage))
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
        close_superseded(job, chosen["earlier"])
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
            put_away(job, run)
            return


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
