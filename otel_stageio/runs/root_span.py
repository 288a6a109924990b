"""The root span of a run, ``RUN <pipeline>``, in a spool file of the run's own."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import Link, SpanKind

from .. import semconv as sc
from .._version import __version__
from ..capture import Capture
from ..layout import Job
from ..otlp import decode, encode
from ..otlp.built_span import build, context
from ..otlp.provider import disabled
from ..sinks.envelopes import resource_of
from ..sinks.files import AppendFile
from ..sinks.spool import span_envelope
from .run_file import Run


def write_root(
    job: Job, run: Run, status: str, end_ns: int, error: BaseException | None = None, lent: str | None = None
) -> bool:
    """Write the root span of a run to the run's own spool file, unless it is there already. False if it is not there.

    Args:
        lent: a journal of the run, whose resource the span gets; without one, that of this process.
    """
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
