"""Commands for the scripts of a scheduler: what a job's run begins and ends with, where no process lives as long."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import completion
from .common import JobsArgument, JsonOption, answering

DeadOption = Annotated[
    list[str] | None,
    typer.Option("--dead", metavar="STAGE=CAUSE", help="A stage that is known to be dead, and why; may be repeated."),
]


def begin(
    jobs: Annotated[
        list[str], typer.Argument(metavar="JOB...", help="Job directories.", autocompletion=completion.jobs)
    ],
    name: Annotated[
        str | None, typer.Option(help="The pipeline's name; by default that of the job directory.", show_default=False)
    ] = None,
    stages: Annotated[str | None, typer.Option(metavar="A,B,C", help="The stages that are to come.")] = None,
    json: JsonOption = False,
) -> None:
    """Begin a run of which a scheduler starts the stages; it stays open until `otel-stageio end`.

    Every stage of the job is a part of it from now on, on whichever host, if it is told no more than the job directory.
    Of a single job it prints what else a program may be told, as lines for a shell: eval "$(otel-stageio begin JOB)".

    \b
    Examples:
      otel-stageio begin out/film_1 out/film_2 --name film --stages demux,asr,mux
      otel-stageio begin out/film_1 > run.env
    """
    with answering(json):
        from ..schedule import begin_all

        begin_all(jobs, name, [stage for stage in (stages or "").split(",") if stage.strip()], json)


def end(
    jobs: JobsArgument,
    status: Annotated[
        str | None, typer.Option(metavar="WORD", help="failed, cancelled or timeout, if the scheduler knows better.")
    ] = None,
    dead: DeadOption = None,
    json: JsonOption = False,
) -> None:
    """End the runs that `otel-stageio begin` began; exit code 1 unless all of them succeeded.

    How a run went is what its stages say: a success if each that was to come succeeded. While one of them may still be
    running, it stays open.

    \b
    Examples:
      otel-stageio end out/array_1
      otel-stageio end out --dead asr="slurm: NODE_FAIL"
    """
    told = known_dead(dead)
    with answering(json):
        from ..schedule import end_all

        try:
            good = end_all(jobs, status, told, json)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    if not good:
        raise typer.Exit(1)


def known_dead(options: list[str] | None) -> dict[str, str]:
    """``["asr=node failed"]`` -> ``{"asr": "node failed"}``."""
    told = {}
    for option in options or ():
        stage, separator, cause = option.partition("=")
        if not (separator and stage.strip() and cause.strip()):
            raise typer.BadParameter(f"--dead takes STAGE=CAUSE, not {option!r}")
        told[stage.strip()] = cause.strip()
    return told
