"""OTLP/JSON, one export request a line, as the OTLP file exporter specification has it.

https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/ : ids in hex, 64-bit integers as strings, enums as
numbers. Written by hand rather than through protobuf, because it runs at every log line and every span: 3 µs against
60, and no import of protobuf in the stage's process.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import DEFAULT_TRACE_STATE, SpanKind

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event as SpanEvent
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Link, SpanContext

    from ..events import Event

quote = json.encoder.encode_basestring  # C where there is C; non-ASCII stays, so lines stay short

_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200  # opentelemetry.proto.trace.v1.SpanFlags
_INT64 = 1 << 63
_MAX_DEPTH = 24  # protobuf readers give up at a hundred messages within each other; a nested map takes three


def to_bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate that reached us past capture, e.g. in a library's span name
        return text.encode("utf-8", "replace")


def any_value(value: Any, depth: int = _MAX_DEPTH) -> str:
    """One ``AnyValue``. What OTLP has no type for becomes its text; an integer beyond 64 bits too."""
    kind = type(value)
    if kind is str:
        return f'{{"stringValue":{quote(value)}}}'
    if kind is bool:
        return '{"boolValue":true}' if value else '{"boolValue":false}'
    if kind is int:
        if -_INT64 <= value < _INT64:
            return f'{{"intValue":"{value}"}}'
        return f'{{"stringValue":"{value}"}}' if value.bit_length() < 4096 else '{"stringValue":"[too large]"}'
    if kind is float:
        if math.isfinite(value):
            return f'{{"doubleValue":{value!r}}}'
        word = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        return f'{{"doubleValue":"{word}"}}'
    if value is None:
        return "{}"
    if isinstance(value, Mapping):
        if depth == 0:
            return '{"stringValue":"[too deep]"}'
        return f'{{"kvlistValue":{{"values":[{attributes(value, depth - 1)}]}}}}'
    if isinstance(value, (bytes, bytearray)):
        return f'{{"bytesValue":"{base64.b64encode(value).decode()}"}}'
    if isinstance(value, Sequence) and not isinstance(value, str):
        if depth == 0:
            return '{"stringValue":"[too deep]"}'
        return f'{{"arrayValue":{{"values":[{",".join([any_value(item, depth - 1) for item in value])}]}}}}'
    if isinstance(value, str):
        return any_value(str.__str__(value))
    if isinstance(value, int):
        return any_value(int(value))
    if isinstance(value, float):
        return any_value(float(value))
    return any_value(str(value))


def attributes(values: Mapping[str, Any] | None, depth: int = _MAX_DEPTH) -> str:
    """The inside of a ``KeyValue`` array."""
    if not values:
        return ""
    pairs = []
    for key, value in values.items():
        if type(value) is str:  # most are, and a call costs as much again
            pairs.append(f'{{"key":{quote(key)},"value":{{"stringValue":{quote(value)}}}}}')
        else:
            pairs.append(f'{{"key":{quote(key)},"value":{any_value(value, depth)}}}')
    return ",".join(pairs)


def resource(values: Mapping[str, Any]) -> str:
    return f'{{"attributes":[{attributes(values)}]}}'


def scope(name: str, version: str | None = None, values: Mapping[str, Any] | None = None) -> str:
    text = f'{{"name":{quote(name)}'
    if version:
        text += f',"version":{quote(version)}'
    if values:
        text += f',"attributes":[{attributes(values)}]'
    return text + "}"


class Envelope:
    """What stands around the records of one line. ``kind`` is ``"logs"``, ``"spans"`` or ``"metrics"``."""

    def __init__(
        self, kind: str, resource_json: str, scope_json: str, resource_schema: str = "", scope_schema: str = ""
    ) -> None:
        upper = {"logs": "Logs", "spans": "Spans", "metrics": "Metrics"}[kind]
        records = {"logs": "logRecords", "spans": "spans", "metrics": "metrics"}[kind]
        self.head = (
            f'{{"resource{upper}":[{{"resource":{resource_json},"scope{upper}":[{{"scope":{scope_json},"{records}":['
        )
        self.tail = "]" + (f',"schemaUrl":{quote(scope_schema)}' if scope_schema else "") + "}]"
        self.tail += (f',"schemaUrl":{quote(resource_schema)}' if resource_schema else "") + "}]}\n"

    def line(self, records: str) -> bytes:
        """One complete line from records joined by commas."""
        return to_bytes(self.head + records + self.tail)


def event_record(event: Event, severity_text: str, ids: str) -> str:
    """One ``LogRecord`` of a named event. ``ids`` comes from :func:`record_ids`."""
    body = f'"body":{{"stringValue":{quote(event.body)}}},' if event.body is not None else ""
    return (
        f'{{"timeUnixNano":"{event.time_ns}","observedTimeUnixNano":"{event.time_ns}",'
        f'"severityNumber":{event.severity},"severityText":{quote(severity_text)},"eventName":{quote(event.name)},'
        f'{body}"attributes":[{attributes(event.attributes)}]{ids}}}'
    )


def log_record(time_ns: int, severity: int, severity_text: str, body: str, extra: str, ids: str) -> str:
    """One ``LogRecord`` of a log line. ``extra`` is the inside of its attribute array."""
    return (
        f'{{"timeUnixNano":"{time_ns}","observedTimeUnixNano":"{time_ns}","severityNumber":{severity},'
        f'"severityText":{quote(severity_text)},"body":{{"stringValue":{quote(body)}}},"attributes":[{extra}]{ids}}}'
    )


def record_ids(trace_id: int, span_id: int, flags: int = 1) -> str:
    if not trace_id:
        return ""
    return f',"traceId":"{trace_id:032x}","spanId":"{span_id:016x}","flags":{flags}'


def _flags(context: SpanContext | None) -> int:
    # As the official encoder: no sampled bit, but whether it is known that the other end is remote.
    return _HAS_IS_REMOTE | _IS_REMOTE if context is not None and context.is_remote else _HAS_IS_REMOTE


def _trace_state(context: SpanContext) -> str:
    state = context.trace_state
    if state is DEFAULT_TRACE_STATE or not state:
        return ""
    text = ",".join(f"{key}={value}" for key, value in state.items())
    return f'"traceState":{quote(text)},'


@functools.lru_cache(256)
def _hex(number: int, digits: int) -> str:
    return f"{number:0{digits}x}"  # of the same trace and the same parent, again and again


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    """A span's attributes as a dict: the SDK's own mapping takes three times as long to walk."""
    values = span.attributes
    return values.copy() if isinstance(values, MappingProxyType) else values or {}


def span(span: ReadableSpan) -> str:
    """One ``Span``, equal field by field to what the official OTLP encoder makes of it.

    Two fields are better: a link's trace state, which the official encoder forgets, and a status that was never set,
    which is left out.
    """
    return "".join(halves(span, attributes(attributes_of(span)), beginning(span)))


def beginning(span: ReadableSpan) -> str:
    """What is known of a span when it begins, but for its attributes: ids, name, kind, start. An open JSON object."""
    context = span.get_span_context()
    assert context is not None
    parent = span.parent
    parent_id = f'"parentSpanId":"{_hex(parent.span_id, 16)}",' if parent is not None else ""
    kind = 1 if span.kind is SpanKind.INTERNAL else span.kind.value + 1
    return (
        f'{{"traceId":"{_hex(context.trace_id, 32)}","spanId":"{context.span_id:016x}",{_trace_state(context)}'
        f'{parent_id}"flags":{_flags(parent)},"name":{quote(span.name)},"kind":{kind},'
        f'"startTimeUnixNano":"{span.start_time or 0}"'
    )


def begun(beginning: str, inside: str) -> str:
    """A span that has not ended: :func:`beginning`, and the inside of its attributes."""
    return f'{beginning},"attributes":[{inside}]}}'


#: The second half of a span without events, links, status, or anything dropped.
NOTHING_MORE = "}"


def halves(span: ReadableSpan, inside: str, beginning: str) -> tuple[str, str]:
    """:func:`span` in two: what every span has, and what few have. ``inside`` is the inside of its attributes."""
    head = f'{beginning},"endTimeUnixNano":"{span.end_time or 0}","attributes":[{inside}]'
    rest = ""
    if dropped := span.dropped_attributes:
        rest += f',"droppedAttributesCount":{dropped}'
    if events := span.events:
        rest += f',"events":[{",".join(map(_span_event, events))}]'
    if dropped := span.dropped_events:
        rest += f',"droppedEventsCount":{dropped}'
    if links := span.links:
        rest += f',"links":[{",".join(map(_link, links))}]'
    if dropped := span.dropped_links:
        rest += f',"droppedLinksCount":{dropped}'
    status = span.status
    if not status.is_unset:  # one that is has no description either
        message = f'"message":{quote(status.description)},' if status.description else ""
        rest += f',"status":{{{message}"code":{status.status_code.value}}}'
    return head, rest + NOTHING_MORE


def _span_event(event: SpanEvent) -> str:
    dropped = event.dropped_attributes
    return (
        f'{{"timeUnixNano":"{event.timestamp}","name":{quote(event.name)},"attributes":[{attributes(event.attributes)}]'
        + (f',"droppedAttributesCount":{dropped}}}' if dropped else "}")
    )


def _link(link: Link) -> str:
    context, dropped = link.context, link.dropped_attributes
    return (
        f'{{"traceId":"{context.trace_id:032x}","spanId":"{context.span_id:016x}",{_trace_state(context)}'
        f'"attributes":[{attributes(link.attributes)}],"flags":{_flags(context)}'
        + (f',"droppedAttributesCount":{dropped}}}' if dropped else "}")
    )
