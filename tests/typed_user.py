"""A program of somebody else's, which a strict type checker passes with nothing but the installed wheel.

``nox -s types`` checks and runs it. The ``ignore`` comments stand at what must be an error: where the package's types
are not found, everything is ``Any``, and mypy says that they are not used.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span

from otel_stageio import Manifest, Pipeline, RunRecord, StageIO, begin_run, end_run, join_run, recover, stage

if TYPE_CHECKING:
    from typing_extensions import assert_type  # in typing from Python 3.11 on
else:

    def assert_type(value: Any, _: Any) -> Any:
        return value


@stage("alignment", output_base="job")
def align(io: StageIO, language: str, beam: int = 5) -> Path:
    return io.save_json([], f"{language}{beam}.json")


@stage("translation", output_base="job")
async def translate(io: StageIO, language: str) -> str:
    return language


def work(io: StageIO) -> None:
    log = assert_type(io.get_stage_logger(), logging.Logger)
    log.info("working")
    with io.span("transcribe", chunks=41) as span:
        assert_type(span, Span)
        io.progress(done=1, total=41, unit="chunks")
    path = io.save_json({"text": "…"}, "segments.json")
    assert_type(io.track_output(path, "transcript", language="en"), Path)
    assert_type(io.track_output(str(path)), str)
    assert_type(io.get_output_path("segments.json"), Path)
    assert_type(io.trace_id, str)


def main() -> None:
    with Pipeline("films", "job") as run:
        assert_type(run, Pipeline)
        with assert_type(run.stage("asr"), StageIO) as io:
            work(io)
        assert_type(run.command("mux", [sys.executable, "-c", ""], timeout=60).returncode, int)
    assert_type(align("en", beam=8), Path)
    assert_type(asyncio.run(translate("de")), str)
    assert_type(Manifest.load("job/06_asr/manifest.json").status, str)
    assert_type(RunRecord.load("job"), RunRecord)
    assert_type(recover("job"), list[str])


def elsewhere() -> None:
    """Under a scheduler."""
    environment = assert_type(begin_run("films", "job2"), dict[str, str])
    with join_run(environment), StageIO("mux", "job2"):
        pass
    assert_type(end_run("job2"), str)


def wrong(run: Pipeline, io: StageIO) -> None:
    """Never called."""
    io.progress("many")  # type: ignore[arg-type]
    io.no_such_method()  # type: ignore[attr-defined]
    run.command("mux", 7)  # type: ignore[arg-type]
    align()  # type: ignore[call-arg]
    align(7)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
    elsewhere()
