"""The real collector and the real Jaeger, from the build cache, on free loopback ports, with the stack's own files."""

from __future__ import annotations

import json
import random
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.native import COLLECTOR, JAEGER, LIMIT, Server


def wait_until(condition: Callable[[], Any], seconds: float = LIMIT, what: str = "it") -> Any:
    """Ask until the answer is true. Returns the answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} s"
        time.sleep(0.02)


def free_ports(number: int) -> list[int]:
    """Ports below the ephemeral range, so that no client socket takes one while its server is down."""
    found: list[int] = []
    while len(found) < number:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def get(url: str) -> tuple[int, bytes]:
    """(status, body); status 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


class Jaeger(Server):
    def __init__(self, directory: Path, configs: tuple[Path, ...] = JAEGER) -> None:
        health, query, query_grpc, grpc, http = free_ports(5)
        self.query = f"http://127.0.0.1:{query}"
        self.otlp_http = f"http://127.0.0.1:{http}"
        self.otlp_grpc = f"127.0.0.1:{grpc}"
        super().__init__(
            "jaeger",
            directory / "jaeger.log",
            configs,
            {
                "JAEGER_HEALTH_PORT": str(health),
                "JAEGER_QUERY_PORT": str(query),
                "JAEGER_QUERY_GRPC_PORT": str(query_grpc),
                "JAEGER_OTLP_GRPC_PORT": str(grpc),
                "JAEGER_OTLP_HTTP_PORT": str(http),
                "JAEGER_DATA": str(directory / "badger"),
            },
            f"http://127.0.0.1:{health}/status",
        )

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of a trace as OTLP/JSON has them, each with its ``resource``; [] if there is no such trace."""
        status, body = get(f"{self.query}/api/v3/traces/{trace_id}")
        if status != 200:
            return []
        return [
            {**span, "resource": resource.get("resource", {})}
            for resource in json.loads(body)["result"].get("resourceSpans", ())
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    def services(self) -> list[str]:
        return list(json.loads(get(f"{self.query}/api/v3/services")[1])["services"])


class Collector(Server):
    """Args: ``jaeger`` is where its traces go, ``configs`` the files it is started with, ``env`` what they read."""

    def __init__(
        self,
        directory: Path,
        jaeger: str,
        configs: tuple[Path, ...] = COLLECTOR,
        env: dict[str, str] | None = None,
    ) -> None:
        grpc, http, health, own, spans = free_ports(5)
        self.grpc = f"http://127.0.0.1:{grpc}"
        self.http = f"http://127.0.0.1:{http}"
        self.self_metrics = f"http://127.0.0.1:{own}/metrics"
        self.span_metrics = f"http://127.0.0.1:{spans}/metrics"
        self.logs = directory / "logs.jsonl"
        super().__init__(
            "otelcol",
            directory / "otelcol.log",
            configs,
            {
                "OTLP_GRPC_PORT": str(grpc),
                "OTLP_HTTP_PORT": str(http),
                "HEALTH_PORT": str(health),
                "SELF_METRICS_PORT": str(own),
                "SPAN_METRICS_PORT": str(spans),
                "METRICS_FLUSH_INTERVAL": "200ms",
                "JAEGER_OTLP_ENDPOINT": jaeger,
                "COLLECTOR_QUEUE": str(directory / "queue"),
                "COLLECTOR_LOGS": str(self.logs),
                **(env or {}),
            },
            f"http://127.0.0.1:{health}",
        )

    def log_records(self) -> list[dict[str, Any]]:
        """What the file exporter, which stands in for Loki, has written."""
        if not self.logs.exists():
            return []
        return [
            record
            for line in self.logs.read_text(encoding="utf-8").splitlines(keepends=True)
            if line.endswith("\n")  # the last one may be half written
            for resource in json.loads(line).get("resourceLogs", ())
            for scope in resource["scopeLogs"]
            for record in scope["logRecords"]
        ]


def samples(url: str) -> list[tuple[str, dict[str, str], float]]:
    """(name, labels, value) of everything on a Prometheus endpoint."""
    found = []
    for line in get(url)[1].decode().splitlines():
        match = re.match(r"([a-z_:][a-z0-9_:]*)(?:\{(.*)\})? (\S+)", line, re.IGNORECASE)
        if match and not line.startswith("#"):
            labels = re.findall(r'([a-z0-9_]+)="((?:[^"\\]|\\.)*)"', match[2] or "", re.IGNORECASE)
            found.append((match[1], dict(labels), float(match[3])))
    return found


def measured(job: Path) -> None:
    """Two stages that were looked at for three seconds, beside a GPU."""
    from test_resources import FakeGpus

    from otel_stageio import StageIO
    from otel_stageio.resources import gpu_sampler
    from otel_stageio.testing import FixedClock, fixed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_sampler, "open_gpus", lambda visible, order="": FakeGpus())
        for stage in ("demux", "asr"):
            clock = FixedClock(time.time_ns())
            with fixed(clock), StageIO(stage, job) as io:
                for _ in range(3):
                    clock.advance(1.0)
                    io._recorder.beat()
                    io._recorder.look_at_gpus()
