"""Which stage is speaking: by OpenTelemetry context first, else the only one that is open in this process.

Context follows ``with`` blocks, coroutines and tasks by itself. New threads start with an empty one; as long as a
single stage is open there is no doubt whom they work for, and with two open we do not guess. Nor do we where a task of
an engine has opened it: another thread may be another task, of another job, that has not opened its stage yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import trace

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from .pipeline.pipeline import Pipeline
    from .stages.recorder import Recorder

_RECORDER = otel_context.create_key("otel_stageio-recorder")
_HANDED = otel_context.create_key("otel_stageio-handed")


class Handed(NamedTuple):
    """The run that the code of a context works for, as somebody else has handed it over.

    Attributes:
        job: the job directory.
        alone: whether this process is at nothing else meanwhile.
    """

    job: str
    run_id: str
    alone: bool


def with_handed(handed: Handed, context: Context) -> Context:
    return otel_context.set_value(_HANDED, handed, context)


def handed() -> Handed | None:
    return otel_context.get_value(_HANDED)  # type: ignore[return-value]


#: Every stage that is open in this process, in order of opening.
open_recorders: list[Recorder] = []
#: Job root -> the pipeline that owns its run in this process.
open_pipelines: dict[str, Pipeline] = {}


def with_recorder(recorder: Recorder, context: Context) -> Context:
    return otel_context.set_value(_RECORDER, recorder, context)


def recorder_in(context: Context) -> Recorder | None:
    """The stage inside which a context was made."""
    return otel_context.get_value(_RECORDER, context)  # type: ignore[return-value]


def recorder_of(context: Context | None) -> Recorder | None:
    """The stage in whose context a span begins; None if it is none of ours."""
    recorder = otel_context.get_value(_RECORDER, context)
    if recorder is not None:
        return recorder  # type: ignore[return-value]
    parent = trace.get_current_span(context).get_span_context()
    if parent.is_valid:
        for candidate in reversed(open_recorders):
            if candidate.trace_id == parent.trace_id:
                return candidate
    return None


def ambient() -> Recorder | None:
    """The stage of the current context, else the only open one."""
    recorder = otel_context.get_value(_RECORDER)
    if recorder is not None:
        return recorder  # type: ignore[return-value]
    if len(open_recorders) == 1 and not open_recorders[0].in_company:
        return open_recorders[0]
    return None


@contextmanager
def attached(context: Context) -> Iterator[None]:
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)
