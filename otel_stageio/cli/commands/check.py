"""Commands that check."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from .. import completion
from .common import EndpointOption, HeaderOption, JsonOption, ProtocolOption, answering


class Schema(str, Enum):
    manifest = "manifest"
    run = "run"


def validate(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB|FILE",
            help="Job directory, or one of its files.",
            show_default=False,
            autocompletion=completion.jobs,
        ),
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
    with answering(json):
        from ..terminal import Terminal, document
        from ..validate import show_findings, validate_path

        findings = validate_path(job)
        if json:
            document(findings.document(job))
        else:
            show_findings(findings, job, Terminal())
        valid = findings.valid
    if not valid:
        raise typer.Exit(1)


def doctor(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help="Whose file system; by default OUTPUT_DIR's or the current one.",
            autocompletion=completion.jobs,
        ),
    ] = None,
    endpoint: EndpointOption = None,
    protocol: ProtocolOption = None,
    header: HeaderOption = None,
    json: JsonOption = False,
) -> None:
    """Say what is wrong, and what to do: versions, settings, file system and locks, redaction, GPU, endpoint.

    Locks, renames and redaction are really tried, and the endpoint gets an empty export request for each signal; no
    data is sent. Exit code 1 if anything is an error; a warning is none. With --endpoint and no JOB, the question is
    about that endpoint alone: name, port, TLS, credentials, path, protocol.

    \b
    Examples:
      otel-stageio doctor
      otel-stageio doctor out/job1 --json
      otel-stageio doctor --endpoint https://example.com --header api-key=abc
    """
    with answering(json):
        from ...delivery.settings import endpoints
        from ..doctor import examine, examine_all
        from ..push import BadOption, headers_of

        try:
            headers = headers_of(header or [])
        except BadOption as error:
            raise typer.BadParameter(str(error)) from error
        where = endpoints(endpoint=endpoint, protocol=protocol.value if protocol else None, headers=headers)
        if endpoint is not None and job is None:
            good = examine(where, json=json)
        else:
            good = examine_all(job, where, json=json)
    if not good:
        raise typer.Exit(1)


def schema(
    what: Annotated[Schema, typer.Argument(help="Which file's schema.")] = Schema.manifest,
) -> None:
    """Print the JSON Schema of manifest.json or of the run record.

    \b
    Examples:
      otel-stageio schema > manifest.schema.json
      otel-stageio schema run
    """
    from ..schema import schema_of
    from ..terminal import document

    document(schema_of(what.value))
