"""Delivery for jobs of other processes: once for some (``push``), or for a whole tree for as long as it runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .. import run as runs
from ..layout import Job, find_jobs
from ..recovery import close_dead, recover
from ..runtime import runtime
from .delivery import Delivery, Report
from .outbox import Outbox

#: How long a one-time push waits for a receiver that answers "later", without anything being accepted, in seconds.
PATIENCE = 60.0
#: Between two looks at a tree. A look that takes long is followed by a longer pause: a tenth of a processor at most.
INTERVAL = 2.0
_SHARE = 9
#: A run without an owner in which nothing has happened for so long is over: its root span is written.
IDLE_SECONDS = 1800.0


@dataclass
class Shipment:
    """What a push did for one job, and what is left. Counts are of records by signal (``spans``, ``logs``, …)."""

    report: Report
    pending: dict[str, int]


def push(
    job: Job,
    delivery: Delivery,
    *,
    since: float | None = None,
    again: bool = False,
    stop: threading.Event | None = None,
) -> Shipment:
    """Send what a job has pending; what died is closed first, so that its end goes out too.

    Args:
        since, again: as for :meth:`Delivery.deliver`.
    """
    stop = stop or threading.Event()
    if os.access(job.spool, os.W_OK) and not job.machinery.is_symlink():
        with suppress(OSError):
            recover(job.root)
    outbox = Outbox(job)
    total = Report()
    progress = time.monotonic()
    while True:
        report = delivery.deliver(outbox, since=since, again=again)
        again = again and report.busy
        _add(total, report)
        if any(report.accepted.values()):
            progress = time.monotonic()
        pauses = [delivery.breakers[signal].seconds for signal in total.trouble if _worth_waiting(total, signal)]
        pause = 0.2 if report.busy else min(pauses, default=-1.0)
        if pause < 0 or delivery.out_of_time or time.monotonic() + pause - progress > PATIENCE or stop.wait(pause):
            break
    return Shipment(total, count_pending(outbox, delivery, since))


def _worth_waiting(report: Report, signal: str) -> bool:
    """Somebody is there and says "later"; an address where nobody answers is better reported at once."""
    _, outcome = report.trouble[signal]
    return outcome.kind.value == "later" and not outcome.unreachable


def _add(total: Report, report: Report) -> None:
    for signal, number in report.accepted.items():
        total.accepted[signal] = total.accepted.get(signal, 0) + number
    for signal, number in report.refused.items():
        total.refused[signal] = total.refused.get(signal, 0) + number
    total.requests += report.requests
    total.trouble.update(report.trouble)
    for signal in report.done:
        total.trouble.pop(signal, None)
    total.busy = report.busy


def count_pending(outbox: Outbox, delivery: Delivery, since: float | None = None) -> dict[str, int]:
    """Records that are still to be accepted, of the signals that have an endpoint."""
    from . import wire

    outbox.load()
    pending: dict[str, int] = {}
    for journal in outbox.pending():
        if journal.signal not in delivery.endpoints or (since is not None and journal.modified < since):
            continue
        offset = outbox.offset(journal)
        while (batch := outbox.read(journal, offset)) is not None:
            offset = batch.end
            with suppress(wire.NotOtlp):
                number = wire.merge(journal.signal, batch.contents)[1]
                pending[journal.signal] = pending.get(journal.signal, 0) + number + len(batch.damaged)
    return {signal: number for signal, number in pending.items() if number}


# -- a tree of jobs --------------------------------------------------------------------------------------------------


class Watch:
    """Delivers every job below a directory, until it is told to stop.

    Memory is bounded: of a job in which nothing is left to do, its path and one number are kept.

    Args:
        on_shipped: told about each job of which something was accepted or refused.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        delivery: Delivery,
        *,
        on_shipped: Callable[[Job, Report], None] | None = None,
    ) -> None:
        self.root = os.path.abspath(root)
        self.delivery = delivery
        self.jobs = 0
        self._on_shipped = on_shipped
        self._settled: dict[str, int] = {}

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            began = time.monotonic()
            self.look(stop)
            stop.wait(max(INTERVAL, _SHARE * (time.monotonic() - began)))

    def look(self, stop: threading.Event | None = None) -> None:
        """Once through the tree."""
        seen = 0
        settled: dict[str, int] = {}
        for path in find_jobs(self.root):
            if stop is not None and stop.is_set():
                return
            seen += 1
            mark = _mark(path)
            if self._settled.get(path) == mark or self._ship(Job(path)):
                settled[path] = mark  # from before: what has come since will be seen
        self.jobs = seen
        self._settled = settled  # of jobs that are gone nothing is kept

    def _ship(self, job: Job) -> bool:
        """Deliver one job. True if there is nothing left to do."""
        try:
            if all(breaker.seconds for breaker in self.delivery.breakers.values()):
                return False
            over = self._tidy(job)
            outbox = Outbox(job)
            report = self.delivery.deliver(outbox)
            if self._on_shipped is not None and (report.accepted or report.refused):
                self._on_shipped(job, report)
            left = any(journal.signal in self.delivery.endpoints for journal in outbox.pending())
            return over and not left and not report.busy
        except OSError:  # deleted under our hands, or not ours to read
            return False

    def _tidy(self, job: Job) -> bool:
        """Close what died here, and a run that is long idle. True if the job's runs are all over."""
        content = runs.load(job)
        if content.get("status") != "running":
            return True
        if not os.access(job.spool, os.W_OK):
            return False
        close_dead(job)
        if content.get("implicit") and _idle_seconds(job) > IDLE_SECONDS:
            recover(job.root)
        return runs.load(job).get("status") != "running"


def _mark(path: str) -> int:
    """Changes when a journal is begun, or something of it acknowledged."""
    try:
        return os.stat(os.path.join(path, ".stageio", "spool")).st_mtime_ns
    except OSError:
        return 0


def _idle_seconds(job: Job) -> float:
    latest = max((journal.modified for journal in Outbox(job).journals()), default=0.0)
    return runtime.clock.wall_ns() / 1e9 - latest
