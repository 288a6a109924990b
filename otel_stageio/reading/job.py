"""A job directory -> :class:`~otel_stageio.reading.view.JobView`: from disk alone, in any state, of any version.

The manifests are read; a journal only where a manifest is missing, damaged or behind. A stage that the record calls
running lives if its journal is locked. The one thing that is ever written is the end of what has died, by
:mod:`otel_stageio.recovery.recover`, and never into a job that the original made.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..layout import STAGE_DIRECTORY, Job
from ..recovery.recover import close_dead
from ..runtime import runtime
from .clocks import clocks_of
from .disk import Unreadable, entries
from .original import Root, root_manifest
from .runs import read_runs, run_view
from .sent import read_delivery
from .stages import read_stages
from .text import count, one_line
from .view import UNKNOWN, JobView, RunView, worst

_RECORDS = ("manifest.json", "stage_manifest.json", "stage.log")


class CannotAnswer(Exception):
    """What was asked about is no job, or cannot be read; says what it is instead."""


class NoJobYet(CannotAnswer):
    """There is nothing that could not become a job in a moment."""


def read_job(path: str, *, steps: bool = True, close: bool = True) -> JobView:
    """Read a job.

    Args:
        steps: read the inner spans too.
        close: write the end of what has died, where the disk lets us; without it nothing is written.

    Raises:
        CannotAnswer: with a sentence for the user.
    """
    job = Job(path)
    check_job(job, path)
    view = _read(job, path, steps)
    if close and is_dead(view) and os.access(job.spool, os.W_OK) and not os.path.islink(job.machinery):
        close_dead(job)
        view = _read(job, path, steps)
    return view


def run_of(view: JobView, number: int | None) -> RunView | None:
    """A run by its number, by default the newest; None for a job without runs.

    Raises:
        CannotAnswer: if there is no such run.
    """
    if number is None:
        return view.run
    every = [run for run in (view.run, *view.earlier) if run is not None]
    for run in every:
        if run.number == number:
            return run
    there = ", ".join(str(run.number) for run in sorted(every, key=lambda run: run.number)) or "none"
    raise CannotAnswer(f"{view.path} has no run {number}; there are: {there}")


def is_job(job: Job) -> bool:
    """Whether a directory is a job of ours or of the original."""
    if os.path.exists(job.run_record) or os.path.isdir(job.spool) or root_manifest(job) is not None:
        return True
    if any(entry.name.startswith("99_pipeline_") for entry in entries(job.logs)):
        return True
    return any(
        STAGE_DIRECTORY.fullmatch(entry.name) and any(os.path.lexists(Path(entry.path, name)) for name in _RECORDS)
        for entry in entries(job.root)
    )


def check_path(path: str) -> None:
    """
    Raises:
        CannotAnswer: if this can be the path of nothing. (A blank one would be the current directory.)
    """
    if "\0" in path:
        raise CannotAnswer("a path cannot contain NUL")
    if not path.strip():
        raise CannotAnswer("the path of a job directory is blank; is there an empty line in a list of them?")


def check_job(job: Job, path: str) -> None:
    """
    Raises:
        CannotAnswer: if this is no job.
    """
    check_path(path)
    try:
        names = os.listdir(job.root)
    except FileNotFoundError:
        raise NoJobYet(f"{path} does not exist") from None
    except NotADirectoryError:
        raise CannotAnswer(f"{path} is a file; expected a job directory") from None
    except OSError as error:
        raise CannotAnswer(f"{path} cannot be read: {error.strerror}") from error
    if is_job(job):
        return
    if any(name in names for name in _RECORDS) and is_job(Job(job.root.parent)):
        stage = job.root.name.partition("_")[2] or job.root.name
        raise CannotAnswer(
            f"{path} is the directory of a stage; ask about its job: otel-stageio show {job.base.parent} {stage}"
        )
    if not names:
        raise NoJobYet(f"{path} is empty: no stage has run there yet")
    inside = [name for name in sorted(names) if not name.startswith(".") and is_job(Job(job.root / name))]
    if inside:
        first = ", ".join(inside[:3]) + (", …" if len(inside) > 3 else "")
        raise CannotAnswer(f"{path} is no job, but holds {count(len(inside), 'job')}: {first}")
    raise NoJobYet(f"{path} is no job: it has neither .stageio/ nor a stage directory such as 06_asr/")


def is_dead(view: JobView) -> bool:
    """Whether something of it has died, and nobody has closed it."""
    return any(stage.died for stage in view.stages) or (
        view.run is not None and not view.run.closed and not view.run.implicit and view.run.state != "running"
    )


def _read(job: Job, path: str, steps: bool) -> JobView:
    problems: list[str] = []
    record = None
    try:
        record, found = read_runs(job)
        problems += found
    except Unreadable as error:
        if os.path.isdir(job.machinery):
            problems.append(f".stageio/run.json {error}")
    root = root_manifest(job)
    stages = read_stages(job, record, root, stage_directories(job), steps=steps)
    view = JobView(path, job.root.name or path, "otel_stageio", UNKNOWN, stages=stages, problems=problems)
    view.logs = [f"logs/{entry.name}" for entry in entries(job.logs) if entry.name.endswith(".log")]
    view.delivery = read_delivery(job)
    view.state = worst([stage.state for stage in stages])
    if record is not None:
        view.run = run_view(job, record, stages, runtime.clock.wall_ns())
        view.earlier = [run_view(job, run, stages, runtime.clock.wall_ns()) for run in record.earlier]
        view.state = view.run.state
        begun = {item.stage for item in record.stages}
        view.pending = [str(name) for name in record.planned if name not in begun]
        view.clocks = clocks_of(view)
    elif root is not None:
        _as_original(view, root)
    if not os.path.isdir(job.machinery):
        view.origin = "original"
    return view


def _as_original(view: JobView, root: Root) -> None:
    view.name = one_line(root.name) or view.name
    begun = {stage.name for stage in view.stages}
    view.pending = [name for name in root.pending if name not in begun]
    if root.status == "running":
        # The original says so for ever if it was killed.
        view.state = "lost"
        view.problems.append("manifest.json says running, and nothing tells whether that is still so")
    elif root.status and root.status not in ("prepared", "pending"):
        view.state = root.status


def stage_directories(job: Job) -> list[Path]:
    found = []
    for entry in entries(job.root):
        try:
            if STAGE_DIRECTORY.fullmatch(entry.name) and entry.is_dir():
                found.append(Path(entry.path))
        except OSError:
            continue
    return found
