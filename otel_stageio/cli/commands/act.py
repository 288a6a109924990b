"""Commands that do something with a job."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from .. import completion
from .common import (
    EndpointOption,
    HeaderOption,
    JobArgument,
    JobsArgument,
    JsonOption,
    ProtocolOption,
    RunOption,
    answering,
)
from .schedule import DeadOption, known_dead


class Format(str, Enum):
    openlineage = "openlineage"
    ro_crate = "ro-crate"
    chrome = "chrome"


def push(
    jobs: Annotated[
        list[str] | None, typer.Argument(metavar="JOB...", help="Job directories.", autocompletion=completion.jobs)
    ] = None,
    watch: Annotated[
        str | None, typer.Option("--watch", metavar="ROOT", help="Deliver every job below ROOT, until told to stop.")
    ] = None,
    endpoint: EndpointOption = None,
    protocol: ProtocolOption = None,
    header: HeaderOption = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only what was written to since: 12h, 3d, 2026-11-20.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Everything, whatever was accepted before.")] = False,
    json: JsonOption = False,
) -> None:
    """Send what the collector has not accepted yet; exit code 1 if anything stays pending or was refused.

    What died is closed first, so that its end goes out too. --watch is one shipper for all jobs of a machine: it finds
    new ones, and ends at SIGTERM or Ctrl-C after the request under way. It may run on every host over the same ROOT:
    each record is sent once, and where one is killed another goes on.

    \b
    Examples:
      otel-stageio push out/job1 --endpoint http://localhost:4318
      otel-stageio push out/* --since 3d
      otel-stageio push --watch out
    """
    if (watch is None) == (not jobs):
        raise typer.BadParameter("give job directories, or --watch ROOT")
    if watch is not None and (since or again or json):
        raise typer.BadParameter("--since, --again and --json do not go with --watch")
    with answering(json):
        from ..push import BadOption, push_jobs, since_when, watch_tree, where_to

        try:
            where = where_to(endpoint, protocol.value if protocol else None, header or [])
            moment = since_when(since) if since else None
        except BadOption as error:
            raise typer.BadParameter(str(error)) from error
        done = True
        if watch is not None:
            watch_tree(watch, where)
        else:
            done = push_jobs(jobs or [], where, moment, again, json)
    if not done:
        raise typer.Exit(1)


def recover(
    jobs: JobsArgument,
    lost_after: Annotated[
        str, typer.Option(metavar="TIME", help="Silence after which a stage on another host counts as lost.")
    ] = "10m",
    dead: DeadOption = None,
    json: JsonOption = False,
) -> None:
    """Close what died: its end, its last words and its open spans, in the files and for the trace.

    A stage of this machine is closed as crashed once its processes are gone, one of another host as lost after a long
    silence. The next stage or run of a job does this by itself, as do status and push; this is for jobs that nobody
    looks at, and safe to run at any time, on every host at once. In a tree, jobs that were over a day ago are passed
    over; one that is named is looked at whole.

    \b
    Examples:
      otel-stageio recover out/job1
      otel-stageio recover out --lost-after 1h
      otel-stageio recover out/job1 --dead asr="node gpu-3 failed"
    """
    from ...reading.text import seconds_of

    seconds = seconds_of(lost_after)
    if not seconds:
        raise typer.BadParameter(f"--lost-after takes 90s, 10m or 2h, not {lost_after!r}")
    told = known_dead(dead)
    with answering(json):
        from ..recover import recover_all

        recover_all(jobs, seconds, told, json)


def prune(
    jobs: JobsArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete; without it, only say what would go.")] = False,
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="Only what was last written to so long ago: 12h, 30d.")
    ] = "30d",
    keep: Annotated[int, typer.Option(metavar="N", min=1, help="The newest runs stay whole, so many of them.")] = 1,
    spool: Annotated[
        bool, typer.Option("--spool", help="The journals of those may go too: inner spans, curves, traces.")
    ] = False,
    unsent: Annotated[bool, typer.Option("--unsent", help="Also what no collector has accepted yet.")] = False,
    json: JsonOption = False,
) -> None:
    """Free the room that old attempts take: their journals, the records of their runs, half-written files.

    Says what would go, and deletes it with --yes. Outputs, logs and manifests stay, and so do the newest attempt at
    each stage, whatever is running, and what was refused by a receiver. Once a collector has been in use, so does what
    it has not accepted yet. Of an attempt that went, manifest and stage.log still tell; its inner spans are gone.

    \b
    Examples:
      otel-stageio prune out
      otel-stageio prune out/job1 --older-than 7d --yes
      otel-stageio prune out --keep 3 --spool --yes
    """
    from ...reading.text import seconds_of

    seconds = seconds_of(older_than)
    if seconds is None:
        raise typer.BadParameter(f"--older-than takes 12h, 30d or 0s, not {older_than!r}")
    with answering(json):
        from ...pruning import Rules
        from ..prune import prune_all

        prune_all(jobs, Rules(seconds, keep, spool, unsent), delete=yes, json=json)


def export(
    job: JobArgument,
    to: Annotated[Format, typer.Option("--format", "-f", help="Whose format.", show_default=False)],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE|DIR", help="Not standard output, but this.", show_default=False),
    ] = None,
    run: RunOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if there is one.")] = False,
) -> None:
    """Write a job in a format that others read: OpenLineage events, an RO-Crate, Chrome trace events for Perfetto.

    OpenLineage: the events of a run, one on each line. RO-Crate: all that ever ran in the job and the files in it; with
    -o JOB the job directory becomes the crate. Chrome: a run's stages, spans and curves, for https://ui.perfetto.dev.

    \b
    Examples:
      otel-stageio export out/job1 --format openlineage -o events.jsonl
      otel-stageio export out/job1 --format ro-crate -o out/job1
      otel-stageio export out/job1 --format chrome | gzip > trace.json.gz
    """
    with answering():
        from ..export import export_job

        export_job(job, to.value, run, output, force)
