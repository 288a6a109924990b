"""Events, bridged to span events, because Jaeger shows only those.

The Span Event API is on its way out (OTEP 4430), so the log record is the original and this the copy. The SDK keeps
128 events a span and silently drops the *oldest*; so at most 100 are bridged, the first half and the last, and the
number in between is said.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from .. import semconv as sc
from ..events import Event

HALF = 50
_NOT_BRIDGED = frozenset(
    {sc.EVENT_STARTED, sc.EVENT_ENDED, sc.EVENT_PROGRESS, sc.EVENT_HEARTBEAT, sc.EVENT_ATTRIBUTES, sc.EVENT_LATE}
)


class TakesEvents(Protocol):
    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None: ...


class Bridge:
    """Feeds a span. ``dropped`` is what fell between the halves."""

    def __init__(self, span: TakesEvents) -> None:
        self._span = span
        self._first = 0
        self._last: deque[Event] = deque(maxlen=HALF)
        self._sizes: dict[tuple[Any, ...], Any] = {}
        self.dropped = 0

    def offer(self, event: Event) -> None:
        if event.name in _NOT_BRIDGED or (event.name == sc.EVENT_ARTIFACT and not self._is_news(event)):
            return
        if self._first < HALF:
            self._first += 1
            self._add(event)
            return
        if len(self._last) == HALF:
            self.dropped += 1
        self._last.append(event)

    def _is_news(self, event: Event) -> bool:
        """A file is told of again at the end, with its digest: once is enough here if its size is the same."""
        about = event.attributes
        file = (about.get(sc.ARTIFACT_ROLE), about.get(sc.FILE_PATH), about.get(sc.LOCAL_PATH))
        size = (about.get(sc.FILE_SIZE), about.get(sc.ARTIFACT_EXISTS))
        known = self._sizes.get(file)
        self._sizes[file] = size
        return known != size or sc.ARTIFACT_TYPE in about

    def finish(self) -> None:
        """Add the last half; once, just before the span ends."""
        for event in self._last:
            self._add(event)
        self._last.clear()

    def _add(self, event: Event) -> None:
        self._span.add_event(*span_event(event), timestamp=event.time_ns)


def span_event(event: Event) -> tuple[str, dict[str, Any]]:
    """Name and attributes of the copy: no local attributes, the body as ``message``, flat values only.

    Backends index flat attributes; SDKs before 1.45 refuse nested ones.
    """
    attributes = {
        key: value
        for key, value in event.attributes.items()
        if not key.startswith(sc.LOCAL_PREFIX) and not isinstance(value, dict) and value is not None
    }
    if event.body:
        attributes.setdefault("message", event.body)
    name = sc.SPAN_EVENT_EXCEPTION if event.name == sc.EVENT_EXCEPTION else event.name
    return name, attributes
