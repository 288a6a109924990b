"""Text for people: what was read from disk made harmless, and quantities as people say them."""

from __future__ import annotations

import datetime
import json
import math
import re
from typing import Any

from ..capture.text import clean
from ..units import duration as duration
from ..units import size as size

#: Marks that turn the reading direction of what follows, and so of the rest of the line, and the byte order mark.
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def plain(value: object) -> str:
    """Anything as text that cannot command a terminal: control characters and direction marks are shown as escapes.

    Line breaks stay; see :func:`one_line`. Markup needs no escaping, since nothing here is ever parsed for it.
    """
    text = clean(value if isinstance(value, str) else str(value)).replace("\t", "    ")
    return text if text.isascii() else _BIDI.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(value: object) -> str:
    """The first line that says something, with a sign that there is more."""
    lines = [line.strip() for line in plain(value).split("\n") if line.strip()]
    if not lines:
        return ""
    return lines[0] if len(lines) == 1 else f"{lines[0]} [+{count(len(lines) - 1, 'line')}]"


def count(number: int, noun: str) -> str:
    """``1 span``, ``1,204 spans``; ``1 entry``, ``2 entries``; ``1 process``, ``2 processes``."""
    if number != 1:
        noun = noun[:-1] + "ies" if noun.endswith("ry") else noun + ("es" if noun.endswith("ss") else "s")
    return f"{number:,} {noun}"


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds_of(text: str) -> float | None:
    """``90s``, ``10m``, ``2h``, ``3d`` as seconds; None for anything else."""
    match = re.fullmatch(r"(\d+)\s*([smhdw])", text.strip())
    return int(match[1]) * float(_UNITS[match[2]]) if match else None


def moment(stamp: str | None) -> datetime.datetime | None:
    """An ISO 8601 time; one without a zone, as the original wrote them, is local time."""
    if not stamp:
        return None
    try:
        parsed = datetime.datetime.fromisoformat(stamp.strip().replace("Z", "+00:00"))
        return parsed.astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def clock(stamp: str | None) -> str:
    """A time in the local zone, to the second: ``2025-11-27 10:11:12``. What is no time is shown as it is."""
    parsed = moment(stamp)
    return parsed.strftime("%Y-%m-%d %H:%M:%S") if parsed else one_line(stamp or "")


def from_to(start: str | None, end: str | None) -> str:
    """``2025-11-27 10:11:12 to 10:12:45``; the day of the end only where it is another."""
    begun, ended = clock(start), clock(end)
    if ended in ("", begun):
        return begun
    return f"{begun} to {ended[11:] if ended[:10] == begun[:10] and len(ended) == 19 else ended}"


def seconds_between(start: str | None, end: str | None) -> float | None:
    first, last = moment(start), moment(end)
    return (last - first).total_seconds() if first and last else None


def as_text(value: Any) -> str:
    """A value of a record: text as it is, anything else as JSON. It may hold anything; see :func:`plain`."""
    return value if isinstance(value, str) else json.dumps(strict(value), ensure_ascii=False, default=str)


def strict(value: Any) -> Any:
    """Plain JSON values without the numbers that JSON has no word for (the original's manifests may hold NaN)."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return value
