"""One spool file, line by line: whole, under the limit, and each a request of OTLP's own definition."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

from ..otlp import decode
from ..reading.disk import LARGEST_LINE, Unreadable, lines, parsed
from .findings import Findings
from .otlp_check import NotOtlp, as_request, faults, sampled, spans_of
from .trace_check import Attempt, Traces

#: How every line begins; quotes inside a string are escaped, so it is nowhere else.
_HEAD = re.compile(rb'\{"resource(?:Logs|Spans|Metrics)":')
#: What is cut off shows as an error this near to the end: a literal, an escape, half a character.
_NEAR_END = 8


def spool_file(path: Path, shown: str, signal: str, attempt: Attempt, traces: Traces, findings: Findings) -> None:
    """Check a file of ``signal``; its spans go to ``traces``, its events to the fold of ``attempt``."""
    findings.looked_at("spool file")
    first = True
    try:
        for line in lines(path):
            findings.looked_at("line")
            if len(line.raw) >= LARGEST_LINE:
                findings.error(shown, "is 1 MiB or longer, which receivers refuse", line.number)
                continue
            content = parsed(line.raw)
            if content is None:
                content = _whole_part(line.raw, shown, line.number, findings)
            if content is None:
                continue
            try:
                request = as_request(content, signal)
            except NotOtlp as error:
                findings.error(shown, f"is not an OTLP request of {signal}: {error}", line.number)
                continue
            for span in spans_of(request):
                findings.looked_at("span")
                for fault in faults(span):
                    findings.error(shown, f"span {span.span_id} ({span.name}) {fault}", line.number)
                traces.add(span, shown, line.number, findings)
            if signal == "logs":
                attempt.file = shown
                attempt.sampled = sampled(request) if first else attempt.sampled
                first = False
                _fold(content, attempt, shown, line.number, findings)
    except Unreadable as error:
        findings.error(shown, str(error))


def _whole_part(raw: bytes, shown: str, number: int, findings: Findings) -> dict[str, Any] | None:
    """Of a line that is no JSON: the whole one at its end, if another process wrote it after half a line."""
    heads = [match.start() for match in _HEAD.finditer(raw)]
    if heads and heads[-1] > 0 and (content := parsed(raw[heads[-1] :])) is not None:
        findings.warning(shown, "begins with half a line (a crash or a full disk); readers take the whole one", number)
        return content
    if _is_torn(raw):
        findings.warning(shown, "is cut off (a crash or a full disk); readers pass over it", number)
    else:
        findings.error(shown, "is not JSON", number)
    return None


def _is_torn(raw: bytes) -> bool:
    """Whether a line is the beginning of one of ours, rather than something else or damaged in its middle."""
    raw = raw.rstrip(b"\n")
    if not raw.strip(b"\0"):  # a block that was never written before the power failed
        return True
    if not raw.startswith(b"{"):
        return False
    text = raw.decode("utf-8", "replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.msg.startswith("Unterminated string") or error.pos >= len(text) - _NEAR_END
    except (ValueError, RecursionError):
        pass
    return False


def _fold(content: dict[str, Any], attempt: Attempt, shown: str, line: int, findings: Findings) -> None:
    try:
        for event in decode.events(cast(decode.Lines, (content,))):
            attempt.fold.apply(event)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        findings.error(shown, f"has an event that cannot be folded: {type(error).__name__}: {error}", line)
