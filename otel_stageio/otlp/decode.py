"""OTLP/JSON lines -> events and spans as plain Python, for the fold, recovery and the command line.

A journal may end in a torn line (the process was killed in mid-write), and a full disk may leave one in the middle,
with the next line of another process glued to it. What is torn is skipped and counted, and never hides what is whole.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any

from ..events import Event
from ..layout import StrPath

_HEADS = (b'{"resourceLogs":', b'{"resourceSpans":', b'{"resourceMetrics":')  # unescaped, so never inside a string
#: What a line that is JSON, but no OTLP, makes of the code that reads it.
_NOT_OTLP = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


class Lines:
    """Iterates over the parsed lines of a journal. ``damaged`` counts lines that are not JSON objects.

    Args:
        start: begin with the first line that begins after this byte.
    """

    def __init__(self, path: StrPath, start: int = 0) -> None:
        self.path = path
        self.start = start
        self.damaged = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            file = open(self.path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return
        with file:
            if self.start:
                file.seek(self.start)
                file.readline()
            for line in file:
                if not line.strip():
                    continue
                request, whole = parse(line)
                self.damaged += not whole
                if request is not None:
                    yield request


def parse(line: bytes) -> tuple[dict[str, Any] | None, bool]:
    """The request in a line, and whether the line is nothing else: a torn one may have a whole one glued to it."""
    request = _parsed(line)
    if request is not None:
        return request, True
    start = max(line.rfind(head) for head in _HEADS)
    return (_parsed(line[start:]) if start > 0 else None), False


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return request if isinstance(request, dict) else None


def value(encoded: dict[str, Any]) -> Any:
    """``AnyValue`` -> Python."""
    for kind, content in encoded.items():
        if kind == "intValue":
            return int(content)
        if kind == "doubleValue":
            return float(content)
        if kind == "bytesValue":
            return base64.b64decode(content)
        if kind == "arrayValue":
            return [value(item) for item in content.get("values", [])]
        if kind == "kvlistValue":
            return mapping(content.get("values", []))
        return content
    return None


def mapping(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: value(pair.get("value", {})) for pair in pairs}


def time_of(record: dict[str, Any]) -> int:
    """When a log record was made, in nanoseconds; 0 where it does not say."""
    try:
        return int(record.get("timeUnixNano", 0))
    except (TypeError, ValueError):
        return 0


def event_of(record: dict[str, Any]) -> Event | None:
    """The event in a log record, or None for a plain log line (and for what only looks like an event)."""
    try:
        name = record.get("eventName")
        if not name:
            return None
        return Event(
            name,
            int(record.get("timeUnixNano", 0)),
            mapping(record.get("attributes", [])),
            value(record["body"]) if "body" in record else None,
            int(record.get("severityNumber", 0)),
        )
    except _NOT_OTLP:
        return None


def log_records(lines: Lines) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every log record with its scope's attributes, in the order of writing."""
    for request in lines:
        yield from _whole(lines, _log_records(request))


def records_of(request: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every log record of one line; none if it is not OTLP."""
    try:
        return list(_log_records(request))
    except _NOT_OTLP:
        return []


def events(lines: Lines) -> Iterator[Event]:
    """Every event of a journal, in the order of writing."""
    for _, record in log_records(lines):
        event = event_of(record)
        if event is not None:
            yield event


def spans(lines: Lines) -> Iterator[dict[str, Any]]:
    """Every span as a dict: OTLP/JSON's fields, ``attributes`` as a mapping, times as integers, ``resource`` added."""
    for request in lines:
        yield from _whole(lines, _spans(request))


def _whole(lines: Lines, items: Iterable[Any]) -> list[Any]:
    """What a line holds, all of it or nothing."""
    try:
        return list(items)
    except _NOT_OTLP:
        lines.damaged += 1
        return []


def _log_records(request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for resource in request.get("resourceLogs", ()):
        for scoped in resource.get("scopeLogs", ()):
            scope = mapping(scoped.get("scope", {}).get("attributes", []))
            for record in scoped.get("logRecords", ()):
                yield scope, record


def _spans(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in request.get("resourceSpans", ()):
        shared = mapping(resource.get("resource", {}).get("attributes", []))
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                yield {
                    **span,
                    "startTimeUnixNano": int(span.get("startTimeUnixNano", 0)),
                    "endTimeUnixNano": int(span.get("endTimeUnixNano", 0)),
                    "attributes": mapping(span.get("attributes", [])),
                    "events": [
                        {**event, "attributes": mapping(event.get("attributes", []))}
                        for event in span.get("events", ())
                    ],
                    "resource": shared,
                    "scope": scope.get("scope", {}),
                }
