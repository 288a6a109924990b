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


def trace(
    job: JobArgument,
    run: Annotated[int | None, typer.Option(metavar="N", help="Not the newest run, but this one.")] = None,
    full: Annotated[bool, typer.Option("--full", help="All inner spans, not only the longest.")] = False,
    json: JsonOption = False,
) -> None:
    """Show a run as a waterfall: what ran when and inside what, what the end waited for, where no stage ran.

    \b
    Examples:
      otel-stageio trace out/job1
      otel-stageio trace out/job1 --run 1 --full
      otel-stageio trace out/job1 --json | jq '.root.children[] | {name, seconds}'
    """
    with answering(json):
        from ...reading.job import read_job
        from ..terminal import Terminal, document
        from ..trace import document_of, show_trace, trace_of

        view = read_job(job, steps=False)
        found = trace_of(view, run, full=full)
        if json:
            document(document_of(view, found))
        else:
            show_trace(found, Terminal(), full=full)


def report(
    job: JobArgument,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Not JOB/report.html, but this; - is standard output."),
    ] = None,
) -> None:
    """Write a job's report: one HTML file that needs no server and asks for nothing from anywhere.

    How it went and what to do next, a waterfall of each run, and for each stage its configuration, files, errors and
    log; what it used over time; which file came from where; how complete all of it is. OTEL_STAGEIO_JAEGER_URL and
    OTEL_STAGEIO_GRAFANA_URL, where set, make links of the trace id.

    \b
    Examples:
      otel-stageio report out/job1
      otel-stageio report out/job1 -o - | gzip > job1.html.gz
    """
    with answering():
        from ..report import write_report

        write_report(job, output)
