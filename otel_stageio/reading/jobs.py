"""Many jobs at a glance: how each stands, from as little of it as will do. Ten thousand take about a second.

Of a job whose run is closed that is ``run.json``; of one whose run is not, the last words of its stages' journals as
well. What this says of a job is what :func:`otel_stageio.reading.job.read_job` says; :func:`look_closer` asks it, for
the few that are shown with more. Nothing here writes: what has died is called so, and stays for ``recover``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from .. import semconv as sc
from ..layout import Job, find_jobs, safe_name
from ..record.shared_manifest import ended_record
from ..recovery.life import HEAD, LOST_AFTER, Birth, birth_in, birth_of, seize
from ..runs import run_file
from ..sinks.files import open_to_lock
from .disk import folded, state_without_end
from .hosts import FileClock, Stand, too_long
from .job import CannotAnswer, is_dead, is_job, read_job
from .runs import owner_of, state_of_open
from .text import moment, seconds_between
from .view import UNKNOWN, JobView, StageView

#: The end of a journal in which its last word is looked for.
_TAIL = 16 * 1024
_ENDED = f'"eventName":"{sc.EVENT_ENDED}"'.encode()
_STATUS = re.compile(rb'"key":"' + re.escape(sc.STAGE_STATUS.encode()) + rb'","value":\{"stringValue":"([^"\\]*)"')
_STAGE_DIRECTORY = re.compile(r"\d\d_.")


@dataclasses.dataclass
class JobSummary:
    """One job of many.

    Attributes:
        state: a status word, as for :class:`~otel_stageio.reading.view.JobView`.
        began: seconds since 1970; 0 where nothing says.
        dead: something of it has died, and nobody has closed it.
        plain: it ended well and was closed; there is no more to say of it.
        stages: those of the run that are running or did not end well, with their hosts.
    """

    path: str
    pipeline: str
    state: str
    started_at: str | None
    ended_at: str | None
    began: float = 0.0
    dead: bool = False
    plain: bool = False
    stages: list[Stand] = dataclasses.field(default_factory=list)

    @property
    def urgent(self) -> bool:
        """Whether somebody has to see to it: something has died, or nothing is heard of it any more."""
        return self.dead or any(stage.silent for stage in self.stages)


@dataclasses.dataclass
class Closer:
    """What is said of a job that is shown.

    Attributes:
        stages: where it stands: what is running, or else what did not end well.
        pending: the stage that it did not come to, where no stage is to blame.
    """

    seconds: float | None
    stages: list[StageView] = dataclasses.field(default_factory=list)
    pending: str = ""


def summaries(root: str) -> Iterator[JobSummary]:
    """Every job at or below a directory, in no order; the original's too."""
    clock = FileClock()
    for path in find_jobs(root, _originals):
        found = _summary(path, clock)
        if found is not None:
            yield found


def look_closer(summary: JobSummary) -> Closer:
    """Where a job stands, and for how long."""
    if summary.plain:
        return Closer(seconds_between(summary.started_at, summary.ended_at))
    try:
        view = read_job(summary.path, steps=False, close=False)
    except CannotAnswer:  # it is gone by now
        return Closer(None)
    mine = [stage for stage in view.stages if view.run is None or stage.run == view.run.number]
    running = [stage for stage in mine if stage.state == "running"]
    stages = running or [stage for stage in mine if stage.state not in (*sc.GOOD_STATUSES, UNKNOWN)]
    stopped = not stages and view.state not in sc.GOOD_STATUSES
    return Closer(_seconds(view), stages, view.pending[0] if stopped and view.pending else "")


def _seconds(view: JobView) -> float | None:
    if view.run is not None:
        return view.run.seconds
    starts, ends = _times(view)
    return seconds_between(starts[0], ends[-1]) if starts and ends else None


def _times(view: JobView) -> tuple[list[str], list[str]]:
    starts = [stage.started_at for stage in view.stages if stage.started_at]
    ends = [stage.ended_at for stage in view.stages if stage.ended_at]
    return sorted(starts, key=_epoch), sorted(ends, key=_epoch)


def _epoch(stamp: str) -> float:
    parsed = moment(stamp)
    return parsed.timestamp() if parsed is not None else 0.0


def _originals(place: str, names: list[str]) -> bool:
    likely = "logs" in names or any(map(_STAGE_DIRECTORY.match, names))
    return (likely or os.path.lexists(os.path.join(place, "manifest.json"))) and is_job(Job(place))


def _summary(path: str, clock: FileClock) -> JobSummary | None:
    run = _run_record(f"{path}{os.sep}.stageio{os.sep}run.json")  # paths as text: a Path costs more than the reading
    if run is None:
        return _by_reading(path)
    state, dead = run["status"], False
    closed = state != "running"
    plain = closed and state in sc.GOOD_STATUSES
    stands = [] if plain else _stands(path, run, clock)
    if not closed:
        states = [stand.state for stand in stands]
        state = "running" if "running" in states else state_of_open(states, owner_of(Job(path), run))
        dead = state != "running" and (not run["implicit"] or any(stand.died for stand in stands))
    began = run["started_ns"] / 1e9
    started, ended = run.get("started_at"), run.get("ended_at")
    stages = [stand for stand in stands if stand.state not in sc.GOOD_STATUSES]
    return JobSummary(path, run["pipeline"], state, _text(started), _text(ended), began, dead, plain, stages)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _run_record(path: str) -> dict[str, Any] | None:
    """``run.json`` as it is; None if there is none that can be trusted to be whole."""
    try:
        content = json.loads(_read(path).decode())
    except (OSError, ValueError, RecursionError):
        return None
    return content if run_file.is_whole(content) else None


def _read(path: str, last: int | None = None) -> bytes:
    """A file, or the last so many bytes of it. A planted pipe is not waited for, and gives nothing."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(fd).st_size
        start = 0 if last is None else max(0, size - last)
        return os.pread(fd, size - start, start)
    finally:
        os.close(fd)


def _by_reading(path: str) -> JobSummary | None:
    """A job without a run record, or with a damaged one: all of it is looked at."""
    try:
        view = read_job(path, steps=False, close=False)
    except CannotAnswer:
        return None
    starts, ends = _times(view)
    run = view.run
    started = run.started_at if run is not None else starts[0] if starts else None
    ended = run.ended_at if run is not None else ends[-1] if ends else None
    name = run.pipeline if run is not None else view.name
    stages = [
        Stand(stage.name, stage.state, stage.host, stage.silent_seconds, stage.died)
        for stage in view.stages
        if stage.state not in sc.GOOD_STATUSES
    ]
    return JobSummary(path, name, view.state, started, ended, _epoch(started or ""), is_dead(view), stages=stages)


def _stands(path: str, run: dict[str, Any], clock: FileClock) -> list[Stand]:
    """How the stages of a run stand by now: of each its newest attempt, if that was in this run."""
    newest: dict[str, int] = {}
    for item in run.get("stages", ()):
        stage, attempt = item.get("stage"), item.get("attempt")
        if isinstance(stage, str) and type(attempt) is int:
            newest[stage] = max(attempt, newest.get(stage, 0))
    attempts = run.get("stage_attempts", {})
    return [
        stand
        for stage, attempt in newest.items()
        if attempts.get(stage, attempt) == attempt and (stand := _stand(path, stage, attempt, clock))
    ]


def _stand(path: str, stage: str, attempt: int, clock: FileClock) -> Stand | None:
    """None for one that has left nothing."""
    if not _is_a_name(stage):
        return None
    word = _last_word(f"{path}{os.sep}.stageio{os.sep}spool{os.sep}{stage}.{attempt}.logs.jsonl")
    if word in sc.GOOD_STATUSES:
        return Stand(stage, word)
    job = Job(path)
    if word is None:
        record = ended_record(job, stage, attempt)  # the journal was deleted, or had no room for the end
        word = str(record.get("status", UNKNOWN)) if record is not None else None
    if word is not None:
        return Stand(stage, word, birth_of(job.journal(stage, attempt)).host)
    if os.path.exists(job.journal(stage, attempt)):
        return _without_an_end(job, stage, attempt, clock)
    return Stand(stage, "lost") if os.path.exists(job.manifest(stage)) else None


def _without_an_end(job: Job, stage: str, attempt: int, clock: FileClock) -> Stand:
    """As :func:`otel_stageio.reading.disk.state_without_end`, which reads the whole of a journal whose lock is free."""
    path = job.journal(stage, attempt)
    seized, birth = None, Birth()
    with suppress(OSError):
        fd = open_to_lock(path)
        try:
            seized = seize(fd)
            birth = birth_in(os.pread(fd, HEAD, 0))
        finally:
            os.close(fd)
    silence = clock.silence(job, stage, attempt) if birth.elsewhere else 0.0
    if seized is False:
        state = "running"
    elif birth.elsewhere and not birth.here:
        state = "running" if silence < LOST_AFTER else "lost"
    elif seized and birth.here:
        state = "crashed"  # the same kernel would still hold its lock
    else:
        state = state_without_end(job, stage, attempt)
    if state == "running":
        return Stand(stage, state, birth.host, too_long(silence))
    if state == "ended":  # since its last word was looked for
        return Stand(stage, str(folded(path).record["status"]), birth.host)
    return Stand(stage, state, birth.host, died=True)


@functools.lru_cache(1_000)
def _is_a_name(stage: str) -> bool:
    try:
        return safe_name(stage) == stage
    except ValueError:
        return False


def _last_word(path: str) -> str | None:
    """The status that a journal ends with, if it is in its last part."""
    try:
        tail = _read(path, _TAIL)
    except OSError:
        return None
    at = tail.rfind(_ENDED)
    match = _STATUS.search(tail, at) if at >= 0 else None
    return match[1].decode("utf-8", "replace") if match is not None else None
