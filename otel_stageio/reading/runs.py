"""``run.json`` for the readers: which run a stage belongs to, and how a run stands by now."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..events import iso
from ..layout import Job
from ..recovery.life import owner_death
from ..runs.run_record import RunBase, RunRecord, former_runs
from ..semconv import GOOD_STATUSES
from .disk import Unreadable, json_object, tolerant
from .text import seconds_between
from .view import UNKNOWN, RunView, StageView, worst


def read_runs(job: Job) -> tuple[RunRecord, list[str]]:
    """The run record with all its earlier runs, and what had to be left out of it, as ``file: problem``.

    Raises:
        Unreadable: if there is none, or nothing can be had of it.
    """
    record, problems = tolerant(RunRecord, json_object(job.run_record))
    problems = [f".stageio/run.json: {problem}" for problem in problems]
    finished = []
    for path in former_runs(job):
        shown = f".stageio/runs/{os.path.basename(path)}"
        try:
            run, found = tolerant(RunBase, json_object(path))
        except Unreadable as error:
            problems.append(f"{shown} {error}")
            continue
        problems += [f"{shown}: {problem}" for problem in found]
        finished.append(run)
    record.take_in(finished)
    return record, problems


def run_number(record: RunRecord | None, stage: str, attempt: int, run_id: str | None) -> int | None:
    """The number of the run that an attempt at a stage belongs to."""
    if record is None:
        return None
    runs = (record, *record.earlier)
    for run in runs:
        if run_id is not None and run.run_id == run_id:
            return run.attempt
    for run in runs:
        if any(item.stage == stage and item.attempt == attempt for item in run.stages):
            return run.attempt
    return None


def owner_of(job: Job, run: Mapping[str, Any], *, newest: bool = True) -> str | None:
    """How the owner of an open run stands by now: ``running``, or how it has died; None for a run that nobody owns.

    Args:
        newest: whether the job has no later run. One that a scheduler's script has begun waits for it until then.
    """
    if run.get("implicit"):
        return None
    if run.get("detached"):
        return "running" if newest else "incomplete"
    death = owner_death(job, run)
    return "running" if death is None else death.status


def state_of_open(states: list[str], owner: str | None) -> str:
    """How a run stands that nobody has closed.

    Args:
        states: of its stages, by now.
        owner: from :func:`owner_of`.
    """
    if "running" in states or owner == "running":
        return "running"
    state = worst(states)
    if owner is not None and state in (UNKNOWN, *GOOD_STATUSES):
        return owner  # it is gone and has left no word: no success was reached
    return state


def run_view(job: Job, run: RunBase, stages: list[StageView], now_ns: int) -> RunView:
    """One run, as it stands by now."""
    mine = [stage for stage in stages if stage.run == run.attempt]
    closed = run.status != "running"
    state = run.status
    if not closed:
        asked = run.model_dump(include={"owner", "pipeline_log", "started_ns", "implicit", "detached"})
        owner = owner_of(job, asked, newest=isinstance(run, RunRecord))
        state = state_of_open([stage.state for stage in mine], owner)
    ended = run.ended_at
    if ended is None and state != "running":
        ended = max((stage.ended_at for stage in mine if stage.ended_at), default=None)
    until = ended if state != "running" else iso(now_ns)
    return RunView(
        run.attempt,
        run.pipeline,
        state,
        run.run_id,
        run.trace_id,
        closed,
        run.implicit,
        run.started_at,
        ended,
        seconds_between(run.started_at, until),
        run.pipeline_log,
        run.owner.host,
        run.owner.pid,
        run.detached,
    )
