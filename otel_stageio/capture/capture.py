"""One stage's capture: redactor, plain values and path policy with one set of counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..layout import Job
from .paths import PathPolicy
from .redaction import MASK, Redactor
from .text import clean
from .values import Plain, Plainer


class Capture:
    def __init__(self, job: Job) -> None:
        self.redactor = Redactor()
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
        return {key: self.wire(item) for key, item in self.mapping(value).items()}

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
