"""The production configurations, started as they are: agents, gateways, and a collector behind them that writes."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import requests
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc
from stack import free_ports, get, wait_until

from collector.check import AGENT, GATEWAY, over
from collector.native import Server
from otel_stageio.delivery.delivery import Delivery
from otel_stageio.delivery.settings import endpoints

TOKEN = "a-token-of-the-tests"
PASSWORD = "a-password-of-the-tests"


class Production(Server):
    """A collector with one of our files, on free ports.

    Attributes:
        port_grpc, port_http: where it takes OTLP. self_metrics, span_metrics: URLs.
    """

    base: Path

    def __init__(self, directory: Path, *overlays: str, env: dict[str, str] | None = None, test: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port_grpc, self.port_http, health, own, spans = free_ports(5)
        self.self_metrics = f"http://127.0.0.1:{own}/metrics"
        self.span_metrics = f"http://127.0.0.1:{spans}/metrics"
        (directory / "token").write_text(f"an-old-one # until all have the new one\n{TOKEN}\n")
        (directory / "password").write_text(PASSWORD)
        files = over(self.base, *overlays)
        if test:
            (directory / "test.yaml").write_text(test)
            files = (*files, directory / "test.yaml")
        super().__init__(
            "otelcol",
            directory / f"{self.base.stem}.log",
            files,
            {
                "OTLP_GRPC_PORT": str(self.port_grpc),
                "OTLP_HTTP_PORT": str(self.port_http),
                "HEALTH_PORT": str(health),
                "SELF_METRICS_PORT": str(own),
                "SPAN_METRICS_PORT": str(spans),
                "SPAN_METRICS_FLUSH": "200ms",
                "COLLECTOR_QUEUE": str(directory / f"{self.base.stem}-queue"),
                "TOKEN_FILE": str(directory / "token"),
                "PASSWORD_FILE": str(directory / "password"),
                **(env or {}),
            },
            f"http://127.0.0.1:{health}",
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def warnings(self) -> list[str]:
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if "\twarn\t" in line or "\terror\t" in line or "deprecated" in line]


class Agent(Production):
    base = AGENT

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port_http}"

    @classmethod
    def of(cls, gateway: Gateway, directory: Path, *overlays: str, **env: str) -> Agent:
        """One that sends to a gateway, with the certificates that this has."""
        place = gateway.certificates
        given = {
            "GATEWAY_ENDPOINT": f"localhost:{gateway.port_grpc}",
            "GATEWAY_CA": str(place / "ca.pem"),
            "AGENT_CERT": str(place / "client.pem"),
            "AGENT_KEY": str(place / "client.key"),
            "STAGE_LOGS": str(directory / "jobs/*/*/stage.log"),
            "DCGM_TARGET": "127.0.0.1:1",
            "NODE_TARGET": "127.0.0.1:1",
        }
        return cls(directory, *overlays, env={**given, **env})


class Gateway(Production):
    """Args: ``sink`` is where its traces and logs go: (``host:port`` for gRPC, URL for HTTP)."""

    base = GATEWAY

    def __init__(
        self, directory: Path, certificates: Path, sink: tuple[str, str], *overlays: str, test: str = "", **env: str
    ) -> None:
        self.certificates = certificates
        directory.mkdir(parents=True, exist_ok=True)
        hashed = subprocess.run(
            ["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, text=True, check=True
        ).stdout.strip()
        (directory / "htpasswd").write_text(f"agent:{hashed}\n")
        given = {
            "OTLP_BIND": "127.0.0.1",
            "TLS_CERT": str(certificates / "server.pem"),
            "TLS_KEY": str(certificates / "server.key"),
            "TLS_CLIENT_CA": str(certificates / "ca.pem"),
            "HTPASSWD": str(directory / "htpasswd"),
            "TRACES_ENDPOINT": sink[0],
            "TRACES_INSECURE": "true",
            "LOGS_ENDPOINT": sink[1],
        }
        super().__init__(directory, *overlays, env={**given, **env}, test=test)

    @property
    def http(self) -> str:
        return f"https://localhost:{self.port_http}"

    def delivery(self, protocol: str = "http/protobuf", **headers: str) -> Delivery:
        """The library, configured for it as a user would."""
        port = self.port_grpc if protocol == "grpc" else self.port_http
        given = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(self.certificates / "ca.pem"),
            "OTEL_EXPORTER_OTLP_HEADERS": f"Authorization=Bearer%20{TOKEN}",
        }
        return Delivery(endpoints(given))


BEARER = {"authorization": f"Bearer {TOKEN}"}
BASIC = {"authorization": "Basic " + base64.b64encode(f"agent:{PASSWORD}".encode()).decode()}


def exposed(gateway: Gateway, name: str) -> str:
    """What it offers to Prometheus under a name that begins so."""
    return "\n".join(line for line in get(gateway.span_metrics)[1].decode().splitlines() if line.startswith(name))


def attributes(record: dict[str, Any]) -> dict[str, str]:
    """The texts among a record's attributes, as the sink has them."""
    return {item["key"]: item["value"].get("stringValue", "") for item in record.get("attributes", ())}


def post(
    port: int, message: Any, certificates: Path | None, headers: dict[str, str] | None = None, client: str = ""
) -> int:
    """The HTTP status; 0 where there was no answer. Without ``certificates`` in plain text."""
    signal = "logs" if isinstance(message, logs_pb2.ExportLogsServiceRequest) else "traces"
    pair = None
    if certificates and client:
        pair = (str(certificates / f"{client}.pem"), str(certificates / f"{client}.key"))
    try:
        answer = requests.post(
            f"{'https' if certificates else 'http'}://localhost:{port}/v1/{signal}",
            message.SerializeToString(),
            headers={"content-type": "application/x-protobuf", **(headers or {})},
            verify=str(certificates / "ca.pem") if certificates else True,
            cert=pair,
            timeout=30,
        )
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
        return 0
    return answer.status_code


def call(
    port: int, message: Any, certificates: Path | None, headers: dict[str, str] | None = None, client: str = ""
) -> str:
    """The name of the gRPC status. Without ``certificates`` in plain text."""
    if certificates is None:
        channel = grpc.insecure_channel(f"localhost:{port}")
    else:
        pair = [(certificates / f"{client}.{end}").read_bytes() for end in ("key", "pem")] if client else [None, None]
        credentials = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes(), *pair)
        channel = grpc.secure_channel(f"localhost:{port}", credentials)
    logs = isinstance(message, logs_pb2.ExportLogsServiceRequest)
    stub = logs_grpc.LogsServiceStub(channel) if logs else trace_grpc.TraceServiceStub(channel)
    try:
        stub.Export(message, timeout=10, metadata=tuple((headers or {}).items()))
    except grpc.RpcError as error:
        return str(error.code().name)
    finally:
        channel.close()
    return "OK"


def spans(number: int, *, trace: bytes | None = None, name: str = "step", **attributes: str) -> Any:
    """A request with so many spans, each with an id of its own."""
    request = trace_pb2.ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "tests"
    scope = resource.scope_spans.add()
    trace = trace or os.urandom(16)
    for _ in range(number):
        span = scope.spans.add(trace_id=trace, span_id=os.urandom(8), name=name, kind=1)
        span.start_time_unix_nano, span.end_time_unix_nano = 1_764_238_272_000_000_001, 1_764_238_273_000_000_002
        for key, value in attributes.items():
            span.attributes.add(key=key).value.string_value = value
    return request


def log(body: str) -> Any:
    request = logs_pb2.ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1_764_238_272_000_000_001)
    record.body.string_value = body
    return request


def ids(message: Any) -> set[str]:
    return {s.span_id.hex() for r in message.resource_spans for scope in r.scope_spans for s in scope.spans}


SINK = """
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "127.0.0.1:${env:GRPC}", max_recv_msg_size_mib: 16}
      http: {endpoint: "127.0.0.1:${env:HTTP}"}
exporters:
  file/traces: {path: "${env:OUT}/traces.jsonl"}
  file/logs: {path: "${env:OUT}/logs.jsonl"}
extensions:
  health_check: {endpoint: "127.0.0.1:${env:HEALTH}"}
service:
  extensions: [health_check]
  pipelines:
    traces: {receivers: [otlp], exporters: [file/traces]}
    logs: {receivers: [otlp], exporters: [file/logs]}
  telemetry: {metrics: {level: none}}
"""


class Sink(Server):
    """Stands where Jaeger, Tempo, Loki or a vendor would: takes OTLP and writes what came, a request a line."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "sink.yaml").write_text(SINK)
        self.directory = directory
        port_grpc, port_http, health = free_ports(3)
        self.grpc = f"127.0.0.1:{port_grpc}"
        self.http = f"http://127.0.0.1:{port_http}"
        env = {"GRPC": str(port_grpc), "HTTP": str(port_http), "HEALTH": str(health), "OUT": str(directory)}
        configs = (directory / "sink.yaml",)
        super().__init__("otelcol", directory / "sink.log", configs, env, f"http://127.0.0.1:{health}")

    @property
    def address(self) -> tuple[str, str]:
        return self.grpc, self.http

    def _read(self, signal: str, resources: str, scopes: str, records: str) -> list[dict[str, Any]]:
        path = self.directory / f"{signal}.jsonl"
        if not path.exists():
            return []
        return [
            {**record, "resource": resource.get("resource", {}), "scope": scope.get("scope", {})}
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
            if line.endswith("\n")  # the last one may be half written
            for resource in json.loads(line).get(resources, ())
            for scope in resource[scopes]
            for record in scope[records]
        ]

    @property
    def spans(self) -> list[dict[str, Any]]:
        return self._read("traces", "resourceSpans", "scopeSpans", "spans")

    @property
    def logs(self) -> list[dict[str, Any]]:
        return self._read("logs", "resourceLogs", "scopeLogs", "logRecords")

    @property
    def span_ids(self) -> Counter[str]:
        """How often each came; without reading the JSON, as it is asked for again and again."""
        path = self.directory / "traces.jsonl"
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]  # the last line may be half written
        return Counter(span.decode() for span in re.findall(rb'"spanId":"([0-9a-f]{16})"', whole))

    @property
    def bodies(self) -> list[str]:
        return [record["body"].get("stringValue", "") for record in self.logs]

    def wait_for(self, span_ids: set[str]) -> Counter[str]:
        """All of them, and how often each came."""

        def came() -> Counter[str] | None:
            seen = self.span_ids
            return seen if span_ids <= seen.keys() else None

        found: Counter[str] = wait_until(came, what=f"the arrival of {len(span_ids)} spans")
        return found
