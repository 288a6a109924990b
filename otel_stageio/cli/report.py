"""``otel-stageio report``: the report, into a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..reading.job import CannotAnswer
from ..reading.text import size
from ..report import render
from ..runtime import runtime
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
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    path = Path(output) if output is not None else Path(job, "report.html")
    _replace(path, content)
    Terminal().line(f"{path}  ({size(len(content))})")


def _replace(path: Path, content: bytes) -> None:
    """As a whole or not at all: somebody may be reading the one before."""
    if not path.parent.is_dir():
        raise CannotAnswer(f"{path.parent} is no directory")
    beside = path.with_name(f".{path.name}.{os.getpid()}.{runtime.ids.span_id():x}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(fd, "wb") as file:
            file.write(content)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise CannotAnswer(f"{path} cannot be written: {error.strerror}") from error
