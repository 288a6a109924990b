"""What the commands share: their options, and how they answer what cannot be answered."""

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

from .. import completion


class Protocol(str, Enum):
    http = "http/protobuf"
    grpc = "grpc"


JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="Job directory.", show_default=False, autocompletion=completion.jobs)
]
JobsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="JOB|ROOT...", help="Job directories, or directories of jobs.", autocompletion=completion.jobs
    ),
]
StageArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[STAGE]", help="A stage: asr, 06_asr or 6.", show_default=False, autocompletion=completion.stages
    ),
]
RunOption = Annotated[int | None, typer.Option("--run", metavar="N", help="Not the newest run, but this one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead, for programs.")]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", metavar="URL", help="Base URL, instead of OTEL_EXPORTER_OTLP_ENDPOINT.")
]
ProtocolOption = Annotated[
    Protocol | None, typer.Option("--protocol", help="Instead of OTEL_EXPORTER_OTLP_PROTOCOL.", show_default=False)
]
HeaderOption = Annotated[
    list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="A further header; may be repeated.")
]


@contextmanager
def answering(json: bool = False) -> Iterator[None]:
    """What cannot be answered is one sentence and exit code 1, never a traceback; under ``--json`` it is a document."""
    # Whoever has a plugin of pydantic's installed (logfire brings one) would wait a second for it, for nothing.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    from ...reading.disk import Unreadable
    from ...reading.job import CannotAnswer
    from ...runtime import runtime
    from ..terminal import complain, document

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
