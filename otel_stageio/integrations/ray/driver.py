"""Where the runs are owned: jobs are begun as there is room, their stages given to Ray as they become free to run.

One thread, which waits for Ray. What it is told of a worker or node that died is the end of that attempt.
"""

from __future__ import annotations

import contextvars
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray
from ray import exceptions

from ...layout import Job, spooled_attempts
from ...pipeline.pipeline import Pipeline
from ...recovery.recover import recover
from ...runs.run_end import ended_as
from ...semconv import GOOD_STATUSES
from .progress import Progress, trouble
from .stage import RayStage
from .task import Outcome, task_of

#: Seconds for which a stage whose worker Ray has given up may still live: its kernel has not let go of it, or it has
#: started a program that goes on.
PATIENCE = 30.0
#: Seconds for stages to end by themselves once they are told to stop.
GRACE = 10.0
#: The same for those that were killed then to be gone.
KILLED = 10.0
_LOOK_AGAIN = 0.2
#: It is of no use to run these again.
_FOR_GOOD = (
    exceptions.RayTaskError,
    exceptions.RuntimeEnvSetupError,
    exceptions.TaskUnschedulableError,
    exceptions.TaskPlacementGroupRemoved,
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class JobResult:
    """How one job's run ended.

    Attributes:
        status: the run's status word; ``success`` if each stage succeeded or was skipped.
        stages: stage -> how its last attempt ended; those that did not begin are not in it.
        attempts: how many attempts at stages there were.
        seconds: from the run's beginning to its end.
        message: why it did not end well.
    """

    job: str
    status: str
    run_id: str
    trace_id: str
    stages: dict[str, str]
    attempts: int
    seconds: float
    message: str = ""


@dataclass(eq=False)
class _Attempt:
    """One that Ray has been given.

    Attributes:
        before: the newest attempt that there was when it was given.
        given: when that was, by the monotonic clock.
    """

    run: _JobRun
    stage: RayStage
    before: int
    given: float


class _Ending(NamedTuple):
    """An attempt that Ray has given up, and that still lives.

    Attributes:
        until: when to stop trying to close it, by the monotonic clock.
        for_good: it is not to be run again.
    """

    attempt: _Attempt
    cause: str
    until: float
    for_good: bool


@dataclass(eq=False)
class _JobRun:
    """One job under way.

    Attributes:
        context: in which the run's root span is current; each run has its own, as they overlap in one thread.
        done: stages -> how their last attempt ended, if there is no other to come.
        failures: how often each stage has not ended well.
        ending: stages that died and could not be closed yet.
    """

    number: int
    job: str
    params: Mapping[str, Any]
    pipeline: Pipeline
    context: contextvars.Context
    began: float
    done: dict[str, str] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    failures: dict[str, int] = field(default_factory=dict)
    ending: dict[str, _Ending] = field(default_factory=dict)
    attempts: int = 0
    message: str = ""

    @property
    def failed(self) -> bool:
        return any(status not in GOOD_STATUSES for status in self.done.values())


class Driver:
    def __init__(
        self,
        pipeline: str,
        stages: Mapping[str, RayStage],
        order: Mapping[str, Sequence[str]],
        resume: bool,
        progress: Progress,
        say: Callable[[Progress], None],
    ) -> None:
        self._pipeline = pipeline
        self._stages = stages
        self._order = order
        self._resume = resume
        self._say = say
        self._tasks = {
            name: ray.remote(max_retries=0, **stage.options)(task_of(stage)) for name, stage in stages.items()
        }
        self._with_ray: dict[Any, _Attempt] = {}
        self._open: list[_JobRun] = []
        self._results: dict[int, JobResult] = {}
        self._places: set[str] = set()
        self._progress = progress

    def run(self, jobs: Iterator[tuple[str, Mapping[str, Any]]], at_once: int) -> list[JobResult]:
        queue = enumerate(jobs)
        more = True
        try:
            while True:
                while more and len(self._open) < at_once:
                    entry = next(queue, None)
                    more = entry is not None
                    if entry is not None:
                        self._begin(entry[0], *entry[1])
                if not self._open:
                    break
                self._wait()
        except BaseException:
            self._stop()
            raise
        self._progress.total = len(self._results)
        self._tell()
        return [self._results[number] for number in sorted(self._results)]

    # -- a job -------------------------------------------------------------------------------------------------------

    def _begin(self, number: int, job: str, params: Mapping[str, Any]) -> None:
        place = os.path.abspath(job)
        if place in self._places:
            raise ValueError(f"{job} is there twice")
        self._places.add(place)
        pipeline = Pipeline(self._pipeline, job, stages=list(self._order))
        if self._progress.total != 1:
            pipeline._console.off = True  # the lines of many jobs, one among the other, say nothing
        run = _JobRun(number, job, params, pipeline, contextvars.copy_context(), time.monotonic())
        run.context.run(pipeline.__enter__)
        self._open.append(run)
        self._progress.running += 1
        self._go_on(run)
        self._tell()

    def _go_on(self, run: _JobRun) -> None:
        """Give Ray what is free to run; end the job if nothing is left of it."""
        if not run.failed:
            for name, needed in self._order.items():
                if name not in run.given and all(run.done.get(each) in GOOD_STATUSES for each in needed):
                    self._give(run, name)
        if run.given == run.done.keys():
            self._end(run, (None, None, None))

    def _give(self, run: _JobRun, name: str) -> None:
        attempt = _Attempt(run, self._stages[name], _newest(run, name), time.monotonic())
        place = os.path.abspath(run.job)
        # In the run's context: where Ray traces its tasks, a task's span is below the root, and the stage's below that.
        reference = run.context.run(
            self._tasks[name].remote, run.pipeline.environment, place, dict(run.params), self._resume
        )
        run.pipeline._say(f"{name} was given to Ray")
        run.given.add(name)
        run.attempts += 1
        self._with_ray[reference] = attempt
        self._progress.stages += 1

    def _end(self, run: _JobRun, how: tuple[Any, Any, Any]) -> None:
        self._open.remove(run)
        run.context.run(run.pipeline.__exit__, *how)
        status = run.pipeline.status or "crashed"
        result = JobResult(run.job, status, run.pipeline.run_id, run.pipeline.trace_id, dict(run.done), run.attempts,
                           time.monotonic() - run.began, "" if status in GOOD_STATUSES else run.message)  # fmt: skip
        self._results[run.number] = result
        self._progress.running -= 1
        self._progress.ended[status] = self._progress.ended.get(status, 0) + 1
        self._tell(trouble(run.job, status, result.message))

    def _tell(self, news: str = "") -> None:
        self._progress.news = news
        self._say(self._progress)

    # -- what comes back ---------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        references = list(self._with_ray)
        closing = any(run.ending for run in self._open)
        if references:
            ray.wait(references, num_returns=1, timeout=_LOOK_AGAIN if closing else None, fetch_local=False)
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
            for reference in ready:
                self._came_back(reference, self._with_ray.pop(reference))
        elif closing:
            time.sleep(_LOOK_AGAIN)
        for run in list(self._open):
            for ending in list(run.ending.values()):
                self._close(ending)

    def _came_back(self, reference: Any, attempt: _Attempt) -> None:
        self._progress.stages -= 1
        run, stage = attempt.run, attempt.stage
        try:
            outcome = Outcome(*ray.get(reference))
        except exceptions.TaskCancelledError:
            self._died(attempt, "cancelled", "it was cancelled in Ray", for_good=True)
        except exceptions.RayError as error:
            good = isinstance(error, _FOR_GOOD)
            self._died(attempt, "failed" if good else "crashed", _sentence(error), for_good=good)
        else:
            run.pipeline._stage_ended(stage.name, outcome.status, outcome.seconds, outcome.message or None)
            again = outcome.status not in (*GOOD_STATUSES, "cancelled") and (
                stage.retry_exceptions or outcome.status == "crashed"
            )
            self._ended(attempt, outcome.status, outcome.message, again=again)

    def _ended(self, attempt: _Attempt, status: str, message: str, *, again: bool) -> None:
        run, name = attempt.run, attempt.stage.name
        if again and run.failures.get(name, 0) < attempt.stage.max_retries:
            run.failures[name] = run.failures.get(name, 0) + 1
            run.given.discard(name)
            self._progress.run_again += 1
            self._tell(f"{run.job}: {name} is run again: {message}")
        else:
            run.done[name] = status
            if status not in GOOD_STATUSES:
                run.message = f"{name}: {message}" if message else name
        self._go_on(run)

    # -- what does not come back -------------------------------------------------------------------------------------

    def _died(self, attempt: _Attempt, status: str, cause: str, *, for_good: bool) -> None:
        """Ray has given up an attempt: whatever it has begun is to be closed, or that it never began noted."""
        if _newest(attempt.run, attempt.stage.name) <= attempt.before:
            self._never_began(attempt, status, cause, again=not for_good)
            return
        self._close(_Ending(attempt, cause, time.monotonic() + PATIENCE, for_good))

    def _close(self, ending: _Ending) -> None:
        attempt, cause = ending.attempt, ending.cause
        run, name = attempt.run, attempt.stage.name
        newest = _newest(run, name)
        run.ending.pop(name, None)
        with suppress(OSError):
            recover(run.job, dead={f"{name}.{newest}": cause})
        if not os.path.exists(Job(run.job).journal(name, newest)):  # it had its number, and had not said a word
            self._never_began(attempt, "crashed", cause, again=not ending.for_good)
            return
        # Its own word, if it had one: a worker may die when the stage has ended, and before Ray could be told.
        status = ended_as(Job(run.job), name, newest)
        if status is None and time.monotonic() < ending.until:
            run.ending[name] = ending  # it lives: its kernel says so
            return
        seconds = time.monotonic() - attempt.given
        run.pipeline._stage_ended(name, status or "crashed", seconds, cause)
        if status is None:
            self._ended(attempt, "crashed", f"{cause}, and yet it still runs", again=False)
        else:
            self._ended(attempt, status, cause, again=not ending.for_good and status not in GOOD_STATUSES)

    def _never_began(self, attempt: _Attempt, status: str, cause: str, *, again: bool) -> None:
        """An attempt that died before it could open its stage, of which nobody else can tell."""
        run = attempt.run
        if status != "cancelled":
            io = run.context.run(run.pipeline.stage, attempt.stage.name)
            io.add_error(cause)
            io._end(status, error_type=status, message=cause)
        self._ended(attempt, status, cause, again=again)

    # -- being stopped -----------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Tell what runs to stop, give it time, kill the rest, and end all runs with the exception under way."""
        why = sys.exc_info()
        self._say = lambda _: None  # it may be what raised
        references = list(self._with_ray)
        for reference in references:
            with suppress(Exception):
                ray.cancel(reference, recursive=False)
        with suppress(Exception):
            _, deaf = ray.wait(references, num_returns=len(references), timeout=GRACE, fetch_local=False)
            for reference in deaf:
                ray.cancel(reference, force=True)
        until = time.monotonic() + KILLED
        for attempt in self._with_ray.values():
            while not self._is_over(attempt) and time.monotonic() < until:
                time.sleep(_LOOK_AGAIN)
        self._with_ray.clear()
        for run in list(self._open):
            with suppress(Exception):
                self._end(run, why)

    def _is_over(self, attempt: _Attempt) -> bool:
        job, stage = attempt.run.job, attempt.stage.name
        newest = _newest(attempt.run, stage)
        if newest <= attempt.before:
            return True
        with suppress(OSError):
            if ended_as(Job(job), stage, newest) is None:
                recover(job, dead={f"{stage}.{newest}": "it did not end when it was told to, and was killed"})
        return ended_as(Job(job), stage, newest) is not None


def _newest(run: _JobRun, stage: str) -> int:
    return max(spooled_attempts(Job(run.job)).get(stage, ()), default=0)


def _sentence(error: exceptions.RayError) -> str:
    """What Ray says, as the cause of a death: its first sentence, or the last line of a task's exception."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    if not lines:
        return f"Ray: {type(error).__name__}"
    if isinstance(error, exceptions.RayTaskError):
        return f"Ray: {lines[-1]}"
    return f"Ray: {lines[0].partition('. ')[0].rstrip('.')}"
