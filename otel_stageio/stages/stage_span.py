"""The stage's own span: what of its events shows there, and what it says at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace

from .. import semconv as sc
from ..capture import Capture
from ..events import Event
from ..otlp.built_span import context as span_context
from ..otlp.span_events import Bridge
from .opening import Opening


class StageSpan:
    """A joined stage's span is its parent's, which reads what happens here too."""

    def __init__(self, opening: Opening, capture: Capture) -> None:
        self._span = opening.span
        self._joined = opening.joined
        self._identity = opening.identity
        self._start_ns = opening.start
        self._capture = capture
        self._bridge = Bridge(opening.span)

    def show(self, event: Event) -> None:
        """Show what of an event belongs on the span."""
        if self._joined:
            return
        self._bridge.offer(event)
        if event.name == sc.EVENT_ATTRIBUTES:
            self._span.set_attributes(event.attributes)
        elif event.name == sc.EVENT_RESUME:
            _link_to_source(self._span, event.attributes)
        elif event.name == sc.EVENT_CONFIG:
            prefix = sc.CONFIG_PREFIX
            self._span.set_attributes({key: item for key, item in event.attributes.items() if key.startswith(prefix)})

    def end(self, record: Mapping[str, Any], elapsed: int, message: str | None, ended: Mapping[str, Any]) -> None:
        """
        Args:
            record: the manifest's.
            message: why it did not end well, where the caller said so; else its last error is.
            ended: the attributes of the ``ended`` event.
        """
        if self._joined or not self._span.is_recording():
            return
        status = ended[sc.STAGE_STATUS]
        inputs, outputs = record["inputs"], record["outputs"]
        final: dict[str, Any] = {
            **self._identity,  # again: the SDK evicts the oldest attributes when there are too many
            sc.STAGE_STATUS: status,
            sc.INPUT_COUNT: len(inputs),
            sc.INPUT_BYTES: sum(entry.get("size_bytes", 0) for entry in inputs),
            sc.OUTPUT_COUNT: len(outputs),
            sc.OUTPUT_BYTES: sum(entry.get("size_bytes", 0) for entry in outputs),
            sc.WARNING_COUNT: len(record["warnings"]),
            sc.ERROR_COUNT: len(record["errors"]),
        }
        final.update({key: value for key, value in ended.items() if not key.startswith(sc.LOCAL_PREFIX)})
        if status in sc.RESULTS:
            final[sc.TASK_RESULT] = sc.RESULTS[status]
        self._bridge.finish()
        if self._bridge.dropped:
            final[sc.SPAN_EVENTS_DROPPED] = self._bridge.dropped
        if status not in sc.GOOD_STATUSES and status != "incomplete":
            final.setdefault(sc.ERROR_TYPE, status)
            if message is None and record["errors"]:
                message = record["errors"][-1]["message"]
            text = self._capture.paths.text(self._capture.string(message)) if message else None
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, text))
        self._span.set_attributes(final)
        self._span.end(end_time=self._start_ns + max(elapsed, 0))


def _link_to_source(span: trace.Span, attributes: Mapping[str, Any]) -> None:
    """From a stage that was skipped to the one that made its outputs."""
    wire = {key: value for key, value in attributes.items() if not key.startswith(sc.LOCAL_PREFIX)}
    span.set_attributes(wire)
    source = attributes.get(sc.LOCAL_RESUME, {}).get("source")
    if source and source.get("trace_id") and source.get("span_id"):
        context = span_context(int(source["trace_id"], 16), int(source["span_id"], 16))
        span.add_link(context, {sc.LINK: "made the outputs"})
