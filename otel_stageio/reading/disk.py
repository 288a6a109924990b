"""Reading a job's files without trust: torn, hostile or of another kind, each gives what can be had of it.

Nothing here writes, and nothing here raises anything but :class:`Unreadable`.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from ..layout import Job, StrPath, safe_name
from ..otlp import decode
from ..record.fold import Fold
from ..record.shared_manifest import too_deep
from ..recovery.unfinished import how_it_stands
from ..sinks.files import is_locked, read_file

Model = TypeVar("Model", bound=BaseModel)

#: One line of the spool is smaller (OTLP receivers take no larger requests).
LARGEST_LINE = 1024 * 1024
#: What an event with attributes of other types than ours can raise in the fold.
_ODD = (AttributeError, LookupError, OverflowError, TypeError, ValueError)


class Unreadable(Exception):
    """Says what is wrong with a file, as the end of a sentence: ``is empty``."""


def _is_regular(path: StrPath) -> bool:
    """A pipe would never end.

    Raises:
        OSError: if there is nothing, or nothing that can be asked.
    """
    return stat.S_ISREG(os.stat(path).st_mode)


def json_object(path: StrPath, *, strict: bool = False) -> dict[str, Any]:
    """A JSON object from a file.

    Args:
        strict: JSON as the standard has it, without NaN and Infinity.

    Raises:
        Unreadable: if that is not what is there.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not a JSON value")

    try:
        if not _is_regular(path):
            raise Unreadable("is not a regular file")
        raw = read_file(path)
        if not raw.strip():
            raise Unreadable("is empty")
        content = json.loads(raw, parse_constant=refuse if strict else None)
    except FileNotFoundError:
        raise Unreadable("does not exist") from None
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise Unreadable("is nested too deeply") from error
    except ValueError as error:
        raise Unreadable(f"is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise Unreadable(f"is no JSON object but a {type(content).__name__}")
    if too_deep(content):
        raise Unreadable("is nested too deeply")
    return content


def tolerant(model: type[Model], content: dict[str, Any]) -> tuple[Model, list[str]]:
    """As much of ``content`` as the model takes, and what had to be left out. Every field of it must have a default.

    Raises:
        Unreadable: if a field without a default is what is wrong.
    """
    problems: list[str] = []
    while True:
        try:
            return model.model_validate(content), problems
        except ValidationError as error:
            found = error.errors()
            content = dict(content)
            bad = {str(item["loc"][0]) for item in found if item["loc"]}
            problems += [sentence(item) for item in found]
            if not bad & content.keys():
                raise Unreadable("; ".join(problems)) from error
            for key in bad:
                content.pop(key, None)
        except RecursionError as error:
            raise Unreadable("is nested too deeply") from error


def sentence(error: Any) -> str:
    """One of pydantic's errors in words."""
    where = ".".join(map(str, error["loc"]))
    return f"{where}: {str(error['msg'])[:1].lower()}{str(error['msg'])[1:]}" if where else str(error["msg"])


class Line(NamedTuple):
    number: int
    raw: bytes
    #: False for the half line that a killed process leaves at the end, and for one too long to be read.
    whole: bool


def lines(path: StrPath) -> Iterator[Line]:
    """The lines of a spool file, blank ones left out. None of it is ever in memory beyond one line."""
    try:
        if not _is_regular(path):
            raise Unreadable("is not a regular file")
        with open(path, "rb") as file:
            number = 0
            while raw := file.readline(LARGEST_LINE + 1):
                number += 1
                whole = raw.endswith(b"\n")
                rest = raw
                while not rest.endswith(b"\n") and (rest := file.readline(LARGEST_LINE)):
                    pass
                if raw.strip():
                    yield Line(number, raw, whole)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error


def parsed(raw: bytes) -> dict[str, Any] | None:
    """A line's JSON object, or None."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _lines(path: StrPath) -> decode.Lines | None:
    """The library's reader of a spool file, if there is a file to read."""
    try:
        return decode.Lines(path) if _is_regular(path) and os.access(path, os.R_OK) else None
    except OSError:
        return None


def folded(path: StrPath) -> Fold:
    """The fold of a journal; ``started_ns`` is 0 if nothing of the stage is in it."""
    state = Fold()
    found = _lines(path)
    for event in decode.events(found) if found else ():
        try:
            state.apply(event)
        except _ODD:
            continue
    return state


def spans(path: StrPath) -> Iterator[dict[str, Any]]:
    """Every span of a spool file, as :func:`otel_stageio.otlp.decode.spans` has it."""
    found = _lines(path)
    if found:
        yield from decode.spans(found)


def resource(path: StrPath) -> dict[str, Any]:
    """The attributes of the resource that a journal's records came from; none if it does not say."""
    found = _lines(path)
    for request in found or ():
        try:
            return decode.mapping(request["resourceLogs"][0]["resource"]["attributes"])
        except (AttributeError, LookupError, TypeError, ValueError):
            continue
    return {}


def journal(job: Job, stage: str, attempt: int, signal: str = "logs") -> str | None:
    """A stage's spool file; None if no stage of ours can have that name (it may come from a forged manifest)."""
    try:
        return job.journal(stage, attempt, signal) if safe_name(stage) == stage else None
    except (TypeError, ValueError):
        return None


def state_without_end(job: Job, stage: str, attempt: int) -> str:
    """How an attempt stands by now of which no end was found: ``running``, on this host or another, ``ended`` since, or
    how it has died.
    """
    path = journal(job, stage, attempt)
    try:
        if path is not None and _is_regular(path):
            return how_it_stands(job, stage, attempt)
    except OSError:
        pass
    return "crashed"


def held(path: StrPath) -> bool:
    """Whether somebody alive holds the lock on a file."""
    try:
        return _is_regular(path) and is_locked(path)
    except OSError:
        return False


def last_line(path: StrPath) -> str:
    """The last line of a log that is not blank."""
    try:
        if not _is_regular(path):
            return ""
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            tail = file.read().decode("utf-8", "replace").rstrip().split("\n")
    except OSError:
        return ""
    return tail[-1]


def entries(directory: StrPath) -> list[os.DirEntry[str]]:
    """What is in a directory, by name; nothing if it cannot be read."""
    try:
        with os.scandir(directory) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []
