"""A program that has an OpenTelemetry provider of its own keeps it: our processor joins, its export is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

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
