"""The spool is OTLP: what we write by hand is what the official protobuf classes read, and it reads back as it was."""

from __future__ import annotations

import base64
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from otel_stageio import StageIO
from otel_stageio.events import Event
from otel_stageio.otlp import decode, encode
from otel_stageio.testing import Records

ONE_MIB = 1 << 20
INT64 = 1 << 63


# -- an independent reader -------------------------------------------------------------------------------------------


def in_base64(node: Any) -> Any:
    """OTLP/JSON writes ids in hex where protobuf's JSON mapping wants base64: the one difference between them."""
    if isinstance(node, list):
        return [in_base64(item) for item in node]
    if isinstance(node, dict):
        return {
            key: base64.b64encode(bytes.fromhex(item)).decode()
            if key in ("traceId", "spanId", "parentSpanId")
            else in_base64(item)
            for key, item in node.items()
        }
    return node


def official(line: bytes, request: type[Message]) -> Any:
    """One line of the spool as the official request; raises if it is none."""
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return json_format.Parse(json.dumps(in_base64(json.loads(line))), request())


def spool_lines(job: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted((job / ".stageio" / "spool").glob("*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            yield path, line


def line_of(span: ReadableSpan) -> bytes:
    """The line that the spool has for a span."""
    scope = span.instrumentation_scope
    assert scope is not None
    return encode.Envelope(
        "spans",
        encode.resource(span.resource.attributes),
        encode.scope(scope.name, scope.version, scope.attributes),
        span.resource.schema_url,
        scope.schema_url or "",
    ).line(encode.span(span))


def assert_same_message(one: Message, other: Message) -> None:
    assert one == other
    # What == might overlook: -0.0, and fields set to their default.
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def same(one: Any, other: Any) -> bool:
    """Equal values of equal types, with NaN equal to itself."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


def listed(value: Any) -> Any:
    """The SDK keeps tuples; JSON has lists."""
    if isinstance(value, (list, tuple)):
        return [listed(item) for item in value]
    if hasattr(value, "items"):
        return {key: listed(item) for key, item in value.items()}
    return value


# -- any span, any record --------------------------------------------------------------------------------------------

odd_text = st.sampled_from(
    ["", "e\u0301\u0327", "👩‍👩‍👧‍👦", "\U0010ffff", "\x00\x1b[31m", "\u2028\x85", "\u202eabc", '"\\/\n\t', "</script>"]
)
text = st.text(max_size=12) | odd_text
int64 = st.integers(-INT64, INT64 - 1) | st.sampled_from([-INT64, INT64 - 1, 0, -1, 2**53 + 1])
#: JSON has one NaN; in IEEE 754 there are many.
floats = st.floats(allow_nan=False) | st.sampled_from(
    [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1]
)
scalar = text | st.booleans() | int64 | floats | st.binary(max_size=8) | st.none()
keys = st.text(min_size=1, max_size=8)
value = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)
mapping = st.dictionaries(keys, value, max_size=4)
#: The SDK hashes a resource by way of JSON, so no bytes there.
json_value = text | st.booleans() | int64 | floats | st.lists(text, max_size=3)
nanoseconds = st.integers(1, INT64 - 1)
ids = st.tuples(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))
states = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), st.sampled_from(["1", "a b", "x:y"]), max_size=3
)


@st.composite
def contexts(draw: st.DrawFn) -> SpanContext:
    trace_id, span_id = draw(ids)
    return SpanContext(
        trace_id,
        span_id,
        is_remote=draw(st.booleans()),
        trace_flags=TraceFlags(draw(st.sampled_from([0, 1]))),
        trace_state=TraceState(list(draw(states).items())),
    )


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The SDK warns at each attribute that it drops; here that happens thousands of times, and is meant to."""
    logger = logging.getLogger("opentelemetry.attributes")
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(logging.NOTSET)


class Given(IdGenerator):
    """Ids that were decided on beforehand."""

    def __init__(self, trace_id: int, span_id: int) -> None:
        self._ids = trace_id, span_id

    def generate_trace_id(self) -> int:
        return self._ids[0]

    def generate_span_id(self) -> int:
        return self._ids[1]


class Ended(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@st.composite
def spans(draw: st.DrawFn) -> ReadableSpan:
    """A span that the SDK has ended, with everything that can be in one; low limits make it drop some of that."""
    limits = draw(
        st.none()
        | st.builds(
            SpanLimits,
            max_span_attributes=st.integers(1, 3),
            max_event_attributes=st.integers(1, 2),
            max_link_attributes=st.integers(1, 2),
            max_events=st.integers(1, 2),
            max_links=st.integers(1, 2),
        )
    )
    resource = Resource(
        draw(st.dictionaries(keys, json_value, max_size=3)), draw(st.sampled_from(["", "https://schema"]))
    )
    provider = TracerProvider(
        ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=Given(*draw(ids)), span_limits=limits
    )
    ended = Ended()
    provider.add_span_processor(ended)
    tracer = provider.get_tracer(
        draw(st.text(min_size=1, max_size=8)),
        draw(st.none() | st.just("1.2")),
        draw(st.none() | st.just("https://scope")),
        draw(st.none() | st.dictionaries(keys, json_value, max_size=2)),
    )
    parent = draw(st.none() | contexts())
    start = draw(nanoseconds)
    span = tracer.start_span(
        draw(text),
        trace.set_span_in_context(NonRecordingSpan(parent)) if parent else None,
        draw(st.sampled_from(SpanKind)),
        draw(mapping),
        [Link(*pair) for pair in draw(st.lists(st.tuples(contexts(), mapping), max_size=3))],
        start,
    )
    for name, attributes, moment in draw(st.lists(st.tuples(text, mapping, nanoseconds), max_size=3)):
        span.add_event(name, attributes, moment)
    status = draw(st.sampled_from(StatusCode))
    if status is not StatusCode.UNSET:
        span.set_status(Status(status, draw(st.none() | text) if status is StatusCode.ERROR else None))
    span.end(start + draw(st.integers(0, 10**12)))
    (finished,) = ended.spans
    return finished


@given(spans())
@settings(max_examples=100)
def test_a_span_is_what_the_official_encoder_makes_of_it(span: ReadableSpan) -> None:
    line = line_of(span)
    expected = encode_spans([span])
    (proto,) = expected.resource_spans[0].scope_spans[0].spans
    # Two things the official encoder does differently: it forgets the links' trace state, and writes an empty status.
    for link, encoded in zip(span.links, proto.links, strict=True):
        encoded.trace_state = ",".join(f"{key}={item}" for key, item in link.context.trace_state.items())
    if not proto.status.code and not proto.status.message:
        proto.ClearField("status")
    assert_same_message(official(line, ExportTraceServiceRequest), expected)


@given(spans())
@settings(max_examples=60)
def test_a_span_reads_back_as_the_sdk_ended_it(tmp_path: Path, span: ReadableSpan) -> None:
    path = tmp_path / "x.spans.jsonl"
    path.write_bytes(line_of(span))
    (back,) = decode.spans(decode.Lines(path))
    context = span.get_span_context()
    assert context is not None
    assert (int(back["traceId"], 16), int(back["spanId"], 16)) == (context.trace_id, context.span_id)
    assert int(back.get("parentSpanId", "0"), 16) == (span.parent.span_id if span.parent else 0)
    assert (back["startTimeUnixNano"], back["endTimeUnixNano"]) == (span.start_time, span.end_time)
    assert (back["name"], back["kind"]) == (span.name, span.kind.value + 1)
    assert same(back["attributes"], listed(span.attributes))
    assert [event["name"] for event in back["events"]] == [event.name for event in span.events]
    assert [int(event["timeUnixNano"]) for event in back["events"]] == [event.timestamp for event in span.events]
    assert all(map(same, [e["attributes"] for e in back["events"]], [listed(e.attributes) for e in span.events]))
    links = [decode.mapping(link["attributes"]) for link in back.get("links", [])]
    assert len(links) == len(span.links)
    assert all(map(same, links, [listed(link.attributes) for link in span.links]))
    status = back.get("status", {})
    assert (status.get("code", 0), status.get("message")) == (
        span.status.status_code.value,
        span.status.description or None,
    )
    assert same(back["resource"], listed(span.resource.attributes))
    assert span.instrumentation_scope is not None
    assert back["scope"]["name"] == span.instrumentation_scope.name
    assert same(
        decode.mapping(back["scope"].get("attributes", [])), listed(span.instrumentation_scope.attributes or {})
    )


@given(value)
@example(None)
@example([[], {}, [None], {"a": None}, "", b""])
def test_any_value_survives_writing_and_reading(given_value: Any) -> None:
    assert same(decode.value(json.loads(encode.any_value(given_value))), listed(given_value))


@given(mapping, st.none() | text, st.sampled_from([1, 5, 9, 13, 17, 21]), nanoseconds, ids, keys)
def test_an_event_is_what_the_official_encoder_makes_of_it(
    attributes: dict[str, Any], body: str | None, severity: int, moment: int, span_ids: tuple[int, int], name: str
) -> None:
    event = Event(name, moment, attributes, body, severity)
    resource, scope = Resource({"service.name": "x", "n": 1}, "https://r"), InstrumentationScope("s", "1", "https://s")
    envelope = encode.Envelope(
        "logs", encode.resource(resource.attributes), encode.scope("s", "1"), "https://r", "https://s"
    )
    line = envelope.line(encode.event_record(event, "WORD", encode.record_ids(*span_ids)))
    record = LogRecord(
        timestamp=moment,
        observed_timestamp=moment,
        context=trace.set_span_in_context(
            NonRecordingSpan(SpanContext(*span_ids, is_remote=False, trace_flags=TraceFlags(1)))
        ),
        severity_text="WORD",
        severity_number=SeverityNumber(severity),
        body=body,
        attributes=attributes,
        event_name=name,
    )
    expected = encode_logs([ReadableLogRecord(record, resource, scope)])
    if body is None:  # no body, where the official encoder writes an empty one
        expected.resource_logs[0].scope_logs[0].log_records[0].ClearField("body")
    assert_same_message(official(line, ExportLogsServiceRequest), expected)


@given(mapping, st.none() | text, st.sampled_from([1, 9, 17]), nanoseconds, keys)
def test_an_event_reads_back_equal(
    tmp_path: Path, attributes: dict[str, Any], body: str | None, severity: int, moment: int, name: str
) -> None:
    event = Event(name, moment, attributes, body, severity)
    path = tmp_path / "x.logs.jsonl"
    path.write_bytes(encode.Envelope("logs", "{}", "{}").line(encode.event_record(event, "INFO", "")))
    (back,) = decode.events(decode.Lines(path))
    assert (back.name, back.time_ns, back.body, back.severity) == (name, moment, body, severity)
    assert same(back.attributes, listed(attributes))


@given(text, text, st.integers(0, 60), nanoseconds, ids)
def test_a_log_line_is_an_official_log_record(
    body: str, level: str, severity: int, moment: int, span_ids: tuple[int, int]
) -> None:
    record = encode.log_record(
        moment, severity % 25, level, body, '{"key":"k","value":{"boolValue":true}}', encode.record_ids(*span_ids, 0)
    )
    request = official(encode.Envelope("logs", "{}", "{}").line(f"{record},{record}"), ExportLogsServiceRequest)
    first, second = request.resource_logs[0].scope_logs[0].log_records
    assert first == second
    assert (first.time_unix_nano, first.observed_time_unix_nano, first.flags) == (moment, moment, 0)
    assert (first.body.string_value, first.severity_text, first.severity_number) == (body, level, severity % 25)
    assert (int.from_bytes(first.trace_id, "big"), int.from_bytes(first.span_id, "big")) == span_ids
    assert first.attributes[0].value.bool_value is True
    assert first.event_name == ""


def test_a_record_without_a_span_has_no_ids() -> None:
    line = encode.Envelope("logs", "{}", "{}").line(encode.log_record(1, 9, "INFO", "x", "", encode.record_ids(0, 0)))
    (record,) = official(line, ExportLogsServiceRequest).resource_logs[0].scope_logs[0].log_records
    assert (record.trace_id, record.span_id) == (b"", b"")


def test_what_protobuf_cannot_hold_becomes_text() -> None:
    deep: Any = "bottom"
    for _ in range(95):
        deep = {"d": [deep]}
    provider = TracerProvider(shutdown_on_exit=False)
    ended = Ended()
    provider.add_span_processor(ended)
    span = provider.get_tracer("x").start_span("lone \ud800 surrogate", attributes={"deep": deep, "text": "\udfff"})
    span.set_attribute("huge", 1 << 64)
    span.set_attribute("enormous", 1 << 100_000)
    span.end()
    line = line_of(ended.spans[0])
    (proto,) = official(line, ExportTraceServiceRequest).resource_spans[0].scope_spans[0].spans
    found = {pair.key: pair.value for pair in proto.attributes}
    assert proto.name == "lone ? surrogate"
    assert found["huge"].string_value == str(1 << 64)
    assert found["enormous"].string_value == "[too large]"
    assert "[too deep]" in str(found["deep"])


# -- a real job ------------------------------------------------------------------------------------------------------


def busy(job: Path, megabytes: int) -> None:
    """A stage that says a great deal, and every kind of thing."""
    large = "größer " * (150_000 * megabytes)
    many = [{"index": number, "text": "wörter"} for number in range(50_000)]
    numbers = list(range(50_000))
    with StageIO("asr", job, attributes={"many": many, "big": large}) as io:
        log = io.get_stage_logger("CRITICAL")
        for number in range(200):
            log.info("line %d 😀", number)
        log.info("%s", large)
        log.warning("before a large event %s", "😀" * 30_000)
        io.event("event " + "😀" * 200_000, numbers=numbers, big=large, faces="😀" * 1_000_000, n=1)
        io.set_config({"many": many, "big": large, "model": "large-v3", **{f"k{n}": n for n in range(12_000)}})
        io.set_resources(**{f"{'r' * 60}{n}": n for n in range(12_000)})
        io.add_warning(large)
        io.add_error("failed", ValueError(large))
        for role in (io.track_input, io.track_output):
            role(job / "x.wav", "audio", many=numbers, big="\x00" * 200_000, control="\x1b" * 3_000_000)
        with io.span("inner", big=large, **{f"attribute{n}": "😀" * 100 for n in range(5_000)}) as span:
            for number in range(5_000):
                span.add_event(f"event {number}", {"big": "😀" * (5_000 if number % 100 == 0 else 5), "n": number})
            span.set_attribute("list", ["wörter " * 10] * 50_000)
            span.set_attribute("bytes", b"\x00" * 3_000_000)
            span.set_status(Status(StatusCode.ERROR, large))
            span.update_name("😀" * 1_000_000)
        io.finalize("success", numbers=numbers, big=large)


REQUESTS: dict[str, Any] = {
    "spans": ExportTraceServiceRequest, "logs": ExportLogsServiceRequest, "metrics": ExportMetricsServiceRequest,
}  # fmt: skip


@pytest.mark.parametrize(("limits", "megabytes"), [("", 1), ("5000", 10)])
def test_every_line_of_a_busy_job_is_otlp_and_below_one_mebibyte(
    records: Records, limits: str, megabytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limits:  # the application's own provider is as generous as it likes
        import otel_stageio.otlp.provider as ours

        generous = SpanLimits(max_events=int(limits), max_span_attributes=int(limits) + 100, max_links=int(limits))
        provider = TracerProvider(shutdown_on_exit=False, span_limits=generous)
        provider.add_span_processor(ours.StageSpanProcessor())
        monkeypatch.setattr(ours, "_tracer", provider.get_tracer("generous"))
    busy(records.job, megabytes)
    seen = 0
    for path, line in spool_lines(records.job):
        assert len(line) < ONE_MIB, f"{len(line)} bytes in {path.name}"
        official(line, REQUESTS[path.name.split(".")[-2]])
        seen += 1
    assert seen > 8
    manifest = records.manifest("asr")
    assert manifest["status"] == "success"
    assert manifest["config"]["model"] == "large-v3"
    assert manifest["trace"]["trace_id"]
    assert manifest["sanitised"] > 0
    assert [entry["path"] for entry in manifest["inputs"]] == [str(records.job / "x.wav")]
    inner, stage = records.spans("asr")
    assert stage["attributes"]["cicd.pipeline.task.name"] == "asr"
    # The SDK leaves out what is over its limits; we what is over ours. Between them, every loss is counted.
    assert len(inner["events"]) + inner["droppedEventsCount"] == 5_000
    assert len(inner["attributes"]) + inner["droppedAttributesCount"] == 5_003


# -- damage ----------------------------------------------------------------------------------------------------------


def journal_of(job: Path) -> Path:
    return job / ".stageio" / "spool" / "asr.1.logs.jsonl"


def told(job: Path, number: int) -> None:
    with StageIO("asr", job) as io:
        logging.getLogger("stage.asr")
        for n in range(number):
            io.event(f"event.{n}", n=n)


def test_a_torn_line_hides_neither_earlier_nor_later_ones(records: Records) -> None:
    told(records.job, 6)
    path = journal_of(records.job)
    lines = path.read_bytes().splitlines(keepends=True)
    names = [event.name for event in records.events("asr")]
    assert len(names) == len(lines) == 8
    for position in range(len(lines)):
        for cut in (1, len(lines[position]) // 2, len(lines[position]) - 2):
            torn = lines[position][:cut]
            left = names[:position] + names[position + 1 :]
            # Torn in the middle and closed by whoever wrote next; torn, and the next writer did not notice.
            for damaged in (
                [*lines[:position], torn + b"\n", *lines[position + 1 :]],
                [*lines[:position], torn, *lines[position + 1 :]],
            ):
                path.write_bytes(b"".join(damaged))
                read = decode.Lines(path)
                assert [event.name for event in decode.events(read)] == left
                assert read.damaged == 1
            # Torn at the end, as a process that was killed leaves it.
            path.write_bytes(b"".join([*lines[:position], torn]))
            assert [event.name for event in decode.events(decode.Lines(path))] == names[:position]


@pytest.mark.parametrize(
    "damage",
    [
        b"\n\n",
        b"\0" * 5_000 + b"\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"5\n[]\nnull\n",
        b'{"resourceLogs":5}\n',
        b'{"resourceLogs":[5]}\n',
        b'{"resourceLogs":[{"scopeLogs":[{"scope":{"attributes":[{}]},"logRecords":[{}]}]}]}\n',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[7]}]}]}\n',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"eventName":"x","timeUnixNano":"soon"}]}]}]}\n',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"eventName":"x","attributes":[{"key":"a","value":7}]}]}]}]}\n',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"x"}]}]}]}\n',
    ],
)
def test_lines_that_are_no_otlp_are_passed_over(records: Records, damage: bytes) -> None:
    told(records.job, 2)
    path = journal_of(records.job)
    lines = path.read_bytes().splitlines(keepends=True)
    names = [event.name for event in records.events("asr")]
    path.write_bytes(lines[0] + damage + b"".join(lines[1:]))
    read = decode.Lines(path)
    assert [event.name for event in decode.events(read)] == names
    assert list(decode.spans(decode.Lines(path))) == []


def test_a_missing_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert list(decode.events(decode.Lines(tmp_path / "nothing.jsonl"))) == []
