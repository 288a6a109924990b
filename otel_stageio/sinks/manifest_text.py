"""The text of ``manifest.json``: indented, as the original wrote it, with each former attempt on a line of its own.

The newest record is for people; former ones are seldom read, and written anew with every event. On one line the
encoder is twenty times as fast, and a line that has been made once is used again. What would make the file ever longer
goes: beyond a certain length an attempt is named in short, and its whole record lies in ``.stageio/attempts``.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

from ..layout import Job, safe_name
from ..record.fold import KIND
from .files import replace

#: Characters that a stage's former attempts may take up before the oldest of them are named in short.
ROOM = 1024 * 1024
#: Where the whole record of an attempt lies that is named in short.
WHOLE = "whole_record"
_IN_SHORT = (
    "kind", "schema_version", "stage", "stage_number", "timestamp", "status", "duration_seconds", "completed_at",
    "cause", "attempt", "trace",
)  # fmt: skip
_LONGEST_MESSAGE = 200

_quote = json.encoder.encode_basestring_ascii


class ManifestText:
    """Makes the text of one directory's manifest, again and again."""

    def __init__(self, job: Job) -> None:
        self._job = job
        #: By identity, for as long as the object is in the file: who reads the file anew has other objects.
        self._lines: dict[int, tuple[dict[str, Any], str]] = {}

    def of(self, content: dict[str, Any]) -> str:
        """``content`` as :func:`otel_stageio.record.shared_manifest.compose` made it; its attempts may be shortened."""
        lines = self._lines
        self._lines = {}
        for whole in (content, *content["substages"].values()):
            whole["attempts"] = self._fitted(whole["attempts"], lines)
        substages = [f"{_dump(name)}: {self._text(whole)}" for name, whole in content["substages"].items()]
        return self._text(content, _listed("{", [text.replace("\n", "\n    ") for text in substages], "}"))

    def _text(self, whole: dict[str, Any], substages: str = "") -> str:
        own = {key: item for key, item in whole.items() if key not in ("attempts", "substages")}
        text = _indented(own).removesuffix("\n}")
        text += ',\n  "attempts": ' + _listed("[", [self._lines[id(former)][1] for former in whole["attempts"]], "]")
        return text + (f',\n  "substages": {substages}' if substages else "") + "\n}"

    def _fitted(
        self, attempts: list[dict[str, Any]], lines: dict[int, tuple[dict[str, Any], str]]
    ) -> list[dict[str, Any]]:
        room = ROOM
        fitted = []
        for former in reversed(attempts):
            known = lines.get(id(former))
            line = known[1] if known is not None and known[0] is former else _dump(former)
            room -= len(line)
            if room < 0 and (short := self._in_short(former)) is not None:
                former, line = short, _dump(short)
            self._lines[id(former)] = (former, line)
            fitted.append(former)
        return fitted[::-1]

    def _in_short(self, former: dict[str, Any]) -> dict[str, Any] | None:
        """The short form of an attempt whose record is safe elsewhere; None if it has to stay whole."""
        attempt, stage = former.get("attempt"), former.get("stage")
        if former.get("kind") != KIND or WHOLE in former or former.get("status") == "running":
            return None
        try:
            if type(attempt) is not int or not isinstance(stage, str) or safe_name(stage) != stage:
                return None
            name = f".stageio/attempts/{stage}.{attempt}.json"
            text = _indented(former)
            replace(f"{self._job.key}/{name}", text.encode() + b"\n", self._job.temporary)
        except (OSError, ValueError):
            return None
        short = {key: former[key] for key in _IN_SHORT if key in former}
        with suppress(LookupError, TypeError):
            error = former["errors"][-1]
            short["errors"] = [{**_first(error, "timestamp", "exception_type"), "message": _cut(error["message"])}]
        short[WHOLE] = name
        return short


def _dump(content: Any) -> str:
    return json.dumps(content, ensure_ascii=True, allow_nan=False)


def _indented(content: Any, end: str = "\n") -> str:
    """What `json.dumps` makes of it with an indent of 2, in two thirds of its time: with one it has no C.

    Args:
        end: of a line, with the indent of the next.
    """
    kind = type(content)
    if kind is str:
        return _quote(content)
    if kind is int or (kind is float and math.isfinite(content)):
        return repr(content)
    if content is None:
        return "null"
    within = end + "  "
    if kind is dict:
        pairs = [
            f"{within}{_quote(key)}: {_quote(item) if type(item) is str else _indented(item, within)}"
            for key, item in content.items()
        ]
        return f"{{{','.join(pairs)}{end}}}" if pairs else "{}"
    if kind is list:
        items = [within + _indented(item, within) for item in content]
        return f"[{','.join(items)}{end}]" if items else "[]"
    return _dump(content)


def _listed(start: str, items: list[str], end: str) -> str:
    return f"{start}\n    " + ",\n    ".join(items) + f"\n  {end}" if items else start + end


def _first(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: content[key] for key in keys if key in content}


def _cut(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else message[:_LONGEST_MESSAGE] + "…"
