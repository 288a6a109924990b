"""How far many jobs are, for people."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ...capture.text import one_record
from ...semconv import GOOD_STATUSES
from ...sinks.console import Console

#: Seconds between two lines where they are not drawn over each other.
_GAP = 10.0


@dataclass
class Progress:
    """Counts of jobs, and of the stages of those that are under way.

    Attributes:
        total: jobs, if it is known how many there are.
        ended: how many jobs ended with each status word.
        running: jobs that have begun and not ended.
        stages: attempts at stages that Ray has been given and that have not ended.
        run_again: attempts that were begun because the one before did not end well.
        news: a line about what has just happened, if it is worth one: a job that did not end well, a stage that is run
            again.
    """

    total: int | None = None
    ended: dict[str, int] = field(default_factory=dict)
    running: int = 0
    stages: int = 0
    run_again: int = 0
    news: str = ""

    @property
    def line(self) -> str:
        """``120 of 200 jobs: 118 success, 2 failed; 20 running, 31 stages with Ray, 4 run again``."""
        done = sum(self.ended.values())
        how = ", ".join(f"{number} {word}" for word, number in sorted(self.ended.items()))
        parts = [f"{done} of {self.total} jobs" if self.total is not None else f"{done} jobs"]
        if how:
            parts[0] += f": {how}"
        parts.append(f"{self.running} running, {self.stages} stages with Ray")
        return "; ".join(parts) + (f", {self.run_again} run again" if self.run_again else "")


def shower() -> Callable[[Progress], None]:
    """Draws over one line on a terminal; elsewhere a line now and then, and one for each thing that went wrong."""
    console = Console()
    latest = -_GAP
    finished = False

    def show(progress: Progress) -> None:
        nonlocal latest, finished
        if progress.news:
            console.write(one_record(progress.news) + "\n")
        room, now = console.room(), time.monotonic()
        over = progress.running == 0 and sum(progress.ended.values()) == progress.total
        if room:
            console.draw("" if over else progress.line[:room])
        if (over and not finished) or (not room and now - latest >= _GAP):
            latest, finished = now, over
            console.write(progress.line + "\n")

    return show


def trouble(job: str, status: str, message: str) -> str:
    """The line about a job that has ended; none for one that ended well."""
    return "" if status in GOOD_STATUSES else f"{job}: {status}" + (f": {message}" if message else "")
