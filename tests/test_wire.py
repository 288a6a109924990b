"""Lines of the spool as official requests: the same as protobuf's own reader makes of them, and fit for receivers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from otel_stageio.delivery import wire

# -- any telemetry ---------------------------------------------------------------------------------------------------

texts = st.text(max_size=12)
keys = st.text(min_size=1, max_size=12).filter(lambda key: not key.startswith("stageio.local."))
times = st.integers(0, 2**64 - 1)
numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)
scalars = st.one_of(
    st.builds(AnyValue, string_value=texts),
    st.builds(AnyValue, int_value=numbers),
    st.builds(AnyValue, double_value=floats),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, bytes_value=st.binary(max_size=12)),
    st.just(AnyValue()),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(lambda v: AnyValue(array_value=ArrayValue(values=v)), st.lists(inner, max_size=3)),
        st.builds(
            lambda v: AnyValue(kvlist_value=KeyValueList(values=v)),
            st.lists(st.builds(KeyValue, key=keys, value=inner), max_size=3),
        ),
    ),
    max_leaves=6,
)
attributes = st.lists(st.builds(KeyValue, key=keys, value=values), max_size=4)
resources = st.builds(Resource, attributes=attributes)
scopes = st.builds(InstrumentationScope, name=texts, version=texts, attributes=attributes)
trace_ids, span_ids = st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8)
spans = st.builds(
    Span,
    trace_id=trace_ids,
    span_id=span_ids,
    parent_span_id=st.one_of(span_ids, st.just(b"")),
    name=texts,
    kind=st.integers(0, 5),
    flags=st.integers(0, 2**32 - 1),
    trace_state=texts,
    start_time_unix_nano=times,
    end_time_unix_nano=times,
    attributes=attributes,
    dropped_attributes_count=st.integers(0, 2**32 - 1),
    events=st.lists(st.builds(Span.Event, name=texts, time_unix_nano=times, attributes=attributes), max_size=2),
    links=st.lists(st.builds(Span.Link, trace_id=trace_ids, span_id=span_ids, attributes=attributes), max_size=2),
    status=st.builds(Status, code=st.integers(0, 2), message=texts),
)
logs = st.builds(
    LogRecord,
    time_unix_nano=times,
    observed_time_unix_nano=times,
    severity_number=st.integers(0, 24),
    severity_text=texts,
    body=values,
    event_name=texts,
    attributes=attributes,
    trace_id=trace_ids,
    span_id=span_ids,
)
points = st.lists(
    st.one_of(
        st.builds(NumberDataPoint, time_unix_nano=times, as_double=floats, attributes=attributes),
        st.builds(NumberDataPoint, start_time_unix_nano=times, as_int=numbers, attributes=attributes),
    ),
    max_size=2,
)
histograms = st.builds(
    HistogramDataPoint,
    count=times,
    sum=floats,
    bucket_counts=st.lists(times, max_size=3),
    explicit_bounds=st.lists(floats, max_size=3),
)
metrics = st.one_of(
    st.builds(Metric, name=texts, unit=texts, gauge=st.builds(Gauge, data_points=points)),
    st.builds(Metric, name=texts, sum=st.builds(Sum, data_points=points, is_monotonic=st.booleans())),
    st.builds(Metric, name=texts, histogram=st.builds(Histogram, data_points=st.lists(histograms, max_size=2))),
)


def requests(signal: str) -> st.SearchStrategy[Any]:
    whole: Any
    if signal == "spans":
        scoped = st.builds(ScopeSpans, scope=scopes, spans=st.lists(spans, min_size=1, max_size=3), schema_url=texts)
        inner = st.builds(ResourceSpans, resource=resources, scope_spans=st.lists(scoped, min_size=1, max_size=2))
        whole = st.builds(ExportTraceServiceRequest, resource_spans=st.lists(inner, min_size=1, max_size=2))
    elif signal == "logs":
        scoped = st.builds(ScopeLogs, scope=scopes, log_records=st.lists(logs, min_size=1, max_size=3))
        inner = st.builds(ResourceLogs, resource=resources, scope_logs=st.lists(scoped, min_size=1, max_size=2))
        whole = st.builds(ExportLogsServiceRequest, resource_logs=st.lists(inner, min_size=1, max_size=2))
    else:
        scoped = st.builds(ScopeMetrics, scope=scopes, metrics=st.lists(metrics, min_size=1, max_size=3))
        inner = st.builds(ResourceMetrics, resource=resources, scope_metrics=st.lists(scoped, min_size=1, max_size=2))
        whole = st.builds(ExportMetricsServiceRequest, resource_metrics=st.lists(inner, min_size=1, max_size=2))
    return whole


def hexed(node: Any) -> Any:
    """Protobuf's JSON as OTLP has it: ids are hex."""
    if isinstance(node, dict):
        return {
            key: base64.b64decode(item).hex() if key in ("traceId", "spanId", "parentSpanId") else hexed(item)
            for key, item in node.items()
        }
    return [hexed(item) for item in node] if isinstance(node, list) else node


def as_otlp_json(message: Any) -> dict[str, Any]:
    whole: dict[str, Any] = hexed(json_format.MessageToDict(message, use_integers_for_enums=True))
    # Through text, as the spool has it: infinities are strings there, as protobuf's own writer makes them.
    loaded: dict[str, Any] = json.loads(json.dumps(whole))
    return loaded


def records_of(content: dict[str, Any], signal: str) -> list[Any]:
    top, middle, bottom = wire.LEVELS[signal]
    return [record for resource in content[top] for scoped in resource[middle] for record in scoped[bottom]]


SIGNALS = ["spans", "logs", "metrics"]


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
def test_a_line_becomes_the_message_that_it_was_made_of(signal: str, data: st.DataObject) -> None:
    message = data.draw(requests(signal))
    assert wire.request(signal, as_otlp_json(message)) == message


@pytest.mark.parametrize("signal", SIGNALS)
@settings(max_examples=20)
@given(data=st.data())
def test_merging_keeps_every_record_its_order_its_resource_and_scope(signal: str, data: st.DataObject) -> None:
    contents = [as_otlp_json(message) for message in data.draw(st.lists(requests(signal), max_size=2))]
    merged, count = wire.merge(signal, [*contents, *contents])
    expected = [record for content in (*contents, *contents) for record in records_of(content, signal)]
    assert (records_of(merged, signal), count) == (expected, len(expected))

    def tagged(content: dict[str, Any]) -> list[str]:
        top, middle, bottom = wire.LEVELS[signal]
        return [
            json.dumps([resource.get("resource"), scoped.get("scope"), record], sort_keys=True)
            for resource in content[top]
            for scoped in resource[middle]
            for record in scoped[bottom]
        ]

    assert tagged(merged) == [tag for content in (*contents, *contents) for tag in tagged(content)]


@pytest.mark.parametrize("signal", SIGNALS)
@given(data=st.data())
def test_halving_ends_at_single_records_and_loses_none(signal: str, data: st.DataObject) -> None:
    content = as_otlp_json(data.draw(requests(signal)))
    waiting, singles = [content], []
    while waiting:
        whole = waiting.pop()
        parts = wire.halves(signal, whole)
        if parts is None:
            singles += records_of(whole, signal)
        else:
            sizes = [len(records_of(part, signal)) for part in parts]
            assert abs(sizes[0] - sizes[1]) <= 1
            waiting += reversed(parts)
    assert singles == records_of(content, signal)


def strings_in(message: Any) -> list[bytes]:
    found = []
    for field, value in message.ListFields():
        for item in value if wire.is_repeated(field) else [value]:
            if field.message_type is not None:
                found += strings_in(item)
            elif isinstance(item, str):
                found.append(item.encode())
    return found


@given(
    st.recursive(
        st.one_of(
            st.integers(0, 70_000).flatmap(lambda n: st.sampled_from("aü日😀\n").map(lambda c: {"stringValue": c * n})),
            st.integers(0, 70_000).map(lambda n: {"bytesValue": base64.b64encode(bytes(n)).decode()}),
            numbers.map(lambda n: {"intValue": str(n)}),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(lambda v: {"arrayValue": {"values": v}}),
            st.lists(inner, max_size=4).map(
                lambda v: {"kvlistValue": {"values": [{"key": "ü" * 900, "value": part} for part in v]}}
            ),
        ),
        max_leaves=6,
    )
)
def test_no_value_is_longer_than_jaeger_can_index(value: dict[str, Any]) -> None:
    pairs = [{"key": "k" * 3000, "value": value}]
    span = {"name": "n" * 100_000, "attributes": pairs, "events": [{"name": "e", "attributes": pairs}]}
    message: Any = wire.request("spans", {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    assert max(map(len, strings_in(message))) <= wire.LONGEST_STRING
    (pair,) = message.resource_spans[0].scope_spans[0].spans[0].attributes
    assert len(pair.key.encode()) <= wire.LONGEST_KEY
    assert pair.value.ByteSize() <= 2 * wire.LONGEST_STRING
    assert pair.value.WhichOneof("value") is not None


@given(st.text(), st.integers(60, 200))
def test_a_cut_text_is_a_beginning_with_its_full_length(text: str, longest: int) -> None:
    text = text * 40
    cut = wire.cut(text, longest)
    assert len(cut.encode()) <= longest
    if len(text.encode()) <= longest:
        assert cut == text
    else:
        beginning, _, note = cut.rpartition("… [cut: ")
        assert text.startswith(beginning)
        assert note == f"{len(text)} characters in all]"


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), numbers, floats, texts, st.sampled_from(["traceId", "x" * 16])),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["resourceSpans", "scopeSpans", "spans", "name", "traceId", "attributes", "key",
                                 "value", "stringValue", "intValue", "kind", "events", "status", "arrayValue"]),
                inner, max_size=4,
            ),
        ),
        max_leaves=12,
    ).map(lambda inner: inner if isinstance(inner, dict) else {"resourceSpans": inner})
)  # fmt: skip
def test_nonsense_is_refused_in_words_or_read_and_never_anything_else(content: dict[str, Any]) -> None:
    for ask in (lambda: wire.request("spans", content), lambda: wire.merge("spans", [content])):
        said = ""
        try:
            ask()
        except wire.NotOtlp as error:
            said = f"{error} "
        assert said != " "
        assert "\n" not in said


def test_what_is_meant_for_this_machine_is_not_in_any_request() -> None:
    local = {"key": "stageio.local.path", "value": {"stringValue": "/home/anna/film.mkv"}}
    kept = {"key": "stageio.stage", "value": {"stringValue": "asr"}}
    inner = {"key": "map", "value": {"kvlistValue": {"values": [local, kept]}}}
    record = {"attributes": [local, kept, inner]}
    line = {
        "resourceLogs": [
            {
                "resource": {"attributes": [local, kept]},
                "scopeLogs": [{"scope": {"name": "s", "attributes": [local]}, "logRecords": [record]}],
            }
        ]
    }
    assert b"stageio.local" not in wire.request("logs", line).SerializeToString()
    assert b"anna" not in wire.request("logs", line).SerializeToString()


def test_unknown_fields_are_ignored_and_null_is_not_there() -> None:
    line = {"resourceSpans": [{"newThing": 5, "scopeSpans": [{"spans": [{"name": "a", "kind": None, "later": {}}]}]}]}
    message: Any = wire.request("spans", line)
    assert message.resource_spans[0].scope_spans[0].spans[0].name == "a"


@pytest.mark.parametrize("kind", [1, "SPAN_KIND_INTERNAL"])
def test_enums_come_as_numbers_or_as_names(kind: int | str) -> None:
    message: Any = wire.request("spans", {"resourceSpans": [{"scopeSpans": [{"spans": [{"kind": kind}]}]}]})
    assert message.resource_spans[0].scope_spans[0].spans[0].kind == 1
