"""An inner span, which is encoded and in the spool when it ends, against the raw SDK's, which is in a queue in memory.

The SDK is not done then: a thread encodes the batch later, on the same processors. The second line has that as well.
logfire's spans go nowhere either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import logfire
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import TracerProvider

from otel_stageio import StageIO

from .measure import Result, Scale, each, take_turns
from .scratch import new_job
from .sdk import Encoded, raw_sdk


def spans(where: Path, scale: Scale) -> Iterator[Result]:
    with raw_sdk() as queueing, raw_sdk(Encoded()) as encoding, StageIO("asr", new_job(where)) as io:

        def step(number: int) -> None:
            with io.span("transcribe", chunk=number, model="large-v3"):
                pass

        alone = logfire.configure(local=True, send_to_logfire=False, console=False, inspect_arguments=False)

        def fire(number: int) -> None:
            with alone.span("transcribe", chunk=number, model="large-v3"):
                pass

        seconds = take_turns(
            {
                "logfire": lambda: _elsewhere(lambda: each(fire, scale.calls)),
                "ours": lambda: each(step, scale.calls),
                "queued": _sdk(queueing, scale.calls, flushed=False),
                "encoded": _sdk(encoding, scale.calls, flushed=True),
            },
            scale.repetitions,
        )
    ours = "io.span, 2 attributes, spooled"
    yield Result("span", ours, "SDK span, batched", seconds["ours"], seconds["queued"], 1.3)
    yield Result("span-encoded", ours, "SDK span, batched and encoded", seconds["ours"], seconds["encoded"])
    yield Result("span-logfire", ours, "logfire.span, sent nowhere", seconds["ours"], seconds["logfire"], 0.3)


def _elsewhere(work: Callable[[], float]) -> float:
    """In a context that knows nothing of the stage."""
    token = otel_context.attach(otel_context.Context())
    try:
        return work()
    finally:
        otel_context.detach(token)


def _sdk(provider: TracerProvider, calls: int, *, flushed: bool) -> Callable[[], float]:
    """Spans within a parent. ``flushed``: until the batch is through."""
    tracer = provider.get_tracer("bench")

    def step(number: int) -> None:
        with tracer.start_as_current_span("transcribe", attributes={"chunk": number, "model": "large-v3"}):
            pass

    def run() -> float:
        def within() -> float:
            with tracer.start_as_current_span("stage"):
                return each(step, calls)

        seconds = _elsewhere(within)
        started = time.perf_counter()
        provider.force_flush()  # in any case: the queue is empty again, and the worker asleep, when others are timed
        return seconds + (time.perf_counter() - started) / calls if flushed else seconds

    return run
