"""Any Python value -> plain JSON: str, bool, 64-bit int, finite float, None, list, dict with str keys.

What had to be changed to fit is counted, never raised. The domain is what OTLP's AnyValue and strict JSON both hold
without loss, so the manifest that is folded from memory equals the one folded from the journal.
"""

from __future__ import annotations

import datetime
import enum
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from .text import clean

Plain = Any  # recursive JSON types make mypy slow and signatures unreadable

MAX_STRING = 100_000  # characters; six bytes each when escaped still leaves a journal line under 1 MiB
MAX_ITEMS = 10_000
MAX_DEPTH = 24
_INT64 = 1 << 63


class Plainer:
    """Makes values plain. ``changed`` counts what could not be kept as it was."""

    def __init__(self, text: Callable[[str], str], is_secret: Callable[[str], bool], mask: str) -> None:
        self._text = text
        self._is_secret = is_secret
        self._mask = mask
        self.changed = 0
        self.masked = 0

    def plain(self, value: Any) -> Plain:
        try:
            return self._plain(value, MAX_DEPTH, ())
        except (RecursionError, MemoryError):
            self.changed += 1
            return "[too deep]"

    def string(self, value: str) -> str:
        # Cut first: nothing below should scan ten megabytes to throw nine of them away.
        if len(value) > MAX_STRING:
            self.changed += 1
            value = f"{value[:MAX_STRING]}… [cut: {len(value)} characters in all]"
        cleaned = clean(value)
        if cleaned is not value and cleaned != value:
            self.changed += 1
        return self._text(cleaned)

    def _plain(self, value: Any, depth: int, parents: tuple[int, ...]) -> Plain:
        kind = type(value)
        if kind is str:
            return self.string(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            if -_INT64 <= value < _INT64:
                return value
            self.changed += 1
            return str(value) if value.bit_length() < 4096 else f"[int of {value.bit_length()} bits]"
        if kind is float:
            if math.isfinite(value):
                return value
            self.changed += 1
            return str(value)
        if isinstance(value, (Mapping, list, tuple, set, frozenset)):
            if id(value) in parents:
                self.changed += 1
                return "[cycle]"
            if depth == 0:
                self.changed += 1
                return "[too deep]"
            inner = (*parents, id(value))
            if isinstance(value, Mapping):
                return self._mapping(value, depth, inner)
            return self._sequence(value, depth, inner)
        self.changed += 1
        return self._other(value, depth, parents)

    def _mapping(self, value: Mapping[Any, Any], depth: int, parents: tuple[int, ...]) -> Plain:
        result: dict[str, Plain] = {}
        for position, (key, item) in enumerate(list(value.items())):
            if position == MAX_ITEMS:
                self.changed += 1
                result["…"] = f"[cut: {len(value)} items in all]"
                break
            if type(key) is not str:
                self.changed += 1
            name = self.string(key if isinstance(key, str) else _text_of(key))
            if self._hides(name, item):
                self.masked += 1
                result[name] = self._mask
            else:
                result[name] = self._plain(item, depth - 1, parents)
        return result

    def _hides(self, name: str, item: Any) -> bool:
        if item is None or isinstance(item, (bool, float)) or not self._is_secret(name):
            return False
        # A number of tokens is a number; a numeric password is a password.
        return not (isinstance(item, int) and "token" in name.lower())

    def _sequence(self, value: Any, depth: int, parents: tuple[int, ...]) -> Plain:
        if not isinstance(value, (list, tuple)):
            self.changed += 1
            value = sorted(value, key=_sort_key)
        result = [self._plain(item, depth - 1, parents) for item in value[:MAX_ITEMS]]
        if len(value) > MAX_ITEMS:
            self.changed += 1
            result.append(f"[cut: {len(value)} items in all]")
        return result

    def _other(self, value: Any, depth: int, parents: tuple[int, ...]) -> Plain:
        try:
            if isinstance(value, enum.Enum):
                return self._plain(value.value, depth - 1, parents) if depth else str(value)
            if isinstance(value, str):
                return self.string(str.__str__(value))
            if isinstance(value, int):
                return self._plain(int(value), depth, parents)
            if isinstance(value, float):
                return self._plain(float(value), depth, parents)
            if isinstance(value, (bytes, bytearray)):
                return self.string(bytes(value[: MAX_STRING + 1]).decode("utf-8", "backslashreplace"))
            if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
                return value.isoformat()
            if isinstance(value, os.PathLike):
                return self.string(_text_of(os.fspath(value)))
            item = getattr(value, "item", None)  # numpy and torch scalars
            if callable(item) and getattr(value, "shape", None) == ():
                return self._plain(item(), depth - 1, parents) if depth else str(value)
            dump = getattr(value, "model_dump", None)  # pydantic models
            if callable(dump) and not isinstance(value, type):
                return self._plain(dump(), depth - 1, parents) if depth else str(value)
        except (RecursionError, MemoryError):
            raise
        except Exception:
            pass
        return self.string(_text_of(value))


def _text_of(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    try:
        return str(value)
    except Exception:
        return f"[unprintable {type(value).__name__}]"


def _sort_key(value: Any) -> tuple[str, str]:
    return (type(value).__name__, _text_of(value))
