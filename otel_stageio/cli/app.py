"""The commands: names, options, help. What they do is in the module of the same name, loaded when it is asked for."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .._version import __version__
from .run import run

app = typer.Typer(
    name="otel-stageio",
    help="Run records for staged pipelines: what ran, on what, for how long, and why it stopped.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Job directory.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead, for programs.")]


class Protocol(str, Enum):
    http = "http/protobuf"
    grpc = "grpc"


class Schema(str, Enum):
    manifest = "manifest"
    run = "run"


def _version(asked: bool) -> None:
    if asked:
        print(f"otel-stageio {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@contextmanager
def _answering(json: bool = False) -> Iterator[None]:
    """What cannot be answered is one sentence and exit code 1, never a traceback; under ``--json`` it is a document."""
    # Whoever has a plugin of pydantic's installed (logfire brings one) would wait a second for it, for nothing.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    from ..runtime import runtime
    from .disk import Unreadable
    from .reader import CannotAnswer
    from .terminal import complain, document

    try:
        yield
        return
    except (CannotAnswer, Unreadable) as error:
        sentence = str(error)
    except (BrokenPipeError, typer.BadParameter):
        raise
    except Exception as error:
        if runtime.strict:
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        sentence = f"internal error, please report it: {type(error).__name__}: {error} ({where})"
    if json:
        document({"error": sentence})
    else:
        sys.stdout.flush()
        complain(sentence)
    raise typer.Exit(1)


app.command("run", context_settings={"help_option_names": ["-h", "--help"]})(run)


@app.command()
def status(job: JobArgument, json: JsonOption = False) -> None:
    """Say how a job stands: its run, its stages, what each was made of, and why it stopped.

    A stage whose process is gone is closed as crashed, here as at the start of the next stage.

    \b
    Examples:
      otel-stageio status out/job1
      otel-stageio status out/job1 --json | jq -r .state
    """
    with _answering(json):
        from .reader import read_job
        from .status import show_status
        from .terminal import Terminal, document

        view = read_job(job)
        if json:
            document(view.document(records=False))
        else:
            show_status(view, Terminal())


@app.command()
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
    with _answering(json):
        from .reader import read_job
        from .terminal import Terminal, document

        view = read_job(job)
        if stage is None:
            from .show import show_job

            if json:
                document(view.document(records=True))
            else:
                show_job(view, Terminal(), full=full)
        else:
            from .show_stage import find_stage, show_stage

            found = find_stage(view, stage)
            if json:
                document({"job": view.path, **found.document(record=True)})
            else:
                show_stage(view, found, Terminal(), full=full)


@app.command()
def validate(
    job: Annotated[
        str, typer.Argument(metavar="JOB|FILE", help="Job directory, or one of its files.", show_default=False)
    ],
    json: JsonOption = False,
) -> None:
    """Check manifests, run record and spool; exit code 1 if anything is not valid.

    Every manifest is held against the schema, every line of the spool against OTLP's own definitions, every span's
    parent is looked for. A line cut off by a crash is a warning.

    \b
    Examples:
      otel-stageio validate out/job1
      otel-stageio validate out/job1/06_asr/manifest.json
    """
    with _answering(json):
        from .terminal import Terminal, document
        from .validate import show_findings, validate_path

        findings = validate_path(job)
        if json:
            document(findings.document(job))
        else:
            show_findings(findings, job, Terminal())
        valid = findings.valid
    if not valid:
        raise typer.Exit(1)


EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", metavar="URL", help="Base URL, instead of OTEL_EXPORTER_OTLP_ENDPOINT.")
]
ProtocolOption = Annotated[
    Protocol | None, typer.Option("--protocol", help="Instead of OTEL_EXPORTER_OTLP_PROTOCOL.", show_default=False)
]
HeaderOption = Annotated[
    list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="A further header; may be repeated.")
]


@app.command()
def push(
    jobs: Annotated[list[str] | None, typer.Argument(metavar="JOB...", help="Job directories.")] = None,
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
    new ones, and ends at SIGTERM or Ctrl-C after the request under way.

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
    with _answering(json):
        from .push import BadOption, push_jobs, since_when, watch_tree, where_to

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


@app.command()
def recover(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB|ROOT...", help="Job directories, or directories of jobs.")],
    lost_after: Annotated[
        str, typer.Option(metavar="TIME", help="Silence after which a stage on another host counts as lost.")
    ] = "10m",
    json: JsonOption = False,
) -> None:
    """Close what died: its end, its last words and its open spans, in the files and for the trace.

    A stage of this machine is closed as crashed once its processes are gone, one of another host as lost after a long
    silence. The next stage or run of a job does this by itself, as do status and push; this is for jobs that nobody
    looks at, and safe to run at any time, on every host at once.

    \b
    Examples:
      otel-stageio recover out/job1
      otel-stageio recover out --lost-after 1h
    """
    from .text import seconds_of

    seconds = seconds_of(lost_after)
    if not seconds:
        raise typer.BadParameter(f"--lost-after takes 90s, 10m or 2h, not {lost_after!r}")
    with _answering(json):
        from .recover import recover_all

        recover_all(jobs, seconds, json)


@app.command()
def doctor(
    endpoint: EndpointOption = None,
    protocol: ProtocolOption = None,
    header: HeaderOption = None,
    json: JsonOption = False,
) -> None:
    """Say what is wrong with the endpoint: name, port, TLS, credentials, path, protocol; exit code 1 if anything is.

    Ends with an empty export request for each signal; no data is sent.

    \b
    Examples:
      otel-stageio doctor
      otel-stageio doctor --endpoint https://otel.example.com --header "Authorization=Bearer abc"
    """
    with _answering(json):
        from .doctor import examine
        from .push import BadOption, where_to

        try:
            where = where_to(endpoint, protocol.value if protocol else None, header or [])
        except BadOption as error:
            raise typer.BadParameter(str(error)) from error
        good = examine(where, json=json)
    if not good:
        raise typer.Exit(1)


@app.command()
def schema(
    what: Annotated[Schema, typer.Argument(help="Which file's schema.")] = Schema.manifest,
) -> None:
    """Print the JSON Schema of manifest.json or of the run record.

    \b
    Examples:
      otel-stageio schema > manifest.schema.json
      otel-stageio schema run
    """
    from .schema import schema_of
    from .terminal import document

    document(schema_of(what.value))
