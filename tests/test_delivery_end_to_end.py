"""Through the real collector into the real Jaeger: what arrives is what lies in the spool."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import LIMIT, cli, environment, run_python, start_python, write_script
from stack import Collector, Jaeger, wait_until

from collector.native import COLLECTOR
from otel_stageio import StageIO
from otel_stageio.delivery.delivery import Delivery
from otel_stageio.delivery.settings import Endpoint, endpoints
from otel_stageio.delivery.shipper import Shipment, push
from otel_stageio.layout import Job
from otel_stageio.otlp import decode
from otel_stageio.testing import Records

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "job")


def send(job: Job, where: dict[str, Endpoint]) -> Shipment:
    delivery = Delivery(where)
    try:
        return push(job, delivery)
    finally:
        delivery.close()


def spooled(job: Job) -> dict[str, dict[str, Any]]:
    return {span["spanId"]: span for span in Records(job.root).spans()}


def trace_of(job: Job) -> str:
    (trace,) = {span["traceId"] for span in spooled(job).values()}
    return str(trace)


def in_jaeger(jaeger: Jaeger, trace: str, number: int) -> dict[str, dict[str, Any]]:
    """The spans of a trace, once there are so many of them."""
    found = wait_until(
        lambda: [spans] if len(spans := jaeger.spans(trace)) >= number else None, what=f"the arrival of {number} spans"
    )[0]
    assert len(found) == number
    return {span["spanId"]: span for span in found}


def as_jaeger_has_it(item: Any) -> Any:
    """Lists become their JSON text there."""
    return json.dumps(item, separators=(",", ":"), ensure_ascii=False) if isinstance(item, list) else item


def comparable(span: dict[str, Any]) -> dict[str, Any]:
    """A span from either side, in one form: what Jaeger leaves out when it is empty is left out."""

    def attributes(part: dict[str, Any]) -> dict[str, Any]:
        given = part.get("attributes", {})
        given = given if isinstance(given, dict) else decode.mapping(given)
        return {key: as_jaeger_has_it(item) for key, item in given.items()}

    status = span.get("status", {})
    return {
        "name": span["name"],
        "parent": span.get("parentSpanId") or "",
        "kind": span["kind"],
        "times": (int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])),
        "status": (status.get("code", 0), status.get("message", "")),
        "attributes": attributes(span),
        "events": sorted(  # Jaeger keeps no order
            ((int(event["timeUnixNano"]), event["name"], attributes(event)) for event in span.get("events", ())),
            key=lambda event: (event[:2], json.dumps(event[2], sort_keys=True)),
        ),
        "links": [(link["traceId"], link["spanId"], attributes(link)) for link in span.get("links", ())],
    }


def test_the_demo_in_jaeger_is_the_demo_in_the_spool(collector: Collector, jaeger: Jaeger, tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "demo", f"DEMO_ARGS=--job-dir {tmp_path / 'demo'}"],
        cwd=ROOT,
        env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=collector.http, OTEL_STAGEIO_EXIT_BUDGET="30", PYTHONWARNINGS=""),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = Job(tmp_path / "demo")
    expected = spooled(job)
    found = in_jaeger(jaeger, trace_of(job), len(expected))
    for span_id, span in expected.items():
        assert comparable(found[span_id]) == comparable(span)
    (root,) = (span for span in found.values() if not span.get("parentSpanId"))
    stages = [span for span in found.values() if span.get("parentSpanId") == root["spanId"]]
    assert len(stages) >= 5
    assert int(root["startTimeUnixNano"]) <= min(int(span["startTimeUnixNano"]) for span in stages)
    assert int(root["endTimeUnixNano"]) >= max(int(span["endTimeUnixNano"]) for span in stages)
    names = Counter(event["name"] for span in stages for event in span.get("events", ()))
    assert names["stageio.artifact"] >= 5
    logged = {
        record["body"]["stringValue"]
        for path in Path(job.spool).glob("*.logs.jsonl")
        for _, record in decode.log_records(decode.Lines(path))
        if "body" in record
    }

    def arrived() -> bool:  # the file exporter writes a little after the receiver has accepted
        return logged <= {record["body"].get("stringValue") for record in collector.log_records() if "body" in record}

    wait_until(arrived, what="the arrival of the log records")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_both_protocols_with_and_without_compression(
    collector: Collector, jaeger: Jaeger, tmp_path: Path, job: Job, protocol: str, compression: str
) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys
        from otel_stageio import StageIO

        with StageIO("asr", sys.argv[1]) as io:
            io.add_warning("careful — “quoted” 日本語")
            with io.span("step", number=1 << 62, share=0.1, flag=True, words=["a", "b"]):
                pass
            io.add_error("it failed")
            io.finalize("failed")
        """,
    )
    url = collector.grpc if protocol == "grpc" else collector.http
    done = run_python(
        script, job.root,
        OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_COMPRESSION=compression, OTEL_STAGEIO_EXIT_BUDGET="30",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert send(job, endpoints({}, endpoint=url, protocol=protocol)).pending == {}  # the root of a run without an owner
    expected = spooled(job)
    found = in_jaeger(jaeger, trace_of(job), len(expected))
    for span_id, span in expected.items():
        assert comparable(found[span_id]) == comparable(span)


def test_what_jaeger_cannot_index_is_cut_on_the_wire_and_whole_on_disk(jaeger: Jaeger, job: Job) -> None:
    """Jaeger with badger answers 503 for ever to a string of more than 65,000 bytes; straight to it, no collector."""
    long = "ü" * 50_000
    with StageIO("asr", job.root) as io:
        for given in ({"text": long}, {"items": ["word " * 10] * 3_000}, {"k" * 30_000: "v" * 60_000}):
            with io.span("step", **given):
                pass
        io.add_warning(long)
    shipment = send(job, endpoints({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{jaeger.otlp_http}/v1/traces"}))
    assert (shipment.pending, shipment.report.refused) == ({}, {})
    found = in_jaeger(jaeger, trace_of(job), 5)
    steps = [decode.mapping(span["attributes"]) for span in found.values() if span["name"] == "step"]
    assert all(len(key.encode()) <= 1024 and len(item.encode()) <= 32 * 1024 for s in steps for key, item in s.items())
    (text,) = (step["text"] for step in steps if "text" in step)
    assert text.endswith("[cut: 50000 characters in all]")
    assert any(span["attributes"].get("text") == long for span in spooled(job).values())


def test_a_killed_stage_is_in_jaeger_with_its_cause(
    collector: Collector, jaeger: Jaeger, tmp_path: Path, job: Job
) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys
        from otel_stageio import StageIO

        with StageIO("asr", sys.argv[1]) as io:
            io.get_stage_logger().info("its last words")
            print("working", flush=True)
            sys.stdin.readline()
        """,
    )
    process = start_python(script, job.root)
    assert process.stdout is not None
    assert "working\n" in iter(process.stdout.readline, "")
    process.kill()
    process.communicate(timeout=LIMIT)
    done = subprocess.run(
        cli("push", job.root, "--endpoint", collector.http), env=environment(), capture_output=True, text=True,
        timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = in_jaeger(jaeger, trace_of(job), 2)
    (stage,) = (span for span in found.values() if span["name"] == "asr")
    assert stage["status"]["code"] == 2
    assert "its last words" in stage["status"]["message"]


def test_the_collector_killed_in_the_middle_of_2000_spans_loses_none(
    jaeger: Jaeger, tmp_path: Path, job: Job, binaries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otel_stageio.delivery import outbox

    monkeypatch.setattr(outbox, "BATCH_BYTES", 20_000)
    with StageIO("asr", job.root) as io:
        for number in range(1998):
            with io.span("step", number=number):
                pass
    server = Collector(tmp_path / "collector", jaeger.otlp_grpc)
    server.start()
    bytes_sent = 0
    half = threading.Event()

    def count(number: int) -> None:
        nonlocal bytes_sent
        bytes_sent += number
        if bytes_sent > 700_000:
            half.set()

    delivery = Delivery(endpoints({}, endpoint=server.http), on_request=count)
    sending = threading.Thread(target=push, args=(job, delivery))
    sending.start()
    assert half.wait(LIMIT)
    server.kill()
    sending.join(LIMIT)
    delivery.close()
    server.start()
    try:
        assert send(job, endpoints({}, endpoint=server.http)).pending == {}
        found = in_jaeger(jaeger, trace_of(job), 2000)
        assert found.keys() == spooled(job).keys()
    finally:
        server.stop()


TOKENS = """
extensions:
  bearertokenauth:
    filename: "${env:TOKENS}"
receivers:
  otlp:
    protocols:
      grpc:
        auth: {authenticator: bearertokenauth}
      http:
        auth: {authenticator: bearertokenauth}
service:
  extensions: [health_check, file_storage, bearertokenauth]
"""

MUTUAL_TLS = """
receivers:
  otlp:
    protocols:
      grpc: &mutual
        tls:
          cert_file: "${env:TLS}/server.pem"
          key_file: "${env:TLS}/server.key"
          client_ca_file: "${env:TLS}/ca.pem"
      http: *mutual
"""


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_bearer_token(jaeger: Jaeger, tmp_path: Path, job: Job, protocol: str) -> None:
    tokens, overlay = tmp_path / "tokens", tmp_path / "tokens.yaml"
    tokens.write_text("right-token\n")
    overlay.write_text(TOKENS)
    with StageIO("asr", job.root):
        pass
    server = Collector(tmp_path / "collector", jaeger.otlp_grpc, (*COLLECTOR, overlay), {"TOKENS": str(tokens)})
    server.start()
    try:
        url = server.grpc if protocol == "grpc" else server.http
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        for wrong in ({}, {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20wrong"}):
            shipment = send(job, endpoints({**given, **wrong}))
            assert shipment.pending["spans"] == 2
            _, outcome = shipment.report.trouble["spans"]
            assert outcome.reason.startswith(("401", "UNAUTHENTICATED"))
        right = {**given, "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20right-token"}
        assert send(job, endpoints(right)).pending == {}
        in_jaeger(jaeger, trace_of(job), 2)
    finally:
        server.stop()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_mutual_tls(jaeger: Jaeger, tmp_path: Path, job: Job, protocol: str, certificates: Path) -> None:
    overlay = tmp_path / "tls.yaml"
    overlay.write_text(MUTUAL_TLS)
    with StageIO("asr", job.root):
        pass
    server = Collector(tmp_path / "collector", jaeger.otlp_grpc, (*COLLECTOR, overlay), {"TLS": str(certificates)})
    server.start()
    try:
        url = (server.grpc if protocol == "grpc" else server.http).replace("http://127.0.0.1", "https://localhost")
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        given["OTEL_EXPORTER_OTLP_TIMEOUT"] = "3"
        trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates / "ca.pem")}
        client = {
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificates / "client.pem"),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(certificates / "client.key"),
        }
        for lacking in ({}, trusted):
            shipment = send(job, endpoints({**given, **lacking}))
            assert shipment.pending["spans"] == 2
            assert shipment.report.trouble
        assert send(job, endpoints({**given, **trusted, **client})).pending == {}
        in_jaeger(jaeger, trace_of(job), 2)
    finally:
        server.stop()
