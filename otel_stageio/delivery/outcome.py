"""How a receiver answered one request, in the five words that delivery acts on.

The rules are OTLP's: https://opentelemetry.io/docs/specs/otlp/#failures . Where it lets a client drop data, this one
keeps it: a 500, and anything that says that the receiver or the address is wrong rather than the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from http.client import BadStatusLine


class Kind(Enum):
    ACCEPTED = "accepted"
    #: Nobody there, busy, or broken for now: later.
    LATER = "later"
    #: The receiver refuses us, not the data (401, 404, TLS, a wrong address): kept until somebody mends it.
    MISCONFIGURED = "misconfigured"
    #: The receiver cannot use this data, ever.
    REFUSED = "refused"
    TOO_LARGE = "too large"


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    reason: for people, e.g. ``503 Service Unavailable: queue is full``; empty for a plain success.
    retry_after: seconds that the receiver asked for.
    rejected: records of an accepted request that the receiver dropped (OTLP's partial success).
    unreachable: there was no answer at all, so other signals at the same address need not try.
    """

    kind: Kind
    reason: str = ""
    retry_after: float | None = None
    rejected: int = 0
    unreachable: bool = False


#: What a receiver may ask for at most, in seconds: it must not put us off until next year.
LONGEST_WAIT = 3600.0


def wait(seconds: float) -> float | None:
    """For how long a receiver may put us off, if it asks for so many seconds."""
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else None


def unforeseen(error: Exception) -> Outcome:
    """For what a library raises that nobody thought of. Not its text: there may be an address or a header in it."""
    return Outcome(Kind.LATER, f"the request failed ({type(error).__name__})")


def one_line(text: str, longest: int = 300) -> str:
    """For a reason that is shown: one line, printable, not long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * longest]).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def innermost(error: BaseException) -> str:
    """What is at the bottom of ``requests``' wrapped errors: ``Connection refused`` and not three classes around it."""
    seen = {id(error)}
    while True:
        below = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
        below = below if isinstance(below, BaseException) else error.__cause__
        if below is None or id(below) in seen:
            break
        error = below
        seen.add(id(error))
    if isinstance(error, BadStatusLine) and not isinstance(error, ConnectionError):
        return "what answers there speaks no HTTP"  # a gRPC port, for example; its bytes say nothing to anybody
    if isinstance(error, OSError) and error.strerror:
        return one_line(error.strerror)
    return one_line(str(error).rpartition(">: ")[2] or type(error).__name__)
