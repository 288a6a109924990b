"""The two calls: what is given to them is checked, and the driver is told how many jobs may be under way."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import ray

from .driver import Driver, JobResult
from .progress import Progress, shower
from .stage import RayStage, check_params, in_order

#: That a run keeps open in its owner's process, with some to spare.
_FILES = 8


def run_job(
    job: str | os.PathLike[str],
    pipeline: str,
    stages: Sequence[RayStage],
    *,
    params: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> JobResult:
    """Run one job on Ray. The arguments are those of :func:`run_jobs`."""
    return run_jobs({os.fspath(job): params or {}}, pipeline, stages, resume=resume)[0]


def run_jobs(
    jobs: Mapping[str, Mapping[str, Any]] | Iterable[str | os.PathLike[str]],
    pipeline: str,
    stages: Sequence[RayStage],
    *,
    at_once: int | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[JobResult]:
    """Run the same pipeline for many jobs on Ray; each is a run of its own, and one trace.

    A job goes on as far as its stages succeed; what becomes of it says its result, and no job stops another. On Ctrl-C
    the stages that run are told to stop, and all runs end as ``cancelled``.

    Args:
        jobs: job directories on a file system that all nodes see; or a mapping of them to their parameters. It is read
            as there is room: a generator is asked for no more than can be under way.
        pipeline: the pipeline's name.
        at_once: so many jobs are under way at most; by default twice as many as the cluster has processors, as far as
            this process may open their files.
        resume: skip a program whose last attempt succeeded with the same arguments, inputs and outputs. A function asks
            itself, with :meth:`StageIO.up_to_date`.
        on_progress: told whenever something has begun or ended; by default a line is printed now and then, or drawn
            over on a terminal (``OTEL_STAGEIO_CONSOLE`` counts).

    Returns:
        One result for each job, in their order.

    Raises:
        TypeError, ValueError: for stages that are none, or that wait for each other, for a job that is there twice, and
            for parameters of a job that no stage takes, or that one needs and the job does not have.
        RuntimeError: if Ray was not started (``ray.init()``).
    """
    order = in_order(stages)
    if isinstance(jobs, (str, bytes, os.PathLike)):
        raise TypeError(f"jobs are a list of job directories, not {jobs!r}; for one job use run_job()")
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once must be at least 1, not {at_once!r}")
    if not ray.is_initialized():
        raise RuntimeError("Ray is not started: call ray.init() first, with the cluster's address")
    by_name = {stage.name: stage for stage in stages}
    if isinstance(jobs, Sized):
        _check_apart(jobs)
    if isinstance(jobs, Mapping):
        for job, params in jobs.items():
            check_params(by_name.values(), job, params)
    if at_once is None:
        at_once = max(8, 2 * int(_resources().get("CPU", 1)))
        at_once = min(at_once, max(8, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _FILES))
    total = len(jobs) if isinstance(jobs, Sized) else None
    quiet = total == 1  # its pipeline speaks for itself
    say = on_progress or ((lambda _: None) if quiet else shower())
    return Driver(pipeline, by_name, order, resume, Progress(total), say).run(_pairs(jobs), at_once)


def _check_apart(jobs: Iterable[str | os.PathLike[str]]) -> None:
    seen: set[str] = set()
    for job in jobs:
        place = os.path.abspath(job)
        if place in seen:
            raise ValueError(f"{os.fspath(job)} is there twice: two runs in one job directory at the same time")
        seen.add(place)


def _resources() -> Mapping[str, float]:
    found: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def _pairs(
    jobs: Mapping[str, Mapping[str, Any]] | Iterable[str | os.PathLike[str]],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(jobs, Mapping):
        for job, params in jobs.items():
            yield os.fspath(job), params
    else:
        for each in jobs:
            yield os.fspath(each), {}
