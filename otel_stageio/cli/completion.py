"""What the shell offers for JOB and STAGE when Tab is pressed: a look at names alone, quick and without an opinion."""

from __future__ import annotations

import os
import re
from pathlib import Path

import typer

from ..layout import Job, owner_of, spooled_attempts

_MOST = 200


def jobs(incomplete: str) -> list[str]:
    """Directories. What is below one that stands alone is offered as well: a job is seldom where one begins to type."""
    found = _directories(incomplete)
    while len(found) == 1 and not _is_job(found[0]):
        below = _directories(f"{found[0]}{os.sep}")
        if not below:
            break
        found = below
    return found[:_MOST]


def stages(ctx: typer.Context, incomplete: str) -> list[str]:
    """The stages of the job that was given before."""
    given = ctx.params.get("job") or ctx.params.get("before")
    if not isinstance(given, str):
        return []
    given = re.sub(r"@\d+$", "", given)  # the run that diff is asked about
    job = Job(given)
    names = {name for name in spooled_attempts(job) if name.startswith(incomplete)}
    names |= {owner_of(name) for name in _names(given) if name[:2].isdecimal() and name[2:3] == "_"}
    return sorted(name for name in names if name.startswith(incomplete))[:_MOST]


def _is_job(path: str) -> bool:
    return Path(path, ".stageio").is_dir() or any(name[:2].isdecimal() and name[2:3] == "_" for name in _names(path))


def _directories(incomplete: str) -> list[str]:
    place, begun = os.path.split(incomplete)
    names = [name for name in _names(place or ".") if name.startswith(begun)]
    shown = [name for name in names if begun.startswith(".") or not name.startswith(".")]
    return sorted(os.path.join(place, name) for name in shown if Path(place, name).is_dir())


def _names(place: str) -> list[str]:
    try:
        return os.listdir(place)
    except OSError:
        return []
