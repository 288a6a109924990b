"""Lines of the spool held against OTLP's own definitions: the official protobuf classes, read as OTLP/JSON is."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

#: ``<stage>.<attempt>.<signal>.jsonl`` -> the request that each line is.
REQUESTS: dict[str, type[Message]] = {
    "spans": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
#: OTLP/JSON writes ids in hex where protobuf's JSON has base64; bytes of each.
_IDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8}
#: What no id is in; skipped, as it is most of a line.
_WITHOUT_IDS = frozenset({"attributes", "body", "resource", "scope", "status"})


class NotOtlp(Exception):
    """Says why a line is no OTLP request."""


class SpanId(NamedTuple):
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start: int
    end: int


def as_request(content: dict[str, Any], signal: str) -> Message:
    """The official request in a line's JSON.

    Raises:
        NotOtlp: if it is none, or an id in it is not hex of the right length.
    """
    message = REQUESTS[signal]()
    try:
        return json_format.ParseDict(_with_base64_ids(content), message)
    except json_format.ParseError as error:
        raise NotOtlp(str(error)) from error
    except Exception as error:  # protobuf's C code answers a lone surrogate with SystemError, for one
        raise NotOtlp(f"{type(error).__name__}: {error}") from error


def _with_base64_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_base64_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = dict(value)
    for key, item in value.items():
        if key in _IDS and isinstance(item, str):
            changed[key] = _base64(key, item, _IDS[key])
        elif isinstance(item, (dict, list)) and key not in _WITHOUT_IDS:
            changed[key] = _with_base64_ids(item)
    return changed


def _base64(key: str, text: str, length: int) -> str:
    if not text:
        return ""  # "no parent", as protobuf has it
    try:
        raw = binascii.unhexlify(text)
    except ValueError:
        raise NotOtlp(f"{key} {text[:40]!r} is not hex") from None
    if len(raw) != length or not any(raw):
        raise NotOtlp(f"{key} {text[:40]!r} is not {length} bytes, or is all zero")
    return base64.b64encode(raw).decode()


def spans_of(request: Message) -> Iterator[SpanId]:
    """The spans of a request; none if it is one of logs or metrics."""
    if isinstance(request, ExportTraceServiceRequest):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    yield SpanId(*ids, span.name, span.start_time_unix_nano, span.end_time_unix_nano)


def faults(span: SpanId) -> Iterator[str]:
    """What protobuf lets pass and OpenTelemetry does not."""
    if not span.trace_id or not span.span_id:
        yield "has no trace or span id"
    if not span.name:
        yield "has no name"
    if not span.start:
        yield "has no start time"
    elif span.end < span.start:
        yield "ends before it starts"


def sampled(request: Message) -> bool:
    """Whether the log records of a request belong to a trace that is written at all."""
    if isinstance(request, ExportLogsServiceRequest):
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    return bool(record.flags & 1)
    return False
