"""``otel-stageio push``: send what is pending, of some jobs once or of a whole tree for as long as it runs."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ..delivery.delivery import Delivery, Report, add
from ..delivery.outbox import Outbox
from ..delivery.settings import Endpoint, endpoints
from ..delivery.shipper import Shipment, Watch, push
from ..delivery.stop import Stop
from ..layout import Job
from ..reading.job import CannotAnswer, check_job
from ..reading.sent import words
from ..reading.text import count, one_line, seconds_of
from .terminal import Terminal, complain, document

UNNOTED = "what was sent cannot be noted beside the job, and may be sent again"


class BadOption(ValueError):
    """An option that makes no sense; says what would."""


def where_to(endpoint: str | None, protocol: str | None, headers: Sequence[str]) -> dict[str, Endpoint]:
    """The endpoints that options and variables come to.

    Raises:
        BadOption: if there are none.
    """
    found = endpoints(endpoint=endpoint, protocol=protocol, headers=headers_of(headers))
    if not found:
        raise BadOption("no endpoint: set OTEL_EXPORTER_OTLP_ENDPOINT, or give --endpoint http://localhost:4318")
    return found


def headers_of(options: Sequence[str]) -> dict[str, str]:
    """
    Raises:
        BadOption: if one is no header.
    """
    given = {}
    for position, header in enumerate(options, 1):
        parts = re.fullmatch(r"\s*([^=:\s]+)\s*[=:](.*)", header, re.DOTALL)
        if parts is None:
            raise BadOption(f"a header is NAME=VALUE, and number {position} is not")  # it may be a credential
        given[parts[1]] = parts[2].strip()
    return given


def since_when(text: str, now: datetime | None = None) -> float:
    """``2h``, ``3d`` or a date as ISO 8601 has it -> seconds since 1970.

    Raises:
        BadOption: for anything else.
    """
    now = now or datetime.now(timezone.utc)
    seconds = seconds_of(text)
    try:
        if seconds is not None:
            return (now - timedelta(seconds=seconds)).timestamp()
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        raise BadOption(f"--since takes 90m, 12h, 3d or a date such as 2026-11-20T08:00, not {text!r}") from None


def push_jobs(paths: Sequence[str], where: dict[str, Endpoint], since: float | None, again: bool, json: bool) -> bool:
    """Send what these jobs have pending, with progress. True if nothing is left and nothing was refused.

    Raises:
        CannotAnswer: if one of them is no job; before anything is sent.
    """
    jobs = [Job(path) for path in paths]
    for job, path in zip(jobs, paths, strict=True):
        check_job(job, path)
    stop = Stop()
    with _progress(jobs, where, since, again, quiet=json) as advance:
        delivery = Delivery(where, on_request=advance)
        with _stopping(stop, delivery):
            shipments = []
            for job, path in zip(jobs, paths, strict=True):
                if stop.is_set():
                    break
                shipments.append((path, push(job, delivery, since=since, again=again, stop=stop)))
        delivery.close()
    if json:
        document(_document(shipments))
    else:
        _show(shipments, len(paths))
    return len(shipments) == len(paths) and all(_is_good(shipment) for _, shipment in shipments)


def _is_good(shipment: Shipment) -> bool:
    return not (shipment.pending or shipment.report.refused or shipment.failed)


@contextmanager
def _progress(
    jobs: list[Job], where: dict[str, Endpoint], since: float | None, again: bool, *, quiet: bool
) -> Iterator[Any]:
    """A bar on stderr, where that is a terminal; by bytes of the journals, which are known beforehand."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    total = 0
    for job in jobs:
        outbox = Outbox(job)
        outbox.load()
        for journal in outbox.journals():
            if journal.signal in where and (since is None or journal.modified >= since):
                total += journal.size - (0 if again else outbox.offset(journal))
    columns = (TextColumn("sending"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total or None)
        yield lambda number: progress.advance(task, number)


@contextmanager
def _stopping(stop: Stop, delivery: Delivery) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the work after the request under way, so that nothing is sent and not noted."""

    def on_signal(_number: int, _frame: Any) -> None:
        delivery.stopping = True
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(shipments: list[tuple[str, Shipment]], asked: int) -> None:
    terminal = Terminal()
    sent: dict[str, int] = {}
    for path, shipment in shipments:
        report = shipment.report
        for name, number in report.accepted.items():
            add(sent, name, number)
        line = Text.assemble(
            terminal.glyph("success" if _is_good(shipment) else "failed"), " ", (one_line(path), "bold"), "  "
        )
        parts = [f"{words(report.accepted)} sent" if words(report.accepted) else ""]
        parts.append(f"{words(report.refused)} refused, see .stageio/refused.jsonl" if report.refused else "")
        parts.append(f"{words(shipment.pending)} pending" if shipment.pending else "")
        line.append("; ".join(filter(None, parts)) or "nothing was pending")
        terminal.line(line)
        if shipment.failed:
            terminal.line("  ", (shipment.failed, "red"))
        for remark in dict.fromkeys(report.remarks.values()):
            terminal.line("  ", (f"the receiver remarks: {remark}", "yellow"))
        if report.unnoted:
            terminal.line("  ", (f"{UNNOTED}: {report.unnoted}", "yellow"))
        if report.busy:
            terminal.line("  ", ("another process is delivering this job", "yellow"))
        for endpoint, outcome in _distinct(report):
            terminal.line("  ", (f"{endpoint.signal} to {endpoint.place}: {outcome.reason}", "red"))
    if len(shipments) > 1:
        left = sum(1 for _, shipment in shipments if shipment.pending)
        rest = f"; {count(left, 'job')} with records pending" if left else ""
        terminal.line(f"{words(sent) or 'nothing'} sent from {count(len(shipments), 'job')}{rest}")
    if len(shipments) < asked:
        terminal.line((f"stopped: {count(asked - len(shipments), 'job')} not begun", "yellow"))
    if any(shipment.pending for _, shipment in shipments):
        terminal.line(("what is pending is kept; `otel-stageio doctor` says what is wrong with the endpoint", "dim"))


def _distinct(report: Report) -> list[Any]:
    """Each trouble once: an address where nobody answers is the same for all signals."""
    seen: dict[str, Any] = {}
    for endpoint, outcome in report.trouble.values():
        seen.setdefault(endpoint.address if outcome.unreachable else endpoint.url, (endpoint, outcome))
    return list(seen.values())


def _document(shipments: list[tuple[str, Shipment]]) -> dict[str, Any]:
    return {
        "jobs": [
            {
                "job": path,
                "sent": shipment.report.accepted,
                "refused": shipment.report.refused,
                "pending": shipment.pending,
                "requests": shipment.report.requests,
                "remarks": shipment.report.remarks,
                "unnoted": shipment.report.unnoted,
                "failed": shipment.failed,
                "trouble": {
                    name: {"endpoint": endpoint.place, "kind": outcome.kind.value, "reason": outcome.reason}
                    for name, (endpoint, outcome) in shipment.report.trouble.items()
                },
            }
            for path, shipment in shipments
        ]
    }


def watch_tree(root: str, where: dict[str, Endpoint]) -> None:
    """Deliver every job below ``root`` until SIGTERM or Ctrl-C.

    Raises:
        CannotAnswer: if there is no such directory.
    """
    if not Path(root).is_dir():
        raise CannotAnswer(f"{root} is no directory")

    def shipped(job: Job, report: Report) -> None:
        parts = [f"{words(report.accepted)} sent" if words(report.accepted) else ""]
        parts.append(f"{words(report.refused)} refused" if report.refused else "")
        _say(f"{os.path.relpath(job.root, root)}: {'; '.join(filter(None, parts))}")

    said: dict[str, str] = {}

    def trouble(job: Job, name: str, endpoint: Endpoint, outcome: Any) -> None:
        if said.get(name) != outcome.reason:  # the same for ten thousand jobs: once is enough
            said[name] = outcome.reason
            complain(f"{endpoint.signal} to {endpoint.place}: {outcome.reason} (kept, tried again)")

    unnoted: set[str] = set()

    def cannot_note(job: Job, report: Report) -> None:
        if report.unnoted not in unnoted:  # likewise
            unnoted.add(report.unnoted)
            complain(f"{os.path.relpath(job.root, root)}: {UNNOTED} once this ends: {report.unnoted}")

    stop = Stop()
    delivery = Delivery(where, on_trouble=trouble)
    with _stopping(stop, delivery):
        places = ", ".join(dict.fromkeys(endpoint.place for endpoint in where.values()))
        _say(f"watching {root}, sending to {places}")
        Watch(root, delivery, on_shipped=shipped, on_unnoted=cannot_note).run(stop)
    delivery.close()
    _say("stopped")


def _say(text: str) -> None:
    sys.stdout.write(one_line(text) + "\n")
    sys.stdout.flush()
