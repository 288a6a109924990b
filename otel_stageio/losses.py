"""Which event tells of what was lost.

The journal and the fold have a ledger each: a disk that refuses an event has not got what that tells of, and the next
tells of it as well; the fold has got both.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import semconv as sc
from .events import Event

_SINKS = ("stage_log", "pipeline_log", "journal", "spool_full", "manifest")


class Losses:
    """Losses by sink. What is lost in all, by sink, comes from the caller."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._counted: dict[str, int] = {}

    def to_tell(self, lost: Mapping[str, int]) -> dict[str, int]:
        """What the journal does not know yet, as attributes of the next event."""
        return _since(self._told, lost)

    def told_by(self, event: Event) -> None:
        """The journal has this event."""
        _enter(event, self._told)

    def count_in(self, event: Event, lost: Mapping[str, int]) -> None:
        """Have an event tell the fold what that does not know yet, instead of what it tells the journal."""
        for key in [key for key in event.attributes if key.removeprefix(sc.LOST_PREFIX) in _SINKS]:
            del event.attributes[key]
        event.attributes.update(_since(self._counted, lost))
        _enter(event, self._counted)

    def folded_anew(self) -> None:
        """The fold has been made from the journal, and knows what that knows."""
        self._counted = dict(self._told)


def _since(ledger: Mapping[str, int], lost: Mapping[str, int]) -> dict[str, int]:
    return {sc.LOST_PREFIX + what: total - ledger.get(what, 0) for what, total in lost.items()
            if total > ledger.get(what, 0)}  # fmt: skip


def _enter(event: Event, ledger: dict[str, int]) -> None:
    for what in _SINKS:
        ledger[what] = ledger.get(what, 0) + event.attributes.get(sc.LOST_PREFIX + what, 0)
