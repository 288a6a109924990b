"""Commands that look at a job."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import completion
from .common import JobArgument, JsonOption, RunOption, StageArgument, answering


def status(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB|ROOT",
            help="Job directory, or a directory of jobs.",
            show_default=False,
            autocompletion=completion.jobs,
        ),
    ],
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again whenever it has changed, until the run is over.")
    ] = False,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="WORD", help="Of a ROOT, only jobs in this state; may be repeated."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="NAME", help="Of a ROOT, only what runs or went wrong there; may be repeated."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", metavar="N", min=0, help="Of a ROOT, N jobs, 0 for all; else 30.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON document instead, for programs; with --watch one a line.")
    ] = False,
) -> None:
    """Say how a job stands: its run, its stages, what each was made of, and why it stopped. Of a ROOT, how its jobs do.

    A stage whose process is gone is closed as crashed, here as at the start of the next stage; a ROOT is only read.
    Where several hosts work on the jobs of a ROOT it says which does what, and who has not been heard of for 2 minutes.
    --watch waits for a job that is not there yet, and ends with exit code 0 if its run went well, 1 if not, 130 at
    Ctrl-C. In a pipe it prints a line for each change.

    \b
    Examples:
      otel-stageio status out/job1
      otel-stageio status out/job1 --watch
      otel-stageio status out --state failed --state crashed
      otel-stageio status out --host gpu-7
      otel-stageio status out/job1 --json | jq -r .state
    """
    good = True
    try:
        with answering(json):
            from ...reading.job import read_job
            from ..jobs import ROWS, Wanted, document_of, is_root, read_jobs, show_jobs
            from ..status import show_status
            from ..terminal import Terminal, document

            wanted = Wanted(frozenset(state or ()), frozenset(host or ()), ROWS if limit is None else limit)
            if watch:
                from ..watch import watch as watch_it

                good = watch_it(job, wanted, as_json=json)
            elif is_root(job):
                jobs = read_jobs(job, wanted)
                if json:
                    document(document_of(jobs))
                else:
                    show_jobs(jobs, Terminal())
            else:
                view = read_job(job)
                if state or host or limit is not None:
                    raise typer.BadParameter(
                        f"--state, --host and --limit go with a directory of jobs, and {job} is one job"
                    )
                if json:
                    document(view.document(records=False))
                else:
                    show_status(view, Terminal())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if not good:
        raise typer.Exit(1)


def show(
    job: JobArgument,
    stage: StageArgument = None,
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
    run: RunOption = None,
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


def logs(
    job: JobArgument,
    stage: Annotated[
        str | None,
        typer.Argument(
            metavar="[STAGE]",
            help="A stage: asr, 06_asr or 6; or pipeline.",
            show_default=False,
            autocompletion=completion.stages,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="The last 10 records, then what comes, until the run is over.")
    ] = False,
    level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Only this level and those above it: info, warning, error.")
    ] = None,
    grep: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Only records with a match in their text; (?i) ignores case.")
    ] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="N", min=0, help="Only the last N records.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Earlier runs and attempts too.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="A JSON object on a line for each record, for programs.")
    ] = False,
) -> None:
    """Show what the stages of a job say, all of them in the order of time: DEBUG and above, of the newest run.

    With --follow it ends when the run is over or at Ctrl-C; stages that begin later and logs that are replaced are
    followed too. Times are those of the logs, local where the stage ran.

    \b
    Examples:
      otel-stageio logs out/job1
      otel-stageio logs out/job1 asr --level warning --all
      otel-stageio logs out/job1 -f --grep 'chunk \\d+'
      otel-stageio logs out/job1 --json | jq -r 'select(.level == "ERROR").text'
    """
    import re

    from ...levels import level_number

    lowest = 0 if level is None else level_number(level)
    if lowest is None:
        raise typer.BadParameter(f"--level takes debug, info, warning, error or a number, not {level!r}")
    try:
        pattern = re.compile(grep) if grep is not None else None
    except re.error as error:
        raise typer.BadParameter(f"--grep takes a regular expression, and {grep!r} is none: {error}") from error
    try:
        with answering(json):
            from ..logs import show_logs

            if follow and tail is None:
                tail = 10
            show_logs(
                job, stage, level=lowest, pattern=pattern, tail=tail, follow=follow, every_run=every, as_json=json
            )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def runs(job: JobArgument, json: JsonOption = False) -> None:
    """List the runs of a job, the newest first: how each ended, when, for how long, and how its stages did.

    \b
    Examples:
      otel-stageio runs out/job1
      otel-stageio runs out/job1 --json | jq -r '.runs[].trace_id'
    """
    with answering(json):
        from ...reading.job import read_job
        from ..runs import document_of, show_runs
        from ..terminal import Terminal, document

        view = read_job(job, steps=False)
        if json:
            document(document_of(view))
        else:
            show_runs(view, Terminal())


def diff(
    before: Annotated[
        str, typer.Argument(metavar="A", help="Job directory; out/job1@2 is its run 2.", autocompletion=completion.jobs)
    ],
    after: Annotated[
        str | None,
        typer.Argument(
            metavar="[B]",
            help="Another; without it, A's newest run is B.",
            show_default=False,
            autocompletion=completion.jobs,
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Argument(
            metavar="[STAGE]",
            help="Only this stage: asr, 06_asr or 6.",
            show_default=False,
            autocompletion=completion.stages,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say what differs between two jobs, or two runs of one: config, inputs, versions, outputs, durations, resources.

    What changed first is said first: the earliest stage with another input, configuration or version. With one job, its
    newest run is compared with the one before. A stage that a run did not run again stands as it was left. Exit code 0
    if nothing differs, 1 if something does; a duration or a resource within 10 % is no difference.

    \b
    Examples:
      otel-stageio diff out/job1
      otel-stageio diff out/job1@1 out/job1@3 asr
      otel-stageio diff out/job1 out/job2 --json | jq -r .first.stage
    """
    with answering(json):
        from ..diff import compare, document_of, show_difference
        from ..terminal import Terminal, document

        found = compare(before, after, stage)
        if json:
            document(document_of(found))
        else:
            show_difference(found, Terminal())
    if found.differs:
        raise typer.Exit(1)


def serve(
    root: Annotated[
        str,
        typer.Argument(
            metavar="JOB|ROOT",
            help="A job, or a directory of jobs.",
            show_default=False,
            autocompletion=completion.jobs,
        ),
    ],
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0 takes one that is free.")] = 8765,
    host: Annotated[str, typer.Option(metavar="HOST", help="An address of loopback.")] = "127.0.0.1",
) -> None:
    """Show jobs in a browser on this machine: a list of them, and the report of each, which follows a running job.

    It answers on loopback only, where everybody with an account on this machine can ask it. From elsewhere, use a
    tunnel: ssh -L 8765:localhost:8765 that-machine.

    \b
    Examples:
      otel-stageio serve out
      otel-stageio serve out/job1 --port 0
    """
    with answering():
        from ..serve import HOSTS
        from ..serve import serve as answer

        if host not in HOSTS:
            raise typer.BadParameter(f"--host is {', '.join(HOSTS[:-1])} or {HOSTS[-1]}: nothing else is served")
        answer(root, host, port)
