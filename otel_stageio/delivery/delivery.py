"""What is pending goes out, journal by journal; what is done next depends on how the receiver answered.

Accepted: noted, on to the next. Later: a pause that grows (jitter, Retry-After obeyed), per signal, and for all signals
at an address where nobody answers. Misconfigured: kept, said once, tried again rarely. Refused or too large: halved
until the record at fault stands alone; that one is set aside, so it neither blocks the rest nor is tried for ever.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..layout import Job
from .outbox import Batch, Journal, Outbox
from .outcome import Kind, Outcome
from .settings import Endpoint

if TYPE_CHECKING:
    from google.protobuf.message import Message

#: Seconds before the second try, and at most between two tries.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: The same where somebody has to mend a setting first.
FIRST_LONG_PAUSE, LONGEST_LONG_PAUSE = 30.0, 600.0
#: A request with no more time than this is not begun.
_LEAST_SECONDS = 0.02


class Sender(Protocol):
    def send(self, message: Message, timeout: float | None = None) -> Outcome: ...

    def close(self) -> None: ...


def sender(endpoint: Endpoint) -> Sender:
    """The sender for an endpoint's protocol; only the one that is used is imported."""
    if endpoint.protocol == "grpc":
        from .grpc import GrpcSender

        return GrpcSender(endpoint)
    from .http import HttpSender

    return HttpSender(endpoint)


class Breaker:
    """Whether to try at all: after a failure not before a pause has passed, and then with one request."""

    def __init__(self) -> None:
        self._failures = 0
        self._not_before = 0.0

    @property
    def seconds(self) -> float:
        """Until the next try; 0 is now."""
        return max(self._not_before - time.monotonic(), 0.0)

    def failed(self, outcome: Outcome) -> None:
        misconfigured = outcome.kind is Kind.MISCONFIGURED
        first = FIRST_LONG_PAUSE if misconfigured else FIRST_PAUSE
        longest = LONGEST_LONG_PAUSE if misconfigured else LONGEST_PAUSE
        pause = min(first * 2 ** min(self._failures, 30), longest) * random.uniform(0.5, 1.0)
        self._failures += 1
        self._not_before = time.monotonic() + max(pause, outcome.retry_after or 0.0)

    def succeeded(self) -> None:
        self._failures = 0
        self._not_before = 0.0


@dataclass
class Report:
    """What became of one job's outbox in one pass. Counts are of records, by signal.

    Attributes:
        busy: another process is delivering this job.
        trouble: signal -> why it goes no further.
        done: signals of which everything was dealt with.
    """

    accepted: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    trouble: dict[str, tuple[Endpoint, Outcome]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    requests: int = 0
    busy: bool = False


class Delivery:
    """Sends the outboxes of any number of jobs to one set of endpoints. Not for several threads at once.

    Args:
        endpoints: by signal, from :func:`settings.endpoints`.
        on_trouble: told once about each new trouble of a job.
        on_request: told how many bytes of a journal have just been dealt with.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        *,
        on_trouble: Callable[[Job, str, Endpoint, Outcome], None] | None = None,
        on_request: Callable[[int], None] | None = None,
    ) -> None:
        self.endpoints = endpoints
        self.breakers = {signal: Breaker() for signal in endpoints}
        self._senders: dict[str, Sender] = {}
        self._on_trouble = on_trouble
        self._on_request = on_request
        self._deadline: float | None = None
        self._stuck: dict[tuple[str, str], str] = {}
        self.stopped = False

    def set_deadline(self, seconds: float) -> None:
        """Let every request from now on end within so many seconds, all together."""
        self._deadline = time.monotonic() + seconds

    @property
    def out_of_time(self) -> bool:
        return self.stopped or (self._deadline is not None and self._left() < _LEAST_SECONDS)

    def _left(self) -> float:
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def deliver(self, outbox: Outbox, *, since: float | None = None, again: bool = False) -> Report:
        """Send what a job has pending, until nothing is, or nothing goes any more.

        Args:
            since: only journals written to since then (seconds since 1970).
            again: from their beginning, whatever was accepted before.
        """
        report = Report()
        with outbox.locked() as mine:
            report.busy = not mine
            if not mine:
                return report
            if again:
                outbox.rewind([j for j in outbox.journals() if since is None or j.modified >= since])
            # Asked once: a pause that ends in the middle of a round must not leave out half of a signal's journals.
            report.done = {signal for signal, breaker in self.breakers.items() if not breaker.seconds}
            for journal in self._in_turn(outbox):
                if self.out_of_time:
                    report.done.clear()
                    break
                if journal.signal in report.done and (since is None or journal.modified >= since):
                    self._deliver_journal(outbox, journal, report, again)
        return report

    def _in_turn(self, outbox: Outbox) -> list[Journal]:
        """The journal that failed last comes last, so that one that is stuck does not keep the others back."""
        stuck = self._stuck.get
        return sorted(outbox.pending(), key=lambda j: stuck((outbox.job.key, j.signal)) == j.name)

    def _deliver_journal(self, outbox: Outbox, journal: Journal, report: Report, again: bool) -> None:
        endpoint = self.endpoints[journal.signal]
        offset = outbox.offset(journal)
        while not self.out_of_time and (batch := outbox.read(journal, offset)) is not None:
            accepted, outcome = self._send_batch(outbox, journal, batch, report, again)
            if outcome.kind is not Kind.ACCEPTED:
                self._failed(outbox, journal, endpoint, outcome, report)
                return
            outbox.accept(journal, batch.end, accepted)
            report.accepted[journal.signal] = report.accepted.get(journal.signal, 0) + accepted
            if self._on_request is not None:
                self._on_request(batch.end - offset)
            offset = batch.end
        self._stuck.pop((outbox.job.key, journal.signal), None)

    def _failed(self, outbox: Outbox, journal: Journal, endpoint: Endpoint, outcome: Outcome, report: Report) -> None:
        if self._deadline is not None and outcome.unreachable and self.out_of_time:
            return  # cut short by the exit budget, which says nothing about the receiver
        self._stuck[outbox.job.key, journal.signal] = journal.name
        report.trouble[journal.signal] = (endpoint, outcome)
        for signal, other in self.endpoints.items():
            nobody_there = outcome.unreachable and other.address == endpoint.address
            if signal == journal.signal or nobody_there:
                self.breakers[signal].failed(outcome)
                report.done.discard(signal)
        if outbox.trouble(journal.signal, endpoint, outcome) and self._on_trouble is not None:
            self._on_trouble(outbox.job, journal.signal, endpoint, outcome)

    def _send_batch(
        self, outbox: Outbox, journal: Journal, batch: Batch, report: Report, again: bool
    ) -> tuple[int, Outcome]:
        """(records accepted, the outcome of it all). What has to be set aside is, once the rest has been accepted."""
        from . import wire

        refused: list[tuple[int, str, dict[str, Any] | bytes | None]] = [
            (1, "not an OTLP/JSON line", line) for line in batch.damaged
        ]
        contents = []
        for content in batch.contents:
            if wire.LEVELS[journal.signal][0] in content:
                contents.append(content)
            else:
                refused.append((1, f"not a line of {journal.signal}", content))
        accepted, outcome = self._send_all(journal, contents, refused, report, again)
        if outcome.kind is Kind.ACCEPTED:
            for records, reason, what in refused:
                outbox.refuse(journal, records, reason, what)
                report.refused[journal.signal] = report.refused.get(journal.signal, 0) + records
        return accepted, outcome

    def _send_all(
        self, journal: Journal, contents: list[dict[str, Any]], refused: list[Any], report: Report, again: bool
    ) -> tuple[int, Outcome]:
        from . import wire

        try:
            merged, count = wire.merge(journal.signal, contents, again=again)
        except wire.NotOtlp as error:
            if len(contents) == 1:
                refused.append((1, f"no OTLP: {error}", contents[0]))
                return 0, Outcome(Kind.ACCEPTED)
            accepted = 0
            for content in contents:
                part, outcome = self._send_all(journal, [content], refused, report, again)
                accepted += part
                if outcome.kind is not Kind.ACCEPTED:
                    break
            return accepted, outcome
        return self._send(journal, merged, count, refused, report) if count else (0, Outcome(Kind.ACCEPTED))

    def _send(
        self, journal: Journal, content: dict[str, Any], count: int, refused: list[Any], report: Report
    ) -> tuple[int, Outcome]:
        """One request, or as many as it takes to find what of it is at fault."""
        from . import wire

        signal = journal.signal
        try:
            message = wire.request(signal, content)
        except wire.NotOtlp as error:
            outcome = Outcome(Kind.REFUSED, f"no OTLP: {error}")
        else:
            outcome = self._ask(signal, message, report)
            if outcome.kind is Kind.ACCEPTED:
                self.breakers[signal].succeeded()
                if outcome.rejected:
                    rejected = min(outcome.rejected, count)
                    refused.append((rejected, outcome.reason or "rejected without a reason", None))
                    return count - rejected, outcome
                return count, outcome
            if outcome.kind in (Kind.LATER, Kind.MISCONFIGURED):
                return 0, outcome
            # Is it the data? A receiver that refuses an empty request as well is no receiver (plain HTTP sent to a TLS
            # port is answered 400), and what it says must not make anybody throw data away.
            control = self._ask(signal, wire.REQUESTS[signal](), report)
            if control.kind is not Kind.ACCEPTED:
                later = control.kind is Kind.LATER
                return 0, control if later else Outcome(Kind.MISCONFIGURED, outcome.reason)
        parts = wire.halves(signal, content)
        if parts is None:
            refused.append((1, outcome.reason, content))
            return 0, Outcome(Kind.ACCEPTED)
        accepted = 0
        for part in parts:
            number, outcome = self._send(journal, part, wire.merge(signal, [part], again=True)[1], refused, report)
            accepted += number
            if outcome.kind is not Kind.ACCEPTED:
                return accepted, outcome
        return accepted, Outcome(Kind.ACCEPTED)

    def _ask(self, signal: str, message: Message, report: Report) -> Outcome:
        endpoint = self.endpoints[signal]
        if endpoint.problem is not None:
            return Outcome(Kind.MISCONFIGURED, endpoint.problem)
        if self.out_of_time:
            return Outcome(Kind.LATER, "no time left", unreachable=True)
        if signal not in self._senders:
            try:
                self._senders[signal] = sender(endpoint)
            except (OSError, ValueError) as error:
                return Outcome(Kind.MISCONFIGURED, str(error))
        report.requests += 1
        left = self._left()
        return self._senders[signal].send(message, None if left == float("inf") else left)

    def close(self) -> None:
        """Also from another thread: a request under way is given up."""
        self.stopped = True
        for each in list(self._senders.values()):
            each.close()
