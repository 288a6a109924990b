"""The application that the commands make together."""

from __future__ import annotations

from typing import Annotated

import typer

from .._version import __version__
from .commands import act, check, look, origins, schedule
from .run import run

_HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="otel-stageio",
    help="Run records for staged pipelines: what ran, on what, for how long, and why it stopped.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=_HELP,
)


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


app.command(context_settings=_HELP)(run)
for command in (
    schedule.begin,
    schedule.end,
    look.status,
    look.show,
    look.logs,
    look.trace,
    look.runs,
    look.diff,
    look.report,
    look.serve,
    check.validate,
    act.export,
    act.push,
    act.recover,
    act.prune,
    check.doctor,
    check.schema,
    origins.why,
    origins.lineage,
):
    app.command()(command)
