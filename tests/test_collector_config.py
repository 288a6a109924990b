"""The collector's production configurations: valid, started without a warning, and data comes through."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psutil
import pytest
from gateway import BASIC, BEARER, Agent, Gateway, Sink, attributes, exposed, ids, log, post, spans
from receiver import Receiver
from stack import Jaeger, wait_until

from collector.check import (
    AGENT,
    COMBINATIONS,
    CONFIG,
    CONTRIB_ONLY,
    GATEWAY,
    KINDS,
    merge,
    only_statically,
    over,
    problems,
    type_of,
    validate,
)  # fmt: skip
from otel_stageio import Pipeline
from otel_stageio.delivery.delivery import Delivery
from otel_stageio.delivery.settings import endpoints
from otel_stageio.delivery.shipper import push
from otel_stageio.layout import Job

RUN_HERE = {name: files for name, files in COMBINATIONS.items() if not only_statically(files)}


# -- by reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMBINATIONS)
def test_nothing_is_wrong_to_read(name: str) -> None:
    assert problems(COMBINATIONS[name]) == []


def test_every_overlay_is_in_a_combination_and_uses_what_it_defines() -> None:
    combined = {file for files in COMBINATIONS.values() for file in files}
    assert combined == {AGENT, GATEWAY, *(CONFIG / "overlays").glob("*.yaml")}
    for files in COMBINATIONS.values():
        pipelines = merge(files)["service"]["pipelines"].values()
        used = {c for pipeline in pipelines for role in KINDS for c in pipeline.get(role) or ()}
        for kind in ("receivers", "processors", "exporters"):
            fresh = set(merge(files[-1:]).get(kind, {})) if len(files) > 1 else set(merge(files)[kind])
            assert fresh <= used, files


def test_an_overlay_that_cannot_be_run_here_says_so_in_its_first_line() -> None:
    for files in COMBINATIONS.values():
        types = {type_of(c) for kind in KINDS for c in merge(files).get(kind) or ()}
        assert only_statically(files) == bool(types & CONTRIB_ONLY)


def test_what_the_head_of_a_file_offers_is_what_it_reads() -> None:
    for path in [AGENT, GATEWAY, *(CONFIG / "overlays").glob("*.yaml")]:
        text = path.read_text()
        head = "\n".join(line for line in text.splitlines()[:40] if line.startswith("#"))
        offered = set(re.findall(r"\b[A-Z][A-Z]+(?:_[A-Z]+)+\b|\bHTPASSWD\b|\bSPOOLS\b", head))
        read = set(re.findall(r"\$\{env:([A-Z_]+)", text))
        shared = {"QUEUE_BYTES", "GATEWAY_CA"} if path.parent.name == "overlays" else set()  # of the file below
        assert read - shared <= offered, path


# What is wrong, what a reader says about it, and what `otelcol validate` does (empty: it sees nothing).
MISTAKES = {
    "an unknown key": ("exporters: {otlp_grpc/traces: {end_point: x}}", "", "invalid keys: end_point"),
    "an unknown key of the service": ("service: {pipeline: {}}", "", "invalid keys: pipeline"),
    "an unknown type": ("receivers: {otpl: {}}", "otpl is no component of ours", "unknown type"),
    "no such exporter": (
        "service: {pipelines: {logs: {exporters: [otlp_http/lgos]}}}",
        "names otlp_http/lgos among its exporters, which is not defined",
        'references exporter "otlp_http/lgos" which is not configured',
    ),
    "no such extension": (
        "service: {extensions: [file_storage, health_check, bearertokenauth, zpages]}",
        "service.extensions names zpages, which is not defined",
        'references extension "zpages" which is not configured',
    ),
    "an authenticator that is not started": (
        "service: {extensions: [health_check, file_storage]}",
        "otlp needs bearertokenauth, which is not among service.extensions",
        "",
    ),
    "a queue whose storage is not started": (
        "service: {extensions: [health_check, bearertokenauth]}",
        "otlp_grpc/traces needs file_storage, which is not among service.extensions",
        "",
    ),
    "a wrong type": ("processors: {memory_limiter: {limit_mib: much}}", "", "'limit_mib'"),
    "no check_interval": ("processors: {memory_limiter: {check_interval: 0s}}", "", "must be greater than zero"),
    "an endpoint without a port": ("exporters: {otlp_grpc/traces: {endpoint: jaeger}}", "", "missing port"),
    "a bad statement": (
        "processors: {transform/redact: {trace_statements: [{context: span, statements: ['set(nmae, 1)']}]}}",
        "",
        "nmae",
    ),
    "a bad expression": ("processors: {redaction: {blocked_values: ['(']}}", "", ""),
    "the old place of the metrics": (
        "service: {telemetry: {metrics: {address: '127.0.0.1:8888'}}}",
        "service.telemetry.metrics.address is deprecated",
        "invalid keys: address",
    ),
    "an old name": (
        "exporters: {otlphttp: {endpoint: 'http://x'}}",
        "otlphttp is deprecated: use otlp_http",
        "",
    ),
    "the batch processor": ("processors: {batch: {}}", "batch is deprecated: use sending_queue.batch", "unknown type"),
    "a forgotten connector": (
        "service: {pipelines: {traces/in: {exporters: [forward/out]}}}",
        "connector span_metrics stands among no pipeline's exporters",
        "",
    ),
    "a late limiter": (
        "service: {pipelines: {logs: {processors: [redaction, memory_limiter]}}}",
        "does not begin with memory_limiter",
        "",
    ),
    "a queue in memory": (
        "exporters: {otlp_http/logs: {sending_queue: {storage: null}}}", "otlp_http/logs has no queue on disk", "",
    ),
    "an exporter that gives up": (
        "exporters: {otlp_http/logs: {retry_on_failure: {max_elapsed_time: 5m}}}", "otlp_http/logs gives up", "",
    ),
    "batches counted in items": (
        "exporters: {otlp_grpc/traces: {sending_queue: {batch: {sizer: items}}}}", "bounds its batches in items", "",
    ),
    "a storage that does not write through": ("extensions: {file_storage: {fsync: false}}", "(fsync)", ""),
    "a secret in clear": (
        "exporters: {otlp_http/logs: {headers: {authorization: Bearer abc}}}", "is a secret in clear", "",
    ),
    "a secret in clear in a list": (
        "exporters: {otlp_http/logs: {headers: [{name: api-key, value: abc}]}}", "is a secret in clear", "",
    ),
    "a variable as a key": (
        "exporters: {otlp_http/logs: {headers: {'${env:NAME:-x}': y}}}", "variables are for values, not for keys", "",
    ),
    "a variable without a default": (
        "exporters: {otlp_grpc/traces: {endpoint: '${env:BACKEND}'}}", "needs BACKEND, which has no default", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(binaries: Any, tmp_path: Path, mistake: str) -> None:
    text, read, validated = MISTAKES[mistake]
    (tmp_path / "wrong.yaml").write_text(text)
    files = (GATEWAY, tmp_path / "wrong.yaml")
    found = problems(files)
    assert bool(found) == bool(read), found
    assert read in "\n".join(found)
    said = validate(files) if validated or mistake == "an old name" else ""
    assert bool(said) == bool(validated), said
    assert validated in said


def test_kafka_before_a_queue_in_memory_and_overlays_that_undo_each_other_are_found(tmp_path: Path) -> None:
    (tmp_path / "late.yaml").write_text("receivers: {kafka: {message_marking: {after: false}}}")
    found = problems((*over(GATEWAY, "kafka-consumer"), tmp_path / "late.yaml"))
    assert found == ["kafka marks messages as read before they are kept"]
    assert "mtls.yaml replaces service.extensions of auth-basic.yaml" in problems(over(GATEWAY, "auth-basic", "mtls"))
    (tmp_path / "torn.yaml").write_text("exporters: {a: ${env:X}}")
    assert problems((tmp_path / "torn.yaml",))[0].startswith("not YAML")


@pytest.mark.parametrize("name", RUN_HERE)
def test_the_collector_finds_it_valid(binaries: Any, name: str) -> None:
    assert validate(RUN_HERE[name]) == ""


# -- by starting -----------------------------------------------------------------------------------------------------


def open_ports(pid: int) -> dict[int, str]:
    """Port -> the address that it listens on."""
    listening = [c for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return {connection.laddr.port: connection.laddr.ip for connection in listening}


@pytest.mark.parametrize("overlays", [(), ("auth-basic",), ("mtls",), ("vendor-otlp",), ("tail-sampling",)], ids=str)
def test_a_gateway_starts_without_a_warning_opens_no_other_port_and_passes_data(
    certificates: Path, sink: Sink, tmp_path: Path, overlays: tuple[str, ...]
) -> None:
    headers, client = BEARER, ""
    if "mtls" in overlays:
        headers, client = {}, "client"
    if "auth-basic" in overlays:
        headers = BASIC
    with Receiver() as vendor:
        env = {"VENDOR_ENDPOINT": vendor.url, "VENDOR_HEADER": "x-team", "VENDOR_SECRET": "s3cret"}
        gateway = Gateway(tmp_path, certificates, sink.address, *overlays, OTLP_BIND="0.0.0.0", **env,
                          SLOW_STAGE_MS="500", SAMPLING_PERCENTAGE="0")  # fmt: skip
        gateway.start()
        try:
            ports = open_ports(gateway.pid)
            assert {port for port, ip in ports.items() if not ip.startswith("127.")} == {
                gateway.port_grpc, gateway.port_http,
            }  # fmt: skip
            assert len(ports) == 5
            request, line = spans(2), log(f"from {overlays}")
            assert post(gateway.port_http, request, certificates, headers, client) == 200
            assert post(gateway.port_http, line, certificates, headers, client) == 200
            assert set(sink.wait_for(ids(request)).values()) == {1}
            wait_until(lambda: f"from {overlays}" in sink.bodies, what="the log record")
            if "vendor-otlp" in overlays:
                wait_until(lambda: ids(request) <= vendor.span_ids.keys() and vendor.logs, what="the vendor's copy")
                assert {received.headers["x-team"] for received in vendor.accepted} == {"s3cret"}
        finally:
            code = gateway.stop()
    assert code == 0
    assert gateway.warnings == []


def test_a_deprecated_name_is_seen_at_the_start(certificates: Path, sink: Sink, tmp_path: Path) -> None:
    old = """
        exporters: {otlphttp/logs: {endpoint: "http://x"}}
        service: {pipelines: {logs: {exporters: [otlphttp/logs]}}}
    """
    gateway = Gateway(tmp_path, certificates, sink.address, test=old)
    gateway.start()
    gateway.stop()
    assert any('"otlphttp" alias is deprecated' in line for line in gateway.warnings)


def test_an_agent_listens_on_the_loopback_interface_alone(certificates: Path, sink: Sink, tmp_path: Path) -> None:
    agent = Agent.of(Gateway(tmp_path / "g", certificates, sink.address), tmp_path / "a")
    agent.start()
    ports = open_ports(agent.pid)
    assert agent.stop() == 0
    assert set(ports.values()) == {"127.0.0.1"}
    assert len(ports) == 4


@pytest.mark.parametrize(
    "overlays", [((), ()), (("agent-auth-basic",), ("auth-basic",)), (("agent-mtls",), ("mtls",))], ids=str
)
def test_from_a_program_through_agent_and_gateway(
    certificates: Path, sink: Sink, tmp_path: Path, overlays: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    gateway = Gateway(tmp_path / "g", certificates, sink.address, *overlays[1])
    agent = Agent.of(gateway, tmp_path / "a", *overlays[0])
    gateway.start()
    agent.start()
    try:
        request = spans(2)
        assert post(agent.port_http, request, None) == 200
        assert set(sink.wait_for(ids(request)).values()) == {1}
    finally:
        codes = agent.stop(), gateway.stop()
    assert codes == (0, 0)
    assert [line for line in agent.warnings if "Failed to scrape" not in line] == []


EXPOSED = """
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{gpu="0",Hostname="h"} 24000
"""


def test_what_an_agent_reads_and_scrapes_comes_out_of_the_gateway(
    certificates: Path, sink: Sink, tmp_path: Path
) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Exporter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/plain")
            self.end_headers()
            self.wfile.write(EXPOSED.encode())

        def log_message(self, *_: Any) -> None:
            pass

    stage = tmp_path / "a/jobs/film/06_asr/stage.log"
    stage.parent.mkdir(parents=True)
    stage.write_text(
        "[2025-11-27 10:11:12] [stage.asr] [INFO] reading /mnt/films/x.wav\n"
        "[2025-11-27 10:11:13] [stage.asr] [DEBUG] a flood\n"
        "[2025-11-27 10:11:14] [whisper] [ERROR] no\n  second line\n"
    )
    gateway = Gateway(tmp_path / "g", certificates, sink.address)
    gateway.start()
    with HTTPServer(("127.0.0.1", 0), Exporter) as exporter:
        Thread(target=exporter.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        agent = Agent.of(gateway, tmp_path / "a", DCGM_TARGET=f"127.0.0.1:{exporter.server_port}",
                         STAGE_LOGS_TIMEZONE="UTC", SCRAPE_INTERVAL="500ms", SCRAPE_TIMEOUT="500ms")  # fmt: skip
        agent.start()
        try:
            wait_until(lambda: any("second line" in body for body in sink.bodies), what="the log lines")
            metrics = wait_until(lambda: exposed(gateway, "DCGM_FI_DEV_FB_USED"), what="the GPU's memory")
            own = wait_until(lambda: exposed(gateway, "otelcol_exporter_queue_size"), what="the agent's health")
        finally:
            agent.stop()
            gateway.stop()
            exporter.shutdown()
    import socket

    assert f'instance="{socket.gethostname()}"' in metrics  # and not 127.0.0.1, which every agent scrapes
    assert f'instance="{socket.gethostname()}"' in own
    lines = [r for r in sink.logs if "stageio.logger" in {item["key"] for item in r.get("attributes", ())}]
    read = [(r["timeUnixNano"], r["severityNumber"], r["body"]["stringValue"], attributes(r)) for r in lines]
    assert read == [
        ("1764238272000000000", 9, "reading x.wav",
         {"stageio.logger": "stage.asr", "cicd.pipeline.task.name": "asr"}),
        ("1764238274000000000", 17, "no\n  second line", {"stageio.logger": "whisper"}),
    ]  # fmt: skip
    assert {"service.name", "host.name"} <= {item["key"] for item in lines[0]["resource"]["attributes"]}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_run_of_the_library_comes_out_as_it_was_recorded(
    certificates: Path, sink: Sink, tmp_path: Path, protocol: str
) -> None:
    root = tmp_path / "job"
    with Pipeline("subtitles", root) as run:
        with run.stage("demux") as io, io.span("step", items=["one", "two"]):
            io.get_stage_logger().info("demuxed 41 chunks in 3.2 s")
        with run.stage("asr") as io:
            io.add_error("no voice found")
            io.finalize("failed")
    gateway = Gateway(tmp_path / "g", certificates, sink.address)
    gateway.start()
    delivery = gateway.delivery(protocol)
    try:
        assert push(Job(root), delivery).pending == {}
        written = spooled(root)
        wait_until(lambda: len([s for s in sink.spans if s["traceId"] == run.trace_id]) >= len(written))
        came = {s["spanId"]: s for s in sink.spans if s["traceId"] == run.trace_id}
        calls = wait_until(lambda: exposed(gateway, "traces_span_metrics_calls_total"), what="the span metrics")
        buckets = exposed(gateway, "traces_span_metrics_duration_seconds_bucket")
    finally:
        delivery.close()
        gateway.stop()
    for key in ("traceId", "parentSpanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano"):
        assert {i: s.get(key, "") for i, s in came.items()} == {i: s.get(key, "") for i, s in written.items()}, key
    (step,) = (s for s in came.values() if s["name"] == "step")
    items = next(item for item in step["attributes"] if item["key"].endswith("items"))
    assert items["value"]["arrayValue"]["values"] == [{"stringValue": "one"}, {"stringValue": "two"}]
    assert any("demuxed 41 chunks in 3.2 s" in body for body in sink.bodies)
    assert {"demux", "asr"} <= set(re.findall(r'cicd_pipeline_task_name="(\w+)"', calls))
    assert 'le="14400"' in buckets


def spooled(root: Path) -> dict[str, dict[str, Any]]:
    """Every span of a job's journals."""
    import json

    journals = (root / ".stageio/spool").glob("*.spans.jsonl")
    lines = [json.loads(line) for path in journals for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        span["spanId"]: span
        for line in lines
        for resource in line["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    }


def test_into_the_real_jaeger(certificates: Path, jaeger: Jaeger, sink: Sink, tmp_path: Path) -> None:
    with Pipeline("subtitles", tmp_path / "job") as run, run.stage("asr"):
        pass
    gateway = Gateway(tmp_path / "g", certificates, (jaeger.otlp_grpc, sink.http))
    agent = Agent.of(gateway, tmp_path / "a")
    gateway.start()
    agent.start()
    delivery = Delivery(endpoints({}, endpoint=agent.http))
    try:
        assert push(Job(tmp_path / "job"), delivery).pending == {}
        found = wait_until(lambda: len(spans := jaeger.spans(run.trace_id)) >= 2 and spans, what="the trace in Jaeger")
    finally:
        delivery.close()
        agent.stop()
        gateway.stop()
    assert {span["spanId"] for span in found} == set(spooled(tmp_path / "job"))


def test_errors_and_slow_stages_are_kept_and_metrics_are_of_all(certificates: Path, sink: Sink, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, certificates, sink.address, "tail-sampling", SAMPLING_PERCENTAGE="0")
    gateway.start()
    good, bad, slow = spans(200), spans(3, name="bad"), spans(3, name="slow")
    for span in bad.resource_spans[0].scope_spans[0].spans:
        span.status.code = 2
    for span in slow.resource_spans[0].scope_spans[0].spans:
        span.end_time_unix_nano = span.start_time_unix_nano + 601 * 10**9
    try:
        for request in (good, bad, slow):
            assert post(gateway.port_http, request, certificates, BEARER) == 200
        came = sink.wait_for(ids(bad) | ids(slow))
        counted = r'calls_total\{.*span_name="step".*\} 200'
        wait_until(lambda: re.search(counted, exposed(gateway, "traces_span")), what="the metrics of all spans")
    finally:
        gateway.stop()  # which lets go of what was still waiting for a decision
    assert not ids(good) & sink.span_ids.keys()
    assert came
