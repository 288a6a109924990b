"""Delivery for jobs of other processes: once for some (``push``), or for a whole tree for as long as it runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import run as runs
from ..layout import Job, find_jobs
from ..recovery import close_dead, recover
from ..runtime import runtime
from ..sinks.open_spans import left_open
from .delivery import Delivery, Report, add
from .outbox import Outbox

#: How long a one-time push waits for a receiver that answers "later", without anything being accepted, in seconds.
PATIENCE = 60.0
#: Between two looks at a tree. A look that takes long is followed by a longer pause: a tenth of a processor at most.
INTERVAL = 2.0
_SHARE = 9
#: Jobs of which it is kept in memory what could not be noted beside them.
_MOST_UNNOTED = 1000
#: A run without an owner in which nothing has happened for so long is over: its root span is written.
IDLE_SECONDS = 1800.0


@dataclass
class Shipment:
    """What a push did for one job, and what is left. Counts are of records by signal (``spans``, ``logs``, …).

    Attributes:
        failed: what broke it off, for which nobody but us is to blame; empty if nothing did.
    """

    report: Report
    pending: dict[str, int]
    failed: str = ""


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
    total = Report()
    pending: dict[str, int] = {}
    try:
        if os.access(job.spool, os.W_OK) and not job.machinery.is_symlink():
            _recover(job)
        outbox = Outbox(job)
        _push(outbox, delivery, total, since, again, stop or threading.Event())
        pending = count_pending(outbox, delivery, since)
    except Exception as error:  # one job's trouble is not the next one's
        runtime.internal_error("push")
        return Shipment(total, pending, f"an error of otel-stageio itself ({type(error).__name__})")
    return Shipment(total, pending)


def _recover(job: Job) -> None:
    """What cannot be closed can be sent all the same."""
    try:
        recover(job.root)
    except OSError:
        pass
    except Exception:
        runtime.internal_error("recover")


def _push(
    outbox: Outbox, delivery: Delivery, total: Report, since: float | None, again: bool, stop: threading.Event
) -> None:
    """Until nothing is left, or nothing more is to be had."""
    progress = time.monotonic()
    begun = False
    while True:
        report = delivery.deliver(outbox, since=since, again=again, go_on=begun)
        begun = begun or not report.busy
        _add(total, report)
        if any(report.accepted.values()):
            progress = time.monotonic()
        pause = 0.2 if report.busy else report.pause
        if pause is None or delivery.out_of_time or time.monotonic() + pause - progress > PATIENCE or stop.wait(pause):
            return


def _add(total: Report, report: Report) -> None:
    for signal, number in report.accepted.items():
        add(total.accepted, signal, number)
    for signal, number in report.refused.items():
        add(total.refused, signal, number)
    total.remarks.update(report.remarks)
    total.requests += report.requests
    total.trouble = report.trouble
    total.busy = report.busy
    total.unnoted = report.unnoted


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
                add(pending, journal.signal, number + len(batch.damaged))
    return {signal: number for signal, number in pending.items() if number}


# -- a tree of jobs --------------------------------------------------------------------------------------------------


class Watch:
    """Delivers every job below a directory, until it is told to stop.

    Memory is bounded: of a job in which nothing is left to do, its path and one number are kept.

    Args:
        on_shipped: told about each job of which something was accepted or refused.
        on_unnoted: told once about each job beside which it cannot be noted what was accepted.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        delivery: Delivery,
        *,
        on_shipped: Callable[[Job, Report], None] | None = None,
        on_unnoted: Callable[[Job, Report], None] | None = None,
    ) -> None:
        self.root = os.path.abspath(root)
        self.delivery = delivery
        self.jobs = 0
        self._on_shipped = on_shipped
        self._on_unnoted = on_unnoted
        #: Path -> its mark when nothing was left to do, and the look that last saw it.
        self._settled: dict[str, tuple[int, int]] = {}
        self._look = 0
        #: What could not be noted is kept here, or the next look would send it again.
        self._unnoted: dict[str, Outbox] = {}

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            began = time.monotonic()
            self.look(stop)
            stop.wait(max(INTERVAL, _SHARE * (time.monotonic() - began)))

    def look(self, stop: threading.Event | None = None) -> None:
        """Once through the tree."""
        failing = self.delivery.failing()
        stopped = stop or threading.Event()
        later = []
        self._look, self.jobs = self._look + 1, 0
        for path in find_jobs(self.root):
            if stopped.is_set():
                return
            self.jobs += 1
            if path in failing:  # after those that may fare better
                later.append(path)
            else:
                self._visit(path)
        for path in later:
            if stopped.is_set():
                return
            self._visit(path)
        for path in [path for path, (_, seen) in self._settled.items() if seen != self._look]:
            del self._settled[path]  # of jobs that are gone nothing is kept
        for path in [path for path in self._unnoted if not Path(path).is_dir()]:
            del self._unnoted[path]

    def _visit(self, path: str) -> None:
        mark = _mark(path)  # from before: what comes meanwhile will be seen
        if self._settled.get(path, (None, 0))[0] == mark or self._ship(Job(path)):
            self._settled[path] = mark, self._look
        else:
            self._settled.pop(path, None)

    def _ship(self, job: Job) -> bool:
        """Deliver one job. True if there is nothing left to do."""
        try:
            if all(breaker.seconds for breaker in self.delivery.breakers.values()):
                return False
            outbox = self._unnoted.get(job.key) or Outbox(job)
            if not outbox.unnoted and len(self._unnoted) >= _MOST_UNNOTED and not os.access(job.spool, os.W_OK):
                return False  # not sent rather than sent at every look
            over = self._tidy(job)
            report = self.delivery.deliver(outbox)
            self._keep(outbox, report)
            if self._on_shipped is not None and (report.accepted or report.refused):
                self._on_shipped(job, report)
            left = any(journal.signal in self.delivery.endpoints for journal in outbox.pending())
            return over and not left and not report.busy
        except OSError:  # deleted under our hands, or not ours to read
            return False
        except Exception:  # of this job: the others go on
            runtime.internal_error("push --watch")
            return False

    def _keep(self, outbox: Outbox, report: Report) -> None:
        key = outbox.job.key
        if not outbox.unnoted:
            self._unnoted.pop(key, None)
        elif key not in self._unnoted and len(self._unnoted) < _MOST_UNNOTED:
            self._unnoted[key] = outbox
            if self._on_unnoted is not None:
                self._on_unnoted(outbox.job, report)

    def _tidy(self, job: Job) -> bool:
        """Close what died here, and a run that is long idle. True if the job's runs and stages are all over."""
        try:
            if _over(job):
                return True
            if not os.access(job.spool, os.W_OK):
                return False
            close_dead(job)
            if runs.load(job).get("implicit") and _idle_seconds(job) > IDLE_SECONDS:
                recover(job.root)
        except OSError:
            raise
        except Exception:  # what cannot be closed can be sent all the same
            runtime.internal_error("recover")
            return False
        return _over(job)


def _over(job: Job) -> bool:
    """Whether nobody writes here any more: a stage can outlive the run that it was begun in."""
    return runs.load(job).get("status") != "running" and next(left_open(job), None) is None


def _mark(path: str) -> int:
    """Changes when a journal is begun or grows, or something of it is acknowledged."""
    try:
        spool = os.path.join(path, ".stageio", "spool")
        with os.scandir(spool) as entries:
            sizes = sorted((entry.name, entry.stat(follow_symlinks=False).st_size) for entry in entries)
        return hash((os.stat(spool).st_mtime_ns, tuple(sizes)))
    except OSError:
        return 0


def _idle_seconds(job: Job) -> float:
    latest = max((journal.modified for journal in Outbox(job).journals()), default=0.0)
    return runtime.clock.wall_ns() / 1e9 - latest
