"""Lines of the spool as official protobuf requests, fit for the wire.

One table-driven reader for all signals: the message descriptors say what each field is. ``json_format`` would do, but
takes ids for base64 where OTLP/JSON has hex (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding), and is
several times slower, on the processors that the stage needs.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from .. import semconv as sc
from ..otlp import encode
from .outcome import one_line

#: Longest string on the wire, in bytes of UTF-8. Jaeger with badger refuses a span for ever, and with it the batch, if
#: service name, key and value come to more than 65,000 bytes; it indexes event names, messages and keys as well.
LONGEST_STRING = 32 * 1024
LONGEST_KEY = 1024

REQUESTS: dict[str, type[Message]] = {
    "spans": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
_RESPONSES: dict[str, tuple[type[Message], str]] = {
    "traces": (ExportTraceServiceResponse, "rejected_spans"),
    "logs": (ExportLogsServiceResponse, "rejected_log_records"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
}
#: request -> resources -> scopes -> records, as OTLP/JSON names them.
LEVELS = {
    "spans": ("resourceSpans", "scopeSpans", "spans"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
}


class NotOtlp(ValueError):
    """Says what in a line is no OTLP."""


def request(signal: str, content: dict[str, Any]) -> Message:
    """The official request that an OTLP/JSON document stands for, without what is meant for this machine alone.

    Args:
        signal: ``spans``, ``logs`` or ``metrics``.

    Raises:
        NotOtlp: if it is none.
    """
    message = REQUESTS[signal]()
    try:
        _fill(message, content)
    except (
        ArithmeticError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
        binascii.Error,
        SystemError,
    ) as error:  # SystemError: upb, a lone surrogate; ArithmeticError: 1e999 as an integer
        raise NotOtlp(one_line(f"{type(error).__name__}: {error}")) from error  # fmt: skip
    return message


# -- merging and splitting, on plain JSON ----------------------------------------------------------------------------


#: (scope and its schema, records of it)
_Scopes = list[tuple[dict[str, Any], list[Any]]]


def merge(signal: str, contents: Iterable[dict[str, Any]], *, again: bool = False) -> tuple[dict[str, Any], int]:
    """Several requests as one, and how many records it has. Neighbours with the same resource and scope share theirs.

    Args:
        again: also spans that the application's own exporter has sent.

    Raises:
        NotOtlp: for a document that is no request.
    """
    top, middle, bottom = LEVELS[signal]
    merged: list[tuple[dict[str, Any], _Scopes]] = []
    count = 0
    try:
        for content in contents:
            for resource in content.get(top, ()):
                about = {key: item for key, item in resource.items() if key != middle}
                if not merged or merged[-1][0] != about:
                    merged.append((about, []))
                scopes = merged[-1][1]
                for scoped in resource.get(middle, ()):
                    about = {key: item for key, item in scoped.items() if key != bottom}
                    if not again and _sent_by_application(about):
                        continue
                    if not scopes or scopes[-1][0] != about:
                        scopes.append((about, []))
                    records = scoped.get(bottom, ())
                    scopes[-1][1].extend(records)
                    count += len(records)
    except (AttributeError, TypeError) as error:
        raise NotOtlp(one_line(str(error))) from error
    document = []
    for resource, scopes in merged:
        whole = [{**scope, bottom: records} for scope, records in scopes if records]
        if whole:
            document.append({**resource, middle: whole})
    return {top: document}, count


def _sent_by_application(scope: dict[str, Any]) -> bool:
    attributes = scope.get("scope", {}).get("attributes", ())
    return any(pair.get("key") == sc.LOCAL_APPLICATION_EXPORTS for pair in attributes)


def halves(signal: str, content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A request as two, each with half of its records; None if it has only one."""
    top, middle, bottom = LEVELS[signal]
    single = [
        {top: [{**resource, middle: [{**scoped, bottom: [record]}]}]}
        for resource in content[top]
        for scoped in resource[middle]
        for record in scoped[bottom]
    ]
    if len(single) < 2:
        return None
    half = len(single) // 2
    return merge(signal, single[:half], again=True)[0], merge(signal, single[half:], again=True)[0]


# -- JSON -> protobuf ------------------------------------------------------------------------------------------------

_Setter = Callable[[Any, Any], None]
_tables: dict[str, dict[str, _Setter]] = {}


def _fill(message: Any, content: dict[str, Any]) -> None:
    descriptor = message.DESCRIPTOR
    table = _tables.get(descriptor.full_name) or _table(descriptor)
    for name, item in content.items():
        setter = table.get(name)
        if setter is not None and item is not None:  # unknown fields are to be ignored, null is "not there"
            setter(message, item)


def _table(descriptor: Descriptor) -> dict[str, _Setter]:
    table: dict[str, _Setter] = {}
    for field in descriptor.fields:
        setter = _setter(field)
        table[field.camelcase_name] = table[field.name] = setter
    _tables[descriptor.full_name] = table
    return table


def is_repeated(field: FieldDescriptor) -> bool:
    try:
        return bool(field.is_repeated)
    except AttributeError:  # protobuf before 6.31, where ``label`` did not warn
        return bool(field.label == FieldDescriptor.LABEL_REPEATED)  # type: ignore[attr-defined]


def _setter(field: FieldDescriptor) -> _Setter:
    name = field.name
    kind = field.message_type
    if kind is not None:
        full = kind.full_name
        if full == KeyValue.DESCRIPTOR.full_name:
            return lambda message, item: _key_values(getattr(message, name), item)
        one = _any_value if full == AnyValue.DESCRIPTOR.full_name else _fill

        def add_messages(message: Any, items: Any) -> None:
            parts = getattr(message, name)
            for item in items:
                one(parts.add(), item)

        def set_message(message: Any, item: Any) -> None:
            part = getattr(message, name)
            part.SetInParent()
            one(part, item)

        return add_messages if is_repeated(field) else set_message
    convert = _converter(field)
    if is_repeated(field):
        return lambda message, item: getattr(message, name).extend([convert(part) for part in item])
    return lambda message, item: setattr(message, name, convert(item))


def _converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.type == FieldDescriptor.TYPE_STRING:
        return lambda item: cut(str(item))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes.fromhex if field.name.endswith("_id") else base64.b64decode
    if field.type == FieldDescriptor.TYPE_ENUM:
        names = field.enum_type.values_by_name if field.enum_type is not None else {}
        return lambda item: names[item].number if isinstance(item, str) else int(item)
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return float
    if field.type == FieldDescriptor.TYPE_BOOL:
        return bool
    return int  # 64-bit integers are strings in JSON


def _key_values(pairs: Any, items: list[dict[str, Any]]) -> None:
    for item in items:
        key = item["key"]
        if key.startswith(sc.LOCAL_PREFIX):
            continue
        pair = pairs.add()
        pair.key = cut(key, LONGEST_KEY)
        value = item.get("value")
        if value is not None:
            pair.value.SetInParent()  # a value that is empty is another thing than none
            _any_value(pair.value, value)
            # Jaeger indexes the JSON text of a list or map like any string.
            if pair.value.WhichOneof("value") in _COMPOSITE and pair.value.ByteSize() > LONGEST_STRING // 2:
                text = json.dumps(value, ensure_ascii=False)
                if len(encode.to_bytes(text)) > LONGEST_STRING:
                    pair.value.string_value = cut(text)


_COMPOSITE = ("array_value", "kvlist_value")


def _any_value(value: Any, content: dict[str, Any]) -> None:
    for kind, item in content.items():
        if kind == "stringValue":
            value.string_value = item if len(item) < LONGEST_STRING // 4 else cut(item)
        elif kind == "intValue":
            value.int_value = int(item)
        elif kind == "doubleValue":
            value.double_value = float(item)
        elif kind == "boolValue":
            value.bool_value = item
        elif kind == "arrayValue":
            value.array_value.SetInParent()
            for part in item.get("values", ()):
                _any_value(value.array_value.values.add(), part)
        elif kind == "kvlistValue":
            value.kvlist_value.SetInParent()
            _key_values(value.kvlist_value.values, item.get("values", ()))
        elif kind == "bytesValue":
            if len(item) > LONGEST_STRING:
                value.string_value = f"[cut: {len(item) * 3 // 4} bytes in all]"
            else:
                value.bytes_value = base64.b64decode(item)


def cut(text: str, longest: int = LONGEST_STRING) -> str:
    """``text`` if its UTF-8 takes no more than ``longest`` bytes, else as much as does, with its full length noted."""
    if len(text) * 4 <= longest:
        return text
    encoded = encode.to_bytes(text)
    if len(encoded) <= longest:
        return text
    note = f"… [cut: {len(text)} characters in all]"
    return encoded[: longest - len(note.encode())].decode("utf-8", "ignore") + note


# -- answers ---------------------------------------------------------------------------------------------------------


def partial_success(signal: str, content: bytes) -> tuple[int, str]:
    """(records rejected, why) of an export response; a reason without a rejection is a warning.

    Raises:
        DecodeError: if it is no such response.
    """
    response, counter = _RESPONSES[signal]
    answer: Any = response()
    answer.ParseFromString(content)
    return max(int(getattr(answer.partial_success, counter)), 0), one_line(answer.partial_success.error_message)


def status_message(content: bytes) -> str:
    """The message of a ``google.rpc.Status``, which OTLP/HTTP receivers answer errors with."""
    from google.rpc.status_pb2 import Status

    try:
        return one_line(Status.FromString(content).message)
    except DecodeError:
        return ""
