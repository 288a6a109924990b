"""``manifest = fold(events)``: the one way in which a manifest comes to be.

The running stage folds each event as it happens, recovery folds the journal of a stage that died; both get the same
record. Plain dicts throughout: a stage's process never imports pydantic (:mod:`.manifest` has the schema).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import semconv as sc
from ..events import Event, iso

KIND = "stageio.manifest"
SCHEMA_VERSION = 1

#: Top-level keys that ``finalize(**kwargs)`` cannot overwrite; what collides is kept under ``extra``.
RESERVED = frozenset(
    {
        "kind", "schema_version", "stage", "stage_number", "timestamp", "status", "inputs", "outputs",
        "intermediate_files", "config", "resources", "errors", "warnings", "duration_seconds", "completed_at",
        "attempt", "attempts", "substages", "trace", "lost", "redactions", "sanitised", "progress", "extra", "cause",
        "resume", "host_clock",
    }
)  # fmt: skip
#: Keys of an artifact entry that metadata cannot overwrite (``type`` may); what collides is kept under ``metadata``.
RESERVED_ENTRY = frozenset({"path", "size_bytes", "exists", "changed", "digest", "metadata"})

_LISTS = {"input": "inputs", "output": "outputs", "intermediate": "intermediate_files"}


def fold(events: Iterable[Event]) -> dict[str, Any]:
    """The record of one attempt at one stage, from its events in order.

    A journal without an ``ended`` event gives ``status: running``; it is for the caller to know whether the stage
    lives (see :mod:`otel_stageio.recovery.recover`).
    """
    state = Fold()
    for event in events:
        state.apply(event)
    return state.record


class Fold:
    """The fold's state: ``record`` is the manifest so far (without ``attempts`` and ``substages`` of others)."""

    def __init__(self) -> None:
        self.record: dict[str, Any] = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "stage": "",
            "stage_number": 99,
            "timestamp": "",
            "status": "running",
            "inputs": [],
            "outputs": [],
            "intermediate_files": [],
            "config": {},
            "resources": {},
            "errors": [],
            "warnings": [],
            "attempt": 1,
            "trace": {},
            "lost": {},
            "redactions": 0,
            "sanitised": 0,
        }
        self.started_ns = 0
        self.ended = False
        self._said_resources: set[str] = set()
        #: (list name, path as given) -> its entry, so that tracking is O(1) however much is tracked.
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}

    def apply(self, event: Event) -> None:
        attributes = event.attributes
        self.record["redactions"] += _number(attributes.get(sc.REDACTIONS))
        self.record["sanitised"] += _number(attributes.get(sc.SANITISED))
        for key, value in attributes.items():
            if key.startswith(sc.LOST_PREFIX):
                what = key[len(sc.LOST_PREFIX) :]
                self.record["lost"][what] = self.record["lost"].get(what, 0) + _number(value)
        handler = _HANDLERS.get(event.name)
        if handler is not None:
            handler(self, event)

    # -- one method per event ----------------------------------------------------------------------------------------

    def _started(self, event: Event) -> None:
        attributes, record = event.attributes, self.record
        if self.started_ns:
            return
        self.started_ns = event.time_ns
        record["stage"] = attributes.get(sc.TASK_NAME, "")
        record["stage_number"] = attributes.get(sc.STAGE_NUMBER, 99)
        record["attempt"] = attributes.get(sc.STAGE_ATTEMPT, 1)
        record["timestamp"] = iso(event.time_ns)
        record["trace"] = dict(attributes.get(sc.LOCAL_TRACE, {}))
        if sc.LOCAL_CLOCK_AHEAD in attributes:
            record["host_clock"] = {
                "host": attributes.get(sc.LOCAL_HOST, ""),
                "ahead_seconds": attributes[sc.LOCAL_CLOCK_AHEAD],
            }

    def _artifact(self, event: Event) -> None:
        attributes = event.attributes
        name = _LISTS.get(attributes.get(sc.ARTIFACT_ROLE, ""), "outputs")
        path = attributes.get(sc.LOCAL_PATH, attributes.get(sc.FILE_PATH, ""))
        entry = self._entries.get((name, path))
        if entry is None:
            entry = {"type": attributes.get(sc.ARTIFACT_TYPE, "file"), "path": path}
            self._entries[name, path] = entry
            self.record[name].append(entry)
        elif sc.ARTIFACT_TYPE in attributes:
            entry["type"] = attributes[sc.ARTIFACT_TYPE]
        if name == "intermediate_files":
            for key, attribute in (("retained", sc.ARTIFACT_RETAINED), ("reason", sc.ARTIFACT_REASON)):
                if attribute in attributes:
                    entry[key] = attributes[attribute]
        for key, value in attributes.get(sc.LOCAL_METADATA, {}).items():
            if key in RESERVED_ENTRY:
                entry.setdefault("metadata", {})[key] = value
            else:
                entry[key] = value
        entry.pop("size_bytes", None)
        entry.pop("exists", None)
        entry.pop("digest", None)
        if sc.FILE_SIZE in attributes:
            entry["size_bytes"] = attributes[sc.FILE_SIZE]
        elif attributes.get(sc.ARTIFACT_EXISTS) is False:
            entry["exists"] = False
        if sc.LOCAL_DIGEST in attributes:
            entry["digest"] = attributes[sc.LOCAL_DIGEST]
        if sc.ARTIFACT_CHANGED in attributes:
            entry["changed"] = attributes[sc.ARTIFACT_CHANGED]

    def _config(self, event: Event) -> None:
        self.record["config"].update(event.attributes.get(sc.LOCAL_CONFIG, {}))

    def _resume(self, event: Event) -> None:
        self.record.setdefault("resume", {}).update(event.attributes.get(sc.LOCAL_RESUME, {}))

    def _resources(self, event: Event) -> None:
        resources = event.attributes.get(sc.LOCAL_RESOURCES, {})
        self._said_resources.update(resources)
        self.record["resources"].update(resources)

    def _warning(self, event: Event) -> None:
        self.record["warnings"].append({"timestamp": iso(event.time_ns), "message": _message(event)})

    def _error(self, event: Event) -> None:
        attributes = event.attributes
        entry: dict[str, Any] = {"timestamp": iso(event.time_ns), "message": _message(event)}
        if sc.EXCEPTION_TYPE in attributes:
            entry["exception_type"] = attributes[sc.EXCEPTION_TYPE].rpartition(".")[2]
            entry["exception_detail"] = attributes.get(sc.LOCAL_DETAIL, attributes.get(sc.EXCEPTION_MESSAGE, ""))
        trace = attributes.get(sc.LOCAL_TRACEBACK, attributes.get(sc.EXCEPTION_STACKTRACE))
        if trace:
            entry["traceback"] = trace
        if sc.CAUSE in attributes:
            entry["cause"] = attributes[sc.CAUSE]
        if sc.LOCAL_LAST_LINES in attributes:
            entry["last_lines"] = attributes[sc.LOCAL_LAST_LINES]
        self.record["errors"].append(entry)

    def _used(self, event: Event) -> None:
        """What the stage had used by then; what it says itself of its resources stands above that."""
        resources = self.record["resources"]
        for key, measured in event.attributes.get(sc.LOCAL_MEASURED, {}).items():
            if key not in self._said_resources:
                resources[key] = measured
        for key, attribute in sc.USED.items():
            used = event.attributes.get(attribute)
            if isinstance(used, (int, float)) and key not in self._said_resources:
                resources[key] = max(used, resources.get(key, 0))  # of several processes

    def _progress(self, event: Event) -> None:
        attributes = event.attributes
        self.record["progress"] = {
            "done": attributes.get(sc.PROGRESS_DONE),
            "total": attributes.get(sc.PROGRESS_TOTAL),
            "unit": attributes.get(sc.PROGRESS_UNIT, ""),
        }

    def _ended(self, event: Event) -> None:
        attributes, record = event.attributes, self.record
        self._used(event)
        if sc.REALTIME_FACTOR in attributes:
            record["resources"].setdefault("realtime_factor", attributes[sc.REALTIME_FACTOR])
        record["status"] = attributes.get(sc.STAGE_STATUS, "incomplete")
        if sc.DURATION in attributes:
            record["duration_seconds"] = attributes[sc.DURATION]
        record["completed_at"] = iso(event.time_ns)
        if sc.CAUSE in attributes:
            record["cause"] = attributes[sc.CAUSE]
        for key, value in attributes.get(sc.LOCAL_EXTRA, {}).items():
            if key in RESERVED:
                record.setdefault("extra", {})[key] = value
            else:
                record[key] = value
        self.ended = True


def _number(value: Any) -> int:
    return value if type(value) is int else 0


def _message(event: Event) -> str:
    return str(event.attributes.get(sc.LOCAL_BODY, event.body or ""))


_HANDLERS = {
    sc.EVENT_STARTED: Fold._started,
    sc.EVENT_ARTIFACT: Fold._artifact,
    sc.EVENT_CONFIG: Fold._config,
    sc.EVENT_RESOURCES: Fold._resources,
    sc.EVENT_RESUME: Fold._resume,
    sc.EVENT_WARNING: Fold._warning,
    sc.EVENT_ERROR: Fold._error,
    sc.EVENT_EXCEPTION: Fold._error,
    sc.EVENT_PROGRESS: Fold._progress,
    sc.EVENT_HEARTBEAT: Fold._used,
    sc.EVENT_ENDED: Fold._ended,
}
