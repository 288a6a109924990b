"""Spans that no process can end any more, built directly with the ids that were kept for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import semconv as sc
from .._version import __version__
from ..capture import Capture
from ..sinks.files import AppendFile
from ..sinks.spool import span_envelope
from . import decode, encode

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.sdk.trace import Event as SpanEvent
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Link, SpanKind

    from ..layout import Job
    from ..run import Run


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


def write_root(
    job: Job, run: Run, status: str, end_ns: int, error: BaseException | None = None, lent: Path | None = None
) -> bool:
    """Write the root span of a run to the run's own spool file, unless it is there already. False if it is not there.

    Args:
        lent: a journal of the run, whose resource the span gets; without one, that of this process.
    """
    from opentelemetry.trace import Link, SpanKind

    from .provider import disabled

    path = job.run_journal(run.attempt)
    # There already: whoever closed the run was killed before the run's record said so.
    if disabled():
        return True
    try:
        if any(span.get("spanId") == f"{run.root_span_id:016x}" for span in decode.spans(decode.Lines(path))):
            return True
    except OSError:
        return False
    attributes: dict[str, Any] = {
        **run.data.get("attributes", {}),
        sc.PIPELINE_NAME: run.pipeline,
        sc.PIPELINE_RUN_ID: run.run_id,
        sc.PIPELINE_ACTION: "RUN",
        sc.JOB_ATTEMPT: run.attempt,
        sc.RUN_IMPLICIT: run.implicit,
    }
    if status in sc.RESULTS:
        attributes[sc.PIPELINE_RESULT] = sc.RESULTS[status]
    links = [Link(context(*run.previous), {sc.LINK: "previous attempt"})] if run.previous else []
    root = build(
        f"RUN {run.pipeline}",
        (run.trace_id, run.root_span_id),
        run.parent,
        (run.started_ns, max(end_ns, run.started_ns)),
        attributes,
        status,
        kind=SpanKind.SERVER,
        error_type=type(error).__name__ if error is not None else None,
        message=f"the run ended as {status}",
        links=links,
    )
    envelope = span_envelope(root, Capture(job))
    if lent is not None:
        from ..past import resource_of

        try:
            resource, schema = resource_of(job, lent)
        except OSError:
            return False
        about = encode.scope(sc.SCOPE_NAME, __version__)
        envelope = encode.Envelope("spans", resource, about, schema, sc.SCHEMA_URL)
    file = AppendFile(path)
    written = file.write(envelope.line(encode.span(root)))
    file.close()
    return written
