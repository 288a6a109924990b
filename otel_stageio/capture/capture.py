"""One stage's capture: redactor, plain values and path policy with one set of counters."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..layout import Job
from .paths import PathPolicy
from .redaction import MASK, Redactor
from .text import clean
from .values import Plain, Plainer

_INT64 = 1 << 63
_MOST_KNOWN = 1_000
_SHORT = 100


class Capture:
    def __init__(self, job: Job) -> None:
        self.redactor = Redactor()
        self.job = job
        self.paths = PathPolicy(job)
        self._plainer = Plainer(self.redactor.text, self.redactor.key, MASK)
        self._reported = (0, 0)

    def text(self, text: str) -> str:
        """A message: whole, without control characters and credentials."""
        return self.redactor.text(clean(text))

    def plain(self, value: Any) -> Plain:
        return self._plainer.plain(value)

    def mapping(self, value: Any) -> dict[str, Plain]:
        """A mapping made plain. Pairs will do; what cannot be read as a mapping is kept whole, under ``value``."""
        try:
            plain = self._plainer.plain(value if isinstance(value, Mapping) else dict(value))
        except Exception:
            plain = self._plainer.plain(value)
        return plain if isinstance(plain, dict) else {"value": plain}

    def string(self, value: Any) -> str:
        """An attribute's text: like :meth:`text`, of any value, and cut to what a journal line holds."""
        plain = self._plainer.plain(value)
        return plain if isinstance(plain, str) else self._plainer.plain(str(plain))

    def attributes(self, value: Mapping[Any, Any]) -> dict[str, Plain]:
        """Attributes for the wire: plain, and with the path policy applied to text."""
        if type(value) is not dict:
            return {key: self.wire(item) for key, item in self.mapping(value).items()}
        if self._fit_for_wire(value):
            return value.copy()
        attributes = {key: self.wire(item) for key, item in self.mapping(value).items()}
        unchanged = (key for key in value if type(key) is str and key in attributes and os.sep not in key)
        _remember(self.redactor.innocent.names, (key for key in unchanged if not self.redactor.key(key)))
        return attributes

    def name(self, value: Any) -> str:
        """A span's name for the wire."""
        return value if type(value) is str and self._harmless(value) else self.paths.text(self.string(value))

    def _fit_for_wire(self, values: dict[Any, Any]) -> bool:
        """Whether these are numbers and harmless texts under known names: most are, and at every span."""
        names = self.redactor.innocent.names
        for key, item in values.items():
            if key not in names:
                return False
            kind = type(item)
            if kind is str:
                if not self._harmless(item):
                    return False
            elif kind is int:
                if not -_INT64 <= item < _INT64:
                    return False
            elif kind is not bool and not (kind is float and math.isfinite(item)):
                return False
        return True

    def _harmless(self, text: str) -> bool:
        """A cheap first look: True means that capture would change nothing in ``text``."""
        innocent = self.redactor.innocent.texts
        if text not in innocent:
            if len(text) > _SHORT or not text.isprintable() or self.redactor.suspicious(text):
                return False
            _remember(innocent, [text])
        return not self.paths.mentions(text)

    def wire(self, value: Plain) -> Plain:
        if isinstance(value, str):
            return self.paths.text(value)
        if isinstance(value, list):
            return [self.wire(item) for item in value]
        if isinstance(value, dict):
            return {key: self.wire(item) for key, item in value.items()}
        return value

    def hides(self, key: str, value: Plain) -> bool:
        """Whether ``value`` is a credential because of the key that it stands under."""
        return self._plainer.hides(key, value)

    def counts(self) -> tuple[int, int]:
        """(redactions, changed values) since the last call: each event carries what its capture did."""
        now = (self.redactor.count + self._plainer.masked, self._plainer.changed)
        before, self._reported = self._reported, now
        return now[0] - before[0], now[1] - before[1]


def _remember(known: set[str], found: Iterable[str]) -> None:
    if len(known) >= _MOST_KNOWN:  # ids that do not come again have filled it
        known.clear()
    known.update(found)
