"""The gateway under attack and in trouble: who gets in, what comes out, what survives."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import outage
import pytest
import requests
from gateway import BASIC, BEARER, Gateway, Sink, call, ids, log, post, spans
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from stack import wait_until

from otel_stageio import Pipeline
from otel_stageio.delivery.shipper import push
from otel_stageio.layout import Job


@pytest.fixture(scope="module")
def gateway(certificates: Path, sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    server = Gateway(tmp_path_factory.mktemp("gateway"), certificates, sink.address)
    server.start()
    yield server
    server.stop()


# -- who gets in -----------------------------------------------------------------------------------------------------

WRONG = {"authorization": "Bearer a-token-of-somebody-else"}
BASIC_WRONG = {"authorization": "Basic YWdlbnQ6d3Jvbmc="}


@pytest.mark.parametrize("overlay", ["", "auth-basic", "mtls"])
def test_strangers_are_refused_over_http_and_grpc_and_nothing_of_theirs_is_stored(
    certificates: Path, tmp_path: Path, overlay: str
) -> None:
    sink = Sink(tmp_path / "sink")
    sink.start()
    gateway = Gateway(tmp_path / "gateway", certificates, sink.address, *([overlay] if overlay else []))
    gateway.start()
    attempts: list[tuple[Path | None, dict[str, str], str]]
    if overlay == "mtls":
        attempts = [(certificates, {}, ""), (certificates, BEARER, ""), (certificates, {}, "stranger"), (None, {}, "")]
        right, client = {}, "client"
    else:
        right, client = (BASIC if overlay else BEARER), ""
        attempts = [(certificates, {}, ""), (certificates, WRONG, ""), (certificates, BASIC_WRONG, ""),
                    (certificates, {"authorization": "Bearer"}, ""), (None, right, "")]  # fmt: skip
    refused: list[tuple[int, str]] = []
    try:
        for message in (spans(1), log("of a stranger")):
            for trusted, headers, shown in attempts:
                refused.append(
                    (
                        post(gateway.port_http, message, trusted, headers, shown),
                        call(gateway.port_grpc, message, trusted, headers, shown),
                    )
                )
        known, line = spans(1), log("of one who is known")
        assert post(gateway.port_http, known, certificates, right, client) == 200
        assert call(gateway.port_grpc, line, certificates, right, client) == "OK"
        sink.wait_for(ids(known))
        wait_until(lambda: sink.bodies, what="the log record")
    finally:
        gateway.stop()  # what it holds is sent first
        sink.stop()
    # 401 without a token, 400 for plain text, 0 where the handshake fails.
    assert {status for status, _ in refused} <= {0, 400, 401}
    assert {code for _, code in refused} <= {"UNAUTHENTICATED", "UNAVAILABLE"}
    assert len(refused) == 2 * len(attempts)
    assert sink.span_ids.keys() == ids(known)
    assert sink.bodies == ["of one who is known"]


def test_a_token_is_changed_without_a_restart(gateway: Gateway, certificates: Path) -> None:
    tokens = Path(gateway._env["TOKEN_FILE"])
    before = tokens.read_text()
    new = {"authorization": "Bearer the-next-token"}
    assert post(gateway.port_http, spans(1), certificates, new) == 401
    tokens.write_text(before + "the-next-token\n")
    wait_until(lambda: post(gateway.port_http, spans(1), certificates, new) == 200, what="the new token")
    assert post(gateway.port_http, spans(1), certificates, BEARER) == 200


# -- what comes out --------------------------------------------------------------------------------------------------

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"

#: What a program says -> what comes out, wherever it says it.
FACTS = {
    # absolute paths
    "cannot open /home/anna/films/x.wav": "cannot open x.wav",
    '  File "/srv/asr/asr.py", line 3, in main': '  File "asr.py", line 3, in main',
    'reading "/data/My Movies/x.mp4" now': 'reading "x.mp4" now',
    "in /home/anna": "in ~",
    "file:///mnt/nas/x.wav": "x.wav",
    "--in=/mnt/nas/x.wav,/mnt/nas/y.wav": "--in=x.wav,y.wav",
    "~/films/x.wav": "x.wav",
    r"C:\Users\anna\films\x.wav": "x.wav",
    # secrets
    "token=abc123 and more": "token=[secret] and more",
    'password: "my pass word"': "password: [secret]",
    '{"api_key": "abc", "beam": 5}': '{"api_key": [secret], "beam": 5}',
    "Authorization: Bearer abcdefgh1234": "Authorization: Bearer [secret]",
    "used hf_abcdefghij0123": "used [secret]",
    "ghp_ABCDEFGHIJKLMNOP and sk-proj-abcdefgh": "[secret] and [secret]",
    "AKIAABCDEFGHIJKLMNOP": "[secret]",
    f"jwt {JWT}": "jwt [secret]",
    "https://anna:pass@host/x": "https://[secret]@host/x",
    f"key {KEY} end": "key [secret] end",
    # what was said
    "[00:01.000 --> 00:04.500]  Hello there, Elinor": "[00:01.000 --> 00:04.500] [text]",
    "1\n00:00:01,000 --> 00:00:04,000\nHello\nthere": "1\n00:00:01,000 --> 00:00:04,000 [text]",
    "transcript: Hello there": "transcript: [text]",
    'segment text="Hello there"': "segment text=[text]",
    "initial_prompt = Elinor, Marianne": "initial_prompt = [text]",
    # and what is none of it
    "demuxed 41 chunks in 3.2 s, 1/2 of 2026-11-26": "demuxed 41 chunks in 3.2 s, 1/2 of 2026-11-26",
    "06_asr/segments.json": "06_asr/segments.json",
    "https://huggingface.co/openai/whisper-large-v3": "https://huggingface.co/openai/whisper-large-v3",
    "tokens=41 max_new_tokens: 224": "tokens=41 max_new_tokens: 224",
    "Translation: 41 of 41 segments": "Translation: 41 of 41 segments",
    "größe 日本語 context": "größe 日本語 context",
}

#: Pieces of the above that must not be anywhere in what is stored.
PLANTED = (
    "anna", "/srv/", "/data/", "/mnt/", "My Movies", "abc123", "my pass", "abcdefgh", "ABCDEFGH", "eyJ", "MIIEow",
    "Hello", "Elinor", "hunter",
)  # fmt: skip


def everywhere(text: str) -> Any:
    """A request with one span that says it in each place."""
    request = spans(1, name=text, said=text)
    resource = request.resource_spans[0]
    resource.resource.attributes.add(key="said").value.string_value = text
    scope = resource.scope_spans[0]
    scope.scope.attributes.add(key="said").value.string_value = text
    span = scope.spans[0]
    span.status.code, span.status.message = 2, text
    event = span.events.add(name=text, time_unix_nano=1_764_238_272_500_000_003)
    event.attributes.add(key="said").value.string_value = text
    return request


def said(record: dict[str, Any]) -> str:
    return {item["key"]: item["value"]["stringValue"] for item in record["attributes"]}["said"]


def test_secrets_paths_and_transcripts_do_not_come_out_and_ids_and_times_do(
    gateway: Gateway, sink: Sink, certificates: Path
) -> None:
    sent: dict[str, str] = {}
    logs = logs_pb2.ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    for number, text in enumerate(FACTS):
        request = everywhere(text)
        sent[next(iter(ids(request)))] = text
        assert post(gateway.port_http, request, certificates, BEARER) == 200
        record = records.add(time_unix_nano=1_764_238_272_000_000_001 + number, trace_id=b"t" * 16, span_id=b"s" * 8)
        record.body.string_value = text
        record.attributes.add(key="said").value.string_value = text
    assert post(gateway.port_http, logs, certificates, BEARER) == 200
    sink.wait_for(set(sent))
    for span in (span for span in sink.spans if span["spanId"] in sent):
        expected = FACTS[sent[span["spanId"]]]
        (event,) = span["events"]
        assert [said(span), said(event), said(span["resource"]), said(span["scope"]), span["name"], event["name"],
                span["status"]["message"]] == [expected] * 7  # fmt: skip
        assert len(span["traceId"]) == 32
        times = span["startTimeUnixNano"], span["endTimeUnixNano"], event["timeUnixNano"]
        assert times == ("1764238272000000001", "1764238273000000002", "1764238272500000003")
        assert {item["key"] for item in span["attributes"]} == {"said"}
    wait_until(lambda: FACTS.keys() and len(of(sink, b"t")) == len(FACTS), what="the log records")
    found = {record["timeUnixNano"]: record for record in of(sink, b"t")}
    for number, expected in enumerate(FACTS.values()):
        record = found[str(1_764_238_272_000_000_001 + number)]
        assert (record["body"]["stringValue"], said(record), record["spanId"]) == (expected, expected, "73" * 8)
        assert len(record["attributes"]) == 1
    stored = "".join(path.read_text() for path in sink.directory.glob("*.jsonl"))
    assert [piece for piece in PLANTED if piece in stored] == []


def of(sink: Sink, letter: bytes) -> list[dict[str, Any]]:
    return [record for record in sink.logs if record.get("traceId") == (letter * 16).hex()]


def value(content: Any) -> AnyValue:
    made = AnyValue()
    if isinstance(content, dict):
        for key, inner in content.items():
            made.kvlist_value.values.add(key=key).value.CopyFrom(value(inner))
    elif isinstance(content, list):
        made.array_value.values.extend(map(value, content))
    elif isinstance(content, int):
        made.int_value = content
    else:
        made.string_value = content
    return made


HIDDEN = {
    "db.password": "hunter2", "password": 424242424, "hf_token": "hunter2", "http.request.header.cookie": "hunter2",
    "transcript": "Hello there", "stageio.config.initial_prompt": "Hello there", "gen_ai.input.messages": ["Hello"],
    "segments": [{"start": 1, "text": "Hello there"}], "argv": ["asr", "--token=hunter22", "/mnt/films/x.wav"],
    "options": {"token": "hunter2", "beam": 5}, "cues": ["00:01.000 --> 00:04.500 Hello"],
}  # fmt: skip
SHOWN = {
    "stageio.config.keys": ["beam_size", "model"], "process.command_args": ["asr", "--beam", "5", "audio/x.wav"],
    "gen_ai.usage.input_tokens": 41, "stageio.artifact.type": "transcript", "stageio.stage.attempt": 2,
    "nested": {"a": [1, 2]}, "stageio.input.count": 3,
}  # fmt: skip


def test_lists_maps_numbers_and_structured_bodies_are_looked_into(
    gateway: Gateway, sink: Sink, certificates: Path
) -> None:
    request = spans(1)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    message = log("")
    record = message.resource_logs[0].scope_logs[0].log_records[0]
    record.trace_id, record.span_id = b"u" * 16, b"s" * 8
    record.body.CopyFrom(value({**HIDDEN, "message": "read /mnt/films/x.wav", "shown": SHOWN}))
    event = span.events.add(name="config")
    for place in (span.attributes, event.attributes, record.attributes):
        for key, content in {**HIDDEN, **SHOWN}.items():
            place.add(key=key).value.CopyFrom(value(content))
    assert post(gateway.port_http, request, certificates, BEARER) == 200
    assert post(gateway.port_http, message, certificates, BEARER) == 200
    sink.wait_for(ids(request))
    wait_until(lambda: of(sink, b"u"), what="the log record")
    (came,) = (s for s in sink.spans if s["spanId"] in ids(request))
    (line,) = of(sink, b"u")
    for record_ in (came, came["events"][0], line):
        plain = {item["key"]: item["value"] for item in record_["attributes"]}
        assert plain.keys() == HIDDEN.keys() | SHOWN.keys()
        for key, content in SHOWN.items():
            assert plain[key] == as_json(content), key
    text = repr((came, line))
    assert [piece for piece in (*PLANTED, "424242", "/mnt") if piece in text] == []
    assert "x.wav" in text  # of the path, the name stays


def as_json(content: Any) -> dict[str, Any]:
    """As OTLP/JSON has it."""
    if isinstance(content, dict):
        return {"kvlistValue": {"values": [{"key": k, "value": as_json(v)} for k, v in content.items()]}}
    if isinstance(content, list):
        return {"arrayValue": {"values": [as_json(item) for item in content]}}
    return {"intValue": str(content)} if isinstance(content, int) else {"stringValue": content}


def test_what_is_too_long_for_jaeger_is_cut(gateway: Gateway, sink: Sink, certificates: Path) -> None:
    request = spans(1, name="n" * 5_000, long="ü" * 100_000)
    assert post(gateway.port_http, request, certificates, BEARER) == 200
    sink.wait_for(ids(request))
    (span,) = (s for s in sink.spans if s["spanId"] in ids(request))
    (item,) = span["attributes"]
    assert 32_000 < len(item["value"]["stringValue"].encode()) <= 32_768
    assert len(span["name"]) == 1024


# -- what survives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trial", range(2))
def test_no_span_is_lost_when_the_gateway_is_killed_while_its_backend_is_down(
    binaries: Any, certificates: Path, tmp_path: Path, trial: int
) -> None:
    assert outage.backend_down(tmp_path, certificates).missing == 0


def test_a_full_queue_is_answered_so_that_the_sender_keeps_it(certificates: Path, tmp_path: Path) -> None:
    sink = Sink(tmp_path / "sink")  # not started
    gateway = Gateway(tmp_path / "g", certificates, sink.address, QUEUE_BYTES="1000000")
    gateway.start()
    sent: set[str] = set()
    try:
        for _ in range(100):
            request = spans(1_000, said="x" * 100)
            if (status := post(gateway.port_http, request, certificates, BEARER)) != 200:
                break
            sent |= ids(request)
        assert status == 503
        assert call(gateway.port_grpc, spans(5_000, said="x" * 100), certificates, BEARER) == "UNAVAILABLE"
        sink.start()
        sink.wait_for(sent)
    finally:
        gateway.stop()
        sink.stop()
    assert sent


def test_an_overload_is_refused_for_now_and_the_library_loses_nothing(certificates: Path, tmp_path: Path) -> None:
    sink = Sink(tmp_path / "sink")
    sink.start()
    limits = {"MEMORY_LIMIT_MIB": "100", "MEMORY_SPIKE_MIB": "30", "GOMEMLIMIT": "80MiB"}
    gateway = Gateway(tmp_path / "g", certificates, sink.address, **limits)
    gateway.start()
    root = tmp_path / "job"
    with Pipeline("subtitles", root) as run:
        for number in range(20):
            with run.stage(f"stage{number}") as io:
                io.get_stage_logger().info("done")
    stop = threading.Event()

    def flood() -> None:
        """Requests of 16 MB, which have to be held in memory."""
        heavy = metrics_pb2.ExportMetricsServiceRequest()
        heavy.resource_metrics.add().resource.attributes.add(key="x").value.string_value = "x" * 16_000_000
        body = heavy.SerializeToString()
        while not stop.is_set():
            requests.post(f"{gateway.http}/v1/metrics", body, verify=str(certificates / "ca.pem"), timeout=60,
                          headers={"content-type": "application/x-protobuf", **BEARER})  # fmt: skip

    answers: Counter[int | str] = Counter()
    accepted: set[str] = set()

    def refused() -> bool:
        for send, port in ((post, gateway.port_http), (call, gateway.port_grpc)):
            request = spans(10)
            answer = send(port, request, certificates, BEARER)
            answers[answer] += 1
            if answer in (200, "OK"):
                accepted.update(ids(request))
        return bool(answers[503] and answers["UNAVAILABLE"])

    senders = [threading.Thread(target=flood) for _ in range(8)]
    early, delivery = gateway.delivery(), gateway.delivery()
    try:
        for sender in senders:
            sender.start()
        wait_until(refused, what="a refusal")
        early.set_deadline(3)
        push(Job(root), early)  # in the middle of it; told to come later, it would wait
        stop.set()
        for sender in senders:
            sender.join()
        assert gateway.alive
        wait_until(lambda: push(Job(root), delivery).pending == {}, what="the library's delivery")
        sink.wait_for(accepted)
        wait_until(lambda: len({s["spanId"] for s in sink.spans if s["traceId"] == run.trace_id}) == 21)
    finally:
        stop.set()
        early.close()
        delivery.close()
        code = gateway.stop()
        sink.stop()
    assert code == 0
    assert answers.keys() <= {200, 503, "OK", "UNAVAILABLE"}  # "taken" and "later", nothing else
