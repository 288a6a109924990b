"""Spans that no process can end any more, built directly with the ids that were kept for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import semconv as sc

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event as SpanEvent
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Link, SpanKind


def context(trace_id: int, span_id: int, *, remote: bool = True) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(trace_id, span_id, is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def build(
    name: str,
    ids: tuple[int, int],
    parent: int | None,
    times: tuple[int, int],
    attributes: dict[str, Any],
    status: str,
    *,
    kind: SpanKind | None = None,
    error_type: str | None = None,
    message: str | None = None,
    events: Sequence[SpanEvent] = (),
    links: Sequence[Link] = (),
) -> ReadableSpan:
    """An ended span. ``ids`` are trace and span id, ``times`` start and end in nanoseconds."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanKind, Status, StatusCode

    from .provider import process_resource, scope

    good = status in sc.GOOD_STATUSES or status == "incomplete"
    if not good:
        attributes = {**attributes, sc.ERROR_TYPE: error_type or status}
    return ReadableSpan(
        name,
        context(*ids, remote=False),
        parent=context(ids[0], parent) if parent else None,
        resource=process_resource(),
        attributes=attributes,
        events=events,
        links=links,
        kind=kind or SpanKind.INTERNAL,
        status=Status(StatusCode.UNSET) if good else Status(StatusCode.ERROR, message),
        start_time=times[0],
        end_time=times[1],
        instrumentation_scope=scope(),
    )
