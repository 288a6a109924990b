"""Commands that look at a job."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import JobArgument, JsonOption, answering


def status(job: JobArgument, json: JsonOption = False) -> None:
    """Say how a job stands: its run, its stages, what each was made of, and why it stopped.

    A stage whose process is gone is closed as crashed, here as at the start of the next stage.

    \b
    Examples:
      otel-stageio status out/job1
      otel-stageio status out/job1 --json | jq -r .state
    """
    with answering(json):
        from ...reading.job import read_job
        from ..status import show_status
        from ..terminal import Terminal, document

        view = read_job(job)
        if json:
            document(view.document(records=False))
        else:
            show_status(view, Terminal())


def show(
    job: JobArgument,
    stage: Annotated[
        str | None, typer.Argument(metavar="[STAGE]", help="A stage: asr, 06_asr or 6.", show_default=False)
    ] = None,
    full: Annotated[bool, typer.Option("--full", "-f", help="Whole tracebacks and lists, nothing folded.")] = False,
    json: JsonOption = False,
) -> None:
    """Show everything that is recorded of a job, or of one stage of it.

    \b
    Examples:
      otel-stageio show out/job1
      otel-stageio show out/job1 asr --full
      otel-stageio show out/job1 --json | jq '.stages[].record.config'
    """
    with answering(json):
        from ...reading.job import read_job
        from ..terminal import Terminal, document

        view = read_job(job)
        if stage is None:
            from ..show import show_job

            if json:
                document(view.document(records=True))
            else:
                show_job(view, Terminal(), full=full)
        else:
            from ..show_stage import find_stage, show_stage

            found = find_stage(view, stage)
            if json:
                document({"job": view.path, **found.document(record=True)})
            else:
                show_stage(view, found, Terminal(), full=full)
