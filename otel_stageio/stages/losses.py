"""Which event tells of what was lost.

The journal and the fold have a ledger each: a disk that refuses an event has not got what that tells of, and the next
tells of it as well; the fold has got both.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import semconv as sc
from ..events import Event


class Lost(NamedTuple):
    """What each sink has lost in all; ``spool_full`` counts what was kept out, the others what the disk refused."""

    stage_log: int
    pipeline_log: int
    journal: int
    spool_full: int
    manifest: int


_NAMES = tuple(sc.LOST_PREFIX + what for what in Lost._fields)


class Losses:
    """Both ledgers, by the names of attributes. What is lost in all comes from the caller."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._counted: dict[str, int] = {}

    def to_tell(self, lost: Lost) -> dict[str, int]:
        """What the journal does not know yet, as attributes of the next event."""
        return _since(self._told, lost)

    def told_by(self, event: Event) -> None:
        """The journal has this event."""
        _enter(event, self._told)

    def count_in(self, event: Event, lost: Lost) -> None:
        """Have an event tell the fold what that does not know yet, instead of what it tells the journal."""
        for name in _NAMES:
            event.attributes.pop(name, None)
        event.attributes.update(_since(self._counted, lost))
        _enter(event, self._counted)

    def folded_anew(self) -> None:
        """The fold has been made from the journal, and knows what that knows."""
        self._counted = dict(self._told)


def _since(ledger: dict[str, int], lost: Lost) -> dict[str, int]:
    if not any(lost):  # as nearly always
        return {}
    new = ((name, total - ledger.get(name, 0)) for name, total in zip(_NAMES, lost, strict=True))
    return {name: count for name, count in new if count > 0}


def _enter(event: Event, ledger: dict[str, int]) -> None:
    for name in _NAMES:
        if name in event.attributes:
            ledger[name] = ledger.get(name, 0) + event.attributes[name]
