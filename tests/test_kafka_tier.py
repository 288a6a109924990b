"""Agent, a real Kafka broker, gateway: a backlog outlives any of them but the broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import outage
import pytest
from broker import Broker
from gateway import Agent, Gateway, Sink, attributes, exposed, ids, log, post, spans
from stack import wait_until


@pytest.fixture(scope="module")
def broker(kafka: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    server = Broker(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("sampling", [(), ("tail-sampling",)], ids=str)
def test_every_signal_comes_through_without_a_warning(
    broker: Broker, certificates: Path, tmp_path: Path, sampling: tuple[str, ...]
) -> None:
    sink = Sink(tmp_path / "sink")
    sink.start()
    name = tmp_path.name
    env = {f"KAFKA_{kind}": f"{kind}-{name}" for kind in ("SPANS", "LOGS", "METRICS")}
    env |= {"KAFKA_BROKERS": broker.brokers, "KAFKA_GROUP": name}
    env |= {"SLOW_STAGE_MS": "500", "SCRAPE_INTERVAL": "500ms", "SCRAPE_TIMEOUT": "500ms"}
    gateway = Gateway(tmp_path / "g", certificates, sink.address, "kafka-consumer", *sampling, **env)
    agent = Agent.of(gateway, tmp_path / "a", "kafka-producer", **env)
    # The agent first: the topics are made by what it writes.
    agent.start()
    request = spans(3, said="cannot open /mnt/films/x.wav")
    assert post(agent.port_http, request, None) == 200
    assert post(agent.port_http, log("through Kafka, token=abc"), None) == 200
    gateway.start()
    try:
        sink.wait_for(ids(request))
        wait_until(lambda: sink.bodies, what="the log record")
        wait_until(lambda: exposed(gateway, "otelcol_exporter_queue_size"), what="the agent's metrics")
    finally:
        codes = agent.stop(), gateway.stop()
        sink.stop()
    assert codes == (0, 0)
    assert {attributes(span)["said"] for span in sink.spans} == {"cannot open x.wav"}
    assert sink.bodies == ["through Kafka, token=[secret]"]
    assert [line for line in (*agent.warnings, *gateway.warnings) if "deprecated" in line] == []


@pytest.mark.parametrize("trial", range(2))
def test_no_span_is_lost_when_the_agent_is_gone_and_the_consumer_is_killed_while_it_reads(
    broker: Broker, certificates: Path, tmp_path: Path, trial: int
) -> None:
    assert outage.consumer_killed(tmp_path, certificates, broker).missing == 0
