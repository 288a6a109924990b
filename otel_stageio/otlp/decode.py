"""OTLP/JSON lines -> events and spans as plain Python, for the fold, recovery and the command line.

A journal may end in a torn line (the process was killed in mid-write); such a line is skipped and counted, and never
hides the lines before or after it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..events import Event


class Lines:
    """Iterates over the parsed lines of a journal. ``damaged`` counts lines that are not JSON objects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            file = open(self.path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return
        with file:
            for line in file:
                if not line.strip():
                    continue
                try:
                    request = json.loads(line)
                except ValueError:
                    self.damaged += 1
                    continue
                if isinstance(request, dict):
                    yield request
                else:
                    self.damaged += 1


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


def event_of(record: dict[str, Any]) -> Event | None:
    """The event in a log record, or None for a plain log line."""
    name = record.get("eventName")
    if not name:
        return None
    body = value(record["body"]) if "body" in record else None
    return Event(
        name,
        int(record.get("timeUnixNano", 0)),
        mapping(record.get("attributes", [])),
        body,
        int(record.get("severityNumber", 0)),
    )


def log_records(lines: Lines) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every log record with its scope's attributes, in the order of writing."""
    for request in lines:
        for resource in request.get("resourceLogs", ()):
            for scoped in resource.get("scopeLogs", ()):
                scope = mapping(scoped.get("scope", {}).get("attributes", []))
                for record in scoped.get("logRecords", ()):
                    yield scope, record


def events(lines: Lines) -> Iterator[Event]:
    """Every event of a journal, in the order of writing."""
    for _, record in log_records(lines):
        event = event_of(record)
        if event is not None:
            yield event


def spans(lines: Lines) -> Iterator[dict[str, Any]]:
    """Every span as a dict: OTLP/JSON's fields, ``attributes`` as a mapping, times as integers, ``resource`` added."""
    for request in lines:
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
