"""``otel-stageio status --watch``: a job, or a directory of jobs, shown again whenever it has changed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Protocol

from ..reading.job import CannotAnswer, NoJobYet, read_job
from ..reading.view import JobView
from ..semconv import GOOD_STATUSES
from .jobs import Jobs, Wanted, is_root, read_jobs

#: Seconds between two looks, and so between two pictures.
INTERVAL = 0.25
#: A look at something large may take so many parts of the time as one.
_SHARE = 10
#: Nobody knows when a run is over that nobody owns: after so many seconds in which no stage of it ran.
IDLE = 5.0


class Display(Protocol):
    """Where it is shown: on a terminal, as plain lines, as JSON lines."""

    def waiting(self, reason: str) -> None:
        """There is no job yet."""

    def job(self, job: JobView, *, over: bool) -> None: ...

    def jobs(self, jobs: Jobs) -> None: ...

    def close(self) -> None:
        """Leave what is there as it is."""


def watch(path: str, wanted: Wanted, *, as_json: bool) -> bool:
    """Show a job until its run is over and nothing of it lives, or a directory of jobs for good.

    Returns whether the job ended well.

    Raises:
        CannotAnswer: if this is no job, and nothing that one is to be expected in.
    """
    display = _display(as_json)
    last_seen = time.monotonic()
    try:
        while True:
            began = time.monotonic()
            if is_root(path):
                display.jobs(read_jobs(path, wanted))
            elif (job := _read(path, display)) is not None:
                if _at_work(job):
                    last_seen = began
                nobodys = job.run is not None and job.run.implicit and not job.run.closed
                over = not _at_work(job) and (not nobodys or began - last_seen >= IDLE)
                display.job(job, over=over)
                if over:
                    return job.state in GOOD_STATUSES
            sys.stdout.flush()
            time.sleep(max(INTERVAL, (_SHARE - 1) * (time.monotonic() - began)))
    finally:
        display.close()


def _display(as_json: bool) -> Display:
    if as_json:
        from .watch_lines import Documents

        return Documents()
    from .terminal import Terminal

    terminal = Terminal()
    if sys.stdout.isatty() and not terminal.console.is_dumb_terminal:
        from .watch_live import Live

        return Live()
    from .watch_lines import Lines

    return Lines(terminal)


def _read(path: str, display: Display) -> JobView | None:
    try:
        return read_job(path, steps=False)
    except NoJobYet as reason:
        if not Path(path).absolute().parent.is_dir():
            raise CannotAnswer(f"{path} does not exist, nor does the directory that it would be in") from None
        display.waiting(str(reason))
        return None


def _at_work(job: JobView) -> bool:
    return job.state == "running" or any(stage.state == "running" for stage in job.stages)
