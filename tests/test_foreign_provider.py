"""A program that has an OpenTelemetry provider of its own keeps it: our processor joins, its export is left alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from conftest import needs
from helpers import LIMIT, environment, run_command, start_python, write_script
from opentelemetry import trace
from receiver import Receiver
from stack import wait_until

from otel_stageio import StageIO
from otel_stageio.testing import Records

APPLICATION = """
    import json, os
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.sampling import {sampler}

    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({{"service.name": "shop"}}), sampler={sampler})
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    from otel_stageio import StageIO

    with trace.get_tracer("shop").start_as_current_span("request"):
        with StageIO("asr", os.environ["JOB"]) as io:
            with io.span("inner", hf_token="hf_abcdefghijkl"):
                io.add_warning("careful")
    assert trace.get_tracer_provider() is provider
    print(json.dumps([[span.name, f"{{span.context.span_id:016x}}", dict(span.attributes)]
                      for span in exporter.get_finished_spans()], default=list))
"""


def run(records: Records, sampler: str) -> list[list[object]]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(APPLICATION.format(sampler=sampler))],
        env={**os.environ, "JOB": str(records.job)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    exported: list[list[object]] = json.loads(done.stdout)
    return exported


def test_its_spans_are_exported_by_it_and_ours_are_in_the_spool_with_the_same_ids(records: Records) -> None:
    exported = run(records, "ALWAYS_ON")
    assert [name for name, _, _ in exported] == ["inner", "asr", "request"]
    spooled = {span["name"]: span for span in records.spans("asr")}
    assert {name: span["spanId"] for name, span in spooled.items()} == {name: id_ for name, id_, _ in exported[:2]}
    assert spooled["asr"]["resource"]["service.name"] == "shop"
    assert spooled["asr"]["parentSpanId"] == exported[2][1]
    assert "hf_abcdefghijkl" not in json.dumps(exported)  # captured before the application's exporter sees it
    assert "request" not in spooled  # not ours to keep


def test_a_sampler_that_drops_our_spans_does_not_drop_the_record(records: Records) -> None:
    assert run(records, "ALWAYS_OFF") == []
    assert records.manifest("asr")["status"] == "success"
    assert records.manifest("asr")["warnings"][0]["message"] == "careful"


# -- opentelemetry-instrument ----------------------------------------------------------------------------------------

FETCH = """
    import sys
    import requests
    from otel_stageio import Pipeline

    job, url = sys.argv[1:3]
    with Pipeline("films", job) as run:
        with run.stage("tmdb") as io:
            io.get_stage_logger("CRITICAL").info("asking")
            requests.post(url, timeout=10)
            if "fail" in sys.argv:
                raise ValueError("no such film")
"""


@pytest.fixture
def instrument() -> str:
    needs("opentelemetry.instrumentation.requests")
    return str(needs("opentelemetry-instrument"))


@pytest.mark.parametrize("fails", [False, True])
def test_under_opentelemetry_instrument_everything_arrives_once_in_one_trace(
    instrument: str, records: Records, tmp_path: Path, fails: bool
) -> None:
    script = write_script(tmp_path / "app.py", FETCH)
    with Receiver() as receiver, Receiver() as website:
        done = run_command(
            [instrument, "--service_name", "films", sys.executable, str(script), str(records.job), website.url,
             *(["fail"] if fails else [])],
            cwd=tmp_path,
            env=environment(
                OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
                OTEL_STAGEIO_EXIT_BUDGET="30", PYTHONWARNINGS="ignore",
            ),
        )  # fmt: skip
        assert done.returncode == int(fails), done.stderr
        spans = {span.name: span for span in receiver.spans}
        assert receiver.span_ids == Counter(span.span_id.hex() for span in spans.values())
        assert set(spans) == {"RUN films", "tmdb", "POST"}  # theirs: tmdb and POST; ours: the run's root
        assert spans["POST"].parent_span_id == spans["tmdb"].span_id
        assert spans["tmdb"].parent_span_id == spans["RUN films"].span_id
        assert len({span.trace_id for span in spans.values()}) == 1
        assert receiver.bodies["asking"] == 1
        services = {
            attribute.value.string_value
            for received in receiver.accepted
            for _, resources in received.message.ListFields()
            for resource in resources
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }
        assert services == {"films"}  # one row in a trace viewer, whoever sent the span
        # The spool has everything, and knows that it need not be sent.
        assert {span["name"] for span in records.spans()} == {"RUN films", "tmdb", "POST"}
        again = run_command(
            [sys.executable, "-m", "otel_stageio", "push", str(records.job), "--endpoint", receiver.url], cwd=tmp_path
        )
        assert again.returncode == 0, again.stderr
        assert set(receiver.span_ids.values()) == {1}
        run_command(
            [sys.executable, "-m", "otel_stageio", "push", str(records.job), "--endpoint", receiver.url, "--again"],
            cwd=tmp_path,
        )
        assert set(receiver.span_ids.values()) == {2}


def test_what_a_killed_program_did_not_export_is_sent_by_push(
    instrument: str, records: Records, tmp_path: Path
) -> None:
    """Its batch processor dies with it; the stage's span is written by recovery, and that one is ours to send."""
    script = write_script(
        tmp_path / "app.py",
        """
        import sys
        from otel_stageio import StageIO

        with StageIO("asr", sys.argv[1]):
            print("open", flush=True)
            sys.stdin.readline()
        """,
    )
    with Receiver() as receiver:
        process = subprocess.Popen(
            [instrument, sys.executable, str(script), str(records.job)],
            env=environment(
                OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
                PYTHONWARNINGS="ignore",
            ),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert "open\n" in iter(process.stdout.readline, "")
        process.kill()
        process.communicate(timeout=LIMIT)
        assert receiver.spans == []
        done = run_command(
            [sys.executable, "-m", "otel_stageio", "push", str(records.job), "--endpoint", receiver.url], cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert Counter(span.name for span in receiver.spans) == {"asr": 1, f"RUN {records.job.name}": 1}


def test_our_own_requests_make_no_spans_where_the_http_client_is_instrumented(records: Records, tmp_path: Path) -> None:
    needs("opentelemetry.instrumentation.requests")
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys
        from opentelemetry.instrumentation.requests import RequestsInstrumentor
        from otel_stageio import StageIO

        RequestsInstrumentor().instrument()
        with StageIO("asr", sys.argv[1]) as io:
            with io.span("early"):
                pass
            sys.stdin.readline()
        """,
    )
    with Receiver() as receiver:
        process = start_python(script, records.job, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, PYTHONWARNINGS="ignore")
        wait_until(lambda: any(span.name == "early" for span in receiver.spans))
        process.communicate("\n", timeout=LIMIT)
        run_command(
            [sys.executable, "-m", "otel_stageio", "push", str(records.job), "--endpoint", receiver.url], cwd=tmp_path
        )
        assert {span.name for span in receiver.spans} == {"early", "asr", "RUN job"}


def test_a_decorated_function_has_a_span_where_it_is_called_in_a_stage(records: Records) -> None:
    with StageIO("demux", records.job):  # makes our provider the global one
        pass
    tracer = trace.get_tracer("shop")

    @tracer.start_as_current_span("work")
    def work() -> bool:
        return trace.get_current_span().is_recording()

    @tracer.start_as_current_span("wait")
    async def wait() -> bool:
        await asyncio.sleep(0)
        return trace.get_current_span().is_recording()

    assert not work()
    assert not asyncio.run(wait())
    with StageIO("asr", records.job):
        assert work()
        assert asyncio.run(wait())
    assert [span["name"] for span in records.spans("asr")] == ["work", "wait", "asr"]


def test_who_adds_a_processor_to_our_provider_sees_what_is_outside_of_stages_too(records: Records) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent("""
        import os
        from opentelemetry import trace
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from otel_stageio import StageIO

        tracer = trace.get_tracer("shop")
        with StageIO("demux", os.environ["JOB"]), tracer.start_as_current_span("inside"):
            pass
        with tracer.start_as_current_span("seen by nobody") as span:
            assert not span.is_recording()
        exporter = InMemorySpanExporter()
        trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
        with tracer.start_as_current_span("request"), StageIO("asr", os.environ["JOB"]):
            pass
        print(*[span.name for span in exporter.get_finished_spans()])
    """)], env={**os.environ, "JOB": str(records.job)}, capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "asr request\n"), done.stderr
    assert {span["name"] for span in records.spans()} >= {"demux", "inside", "asr"}
