"""The development stack without containers: the collector and Jaeger as processes, with the stack's own files.

    python -m collector.native          (or: make stack-native)

Ports are those of docker-compose.otel.yml and can be set by the variables that the configuration files read. Data lies
in ``.stack/`` beside the compose file. Ctrl-C or SIGTERM stops both, and nothing that was accepted is lost.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .build.build import BINARIES

ROOT = Path(__file__).resolve().parents[1]
JAEGER = (ROOT / "collector" / "jaeger" / "config.yaml",)
COLLECTOR = (ROOT / "collector" / "config" / "dev.yaml", ROOT / "collector" / "config" / "dev-native.yaml")
#: Seconds that a server gets to start, and to stop. A collector that cannot reach its exporters needs about 5 to stop.
LIMIT = 60.0


class CannotStart(Exception):
    """Says which of them, why, and what to do."""


def ports(configs: tuple[Path, ...]) -> dict[str, int]:
    """The ports that the files listen on, by the variable that sets each: ``{"OTLP_HTTP_PORT": 4318, ...}``."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in configs)
    defaults = re.findall(r"\$\{env:([A-Z_]+_PORT):-(\d+)\}", text)
    return {name: int(os.environ.get(name) or default) for name, default in defaults}


class Server:
    """The collector or Jaeger: ``start``, ``stop`` (SIGTERM), ``kill`` (SIGKILL), and ``start`` again.

    Args:
        name: of the binary (``otelcol``, ``jaeger``).
        log: the file that its output is appended to.
        configs: what it is started with, later files over earlier ones.
        env: what the files read.
        health: answers 200 once it is up.
    """

    def __init__(self, name: str, log: Path, configs: tuple[Path, ...], env: dict[str, str], health: str) -> None:
        self.name = name
        self.log = log
        self._configs = configs
        self._env = env
        self._health = health
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers.

        Raises:
            CannotStart: if it ends instead, with the end of its log.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [str(BINARIES[self.name].path), *(f"--config={path}" for path in self._configs)]
        # The telemetry settings of this shell are for programs, not for the collector.
        plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        with self.log.open("ab") as log:
            # In a session of its own: a Ctrl-C at the terminal is for whoever stops it in order.
            self._process = subprocess.Popen(
                command, env={**plain, **self._env}, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + LIMIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
                raise CannotStart(f"{self.name} did not start; the end of {self.log}:\n{tail}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self._health, timeout=10) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """Returns the exit code; it is killed if it does not stop in time."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            code = self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL
        self._process = None
        return code

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(LIMIT)
            self._process = None


def start(data: Path) -> list[Server]:
    """Jaeger, then the collector in front of it.

    Raises:
        CannotStart: if a binary is not built, a port is taken, or a server does not start.
    """
    used = {**ports(JAEGER), **ports(COLLECTOR)}
    missing = [name for name in ("jaeger", "otelcol") if not BINARIES[name].path.exists()]
    if missing:
        raise CannotStart(f"not built yet: {' and '.join(missing)}. Run `make binaries` (it needs Go, once)")
    for name, port in used.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as reason:
                raise CannotStart(
                    f"port {port} cannot be used ({reason.strerror}): another collector or Jaeger may be running. "
                    f"Stop it, or choose another port with {name}=..."
                ) from None
    env = {
        "JAEGER_DATA": str(data / "jaeger"),
        "JAEGER_OTLP_ENDPOINT": f"127.0.0.1:{used['JAEGER_OTLP_GRPC_PORT']}",
        "COLLECTOR_QUEUE": str(data / "queue"),
        "COLLECTOR_LOGS": str(data / "logs.jsonl"),
    }
    started: list[Server] = []
    for name, configs, health in (
        ("jaeger", JAEGER, f"http://127.0.0.1:{used['JAEGER_HEALTH_PORT']}/status"),
        ("otelcol", COLLECTOR, f"http://127.0.0.1:{used['HEALTH_PORT']}"),
    ):
        server = Server(name, data / f"{name}.log", configs, env, health)
        try:
            server.start()
        except BaseException:
            stop(started)
            raise
        started.append(server)
    return started


def stop(servers: list[Server]) -> bool:
    """The collector first, so that what it holds reaches Jaeger. True if all ended in order."""
    codes = [server.stop() for server in reversed(servers)]
    return not any(codes)


def main() -> int:
    data = ROOT / ".stack"
    told: list[int] = []

    def tell(number: int, _frame: Any) -> None:
        told.append(number)

    signal.signal(signal.SIGINT, tell)
    signal.signal(signal.SIGTERM, tell)
    try:
        servers = start(data)
    except CannotStart as reason:
        print(f"stack-native: {reason}", file=sys.stderr)
        return 1
    used = {**ports(JAEGER), **ports(COLLECTOR)}
    print(
        f"""The collector and Jaeger are running; Ctrl-C stops them.

  export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:{used["OTLP_HTTP_PORT"]}

  traces   http://localhost:{used["JAEGER_QUERY_PORT"]}/api/v3/traces/TRACE_ID
  logs     {os.path.relpath(data / "logs.jsonl")}
  metrics  http://localhost:{used["SPAN_METRICS_PORT"]}/metrics (made of the spans)
""",
        flush=True,
    )
    while not told and all(server.alive for server in servers):
        time.sleep(0.2)
    ended = [server.name for server in servers if not server.alive]
    in_order = stop(servers)
    if not told:
        print(f"stack-native: {ended[0]} ended by itself; see {data / ended[0]}.log", file=sys.stderr)
        return 1
    print("stopped")
    return 0 if in_order else 1


if __name__ == "__main__":
    sys.exit(main())
