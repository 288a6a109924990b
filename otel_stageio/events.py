"""The vocabulary of a stage: what can happen to it, each as one OpenTelemetry event (a log record with a name).

An event is what the journal stores, what the fold reads, and what goes over the wire; attributes under
``stageio.local.`` stay on this machine.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from . import semconv as sc

DEBUG, INFO, WARN, ERROR, FATAL = 5, 9, 13, 17, 21
SEVERITY_TEXT = {1: "TRACE", DEBUG: "DEBUG", INFO: "INFO", WARN: "WARN", ERROR: "ERROR", FATAL: "FATAL"}


class Event:
    """One named log record.

    Attributes:
        name: event name, e.g. ``stageio.artifact``.
        time_ns: wall time, nanoseconds since 1970.
        attributes: plain JSON values (see :mod:`otel_stageio.capture.values`).
        body: a sentence for people, or None.
        severity: OTLP severity number.
    """

    __slots__ = ("attributes", "body", "name", "severity", "time_ns")

    def __init__(
        self,
        name: str,
        time_ns: int,
        attributes: dict[str, Any],
        body: str | None = None,
        severity: int = INFO,
    ) -> None:
        self.name = name
        self.time_ns = time_ns
        self.attributes = attributes
        self.body = body
        self.severity = severity

    def __repr__(self) -> str:
        return f"Event({self.name!r}, {self.time_ns}, {self.attributes!r}, body={self.body!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and all(getattr(self, slot) == getattr(other, slot) for slot in self.__slots__)

    __hash__ = None  # type: ignore[assignment]


def iso(time_ns: int) -> str:
    """Local time with its zone, microseconds: ``2025-11-27T10:11:12.345678+01:00``."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).astimezone()
    except (OverflowError, ValueError, OSError):
        return f"{time_ns}ns"
    return moment.replace(microsecond=nanoseconds // 1000).isoformat(timespec="microseconds")


def config_attributes(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a stage's configuration that may leave the machine (see ``semconv.CONFIG_TEXT_KEYS``)."""
    shown: dict[str, Any] = {}
    for key, value in plain.items():
        harmless_text = isinstance(value, str) and key.lower() in sc.CONFIG_TEXT_KEYS and "/" not in value
        if isinstance(value, (bool, int, float)) or harmless_text:
            shown[sc.CONFIG_PREFIX + key] = value
    return shown
