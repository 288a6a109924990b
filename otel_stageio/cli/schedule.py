"""``otel-stageio begin`` and ``end``: runs of which a scheduler starts the stages."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..layout import Job
from ..pipeline.handover import StagesRunning, begin_run, end_run
from ..reading.job import CannotAnswer, check_path
from ..reading.text import count, one_line
from ..runs import run_file
from ..semconv import ENV_RUN_ID, GOOD_STATUSES
from .recover import jobs_at
from .terminal import Terminal, complain, document


def begin_all(jobs: Sequence[str], name: str | None, stages: Sequence[str], json: bool) -> None:
    """Begin a run in each of these directories, which need not be there yet.

    Raises:
        CannotAnswer: if one of them can be no job directory, before anything is begun; or if one cannot be written to.
    """
    jobs = list(dict.fromkeys(jobs))
    for job in jobs:
        check_path(job)
        if Path(job).exists() and not Path(job).is_dir():
            raise CannotAnswer(f"{job} is a file; expected a job directory")
    forgotten = [job for job in jobs if run_file.open_detached(Job(job))]
    begun = {job: begin_run(name or os.path.basename(os.path.abspath(job)), job, stages=stages) for job in jobs}
    if forgotten:
        complain(f"{count(len(forgotten), 'job')} had a run that nobody has ended; what starts now is of the new one: "
                 f"{', '.join(map(one_line, forgotten[:3]))}{', …' if len(forgotten) > 3 else ''}")  # fmt: skip
    for job, handed in begun.items():
        if run_file.load(Job(job)).get("run_id") != handed[ENV_RUN_ID]:
            raise CannotAnswer(f"{job} cannot be written to: a task would not find its run there")
    if json:
        document(begun)
    elif len(begun) == 1:
        for variable, value in next(iter(begun.values())).items():
            print(f"export {variable}={shlex.quote(value)}")
    else:
        terminal = Terminal()
        for job in begun:
            run = run_file.load(Job(job))
            terminal.line(terminal.glyph("running"), f" {job}  run {run.get('attempt')}  {run.get('trace_id')}")


def end_all(paths: Sequence[str], status: str | None, dead: Mapping[str, str], json: bool) -> bool:
    """End the run of each job. True if all of them succeeded.

    Raises:
        ValueError: for a status that nobody else can give.
        CannotAnswer: if there is no such job, or no such run in it.
    """
    found: dict[str, tuple[str, str]] = {}
    for path in paths:
        for job in jobs_at(path):
            if job == path or run_file.load(Job(job)).get("detached"):  # below a directory, only those
                found[job] = _end(job, status, dead)
    if json:
        document({job: {"status": word, "problem": problem or None} for job, (word, problem) in found.items()})
    else:
        terminal = Terminal()
        for job, (word, problem) in found.items():
            detail = f"; {one_line(problem)}" if problem else ""
            terminal.line(terminal.glyph(word), f" {job}  ", terminal.state(word), detail)
    return all(word in GOOD_STATUSES for word, _ in found.values())


def _end(job: str, status: str | None, dead: Mapping[str, str]) -> tuple[str, str]:
    try:
        return end_run(job, status, dead=dead), ""
    except LookupError as error:
        raise CannotAnswer(str(error)) from error
    except StagesRunning as error:
        names = " and ".join(error.stages)
        return "running", f'{names} may still be running; if it is known to be dead: --dead {error.stages[0]}="…"'
