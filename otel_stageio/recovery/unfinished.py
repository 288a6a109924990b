"""Attempts that have no end, or not all of it: which there are in a job, and how each stands. Writes nothing."""

from __future__ import annotations

import os

from .. import semconv as sc
from ..layout import Job, spooled_attempts
from ..record.shared_manifest import ended_record
from ..runs import run_file
from ..sinks.files import let_go, open_to_lock
from . import life
from .left_open import left_open
from .past import Past, never_begun, read_past


def unfinished(job: Job) -> set[tuple[str, int]]:
    """Stages and attempts that a process has begun and not finished."""
    return {(left.stage, left.attempt) for left in left_open(job)}


def endless(job: Job) -> set[tuple[str, int]]:
    """Attempts whose journal has no end. A look at each; only a full disk can hide one from :func:`unfinished`."""
    attempts = ((stage, number) for stage, numbers in spooled_attempts(job).items() for number in numbers)
    return {(stage, number) for stage, number in attempts if not _has_end(job.journal(stage, number))}


def unrecorded(job: Job) -> set[tuple[str, int]]:
    """Of each stage the newest attempt, if its end is not in the manifest or its span not in the spool."""
    found = set()
    for stage, attempts in spooled_attempts(job).items():
        record = ended_record(job, stage, attempts[-1])
        span_id = record["trace"].get("span_id") if record is not None else None
        missing = span_id and not _contains(job.journal(stage, attempts[-1], "spans"), f'"{span_id}"')
        if record is None or missing:
            found.add((stage, attempts[-1]))
    return found


def _contains(path: str, text: str) -> bool:
    needle = text.encode()
    try:
        with open(path, "rb") as file:
            return any(needle in line for line in file)
    except OSError:
        return False


def _has_end(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
            return sc.EVENT_ENDED.encode() in file.read()
    except OSError:
        return True


def may_live(job: Job, stage: str, attempt: int, lost_after: float = life.LOST_AFTER) -> bool:
    """Whether an attempt without an end may still be running, here or on another host. Writes nothing."""
    return how_it_stands(job, stage, attempt, lost_after) == "running"


def how_it_stands(job: Job, stage: str, attempt: int, lost_after: float = life.LOST_AFTER) -> str:
    """Of an attempt: ``running``, ``ended``, or how it has died, which nobody has written down. Writes nothing."""
    if life.lives_elsewhere(job, stage, attempt, lost_after):
        return "running"
    try:
        fd = open_to_lock(job.journal(stage, attempt))
    except OSError:
        return "crashed"
    try:
        seized = life.seize(fd)
        if seized is False:
            return "running"
        past = read_past(job, stage, attempt) or begun_for_it(job, stage, attempt, fd)
    finally:
        let_go(fd)
    if past is None:
        return "crashed"
    if past.ended is not None:
        return "ended"
    death = death_of(job, past, seized, lost_after)
    return "running" if death is None else death.status


def begun_for_it(job: Job, stage: str, attempt: int, journal: int) -> Past | None:
    had_begun = any(left_open(job, stage, attempt))
    taken_ns = os.fstat(journal).st_mtime_ns  # and nothing has been written since
    return never_begun(stage, attempt, run_file.all_runs(job), taken_ns, had_begun=had_begun)


def death_of(job: Job, past: Past, seized: bool | None, lost_after: float) -> life.Death | None:
    files = life.files_of(job, past.stage, past.attempt)
    return life.death(job, files, past.started.attributes, past.last_ns, seized, lost_after)
