"""``otel-stageio export``: a job in a format of others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..export.chrome import trace_events
from ..export.openlineage import events
from ..export.ro_crate import crate
from ..reading.job import CannotAnswer, read_job, run_of
from ..reading.text import size
from ..reading.view import JobView, RunView
from .output import to_file, to_stdout
from .terminal import Terminal


class _Format(NamedTuple):
    """``write`` takes None for a run where the job has no runs; ``whole``: unless told otherwise, for all runs."""

    file: str
    write: Callable[[JobView, RunView | None], Iterator[str]]
    whole: bool = False


_FORMATS = {
    "openlineage": _Format("openlineage.jsonl", events),
    "ro-crate": _Format("ro-crate-metadata.json", crate, whole=True),
    "chrome": _Format("chrome-trace.json", trace_events),
}


def export_job(job: str, to: str, run: int | None, output: str | None, force: bool) -> None:
    """
    Args:
        to: name of the format.
        output: a file or a directory; standard output if None or ``-``.
        force: overwrite a file.

    Raises:
        CannotAnswer: if there is no such job or run, or the file cannot be written.
    """
    form = _FORMATS[to]
    path = None if output in (None, "-") else Path(str(output))
    if path is not None and path.is_dir():
        path = path / form.file
    if path is not None and not force and os.path.lexists(path):
        raise CannotAnswer(f"{path} exists already; --force overwrites it")
    view = read_job(job, steps=False)
    chosen = None if form.whole and run is None else run_of(view, run)
    parts = (part.encode("ascii") for part in form.write(view, chosen))
    if path is None:
        to_stdout(parts)
    else:
        Terminal().line(f"{path}  ({size(to_file(path, parts))})")
