"""The command line: ``otel-stageio``. Needs the extra ``cli`` (typer, rich)."""

from __future__ import annotations

import sys

_EXTRA = ("typer", "rich", "click")


def main() -> int:
    """Entry point. Exit codes: 0 it is so, 1 what was asked about is no job or not valid, 2 usage."""
    try:
        import rich  # noqa: F401  typer may come without it

        from .app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        missing = f"the command line needs {error.name}, which is not installed"
        sys.stderr.write(f"otel-stageio: {missing}: pip install 'otel-stageio[cli]'\n")
        return 2
    app(prog_name="otel-stageio")
    return 0
