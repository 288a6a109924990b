"""A real Kafka broker on loopback, one node, its data in a directory."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path

from stack import free_ports, wait_until

from collector.build.broker import jars

PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
log.dirs={data}
num.partitions=3
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
"""


class Broker:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.port, controller = free_ports(2)
        self._properties = directory / "kafka.properties"
        text = PROPERTIES.format(port=self.port, controller=controller, data=directory / "data")
        self._properties.write_text(text)
        self._java = ["java", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars()}/*"]
        format_ = ["kafka.tools.StorageTool", "format", "-t", "c3RhZ2Vpby10ZXN0cy0xMg", "-c", str(self._properties)]
        subprocess.run([*self._java, *format_], check=True, capture_output=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def brokers(self) -> str:
        """As ``KAFKA_BROKERS`` takes it."""
        return f"[127.0.0.1:{self.port}]"

    def start(self) -> None:
        with (self._directory / "kafka.log").open("ab") as log:
            command = [*self._java, "kafka.Kafka", str(self._properties)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._listens, what="the start of Kafka")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "kafka.log").read_text()[-2000:]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
