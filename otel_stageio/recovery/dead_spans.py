"""The spans that a dead process could not end: written for it, with the ids that they had."""

from __future__ import annotations

import json
from typing import Any

from .. import semconv as sc
from ..capture import Capture
from ..layout import Job
from ..otlp import decode, encode
from ..otlp.built_span import build
from ..otlp.span_events import Bridge
from ..sinks.envelopes import envelope_of
from ..sinks.files import AppendFile
from .left_open import Left
from .past import Past


def end_spans(job: Job, left: Left, end_ns: int, message: str) -> bool:
    """End the spans that a dead process has left open. False if the disk refused: what it left is to stay then."""
    path = job.journal(left.stage, left.attempt, "spans")
    ended = _span_ids(path)
    missing = [span for span in left.spans() if span["spanId"] not in ended]
    if not missing:
        return True
    around = envelope_of(job, left.stage, left.attempt, "spans")
    file = AppendFile(path)
    written = [file.write(around.line(cut_off(span, end_ns, message))) for span in missing]
    file.close()
    return all(written)


def cut_off(span: dict[str, Any], end_ns: int, message: str) -> str:
    """A span that its process could not end, ended as an error: OTLP/JSON again."""
    start = int(span.get("startTimeUnixNano", 0))
    error = {"key": sc.ERROR_TYPE, "value": {"stringValue": "crashed"}}
    attributes = [pair for pair in span.get("attributes", ()) if pair.get("key") != sc.ERROR_TYPE]
    return json.dumps(
        {
            **span,
            "endTimeUnixNano": str(max(end_ns, start)),
            "attributes": [*attributes, error],
            "status": {"message": message, "code": 2},
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def write_stage_span(job: Job, past: Past) -> bool:
    """Write the span that the stage's process could not end. False if the disk refused."""
    path = job.journal(past.stage, past.attempt, "spans")
    if not past.ids[1] or past.ended is None or f"{past.ids[1]:016x}" in _span_ids(path):
        return True
    collected = _Collected()
    bridge = Bridge(collected)
    for event in decode.events(decode.Lines(job.journal(past.stage, past.attempt))):
        bridge.offer(event)
    bridge.finish()
    record = past.fold.record
    status = record["status"]
    given = {**past.started.attributes, **past.ended.attributes}
    attributes = {key: item for key, item in given.items() if not key.startswith((sc.LOCAL_PREFIX, sc.LOST_PREFIX))}
    if status in sc.RESULTS:
        attributes[sc.TASK_RESULT] = sc.RESULTS[status]
    parent = record["trace"].get("parent_span_id")
    errors = record["errors"]
    capture = Capture(job)
    message = "\n".join([errors[-1]["message"], *errors[-1].get("last_lines", ())]) if errors else None
    span = build(
        past.stage,
        past.ids,
        int(parent, 16) if parent else None,
        (past.started.time_ns, max(past.ended.time_ns, past.started.time_ns)),
        attributes,
        status,
        error_type=past.ended.attributes.get(sc.ERROR_TYPE),
        message=capture.paths.text(capture.string(message)) if message else None,
        events=collected.events,
    )
    file = AppendFile(path)
    written = file.write(envelope_of(job, past.stage, past.attempt, "spans").line(encode.span(span)))
    file.close()
    return written


class _Collected:
    """Takes the bridge's span events for a span that is built, not opened."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        from opentelemetry.sdk.trace import Event as SpanEvent

        self.events.append(SpanEvent(name, attributes, timestamp))


def _span_ids(path: str) -> set[str]:
    """The spans that are in a spool file."""
    return {span["spanId"] for span in decode.spans(decode.Lines(path)) if "spanId" in span}
