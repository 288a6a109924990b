"""Delivery for jobs of other processes: once for some (``push``), or for a whole tree for as long as it runs."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..layout import Job, find_jobs
from ..recovery.left_open import left_open
from ..recovery.recover import close_dead, recover
from ..runs import run_file
from ..runtime import runtime
from .delivery import Delivery, Report, add
from .outbox import Outbox
from .stop import Stop

#: How long a one-time push waits for a receiver that answers "later", without anything being accepted, in seconds.
PATIENCE = 60.0
#: Between two looks at a tree. A look that takes long is followed by a longer pause: a tenth of a processor at most.
INTERVAL = 2.0
_SHARE = 9
#: In a job in which nothing has changed, nothing is looked for so long: in one that is over, only a late word of a
#: process that should be gone can have come; in one that is not, a stage of another host can have been silent for
#: too long. Many shippers may look at one tree, of thousands of jobs on a network file system.
_OVER_FOR, _QUIET_FOR = 300.0, 30.0
#: Jobs of which it is kept in memory what could not be noted beside them; and others whose journals are known.
_MOST_UNNOTED = _MOST_KNOWN = 1000
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
    stop: Stop | None = None,
) -> Shipment:
    """Send what a job has pending; what died is closed first, so that its end goes out too.

    Args:
        since, again: as for :meth:`Delivery.deliver`.
    """
    total = Report()
    pending: dict[str, int] = {}
    try:
        if os.access(job.spool, os.W_OK) and not os.path.islink(job.machinery):
            _recover(job)
        outbox = Outbox(job)
        _push(outbox, delivery, total, since, again, stop or Stop())
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


def _push(outbox: Outbox, delivery: Delivery, total: Report, since: float | None, again: bool, stop: Stop) -> None:
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


class _Quiet(NamedTuple):
    """A job in which nothing is left to send.

    Attributes:
        begun, mark: of the job before that was found, see :func:`_mark`.
        over: nobody writes there any more; then ``begun`` is enough.
        until: when it is looked at again though its mark is the same.
        look: that last saw it.
    """

    begun: int
    mark: int
    over: bool
    until: float
    look: int


class Watch:
    """Delivers every job below a directory, until it is told to stop. Any number may share one, on as many hosts.

    Memory is bounded: of a job in which nothing is left to do, its path and a few numbers are kept.

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
        self._quiet: dict[str, _Quiet] = {}
        self._look = 0
        #: What could not be noted is kept here, or the next look would send it again.
        self._unnoted: dict[str, Outbox] = {}
        #: Of jobs that are not over, so that each look need not read again how their journals begin.
        self._known: dict[str, Outbox] = {}

    def run(self, stop: Stop) -> None:
        while not stop.is_set():
            began = time.monotonic()
            self.look(stop)
            stop.wait(max(INTERVAL, _SHARE * (time.monotonic() - began)))

    def look(self, stop: Stop | None = None) -> None:
        """Once through the tree."""
        failing = self.delivery.failing()
        stopped = stop or Stop()
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
        for path in [path for path, quiet in self._quiet.items() if quiet.look != self._look]:
            del self._quiet[path]  # of jobs that are gone nothing is kept
        for kept in (self._unnoted, self._known):
            for path in [path for path in kept if not Path(path).is_dir()]:
                del kept[path]

    def _visit(self, path: str) -> None:
        known = self._quiet.get(path)
        before = _begun(path)  # and not from after: what comes meanwhile will be seen
        mark = _mark(path) if known is None or not known.over or known.begun != before else known.mark
        if known is not None and (known.begun, known.mark) == (before, mark) and time.monotonic() < known.until:
            self._quiet[path] = known._replace(look=self._look)
            return
        over = self._ship(Job(path))
        if over is None:
            self._quiet.pop(path, None)
            return
        # Those that look at the same tree are not to come all at once, nor are all its jobs to come up in one look.
        until = time.monotonic() + (_OVER_FOR if over else _QUIET_FOR) * random.uniform(0.5, 1.0)
        self._quiet[path] = _Quiet(before, mark, over, until, self._look)

    def _ship(self, job: Job) -> bool | None:
        """Deliver one job. None if there is something left to send, else whether the job is over."""
        try:
            if all(breaker.seconds for breaker in self.delivery.breakers.values()):
                return None
            outbox = self._unnoted.get(job.key) or self._known.get(job.key) or Outbox(job)
            if not outbox.unnoted and len(self._unnoted) >= _MOST_UNNOTED and not os.access(job.spool, os.W_OK):
                return None  # not sent rather than sent at every look
            over = self._tidy(outbox)
            report = self.delivery.deliver(outbox)
            self._keep(outbox, report, over=over)
            if self._on_shipped is not None and (report.accepted or report.refused):
                self._on_shipped(job, report)
            if report.busy or any(journal.signal in self.delivery.endpoints for journal in outbox.pending()):
                return None
            return over
        except OSError:  # deleted under our hands, or not ours to read
            return None
        except Exception:  # of this job: the others go on
            runtime.internal_error("push --watch")
            return None

    def _keep(self, outbox: Outbox, report: Report, *, over: bool) -> None:
        key = outbox.job.key
        if over:
            self._known.pop(key, None)
        elif len(self._known) < _MOST_KNOWN:
            self._known[key] = outbox
        if not outbox.unnoted:
            self._unnoted.pop(key, None)
        elif key not in self._unnoted and len(self._unnoted) < _MOST_UNNOTED:
            self._unnoted[key] = outbox
            if self._on_unnoted is not None:
                self._on_unnoted(outbox.job, report)

    def _tidy(self, outbox: Outbox) -> bool:
        """Close what died here, and a run that is long idle. True if the job's runs and stages are all over."""
        job = outbox.job
        try:
            if _over(job):
                return True
            if not os.access(job.spool, os.W_OK):
                return False
            close_dead(job)
            if run_file.load(job).get("implicit") and _idle_seconds(outbox) > IDLE_SECONDS:
                recover(job.root)
        except OSError:
            raise
        except Exception:  # what cannot be closed can be sent all the same
            runtime.internal_error("recover")
            return False
        return _over(job)


def _over(job: Job) -> bool:
    """Whether nobody writes here any more: a stage can outlive the run that it was begun in."""
    return run_file.load(job).get("status") != "running" and next(left_open(job), None) is None


def _begun(path: str) -> int:
    """Changes when a journal is begun, or something noted about one: one question to the file system."""
    try:
        return os.stat(os.path.join(path, ".stageio", "spool")).st_mtime_ns
    except OSError:
        return 0


def _mark(path: str) -> int:
    """Changes when a journal grows, or a process of its stages dies."""
    try:
        with os.scandir(os.path.join(path, ".stageio", "spool")) as entries:
            sizes = sorted((entry.name, entry.stat(follow_symlinks=False).st_size) for entry in entries)
    except OSError:
        return 0
    return hash((tuple(sizes), tuple((left.path, left.alive) for left in left_open(Job(path)))))


def _idle_seconds(outbox: Outbox) -> float:
    latest = max((journal.modified for journal in outbox.journals()), default=0.0)
    return runtime.clock.wall_ns() / 1e9 - latest
