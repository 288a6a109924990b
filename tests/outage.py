"""``python -m tests.outage [--trials N]``: backends go and collectors are killed, and nothing may be missing.

The same trials, two of each, are in the tests.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from broker import Broker
from gateway import BEARER, Agent, Gateway, Sink, ids, post, spans
from stack import get, wait_until

SPANS = 5_000


@dataclass
class Trial:
    """Attributes:
    missing: spans that were accepted and never came. repeated: that came more than once.
    early: how many had come when the collector was killed. seconds: from the last kill to the last span.
    """

    missing: int
    repeated: int
    early: int
    seconds: float


def _send(port: int, certificates: Path | None) -> set[str]:
    """5,000 spans of 500 runs, ten requests; every one is accepted."""
    sent: set[str] = set()
    for _ in range(10):
        request = spans(10)
        for _ in range(SPANS // 100 - 1):
            request.MergeFrom(spans(10))
        status = post(port, request, certificates, BEARER if certificates else None)
        assert status == 200, status
        sent |= ids(request)
    assert len(sent) == SPANS
    return sent


def _outcome(sent: set[str], sink: Sink, early: int, since: float) -> Trial:
    try:
        came = sink.wait_for(sent)
    except AssertionError:
        came = sink.span_ids
    missing = len(sent - came.keys())
    return Trial(missing, sum(count > 1 for count in came.values()), early, time.monotonic() - since)


def _handed_over(agent: Agent) -> float:
    """Spans that the broker has acknowledged."""
    told = re.findall(r"^otelcol_exporter_sent_spans\{.*} (\S+)$", get(agent.self_metrics)[1].decode(), re.MULTILINE)
    return sum(map(float, told))


def backend_down(place: Path, certificates: Path) -> Trial:
    """Backend down, spans, SIGKILL of the gateway, restart, backend up."""
    sink = Sink(place / "sink")
    gateway = Gateway(place / "gateway", certificates, sink.address)
    try:
        gateway.start()
        sent = _send(gateway.port_http, certificates)
        gateway.kill()
        since = time.monotonic()
        gateway.start()
        sink.start()
        return _outcome(sent, sink, 0, since)
    finally:
        gateway.stop()
        sink.stop()


def consumer_killed(place: Path, certificates: Path, broker: Broker, *, wait: float | None = None) -> Trial:
    """Spans through an agent into Kafka while there is no gateway; the agent and its disk are gone; a gateway comes, is
    killed while it reads, and comes again.

    Args:
        wait: seconds until the kill; by default it comes with the first span that arrives.
    """
    name = place.name
    topics = {"KAFKA_BROKERS": broker.brokers, "KAFKA_SPANS": f"spans-{name}", "KAFKA_LOGS": f"logs-{name}"}
    topics |= {"KAFKA_METRICS": f"metrics-{name}", "KAFKA_GROUP": name, "KAFKA_SESSION_TIMEOUT": "2s"}
    sink = Sink(place / "sink")
    gateway = Gateway(place / "gateway", certificates, sink.address, "kafka-consumer", **topics)
    agent = Agent.of(gateway, place / "agent", "kafka-producer", **topics)
    try:
        agent.start()
        sent = _send(agent.port_http, None)
        wait_until(lambda: _handed_over(agent) >= SPANS, what="the hand-over to Kafka")
        agent.kill()
        shutil.rmtree(place / "agent")
        sink.start()
        gateway.start()
        if wait is None:
            wait_until(lambda: sink.span_ids, what="the first span")
        else:
            time.sleep(wait)  # an instant to be killed at, nothing is waited for
        gateway.kill()
        since = time.monotonic()
        early = len(sink.span_ids)
        gateway.start()
        return _outcome(sent, sink, early, since)
    finally:
        agent.kill()
        gateway.stop()
        sink.stop()


def main() -> int:
    from certificates import make

    parser = argparse.ArgumentParser(prog="python -m tests.outage", description=__doc__)
    parser.add_argument("--trials", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=20261126)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    place = Path(tempfile.mkdtemp(prefix="outage-"))
    certificates = make(place / "certificates")
    broker = Broker(place / "broker")
    broker.start()
    missing = 0
    try:
        for kind in ("backend down", "consumer killed"):
            began = time.monotonic()
            trials = []
            for number in range(options.trials):
                where = place / f"{kind.replace(' ', '-')}-{number}"
                if kind == "backend down":
                    trial = backend_down(where, certificates)
                else:
                    trial = consumer_killed(where, certificates, broker, wait=chance.uniform(0.0, 1.5))
                trials.append(trial)
                missing += trial.missing
                if not trial.missing:
                    shutil.rmtree(where)
            lost = Counter(trial.missing for trial in trials)
            partly = sum(0 < trial.early < SPANS for trial in trials)
            print(
                f"{kind}: {lost[0]} of {len(trials)} trials with all of {SPANS} spans, "
                f"{sum(t.missing for t in trials)} missing, {sum(t.repeated for t in trials)} repeated; "
                f"some had come before the kill in {partly}; all were there "
                f"{max(t.seconds for t in trials):.1f} s after it at most ({time.monotonic() - began:.0f} s in all)",
                flush=True,
            )
    finally:
        broker.stop()
    if missing:
        print(f"see {place}")
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
