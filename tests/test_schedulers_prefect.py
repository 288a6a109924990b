"""The example for Prefect as it stands, with Prefect itself, in an environment of its own (`make binaries`)."""

from __future__ import annotations

import json
from pathlib import Path

import prefect_environment
import pytest
from conftest import IN_CI
from helpers import ROOT, read_manifest, write_script
from schedulers import GOOD, LIMIT, STAGES, World, is_one_trace, spans_of, stages_of

from otel_stageio import RunRecord

#: Any connection that is not to this machine is noted, and refused.
HERE_ONLY = """\
import os, sys

def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in ("127.0.0.1", "::1", "localhost"):
        with open(os.environ["CALLED_OUTSIDE"], "a") as file:
            print(args[1], file=file)
        raise ConnectionRefusedError(f"{args[1]} is outside")

sys.addaudithook(watch)
"""

#: The flow in a program that has an SDK of its own; it prints every span's name and parent, by its id.
TRACED = """\
import json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
import flow

flow.subtitles(sys.argv[1:])
of = lambda context: context and f"{context.span_id:016x}"
print(json.dumps({of(span.context): [span.name, of(span.parent)] for span in exporter.get_finished_spans()}))
"""


def prefect_settings(tmp_path: Path) -> dict[str, str]:
    """A home of its own, a server that is there while the flow is, nobody told; and what shows that nobody was."""
    write_script(tmp_path / "here_only" / "sitecustomize.py", HERE_ONLY)
    return {
        "PYTHONPATH": f"{tmp_path / 'here_only'}:{ROOT}",
        "PYTHONWARNINGS": "default",
        "CALLED_OUTSIDE": str(tmp_path / "called.txt"),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(LIMIT),
    }


@pytest.fixture(scope="module")
def prefect_python() -> str:
    if reason := prefect_environment.missing():
        if IN_CI:
            pytest.fail(f"{reason}; CI is to have everything", pytrace=False)
        pytest.skip(reason)
    return str(prefect_environment.python())


def test_a_flow_of_prefect(prefect_python: str, tmp_path: Path) -> None:
    world = World(tmp_path, "prefect")
    jobs = world.jobs(4)
    world.fate(jobs[1], "transcribe", "exit 3")  # fails once, and is retried
    world.fate(jobs[2], "mux-film", "exit 3")  # fails for good
    done = world.run(
        prefect_python,
        "flow.py",
        *map(str, jobs),
        **prefect_settings(tmp_path),
    )
    assert done.returncode == 1
    assert "not every job has succeeded" in done.stderr
    words = ["success", "success", "failed", "success"]
    assert [line.rsplit(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith(str(world.out))] == words
    for job, word in zip(jobs, words, strict=True):
        is_one_trace(job)
        assert RunRecord.load(job).status == word
        assert stages_of(job) == {**GOOD, "mux": word}
    assert [each["status"] for each in read_manifest(jobs[1] / "06_asr")["attempts"]] == ["failed"]
    assert not (tmp_path / "called.txt").exists()


def test_the_spans_of_prefect_are_around_the_runs_and_the_stages(prefect_python: str, tmp_path: Path) -> None:
    world = World(tmp_path, "prefect")
    (job,) = world.jobs(1)
    write_script(world.place / "traced.py", TRACED)
    done = world.run(prefect_python, "traced.py", str(job), **prefect_settings(tmp_path))
    assert done.returncode == 0, done.stderr
    parents = json.loads(done.stdout.splitlines()[-1])
    (flow,) = [span for span, (_, parent) in parents.items() if parent is None]
    tasks = {span: name for span, (name, parent) in parents.items() if parent == flow and name not in STAGES}
    below = {str(span["name"]): span["parentSpanId"] for span in spans_of(job)}
    assert below.pop("RUN subtitles") == flow
    assert {stage: tasks[below[stage]].split("-")[0] for stage in STAGES} == {stage: stage for stage in STAGES}
