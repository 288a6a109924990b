"""W3C trace context in environment variables: how a child process finds its parent span.

The Python SDK's environment carrier is private and changed in 1.44; this is small enough to own.
https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from ..semconv import ENV_TRACEPARENT, ENV_TRACESTATE

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def inject(context: SpanContext) -> dict[str, str]:
    """The variables that hand ``context`` to a child."""
    # Version 00 defines the sampled flag alone (and 1.44's random flag): send what is defined, no more.
    flags = int(context.trace_flags) & 0x03
    carrier = {ENV_TRACEPARENT: f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"}
    if context.trace_state:
        carrier[ENV_TRACESTATE] = ",".join(f"{key}={value}" for key, value in context.trace_state.items())
    return carrier


def extract(environ: Mapping[str, str] | None = None) -> SpanContext | None:
    """The span handed over by the environment; None if there is none or it is malformed."""
    environ = os.environ if environ is None else environ
    header = environ.get(ENV_TRACEPARENT)
    if not header or "tracecontext" not in environ.get("OTEL_PROPAGATORS", "tracecontext"):
        return None
    match = _TRACEPARENT.fullmatch(header.strip().lower())
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    if not trace_id or not span_id:
        return None
    state = environ.get(ENV_TRACESTATE, "")
    return SpanContext(
        trace_id,
        span_id,
        is_remote=True,
        trace_flags=TraceFlags(int(match[4], 16) & 0x03),
        trace_state=TraceState.from_header([state]) if state else None,
    )
