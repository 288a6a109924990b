"""Parameters as they are compared: whole, whatever a record has room for.

A record cuts long values, and shows of an array or a table what its ``repr`` shows; two of them that differ in the rest
would be the same. Such a value is recorded by its digest.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from typing import Any

from . import Capture
from .redaction import MASK

#: Characters of a value, and of all together, that are recorded as they are.
_LONG, _VERY_LONG = 2_000, 50_000


def comparable(capture: Capture, values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters for the record; hidden ones are not compared."""
    plain = capture.mapping(values)
    exact = {str(name): _exact(value) for name, value in values.items()}
    for name, (text, shown) in exact.items():
        if plain.get(name, MASK) != MASK and (len(text) > _LONG or not shown):
            plain[name] = _digest(text)
    if len(json.dumps(plain)) <= _VERY_LONG:
        return plain
    return {"all": _digest("".join(f"{name}={text}\n" for name, (text, _) in sorted(exact.items())))}


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _exact(value: Any) -> tuple[str, bool]:
    """A text that says all of a value, and whether a record would too."""
    opaque = False

    def default(item: Any) -> Any:
        nonlocal opaque
        if isinstance(item, os.PathLike):
            return str(item)
        if isinstance(item, (set, frozenset)):
            return sorted(item, key=repr)
        if isinstance(item, enum.Enum):
            return item.value
        if getattr(item, "shape", None) == () and callable(getattr(item, "item", None)):
            return item.item()
        opaque = True
        if callable(getattr(item, "tobytes", None)):
            about = (getattr(item, "dtype", ""), getattr(item, "shape", ""))
            return [*map(str, about), hashlib.sha256(item.tobytes()).hexdigest()]
        try:
            return hashlib.sha256(pickle.dumps(item)).hexdigest()
        except Exception:  # the value's own code, which may do anything
            return repr(item)

    try:
        return json.dumps(value, sort_keys=True, default=default), not opaque
    except Exception:  # a cycle, or keys of several kinds
        return repr(value), False
