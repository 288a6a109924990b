"""What is pending goes out, journal by journal; what is done next depends on how the receiver answered.

Accepted: noted, on to the next. Later: a pause for that journal that grows (jitter), and for its whole signal once the
receiver asks for one (Retry-After) or a few journals in a row were put off; for all signals at an address where nobody
answers. Misconfigured: kept, said once, tried again rarely. Refused or too large: fewer lines at a time, until the
record at fault stands alone; that one is set aside, so it neither blocks the rest nor is tried for ever.
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
#: So many journals put off one after the other: the receiver is busy, and not in trouble with one of them.
_A_FEW = 3
#: Journals of which it is remembered that they fail.
_MOST_FAILING = 10_000
#: A request with no more time than this is not begun.
_LEAST_SECONDS = 0.02


#: (records, why, the line or request)
_Refused = tuple[int, str, "dict[str, Any] | bytes | None"]


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
        #: Why it pauses.
        self.outcome = Outcome(Kind.LATER)

    @property
    def seconds(self) -> float:
        """Until the next try; 0 is now."""
        return max(self._not_before - time.monotonic(), 0.0)

    def failed(self, outcome: Outcome) -> None:
        self.outcome = outcome
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
        remarks: signal -> what the receiver said about records that it accepted all the same.
        trouble: signal -> why something of it goes no further.
        pause: seconds until it is worth trying again, where somebody is there and said "later".
        busy: another process is delivering this job.
        unnoted: why it could not be noted what was accepted.
    """

    accepted: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    trouble: dict[str, tuple[Endpoint, Outcome]] = field(default_factory=dict)
    pause: float | None = None
    requests: int = 0
    busy: bool = False
    unnoted: str = ""


def add(counts: dict[str, int], signal: str, number: int) -> None:
    counts[signal] = counts.get(signal, 0) + number


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
        #: (job, journal) -> its own pause, while it fails.
        self._failing: dict[tuple[str, str], Breaker] = {}
        #: Those that were put off since the last success, by signal.
        self._in_a_row: dict[str, set[tuple[str, str]]] = {signal: set() for signal in endpoints}
        #: Set, also by a signal handler, to end after the request under way.
        self.stopping = False

    def set_deadline(self, seconds: float) -> None:
        """Let every request from now on end within so many seconds, all together."""
        self._deadline = time.monotonic() + seconds

    @property
    def out_of_time(self) -> bool:
        return self.stopping or (self._deadline is not None and self._left() < _LEAST_SECONDS)

    def _left(self) -> float:
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def failing(self) -> set[str]:
        """Keys of the jobs of which something failed last time: they come after those that may fare better."""
        return {key for key, _ in self._failing}

    def deliver(
        self, outbox: Outbox, *, since: float | None = None, again: bool = False, go_on: bool = False
    ) -> Report:
        """Send what a job has pending, until nothing is, or nothing goes any more.

        Args:
            since: only journals written to since then (seconds since 1970).
            again: from their beginning, whatever was accepted before, and also what the application itself has sent.
            go_on: not from their beginning: this is the rest of a delivery that was put off.
        """
        report = Report()
        with outbox.locked() as mine:
            report.busy = not mine
            if not mine:
                return report
            if again and not go_on:
                outbox.rewind([j for j in outbox.journals() if since is None or j.modified >= since])
            for journal in self._in_turn(outbox):
                if self.out_of_time:
                    break
                if since is not None and journal.modified < since:
                    continue
                paused = self._paused(outbox, journal)
                if paused is None:
                    self._deliver_journal(outbox, journal, report, again)
                else:
                    report.trouble.setdefault(journal.signal, (self.endpoints[journal.signal], paused.outcome))
                    self._put_off(outbox, journal, paused.outcome, report)
            report.unnoted = outbox.unnoted
        return report

    def _in_turn(self, outbox: Outbox) -> list[Journal]:
        """Those that fail come last, so that one that is stuck does not keep the others back."""
        pending = [journal for journal in outbox.pending() if journal.signal in self.endpoints]
        return sorted(pending, key=lambda journal: (outbox.job.key, journal.name) in self._failing)

    def _paused(self, outbox: Outbox, journal: Journal) -> Breaker | None:
        """What has to pass first."""
        own = self._failing.get((outbox.job.key, journal.name))
        both = (self.breakers[journal.signal], own)
        return next((breaker for breaker in both if breaker is not None and breaker.seconds), None)

    def _deliver_journal(self, outbox: Outbox, journal: Journal, report: Report, again: bool) -> None:
        offset = outbox.offset(journal)
        most = None
        while not self.out_of_time and (batch := outbox.read(journal, offset, most)) is not None:
            refused: list[_Refused] = []
            accepted, outcome = self._send_batch(journal.signal, batch, refused, report, again)
            if outcome.kind in (Kind.REFUSED, Kind.TOO_LARGE):
                most = batch.lines // 2
                continue
            if outcome.kind is not Kind.ACCEPTED:
                self._failed(outbox, journal, outcome, report)
                return
            if not outbox.still_there(journal):
                return  # deleted, or made again: what was sent is no longer there to be noted
            for records, reason, what in refused:
                outbox.refuse(journal, records, reason, what)
                add(report.refused, journal.signal, records)
            said = "" if outcome.rejected else outcome.reason
            outbox.accept(journal, batch.end, accepted, said)
            add(report.accepted, journal.signal, accepted)
            if said:
                report.remarks[journal.signal] = said
            if self._on_request is not None:
                self._on_request(batch.end - offset)
            offset = batch.end
            # What was at fault is out of the way, or was not among these.
            most = None if refused or most is None else most + most // 4 + 1
        self._failing.pop((outbox.job.key, journal.name), None)

    def _failed(self, outbox: Outbox, journal: Journal, outcome: Outcome, report: Report) -> None:
        if outcome.unreachable and self.out_of_time:
            return  # cut short by us, which says nothing about the receiver
        key = outbox.job.key, journal.name
        endpoint = self.endpoints[journal.signal]
        report.trouble[journal.signal] = (endpoint, outcome)
        own = self._failing.setdefault(key, Breaker())
        if len(self._failing) > _MOST_FAILING:
            del self._failing[next(iter(self._failing))]
        in_a_row = self._in_a_row[journal.signal]
        in_a_row.add(key)
        put_off = outcome.kind is Kind.LATER and not outcome.unreachable
        if put_off:
            own.failed(outcome)
        if not put_off or outcome.retry_after is not None or len(in_a_row) >= _A_FEW:
            for signal, other in self.endpoints.items():
                nobody_there = outcome.unreachable and other.address == endpoint.address
                if signal == journal.signal or nobody_there:
                    self.breakers[signal].failed(outcome)
        self._put_off(outbox, journal, outcome, report)
        if outbox.trouble(journal.signal, endpoint, outcome) and self._on_trouble is not None:
            self._on_trouble(outbox.job, journal.signal, endpoint, outcome)

    def _put_off(self, outbox: Outbox, journal: Journal, outcome: Outcome, report: Report) -> None:
        """Somebody is there and says "later"; where nobody answers, that is better reported at once."""
        if outcome.kind is Kind.LATER and not outcome.unreachable:
            own = self._failing.get((outbox.job.key, journal.name))
            seconds = max(self.breakers[journal.signal].seconds, 0.0 if own is None else own.seconds)
            report.pause = seconds if report.pause is None else min(report.pause, seconds)

    def _succeeded(self, signal: str) -> None:
        self.breakers[signal].succeeded()
        self._in_a_row[signal].clear()

    def _send_batch(
        self, signal: str, batch: Batch, refused: list[_Refused], report: Report, again: bool
    ) -> tuple[int, Outcome]:
        """(records accepted, the outcome of it all). Several lines are accepted or refused together: what of them is
        at fault is found with fewer of them, each of which can be noted; one line is taken apart here.
        """
        from . import wire

        alone = batch.lines == 1
        contents = []
        refused += [(1, "not an OTLP/JSON line", line) for line in batch.damaged]
        for content in batch.contents:
            if wire.LEVELS[signal][0] in content:
                contents.append(content)
            else:
                refused.append((1, f"not a line of {signal}", content))
        try:
            merged, count = wire.merge(signal, contents, again=again)
        except wire.NotOtlp as error:
            if not alone:
                return 0, Outcome(Kind.REFUSED)
            refused.append((1, f"no OTLP: {error}", contents[0]))
            return 0, Outcome(Kind.ACCEPTED)
        if not count:
            return 0, Outcome(Kind.ACCEPTED)
        return self._send(signal, merged, count, refused, report, alone)

    def _send(
        self, signal: str, content: dict[str, Any], count: int, refused: list[_Refused], report: Report, alone: bool
    ) -> tuple[int, Outcome]:
        """One request; for a line that stands alone as many as it takes to find what of it is at fault."""
        from . import wire

        try:
            message = wire.request(signal, content)
        except wire.NotOtlp as error:
            outcome = Outcome(Kind.REFUSED, f"no OTLP: {error}")
        else:
            outcome = self._ask(signal, message, report)
            if outcome.kind is Kind.ACCEPTED:
                self._succeeded(signal)
                if not outcome.rejected:
                    return count, outcome
                rejected = min(outcome.rejected, count)
                refused.append((rejected, outcome.reason or "rejected without a reason", None))
                return count - rejected, outcome
            if outcome.kind in (Kind.LATER, Kind.MISCONFIGURED):
                return 0, outcome
            # Is it the data? A receiver that refuses an empty request as well is no receiver (plain HTTP sent to a TLS
            # port is answered 400), and what it says must not make anybody throw data away.
            control = self._ask(signal, wire.REQUESTS[signal](), report)
            if control.kind is not Kind.ACCEPTED:
                later = control.kind is Kind.LATER
                return 0, control if later else Outcome(Kind.MISCONFIGURED, outcome.reason)
        if not alone:
            return 0, outcome
        parts = wire.halves(signal, content)
        if parts is None:
            refused.append((1, outcome.reason, content))
            return 0, Outcome(Kind.ACCEPTED)
        accepted = 0
        for part in parts:
            number = wire.merge(signal, [part], again=True)[1]
            number, outcome = self._send(signal, part, number, refused, report, alone)
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
        self.stopping = True
        for each in list(self._senders.values()):
            each.close()
