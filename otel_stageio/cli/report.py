"""``otel-stageio report``: the report, into a file."""

from __future__ import annotations

from pathlib import Path

from ..reading.text import size
from ..report import render
from .output import to_file, to_stdout
from .terminal import Terminal


def write_report(job: str, output: str | None) -> None:
    """
    Args:
        output: a path, ``-`` for standard output, or None for ``report.html`` in the job.

    Raises:
        CannotAnswer: if there is no such job, or the file cannot be written.
    """
    content = render(job).encode("utf-8", "backslashreplace")
    if output == "-":
        to_stdout([content])
        return
    path = Path(output) if output is not None else Path(job, "report.html")
    Terminal().line(f"{path}  ({size(to_file(path, [content]))})")
