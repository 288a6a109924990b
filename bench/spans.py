"""An inner span, which lands in the spool at once, against the raw SDK's, which lands in a batch in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from opentelemetry import context as otel_context

from otel_stageio import StageIO

from .measure import Result, Scale, each, take_turns
from .scratch import new_job
from .sdk import raw_sdk


def spans(where: Path, scale: Scale) -> Iterator[Result]:
    with raw_sdk() as provider, StageIO("asr", new_job(where)) as io:
        tracer = provider.get_tracer("bench")

        def ours() -> float:
            def step(number: int) -> None:
                with io.span("transcribe", chunk=number, model="large-v3"):
                    pass

            return each(step, scale.calls)

        def theirs() -> float:
            def step(number: int) -> None:
                with tracer.start_as_current_span("transcribe", attributes={"chunk": number, "model": "large-v3"}):
                    pass

            token = otel_context.attach(otel_context.Context())
            try:
                with tracer.start_as_current_span("stage"):
                    return each(step, scale.calls)
            finally:
                otel_context.detach(token)
                provider.force_flush()  # the queue is empty again, and the worker asleep, when others are timed

        seconds = take_turns({"ours": ours, "theirs": theirs}, scale.repetitions)
    yield Result("span", "io.span, 2 attributes, spooled", "SDK span, batched", seconds["ours"], seconds["theirs"], 1.3)
