"""Getting spans to a receiver, and getting out of the process when there is none, against the stock exporter."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_stageio import StageIO
from otel_stageio.delivery.delivery import Delivery
from otel_stageio.delivery.settings import endpoints
from otel_stageio.delivery.shipper import push
from otel_stageio.layout import Job

from .measure import Result, Scale, take_turns
from .receiver import receiver
from .scratch import new_job

#: Seconds that a process with an endpoint may take longer to end than one without, whatever is wrong with it.
LONGER = 0.5

_OURS = """
import sys
from otel_stageio import StageIO
with StageIO("asr", sys.argv[1]) as io:
    with io.span("step"):
        pass
"""
_STOCK = """
import os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
provider = TracerProvider()
if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
with trace.get_tracer("bench").start_as_current_span("asr"):
    with trace.get_tracer("bench").start_as_current_span("step"):
        pass
"""


def delivery(where: Path, scale: Scale) -> Iterator[Result]:
    with receiver() as url:
        yield from _rate(where, scale, f"{url}/200")
        yield from _exit(where, scale, url)


def _rate(where: Path, scale: Scale, url: str) -> Iterator[Result]:
    number = scale.files * 2
    repetitions = max(scale.repetitions // 12, 2)
    finished = _finished(number)

    def recorded() -> Job:
        job = Job(new_job(where))
        with StageIO("asr", job.base) as io:
            for step in range(number):
                with io.span("step", step=step, model="large-v3"):
                    pass
        return job

    def send(job: Job) -> None:
        sender = Delivery(endpoints({}, endpoint=url))
        if push(job, sender).pending:
            raise RuntimeError("not everything was sent")
        sender.close()

    def ours_sent() -> float:
        job = recorded()
        started = time.perf_counter()
        send(job)
        return (time.perf_counter() - started) / number

    def stock_sent() -> float:
        exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces")
        started = time.perf_counter()
        for first in range(0, number, 512):  # as many as its batch processor puts into one request
            exporter.export(finished[first : first + 512])
        return (time.perf_counter() - started) / number

    def ours_whole() -> float:
        started = time.perf_counter()
        send(recorded())
        return (time.perf_counter() - started) / number

    def stock_whole() -> float:
        provider = TracerProvider(resource=Resource({"service.name": "bench"}), shutdown_on_exit=False)
        # With its default of 2,048 it would drop most of them.
        exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=max(number, 512)))
        tracer = provider.get_tracer("bench")
        started = time.perf_counter()
        for step in range(number):
            with tracer.start_as_current_span("step", attributes={"step": step, "model": "large-v3"}):
                pass
        provider.force_flush(600_000)
        taken = (time.perf_counter() - started) / number
        provider.shutdown()
        return taken

    seconds = take_turns(
        {"ours_sent": ours_sent, "stock_sent": stock_sent, "ours_whole": ours_whole, "stock_whole": stock_whole},
        repetitions,
    )
    yield Result("send", "a span: spool to receiver", "stock exporter", seconds["ours_sent"], seconds["stock_sent"])
    yield Result(
        "record and send", "a span: made, on disk, accepted", "SDK, stock batch exporter", seconds["ours_whole"],
        seconds["stock_whole"],
    )  # fmt: skip


def _finished(number: int) -> list[ReadableSpan]:
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "bench"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("bench")
    for step in range(number):
        with tracer.start_as_current_span("step", attributes={"step": step, "model": "large-v3"}):
            pass
    return list(kept.get_finished_spans())


def _exit(where: Path, scale: Scale, url: str) -> Iterator[Result]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"  # bound, never listening: connections are refused
        troubles = {
            "accepts": f"{url}/200",
            "takes 2 s to answer": f"{url}/slow",
            "nobody there": nobody,
            "never answers": f"{url}/silent",
            "answers 503": f"{url}/503",
            "answers 401": f"{url}/401",
        }
        contenders = {}
        for side, program in (("ours", _OURS), ("stock", _STOCK)):
            script = where / f"{side}.py"
            script.write_text(program)
            for trouble, endpoint in {"none": "", **troubles}.items():
                contenders[f"{side} {trouble}"] = _process(where, script, endpoint)
        seconds = take_turns(contenders, max(scale.processes // 7, 2))
    for trouble in troubles:
        longer = {
            side: [
                max(one - base, 0.001)
                for one, base in zip(seconds[f"{side} {trouble}"], seconds[f"{side} none"], strict=True)
            ]
            for side in ("ours", "stock")
        }
        yield Result(
            f"exit: {trouble}", f"endpoint {trouble}: process longer by", "stock exporter: longer by",
            longer["ours"], longer["stock"], limit=LONGER,
        )  # fmt: skip


def _process(where: Path, script: Path, endpoint: str) -> Callable[[], float]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OTEL_STAGEIO_CONSOLE": "plain"}
    if endpoint:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint

    def run() -> float:
        job = new_job(where)
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, script, job], check=True, cwd=where, env=environment, capture_output=True, timeout=120
        )
        return time.perf_counter() - started

    return run
