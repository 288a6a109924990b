"""Closing what died: a stage whose journal has no end and whose processes are gone.

The fold of its events is its record; what is added is the end that it could not write: how it died, when it was last
heard of, its last words, its spans with the ids that they had. Each step looks first whether it has been done, so a
recovery that is killed as well is finished by the next; the lock on the journal lets one at a time work on a stage.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from .. import semconv as sc
from ..capture import Capture
from ..events import ERROR, SEVERITY_TEXT, Event
from ..layout import Job, canonical
from ..otlp import encode
from ..record.shared_manifest import ended_record
from ..resources import out_of_memory
from ..runs import run_end, run_file
from ..runtime import never_raises
from ..sinks.envelopes import envelope_of
from ..sinks.files import AppendFile, locked
from ..sinks.manifest_file import ManifestFile
from ..sinks.open_spans import OpenSpans
from . import life
from .dead_spans import end_spans, write_stage_span
from .left_open import left_open
from .past import Past, read_past
from .unfinished import begun_for_it, death_of, endless, unfinished, unrecorded


def recover(
    job_dir: str | os.PathLike[str],
    *,
    lost_after: float = life.LOST_AFTER,
    dead: Mapping[str, str] | None = None,
) -> list[str]:
    """Close every dead stage of a job, and the runs that are over. Returns ``<stage>.<attempt>`` of what was closed.

    A stage of this machine is dead when the lock on its journal is free: the kernel lets go of it when the process
    dies; it is then ``crashed``. One of another machine, or on a file system without locks, is ``lost`` after a long
    silence, never before. An implicit run that is idle is closed too, so the next stage of the job begins a new run.
    Idempotent, and never touches a stage that lives.

    Args:
        lost_after: seconds of silence; a stage that lives says something twice a minute.
        dead: stages (``asr``, or one attempt at it, ``asr.2``) that somebody who must know says are dead, such as the
            scheduler of a node that failed, and the cause in words. They are ``crashed``, at once and on whichever host
            they were; except one that this machine knows to live.

    Raises:
        TypeError: if ``dead`` is no mapping of names to sentences.

    Example:
        >>> recover(job)
        []
        >>> recover(job, dead={"asr": "its node failed"})
        []
    """
    job = Job(job_dir)
    known = _told(dead)
    closed = _close_stages(job, {*unfinished(job), *endless(job), *unrecorded(job)}, lost_after, known)
    _close_runs(job, lost_after, idle=True)
    return closed


def _told(dead: Mapping[str, str] | None) -> dict[str, str]:
    if dead is None:
        return {}
    if not isinstance(dead, Mapping) or not all(isinstance(word, str) for pair in dead.items() for word in pair):
        raise TypeError(f"dead is a mapping of stages to causes, {{'asr': 'its node failed'}}, not {dead!r}")
    return {(name if "." in name else canonical(name)): cause for name, cause in dead.items()}


@never_raises(list)
def close_dead(job: Job) -> list[str]:
    """Close the dead stages of a job and leave its idle runs open: what a stage or a pipeline does before it begins."""
    closed = _close_stages(job, unfinished(job), life.LOST_AFTER)
    _close_runs(job, life.LOST_AFTER, idle=False)
    return closed


@never_raises()
def _close_runs(job: Job, lost_after: float, *, idle: bool) -> None:
    """Close the runs whose owner is gone and, with ``idle``, those that nobody owned."""
    for number, run in enumerate(_recent_runs(job)):
        # One that a scheduler's script has begun is for the script to end, or for the next run of the job.
        nobodys = (run.get("implicit") and not idle) or (run.get("detached") and number == 0)
        if run.get("status") == "running" and not nobodys and not _owner_lives(job, run, lost_after):
            with suppress(OSError):  # what cannot be read now is closed by the next who can
                run_end.close(job, run["run_id"], lost_after=lost_after)


def _recent_runs(job: Job) -> list[dict[str, Any]]:
    """The newest run, and those before it that are not over."""
    content = run_file.load(job)
    return [content, *content.get("earlier", ())] if content else []


def _owner_lives(job: Job, run: dict[str, Any], lost_after: float) -> bool:
    """Whether the process that owns a run may be alive. Nobody owns an implicit run, or a detached one."""
    if run.get("implicit") or run.get("detached"):
        return False
    return life.owner_death(job, run, lost_after) is None


# -- one stage -------------------------------------------------------------------------------------------------------


def _close_stages(
    job: Job, which: set[tuple[str, int]], lost_after: float, dead: Mapping[str, str] | None = None
) -> list[str]:
    closed = []
    for stage, attempt in sorted(which):
        name = f"{stage}.{attempt}"
        told = dead.get(name, dead.get(stage)) if dead else None
        if _close(job, stage, attempt, lost_after, told):
            closed.append(name)
    return closed


@never_raises(bool)
def _close(job: Job, stage: str, attempt: int, lost_after: float, told: str | None = None) -> bool:
    """Write what a dead stage could not. True if its end was missing.

    Args:
        told: the cause of its death, from somebody who knows that it is dead.
    """
    path = job.journal(stage, attempt)
    try:
        if not os.stat(path).st_size:
            # Made, and not locked yet: that happens under this lock.
            with locked(job.run_lock):
                pass
    except FileNotFoundError:
        _forget(job, stage, attempt)
        return False
    except OSError:
        return False
    if told is None and life.lives_elsewhere(job, stage, attempt, lost_after):
        return False
    journal = AppendFile(path)
    marker: OpenSpans | None = None
    complete = False
    try:
        seized = life.seize(journal.fd)
        if seized is False or journal.fd < 0:
            return False  # alive, or somebody else is closing it; or not ours to write
        said = read_past(job, stage, attempt)
        past = said or begun_for_it(job, stage, attempt, journal.fd)
        if past is None:
            if seized or life.is_silent(job, [path], lost_after):
                _never_was(job, stage, attempt, journal)
            return False
        death = death_of(job, past, seized, lost_after)
        if told is not None:
            death = _as_told(job, told, death)
        recorded = ended_record(job, stage, attempt)
        over = past.ended is not None or recorded is not None
        # One that has ended elsewhere may still be writing the rest of it.
        if death is None and not (over and life.is_here(past.started.attributes)):
            return False
        if said is None:
            _append(job, past, journal, [past.started])
        missing = past.ended is None
        if past.ended is None and recorded is not None:
            # It did end and say so, and only the journal had no room for that.
            missing = False
            past.ended = _end_again(past, recorded)
            _append(job, past, journal, [past.ended])
        elif past.ended is None and death is not None:
            # Where nothing is left open, as of one that died before its first word, we leave something while we are at
            # it: should we be killed as well, the next recovery knows that there is more to do than the end.
            if not any(left_open(job, stage, attempt)):
                marker = OpenSpans(job, stage, attempt)
                marker.open()
            past.ended = _write_end(job, past, journal, death)
        complete = _complete(job, past)
        return missing
    except OSError:  # a journal that cannot be read now must not be taken for one without an end
        return False
    finally:
        if marker is not None:
            marker.done(remove=complete)
        journal.close()


def _forget(job: Job, stage: str, attempt: int) -> None:
    """Somebody has deleted the journal: there is nothing to close."""
    for left in left_open(job, stage, attempt):
        if not left.alive:
            left.remove()


def _never_was(job: Job, stage: str, attempt: int, journal: AppendFile) -> None:
    """Killed before its number was even noted: no run knows of it, and the number is free again."""
    with locked(job.run_lock):
        if not os.fstat(journal.fd).st_size and not any(left_open(job, stage, attempt)):
            with suppress(OSError):
                os.unlink(journal.path)


def _as_told(job: Job, told: str, known: life.Death | None) -> life.Death:
    """A death of which somebody knows the cause; what this machine's kernel counted stands beside it."""
    capture = Capture(job)
    cause = capture.paths.text(capture.string(told))
    if known is not None and sc.OOM in known.attributes:
        return life.Death("crashed", f"{cause}; {known.cause}", known.attributes)
    return life.Death("crashed", cause, {})


def _write_end(job: Job, past: Past, journal: AppendFile, death: life.Death) -> Event:
    capture = Capture(job)
    resources = past.fold.record["resources"]
    used = {attribute: resources[key] for key, attribute in sc.USED.items() if key in resources}
    cause = death.cause
    if sc.OOM in death.attributes:
        cause += out_of_memory.peaks({**used, sc.LOCAL_MEASURED: resources})
    message = f"stage {past.stage} {death.status}: {cause}"
    body = capture.paths.text(capture.string("\n".join([message, *past.lines])))
    said: dict[str, Any] = {sc.LOCAL_BODY: message, sc.CAUSE: cause}
    if past.lines:
        said[sc.LOCAL_LAST_LINES] = past.lines
    error = Event(sc.EVENT_ERROR, past.last_ns, said, body, ERROR)
    ended = Event(
        sc.EVENT_ENDED,
        past.last_ns,
        {
            sc.STAGE_STATUS: death.status,
            sc.DURATION: max(past.last_ns - past.started.time_ns, 0) / 1e9,
            sc.ERROR_TYPE: death.status,
            sc.CAUSE: cause,
            **used,
            **death.attributes,
        },
        f"stage {past.stage} ended: {death.status}",
    )
    _append(job, past, journal, [error, ended])
    return ended


def _end_again(past: Past, recorded: dict[str, Any]) -> Event:
    """The end that a manifest has."""
    said = {sc.STAGE_STATUS: recorded.get("status", "incomplete")}
    for key, attribute in (("duration_seconds", sc.DURATION), ("cause", sc.CAUSE)):
        if key in recorded:
            said[attribute] = recorded[key]
    known = past.fold.record["lost"]
    for sink, number in recorded.get("lost", {}).items():
        if type(number) is int and number > known.get(sink, 0):
            said[sc.LOST_PREFIX + sink] = number - known.get(sink, 0)
    end_ns = past.last_ns
    with suppress(TypeError, ValueError):
        end_ns = int(datetime.fromisoformat(recorded["completed_at"]).timestamp() * 1e6) * 1000
    return Event(sc.EVENT_ENDED, end_ns, said, f"stage {past.stage} ended: {said[sc.STAGE_STATUS]}")


def _append(job: Job, past: Past, journal: AppendFile, events: list[Event]) -> None:
    for event in events:
        past.fold.apply(event)
    ids = encode.record_ids(*past.ids)
    records = [encode.event_record(event, SEVERITY_TEXT[event.severity], ids) for event in events]
    journal.write(envelope_of(job, past.stage, past.attempt, "logs", past.started).line(",".join(records)))


def _complete(job: Job, past: Past) -> bool:
    """The spans and the manifest; what was left open goes last, so that a kill or a full disk leaves it to the next.

    False if the disk refused something.
    """
    end_ns = past.ended.time_ns if past.ended is not None else past.last_ns
    message = f"the stage ended as {past.fold.record['status']} in the middle of it"
    dead = [left for left in left_open(job, past.stage, past.attempt) if not left.alive]
    written = [end_spans(job, left, end_ns, message) for left in dead]
    written.append(write_stage_span(job, past))
    # One that has its end says more than a journal from which the disk kept something out.
    if past.has_manifest and ended_record(job, past.stage, past.attempt) is None:
        written.append(ManifestFile(job, past.stage).write(past.fold.record))
    if all(written):
        for left in dead:
            left.remove()
    return all(written)
