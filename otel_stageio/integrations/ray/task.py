"""What a Ray worker does: open the stage in the job directory, do its work, answer how it ended in a few words."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray

from ... import semconv as sc
from ...pipeline.command import run_command
from ...pipeline.handover import join_run
from ...stages.lifecycle import Terminated
from ...stages.stage_io import StageIO
from .stage import RayStage, filled_in


class Outcome(NamedTuple):
    """How an attempt at a stage ended.

    Attributes:
        message: why, if not well.
        seconds: that the attempt took.
    """

    stage: str
    attempt: int
    status: str
    seconds: float
    message: str = ""


def task_of(stage: RayStage) -> Callable[[Mapping[str, str], str, Mapping[str, Any], bool], tuple[Any, ...]]:
    """The function that is to run in a worker. It bears the stage's name, which Ray shows.

    What it answers makes an :class:`Outcome`: pickled as that it takes a third of a millisecond longer.
    """

    def task(environment: Mapping[str, str], job: str, params: Mapping[str, Any], resume: bool) -> tuple[Any, ...]:
        return tuple(run_stage(stage, environment, job, params, resume))

    task.__name__ = task.__qualname__ = stage.name
    return task


def run_stage(
    stage: RayStage, environment: Mapping[str, str], job: str, params: Mapping[str, Any], resume: bool
) -> Outcome:
    """An exception of the stage is its end, and is in its record; Ray sees none, but for an order to stop.

    Args:
        environment: the run's, from the driver.
    """
    # Ray forwards what a worker prints, without saying of which job it is; and a worker's environment may be that of a
    # program whose pipeline reads its lines.
    if os.environ.get(sc.ENV_CONSOLE, "auto") == "auto" or os.environ[sc.ENV_CONSOLE].startswith("relay:"):
        os.environ[sc.ENV_CONSOLE] = "off"
    with join_run(environment, alone=True), _sigterm_is_ours():  # a Ray worker does one task at a time
        io = StageIO(stage.name, attributes=_where())
        if stage.function is None:
            return _run_program(io, stage, job, params, resume)
        try:
            with io:
                stage.function(io, **stage.arguments(params))
        except Terminated:
            raise  # the worker is to end
        except (Exception, SystemExit):
            pass
        record = io._recorder.record
        return _outcome(io, record["status"], str(record["errors"][-1]["message"]) if record["errors"] else "")


@contextmanager
def _sigterm_is_ours() -> Iterator[None]:
    """Ray's handler would be a `sys.exit` of the stage; with none, ours makes it a cancelled one."""
    try:
        rays = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, rays)


def _where() -> dict[str, str]:
    """With the names that Ray's own tracing has."""
    context = ray.get_runtime_context()
    return {
        sc.RAY_NODE_ID: context.get_node_id(),
        sc.RAY_TASK_ID: context.get_task_id() or "",
        sc.RAY_WORKER_ID: context.get_worker_id(),
    }


def _run_program(io: StageIO, stage: RayStage, job: str, params: Mapping[str, Any], resume: bool) -> Outcome:
    def told(words: list[str]) -> list[str]:
        return [filled_in(word, job, params) for word in words]

    try:
        result = run_command(
            io,
            told(stage.words),
            timeout=stage.timeout,
            resume=resume,
            code=stage.code,
            inputs=told(stage.inputs),
            outputs=told(stage.outputs),
            tied=True,
        )
    except BaseException as error:
        io._end_with(error)
        raise
    return _outcome(io, result.status, result.message)


def _outcome(io: StageIO, status: str, message: str) -> Outcome:
    recorder = io._recorder
    # As it is: what the record has is masked and cut, and the driver only shows it.
    good = status in sc.GOOD_STATUSES
    return Outcome(io.stage_name, recorder.attempt, status, recorder.elapsed_ns / 1e9, "" if good else message)
