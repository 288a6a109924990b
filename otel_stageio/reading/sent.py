"""How far a job has been delivered, as its outbox remembers it. A job that was never meant to be sent has none."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from ..delivery.outbox import Outbox
from ..layout import Job
from .text import count, one_line

_WORDS = {"spans": "span", "logs": "log record", "metrics": "metric"}


@dataclass
class Trouble:
    """Why nothing of a signal is accepted. ``signal`` is that of the journal: ``spans``, ``logs``, ``metrics``."""

    signal: str
    kind: str
    endpoint: str
    reason: str
    since: str


@dataclass
class DeliveryView:
    """Attributes:
    accepted, refused: records by signal.
    remarks: by signal, what the receiver said about records that it accepted all the same.
    pending_bytes: of the journals of signals that are sent at all.
    """

    accepted: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    pending_bytes: int = 0
    trouble: list[Trouble] = field(default_factory=list)
    remarks: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return asdict(self)


def read_delivery(job: Job) -> DeliveryView | None:
    """None if nothing of this job was ever sent or tried."""
    if not os.path.exists(job.ack):
        return None
    outbox = Outbox(job)
    outbox.load()
    view = DeliveryView(_numbers(outbox.state.get("accepted")), _numbers(outbox.state.get("refused")))
    remarks = outbox.state.get("remarks")
    view.remarks = {str(name): str(said) for name, said in remarks.items()} if isinstance(remarks, dict) else {}
    troubles = outbox.state.get("trouble")
    for signal, item in troubles.items() if isinstance(troubles, dict) else ():
        if isinstance(item, dict):
            said = (str(item.get(key) or "") for key in ("kind", "place", "reason", "since"))
            view.trouble.append(Trouble(str(signal), *said))
    sent = {*view.accepted, *view.refused, *(item.signal for item in view.trouble)}
    view.pending_bytes = sum(
        journal.size - outbox.offset(journal) for journal in outbox.pending() if journal.signal in sent
    )
    return view


def words(numbers: dict[str, int]) -> str:
    """``{"spans": 2, "logs": 1}`` -> ``2 spans, 1 log record``."""
    return ", ".join(count(number, _WORDS.get(name, one_line(name))) for name, number in numbers.items() if number)


def _numbers(content: Any) -> dict[str, int]:
    given = content if isinstance(content, dict) else {}
    return {str(name): number for name, number in given.items() if type(number) is int}
