"""``run.json`` as it is written: under its lock, and as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..layout import Job
from ..runtime import runtime
from ..sinks.files import locked, replace
from .run_file import read


@contextmanager
def edit(job: Job) -> Iterator[dict[str, Any]]:
    """``run.json`` under its lock, written back if it changed. A file system that refuses is no error here."""
    with locked(job.run_lock):
        try:
            content = read(job)
        except OSError:  # what is in it is not ours to throw away: this run goes unnoted
            yield {}
            return
        before = json.dumps(content)
        if not content and os.path.lexists(job.run_record):  # damaged: set aside, not written over
            aside = f"{job.run_record}.damaged-{runtime.ids.span_id():016x}"
            with suppress(OSError):
                os.replace(job.run_record, aside)
        yield content
        after = json.dumps(content)
        if after != before:
            with suppress(OSError):
                _write(job, job.run_record, after)


def _write(job: Job, path: str, text: str) -> None:
    # On one line: with an indent the encoder is Python's own, which takes ten times as long.
    replace(path, text.encode() + b"\n", job.temporary)


def put_away(job: Job, run: dict[str, Any]) -> bool:
    """Give a run that is over a file of its own. False if it is not over, or the disk refuses: then it stays."""
    if run.get("status") == "running" or type(run.get("attempt")) is not int:
        return False
    try:
        _write(job, job.former_run(run["attempt"]), json.dumps(run))
        return True
    except OSError:
        return False
