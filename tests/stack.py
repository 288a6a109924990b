"""The real collector and the real Jaeger, from the build cache, on free loopback ports, with the stack's own files."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collector.build.build import BINARIES

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "collector" / "config"
DEV = (CONFIG / "dev.yaml", CONFIG / "dev-native.yaml")
LIMIT = 60.0


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


class Server:
    """One of the two: ``start``, ``stop`` (SIGTERM), ``kill`` (SIGKILL), and ``start`` again on the same ports."""

    name: str

    def __init__(self, directory: Path, configs: tuple[Path, ...], env: dict[str, str], health: str) -> None:
        self.directory = directory
        self.log = directory / f"{self.name}.log"
        self._configs = configs
        self._env = env
        self._health = health
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [str(BINARIES[self.name].path), *(f"--config={path}" for path in self._configs)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env={**_plain(), **self._env}, stdout=log, stderr=log)
        wait_until(self._ready, what=f"{self.name}'s start")

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} ended:\n{self.log.read_text()[-3000:]}"
        return get(self._health)[0] == 200

    def stop(self) -> int:
        """Returns the exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        code = self._process.wait(LIMIT)
        self._process = None
        return code

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(LIMIT)
        self._process = None


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}


class Jaeger(Server):
    name = "jaeger"

    def __init__(self, directory: Path) -> None:
        health, query, query_grpc, grpc, http = free_ports(5)
        self.query = f"http://127.0.0.1:{query}"
        self.otlp_http = f"http://127.0.0.1:{http}"
        self.otlp_grpc = f"127.0.0.1:{grpc}"
        super().__init__(
            directory,
            (ROOT / "collector" / "jaeger" / "config.yaml",),
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

    name = "otelcol"

    def __init__(
        self,
        directory: Path,
        jaeger: str,
        configs: tuple[Path, ...] = DEV,
        env: dict[str, str] | None = None,
    ) -> None:
        grpc, http, health, own, spans = free_ports(5)
        self.grpc = f"http://127.0.0.1:{grpc}"
        self.http = f"http://127.0.0.1:{http}"
        self.self_metrics = f"http://127.0.0.1:{own}/metrics"
        self.span_metrics = f"http://127.0.0.1:{spans}/metrics"
        self.logs = directory / "logs.jsonl"
        super().__init__(
            directory,
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
            for line in self.logs.read_text(encoding="utf-8").splitlines()
            for resource in json.loads(line).get("resourceLogs", ())
            for scope in resource["scopeLogs"]
            for record in scope["logRecords"]
        ]
