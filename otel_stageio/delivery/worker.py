"""This process's delivery: a daemon thread that sends what its jobs have pending while the stages work.

Who attends a job holds a lock on ``deliverer.lock`` for as long, shared with others who do. A process whose owner
(``Pipeline``, ``otel-stageio run``) lives and delivers has no thread, and imports no exporter: the owner delivers.
At exit there is one budget for everything; what does not go out in it stays in the outbox.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from .. import semconv as sc
from ..ambient import open_pipelines, open_recorders
from ..layout import Job
from ..runtime import runtime
from ..sinks.files import is_locked, lock_file
from .outbox import Outbox
from .settings import Endpoint, endpoints

if TYPE_CHECKING:
    from .delivery import Delivery
    from .outcome import Outcome

#: Seconds between two looks at the spool.
INTERVAL = 1.0
DEFAULT_BUDGET = 0.3

_worker: _Worker | None = None
#: Jobs of this process that somebody else delivers, for as long as that one lives.
_left_to_others: dict[str, Job] = {}
#: A parent's worker in a forked child: kept, since its locks must not be let go of by whoever clears up here.
_of_parents: list[_Worker] = []


def attend(job: Job, *, owner: bool = False) -> None:
    """Deliver a job from now on, if that is this process's to do.

    Args:
        owner: whether this process owns the job's run.
    """
    global _worker
    mode = os.environ.get(sc.ENV_DELIVERY, "").strip().lower()
    if mode == "off" or (_worker is not None and _worker.has(job)):
        return
    if mode != "self" and not owner and _others_deliver(job):
        _left_to_others[job.key] = job
        return
    where = endpoints()
    if not where:
        return
    _left_to_others.pop(job.key, None)
    if _worker is None or not _worker.usable:
        _worker = _Worker(where)
    _worker.add(job)


def finish() -> None:
    """At exit: one last round within the budget."""
    for job in list(_left_to_others.values()):
        attend(job)  # its owner may have died
    if _worker is not None:
        with suppress(KeyboardInterrupt):  # somebody who does not want to wait even that long
            _worker.finish(exit_budget())


def after_fork() -> None:
    """In a forked child: the thread is not here, and the parent goes on delivering."""
    global _worker
    if _worker is not None:
        _of_parents.append(_worker)
    _worker = None
    _left_to_others.clear()


def exit_budget() -> float:
    """Seconds that delivery may take at exit."""
    with suppress(ValueError):
        seconds = float(os.environ.get(sc.ENV_EXIT_BUDGET, ""))
        if 0 <= seconds < 1e6:
            return seconds
    return DEFAULT_BUDGET


def _others_deliver(job: Job) -> bool:
    """Whether a process that delivers this job is alive: its owner, or the one that this program is a stage of."""
    if not is_locked(job.deliverer_lock):
        return False  # it may be alive, and have no endpoint, or be told not to deliver
    if is_locked(job.owner_lock):
        return True
    if os.environ.get(sc.ENV_JOB) != os.path.realpath(job.root):
        return False
    stage, _, attempt = os.environ.get(sc.ENV_STAGE, "").rpartition(".")
    return attempt.isdigit() and is_locked(job.journal(stage, int(attempt)))


class _Attended:
    """A job that this process attends, and the lock that says so."""

    def __init__(self, job: Job) -> None:
        self.outbox = Outbox(job)
        self._lock = ExitStack()
        with suppress(OSError):  # without the lock others deliver as well, one at a time
            fd = self._lock.enter_context(lock_file(self.outbox.job.deliverer_lock))
            for _ in range(3):  # who only asks holds it for a moment
                with suppress(BlockingIOError):
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return

    def let_go(self) -> None:
        self._lock.close()


class _Worker:
    def __init__(self, where: dict[str, Endpoint]) -> None:
        self._where = where
        self._jobs: dict[str, _Attended] = {}
        #: Those in which nothing was left to do; looked at once more at the end.
        self._former: dict[str, Outbox] = {}
        self._lock = threading.Lock()  # a job is let go only if no stage of it has just been opened
        self._wake = threading.Event()
        self._done = threading.Event()
        self._closing = False
        self._budget = 0.0
        self._delivery: Delivery | None = None
        self._thread = threading.Thread(target=self._run, name="otel_stageio delivery", daemon=True)
        self._started = False
        self.usable = True

    def has(self, job: Job) -> bool:
        with self._lock:
            return self.usable and job.key in self._jobs

    def add(self, job: Job) -> None:
        with self._lock:
            self._former.pop(job.key, None)
            self._jobs[job.key] = _Attended(job)
        if not self._started:
            self._started = True
            try:
                self._thread.start()
            except RuntimeError:  # no more threads to be had, or the interpreter is ending
                self.usable = False
                self._done.set()
        self._wake.set()

    def finish(self, budget: float) -> None:
        """Ask for a last round, and wait for it no longer than the budget."""
        if not self.usable:
            return
        self._budget = budget
        self._closing = True
        if self._delivery is not None:
            self._delivery.set_deadline(budget)
        self._wake.set()
        self._done.wait(budget)
        self.usable = False
        if self._delivery is not None and not self._done.is_set():
            self._delivery.stopping = True
        with self._lock:
            for attended in self._jobs.values():
                attended.let_go()

    def _run(self) -> None:
        try:
            from .delivery import Delivery

            self._delivery = Delivery(self._where, on_trouble=_say)
            while True:
                closing = self._closing
                if closing:
                    self._delivery.set_deadline(self._budget)
                self._wake.clear()
                self._round(closing)
                if closing:
                    return
                if not self._closing:
                    self._wake.wait(INTERVAL if self._jobs else None)
        except Exception:
            with suppress(Exception):  # strict mode raises again, in a thread where nobody would see it
                runtime.internal_error("delivery")
        finally:
            self.usable = False
            if self._delivery is not None:  # now, while the interpreter is whole: urllib3 would do it when it is not
                with suppress(Exception):
                    self._delivery.close()
            self._done.set()

    def _round(self, closing: bool) -> None:
        assert self._delivery is not None
        with self._lock:
            outboxes = {key: attended.outbox for key, attended in self._jobs.items()}
            if closing:
                outboxes.update(self._former)
        failing = self._delivery.failing()
        for key in sorted(outboxes, key=failing.__contains__):
            try:
                self._deliver(key, outboxes[key], closing)
            except Exception:  # of this job: the others go on, and so does this one in the next round
                runtime.internal_error("delivery")

    def _deliver(self, key: str, outbox: Outbox, closing: bool) -> None:
        assert self._delivery is not None
        report = self._delivery.deliver(outbox)
        while closing and report.busy and not self._delivery.out_of_time and os.path.exists(outbox.job.spool):
            time.sleep(0.02)  # another process delivers: what this one wrote last may not be in its round
            report = self._delivery.deliver(outbox)
        if closing or report.busy or self._in_use(key):
            return
        with self._lock:  # in this order: what a stage wrote is there before the stage is no longer in use
            if not self._in_use(key) and self._nothing_left(outbox):
                self._jobs.pop(key).let_go()
                self._former[key] = outbox

    def _in_use(self, key: str) -> bool:
        return key in open_pipelines or any(recorder.job.key == key for recorder in list(open_recorders))

    def _nothing_left(self, outbox: Outbox) -> bool:
        return not any(journal.signal in self._where for journal in outbox.pending())


def _say(job: Job, signal: str, endpoint: Endpoint, outcome: Outcome) -> None:
    """Once, in the pipeline log: somebody has to mend a setting. (That nobody answers is for ``status`` to show.)"""
    from .outcome import Kind

    if outcome.kind is not Kind.MISCONFIGURED:
        return
    from ..capture import Capture
    from ..runs import run_file
    from ..sinks import pipeline_log

    name = run_file.load(job).get("pipeline_log")
    if not name:
        return
    text = (
        f"{SIGNAL_WORDS[signal]} are not accepted at {endpoint.place}: {outcome.reason}; they are kept here, and "
        "`otel-stageio push` sends them later"
    )
    pipeline_log.append(job, name, pipeline_log.line(Capture(job), "delivery", "WARNING", text))


SIGNAL_WORDS = {"spans": "spans", "logs": "log records", "metrics": "metrics"}
