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

MAX_STRING = 100_000  # characters
MAX_ITEMS = 10_000
MAX_DEPTH = 24
#: Characters that one value may come to in all, before what is left of it is cut short: a few shared lists, each nested
#: in the next, are a billion items when written out.
ROOM = 1_000_000
_SHORT = 200
_INT64 = 1 << 63


class Plainer:
    """Makes values plain.

    ``changed`` counts what could not be kept as it was, ``masked`` what stood under a secret key.
    """

    def __init__(self, text: Callable[[str], str], is_secret: Callable[[str], bool], mask: str) -> None:
        self._text = text
        self._is_secret = is_secret
        self._mask = mask
        self._room = 0
        self.changed = 0
        self.masked = 0

    def plain(self, value: Any) -> Plain:
        self._room = ROOM
        return self._plain(value, MAX_DEPTH, ())

    def string(self, value: str) -> str:
        limit = MAX_STRING if self._room > 0 else _SHORT
        # Cut first: nothing below should scan ten megabytes to throw nine of them away.
        short = value if len(value) <= limit else value[: limit + _SHORT]
        cleaned = clean(short)
        result = self._text(cleaned)
        if cleaned is not short and cleaned != short:
            self.changed += 1
        if len(value) > limit or len(result) > limit:
            self.changed += 1
            note = f"… [cut: {len(value)} characters in all]"
            result = result[: limit - len(note)] + note
        self._room -= len(result)
        return result

    def _instead(self, text: str) -> str:
        """``text`` in the place of what cannot be kept."""
        self.changed += 1
        self._room -= len(text)
        return text

    def _plain(self, value: Any, depth: int, parents: tuple[int, ...]) -> Plain:
        kind = type(value)
        if kind is str:
            return self.string(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            if -_INT64 <= value < _INT64:
                return value
            return self._instead(str(value) if value.bit_length() < 4096 else f"[int of {value.bit_length()} bits]")
        if kind is float:
            return value if math.isfinite(value) else self._instead(str(value))
        if id(value) in parents:
            return self._instead("[cycle]")
        if depth == 0:
            return self._instead("[too deep]")
        if self._room <= 0:
            return self._instead("[cut: too much for one record]")
        inner = (*parents, id(value))
        try:
            if kind is dict or isinstance(value, Mapping):
                return self._mapping(value, depth, inner)
            if kind is list or isinstance(value, (list, tuple, set, frozenset)):
                return self._sequence(value, depth, inner)
            self.changed += 1
            return self._other(value, depth, inner)
        except Exception:  # the value's own code, which may do anything
            self.changed += 1
            return self.string(_text_of(value))

    def _mapping(self, value: Mapping[Any, Any], depth: int, parents: tuple[int, ...]) -> Plain:
        result: dict[str, Plain] = {}
        items = list(value.items())
        for position, (key, item) in enumerate(_first(items)):
            if type(key) is not str:
                self.changed += 1
            name = self.string(key if type(key) is str else _text_of(key))
            if name in result:  # 1 and "1", or two keys that were masked
                self.changed += 1
                name = f"{name} ({position})"
            self._room -= 8
            if not self.hides(name, item):
                result[name] = self._plain(item, depth - 1, parents)
            else:
                self.masked += not (type(item) is str and item == self._mask)
                result[name] = self._mask
        if len(items) > len(result):
            result["…"] = self._instead(f"[cut: {len(items)} items in all]")
        return result

    def hides(self, name: str, item: Any) -> bool:
        """Whether ``item`` is a credential because it stands under ``name``."""
        if item is None or not self._is_secret(name):
            return False
        # A number of tokens is a number; a numeric password is a password.
        kind = type(item)
        return not issubclass(kind, (bool, float)) and not (issubclass(kind, int) and "token" in name.lower())

    def _sequence(self, value: Any, depth: int, parents: tuple[int, ...]) -> Plain:
        if not isinstance(value, (list, tuple)):
            self.changed += 1
            value = sorted(value, key=_sort_key)
        result = []
        for item in _first(value):
            self._room -= 8
            result.append(self._plain(item, depth - 1, parents))
        if len(value) > len(result):
            result.append(self._instead(f"[cut: {len(value)} items in all]"))
        return result

    def _other(self, value: Any, depth: int, parents: tuple[int, ...]) -> Plain:
        if isinstance(value, enum.Enum):
            return self._plain(value.value, depth - 1, parents)
        if isinstance(value, str):
            return self.string(_text_of(value))
        if isinstance(value, int):
            return self._plain(int.__int__(value), depth, parents)
        if isinstance(value, float):
            return self._plain(float.__float__(value), depth, parents)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self.string(bytes(value[: MAX_STRING + 1]).decode("utf-8", "backslashreplace"))
        if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
            return self.string(value.isoformat())
        if isinstance(value, os.PathLike):
            return self.string(_text_of(os.fspath(value)))
        if isinstance(value, type):
            return self.string(_text_of(value))
        fields = getattr(value, "__dataclass_fields__", None)
        if isinstance(fields, dict):  # by name, so that a secret field is known by its name
            return self._plain({name: getattr(value, name) for name in fields}, depth, parents)
        item = getattr(value, "item", None)  # numpy and torch scalars
        if callable(item) and getattr(value, "shape", None) == ():
            scalar = item()
            if type(scalar) is not type(value):
                return self._plain(scalar, depth - 1, parents)
        dump = getattr(value, "model_dump", None)  # pydantic models
        if callable(dump):
            return self._plain(dump(), depth - 1, parents)
        return self.string(_text_of(value))


def _first(items: Any) -> Any:
    """As many items as are kept: all, or so many that a note makes it ``MAX_ITEMS``."""
    return items if len(items) <= MAX_ITEMS else items[: MAX_ITEMS - 1]


def _text_of(value: Any) -> str:
    """A value's text, as a plain ``str`` whatever its class makes of that."""
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8", "backslashreplace")
        return str.__str__(value if isinstance(value, str) else str(value))
    except Exception:
        return f"[unprintable {type(value).__name__}]"


def _sort_key(value: Any) -> tuple[str, str]:
    return (type(value).__name__, _text_of(value))
