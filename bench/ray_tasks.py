"""What a stage adds to a Ray task, and what the driver adds to that; one node, one worker, which is warm.

Both tasks are given the job and its parameters, and work for ten milliseconds. Ray's part of one that does nothing is
another: its processes have not gone to sleep before it is over.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from otel_stageio import Pipeline, StageIO

from .measure import Result, Scale, each, take_turns
from .scratch import new_job

#: Stages of a job, one after the other.
_CHAIN = 10


_WORK = {"seconds": 0.01}


def _work(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def _stage(io: StageIO, seconds: float) -> None:
    _work(seconds)


def ray_tasks(where: Path, scale: Scale) -> Iterator[Result]:
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", OTEL_STAGEIO_CONSOLE="off")
    import ray

    from otel_stageio.integrations.ray import RayStage, run_job
    from otel_stageio.integrations.ray.task import task_of

    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
             object_store_memory=80 * 2**20)  # fmt: skip

    @ray.remote(max_retries=0)
    def bare(job: str, params: dict[str, float]) -> None:
        _work(**params)

    traced: Any = ray.remote(max_retries=0)(task_of(RayStage("asr", _stage)))
    chain = [RayStage(f"part{number}", _stage) for number in range(_CHAIN)]

    def a_bare_task() -> float:
        return each(lambda _: ray.get(bare.remote(str(where), _WORK)), _CHAIN)

    def a_stage() -> float:
        jobs = [new_job(where) for _ in range(_CHAIN)]
        runs = [Pipeline("bench", job) for job in jobs]
        handed = []
        for run in runs:
            with run:
                handed.append(run.environment)
        return each(lambda n: ray.get(traced.remote(handed[n], str(jobs[n]), _WORK, False)), _CHAIN)

    def a_job() -> float:
        job = new_job(where)
        return each(lambda _: run_job(job, "bench", chain, params=_WORK), 1) / _CHAIN

    try:
        contenders = {"bare": a_bare_task, "stage": a_stage, "job": a_job}
        seconds = take_turns(contenders, max(2, scale.repetitions // 3))
    finally:
        ray.shutdown()
    for name, what in (("stage", "a stage adds to a Ray task"), ("job", "the same, its run and driver included")):
        added = [ours - theirs for ours, theirs in zip(seconds[name], seconds["bare"], strict=True)]
        limit = 0.005 if name == "stage" else None
        yield Result(f"ray: {name}", what, "a bare Ray task", added, seconds["bare"], limit=limit)
