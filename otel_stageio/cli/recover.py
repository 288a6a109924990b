"""``otel-stageio recover``: close what died, of some jobs or of a whole tree."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..layout import Job, find_jobs
from ..reading.job import check_job, check_path, is_job
from ..reading.text import count, one_line
from ..record.manifest import ManifestError, manifest_of
from ..recovery.left_open import left_open
from ..recovery.recover import recover
from ..runs import run_file
from ..runtime import runtime
from .terminal import Terminal, document

_A_DAY = 86_400.0


@dataclass(frozen=True)
class Closed:
    """A stage that was closed; ``status`` is ``crashed`` or ``lost``."""

    stage: str
    attempt: int
    status: str
    cause: str


def recover_all(paths: Sequence[str], lost_after: float, dead: Mapping[str, str], json: bool) -> None:
    """Close what died in these jobs, or in the jobs below these directories.

    Raises:
        CannotAnswer: if one of them is neither; before anything is closed.
    """
    jobs = [(job, job == path) for path in paths for job in jobs_at(path)]
    found = {job: _recover(job, lost_after, dead) if asked or not _long_over(job) else [] for job, asked in jobs}
    if json:
        document(_document(found))
    else:
        _show(found)


def jobs_at(path: str) -> Iterator[str]:
    """The job at a path, or those below it.

    Raises:
        CannotAnswer: if there is none.
    """
    check_path(path)
    job = Job(path)
    if job.root.is_dir() and not is_job(job):
        below = sorted(find_jobs(path))
        if below:
            yield from below
            return
    check_job(job, path)
    yield path


def _long_over(path: str) -> bool:
    """Whether recoveries have had a day to look at each journal of a job that is over.

    Of a tree, every ten minutes on each of forty hosts: for thousands of old jobs that has to be a few questions to the
    file system, and no reading of all that they ever said.
    """
    job = Job(path)
    try:
        young = runtime.clock.wall_ns() / 1e9 - os.stat(job.spool).st_mtime < _A_DAY
    except OSError:
        return False
    return not young and run_file.load(job).get("status", "running") != "running" and next(left_open(job), None) is None


def _recover(path: str, lost_after: float, dead: Mapping[str, str]) -> list[Closed]:
    closed = []
    for name in recover(path, lost_after=lost_after, dead=dead):
        stage, _, attempt = name.rpartition(".")
        status, cause = "crashed", ""
        try:
            record = manifest_of(Job(path), stage)
            for each in (record, *record.attempts):
                if each.attempt == int(attempt):
                    status, cause = each.status, each.cause or ""
        except ManifestError:
            pass  # it had none, and wanted none
        closed.append(Closed(stage, int(attempt), status, cause))
    return closed


def _document(found: dict[str, list[Closed]]) -> dict[str, Any]:
    jobs = {job: [vars(each) for each in closed] for job, closed in found.items() if closed}
    return {"jobs": len(found), "closed": sum(map(len, found.values())), "by_job": jobs}


def _show(found: dict[str, list[Closed]]) -> None:
    terminal = Terminal()
    for job, closed in found.items():
        for each in closed:
            terminal.line(terminal.glyph(each.status), f" {job}  {each.stage}, attempt {each.attempt}: ",
                          terminal.state(each.status), f"; {one_line(each.cause)}" if each.cause else "")  # fmt: skip
    number = sum(map(len, found.values()))
    terminal.line(f"{count(number, 'dead stage')} closed in {count(len(found), 'job')}" if number
                  else f"nothing has died in {count(len(found), 'job')}")  # fmt: skip
