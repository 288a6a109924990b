"""A job that is run again: what was is kept and can be found, nothing stale comes along, old jobs come to no harm."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import read_manifest, run_python, strict_json, write_script
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from otel_stageio import Manifest, Pipeline, RunRecord, StageIO, recover
from otel_stageio.cli.app import app
from otel_stageio.layout import Job
from otel_stageio.runs import run_end
from otel_stageio.sinks.manifest_text import _indented
from otel_stageio.testing import Records


def roots(records: Records) -> list[dict[str, Any]]:
    return [span for span in records.spans() if span["name"].startswith("RUN ")]


# -- the same stage again --------------------------------------------------------------------------------------------


def test_a_run_again_takes_nothing_stale_along_and_keeps_what_was(records: Records) -> None:
    with Pipeline("subtitles", records.job), StageIO("asr", records.job) as io:
        io.track_input(io.get_output_path("old.wav"), "audio")
        io.set_config({"model": "old"})
        io.add_warning("old warning")
        io.add_error("old error")
        io.finalize("failed", error="old", exit_code=3)
    with Pipeline("subtitles", records.job), StageIO("asr", records.job) as io:
        io.track_input(io.get_output_path("new.wav"), "audio")

    manifest = records.manifest("asr")
    (former,) = manifest["attempts"]
    assert (manifest["status"], manifest["attempt"], manifest["config"]) == ("success", 2, {})
    assert (manifest["warnings"], manifest["errors"]) == ([], [])
    assert [Path(item["path"]).name for item in manifest["inputs"]] == ["new.wav"]
    assert not manifest.keys() & {"error", "exit_code"}
    assert (former["status"], former["error"], former["exit_code"]) == ("failed", "old", 3)
    assert former["config"] == {"model": "old"}
    assert [warning["message"] for warning in former["warnings"]] == ["old warning"]
    assert [error["message"] for error in former["errors"]] == ["old error"]

    run = RunRecord.load(records.job)
    assert (run.attempt, run.status) == (2, "success")
    assert [(earlier.attempt, earlier.status) for earlier in run.earlier] == [(1, "failed")]
    first, second = roots(records)
    assert first["traceId"] != second["traceId"]
    (link,) = second["links"]
    assert (link["traceId"], link["spanId"]) == (first["traceId"], first["spanId"])


def test_every_run_stays_to_be_found_and_run_json_stays_small(records: Records) -> None:
    sizes = []
    for _ in range(12):
        with StageIO("asr", records.job):
            pass
        sizes.append((records.job / ".stageio" / "run.json").stat().st_size)
    run = RunRecord.load(records.job)
    assert [earlier.attempt for earlier in run.earlier] == list(range(1, 12))
    assert [entry.attempt for earlier in run.earlier for entry in earlier.stages] == list(range(1, 12))
    assert {earlier.status for earlier in run.earlier} == {"success"}
    assert len({earlier.run_id for earlier in (run, *run.earlier)}) == 12
    assert max(sizes[2:]) - min(sizes[2:]) < 100  # digits, no records
    # Each was closed when the next began, and links to the one before.
    spans = sorted(roots(records), key=lambda span: span["startTimeUnixNano"])
    assert [span["traceId"] for span in spans] == [earlier.trace_id for earlier in run.earlier]
    assert [span["links"][0]["traceId"] for span in spans[1:]] == [span["traceId"] for span in spans[:-1]]


def test_a_stage_of_a_superseded_run_is_noted_there_and_the_run_ends_by_itself(records: Records) -> None:
    with Pipeline("first", records.job) as first:
        with Pipeline("second", records.job), StageIO("asr", records.job):
            pass
        with first.stage("mux"):
            pass
        (earlier,) = RunRecord.load(records.job).earlier
        assert (earlier.status, [entry.stage for entry in earlier.stages]) == ("running", ["mux"])
    (earlier,) = RunRecord.load(records.job).earlier
    assert (earlier.pipeline, earlier.status) == ("first", "success")
    assert strict_json((records.job / ".stageio" / "runs" / "1.json").read_text())["status"] == "success"


def test_a_damaged_run_record_neither_stops_a_stage_nor_takes_a_number_twice(records: Records) -> None:
    for _ in range(3):
        with StageIO("asr", records.job):
            pass
    (records.job / ".stageio" / "run.json").write_text("{")
    with StageIO("asr", records.job):
        pass
    run = RunRecord.load(records.job)
    assert run.attempt > 2
    assert [earlier.attempt for earlier in run.earlier] == [1, 2]


# -- who closes a run ------------------------------------------------------------------------------------------------


def test_a_run_is_not_closed_while_a_stage_may_be_running_elsewhere(records: Records) -> None:
    """A free lock says nothing about another host; a stage without an end, and not judged dead, may go on."""
    with StageIO("demux", records.job):
        pass
    with StageIO("asr", records.job) as io:
        journal = Path(Job(records.job).journal("asr", 1))
        whole = journal.read_bytes()
        run_id = RunRecord.load(records.job).run_id
        assert not run_end.close(Job(records.job), run_id)
    io.finalize()
    ended = journal.read_bytes()
    journal.write_bytes(whole)  # as another host's stage looks: no end, and no lock that could be seen here
    assert not run_end.close(Job(records.job), run_id)
    assert roots(records) == []
    journal.write_bytes(ended)
    assert run_end.close(Job(records.job), run_id)
    assert not run_end.close(Job(records.job), run_id)
    assert len(roots(records)) == 1


def test_a_stage_whose_journal_was_deleted_is_lost_and_its_run_ends(records: Records) -> None:
    with StageIO("demux", records.job):
        pass
    Path(Job(records.job).journal("demux", 1)).unlink()
    recover(records.job)
    assert RunRecord.load(records.job).status == "lost"


def test_the_root_span_is_written_once_even_if_its_writer_was_killed_before_it_had_said_so(records: Records) -> None:
    with StageIO("demux", records.job):
        pass
    record = records.job / ".stageio" / "run.json"
    before = record.read_bytes()
    recover(records.job)
    record.write_bytes(before)
    recover(records.job)
    assert len(roots(records)) == 1
    assert RunRecord.load(records.job).status == "success"


def test_a_run_that_somebody_else_closes_keeps_the_resource_of_its_own_stages(records: Records, tmp_path: Path) -> None:
    script = write_script(
        tmp_path / "stage.py",
        "import sys\nfrom otel_stageio import StageIO\nwith StageIO('asr', sys.argv[1]):\n    pass\n",
    )
    done = run_python(script, records.job, OTEL_SERVICE_NAME="the-service-of-the-run")
    assert done.returncode == 0, done.stderr
    recover(records.job)
    (root,) = roots(records)
    assert root["resource"]["service.name"] == "the-service-of-the-run"


# -- what the original could leave -----------------------------------------------------------------------------------

_A = {
    "stage": "asr", "stage_number": 6, "timestamp": "2025-11-27T10:11:12.123456", "status": "success",
    "inputs": [{"type": "audio", "path": "/in/audio.wav", "size_bytes": 3}], "outputs": [], "intermediate_files": [],
    "config": {"model": "old"}, "resources": {}, "errors": [], "warnings": [], "duration_seconds": 1.5,
    "completed_at": "2025-11-27T10:11:13.123456",
}  # fmt: skip
_OLD_ERROR = {"timestamp": "2025-11-27T10:00:00", "message": "of run 1", "exception_type": "X", "exception_detail": ""}

#: What stood in ``06_asr/manifest.json``.
SHAPES: dict[str, str] = {
    "A": json.dumps(_A, indent=2),
    "A, runs merged": json.dumps({**_A, "errors": [_OLD_ERROR], "error": "of run 1", "inputs": _A["inputs"] * 5}),
    "A, a substage filed as asr": json.dumps({**_A, "outputs": [{"type": "x", "path": "cleaned.json"}]}),
    "A, killed": json.dumps({**_A, "status": "running", "completed_at": None}),
    "A, NaN": json.dumps({**_A, "config": {"beam": float("nan"), "limit": float("inf")}}),
    "A, a number out of range": json.dumps(_A).replace("1.5", "1e999"),
    "A, an attempt that is no number": json.dumps({**_A, "attempt": "second"}),
    "A, nested too deeply": json.dumps(_A).replace('"old"', "[" * 600 + "]" * 600),
    "A, half written": json.dumps(_A, indent=2)[:120],
    "A, empty": "",
    "no object": "[1, 2]",
    "B": json.dumps({"job_id": "j", "stages": {"asr": {"status": "completed"}}, "pipeline": {"status": "running"}}),
    "C": json.dumps({"stage": "asr", "inputs": {"a": "b"}, "inputs_checksum": "c", "params": {"p": 1},
                     "runner_version": "1", "outputs": {"x": "y"}, "timestamp": 1764238272, "last_checked_ts": 1}),
    "D": json.dumps({"stage": "asr", "exit_code": 1, "inputs": [{"path": "a", "hash": "b", "size": 1}],
                     "outputs": [{"path": "c", "hash": "d", "size": 2}]}),
    "HEAD": json.dumps({**_A, "status": "/job/06_asr/manifest.json", "outputs": {"transcript": {"path": "x"}}}),
}  # fmt: skip
#: What stood in the job's root.
ROOTS = [
    json.dumps({"job_id": "j", "workflow": "w", "status": "running", "created_at": "2025-11-27T10:00:00",
                "stages": [{"name": "asr", "status": "completed", "duration_seconds": 1.0}]}, indent=4),
    json.dumps({"stages": {"asr": {"status": "completed", "outputs": {"t": {"path": "x"}}}}, "pipeline": {}}),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_job_of_the_original_is_run_again_and_shown_without_harm(records: Records, shape: str) -> None:
    job = records.job
    root = ROOTS[list(SHAPES).index(shape) % 2]
    (job / "06_asr").mkdir(parents=True)
    (job / "manifest.json").write_text(root)
    (job / "job.json").write_text('{"job_id": "j"}')
    (job / "06_asr" / "manifest.json").write_text(SHAPES[shape])
    look(job)
    assert not (job / ".stageio").exists()  # to look changes nothing

    with StageIO("hallucination_removal", job):  # another stage of the directory first, so that both are tried
        pass
    with StageIO("asr", job) as io:
        io.track_output(io.get_output_path("segments.json"))
    assert (job / "manifest.json").read_text() == root
    assert (job / "job.json").read_text() == '{"job_id": "j"}'
    manifest = read_manifest(job / "06_asr")
    assert (manifest["stage"], manifest["status"], manifest["attempt"]) == ("asr", "success", 1)
    assert (manifest["inputs"], manifest["errors"], manifest["config"]) == ([], [], {})
    assert "error" not in manifest
    assert manifest["substages"]["hallucination_removal"]["status"] == "success"
    Manifest.load(job / "06_asr" / "manifest.json")
    try:
        former = json.loads(SHAPES[shape])
    except ValueError:
        former = None
    set_aside = list((job / ".stageio").glob("06_asr.manifest.json.damaged-*"))
    if set_aside:
        assert [path.read_text() for path in set_aside] == [SHAPES[shape]]
        assert not isinstance(former, dict) or shape.endswith(("no number", "too deeply"))
    else:
        (kept,) = manifest["attempts"]
        words = {"Infinity": "Infinity", "NaN": "NaN"}  # as JSON has no numbers for them
        assert kept == json.loads(SHAPES[shape].replace("1e999", '"1e999"'), parse_constant=words.__getitem__)
    look(job)
    valid = CliRunner().invoke(app, ["validate", str(job)])
    assert valid.exit_code == 0, valid.output


def look(job: Path) -> None:
    """Each reader says something about the job, none of them is upset, and none of them changes it."""
    before = contents(job)
    for words in (["status", job], ["show", job], ["show", job, "--json"], ["validate", job]):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code in (0, 1)
        assert result.output.strip()
        if "--json" in words:
            strict_json(result.stdout)
    assert contents(job) == before


def contents(job: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in job.rglob("*") if path.is_file()}


# -- what it costs ---------------------------------------------------------------------------------------------------


def test_what_the_sixtieth_attempt_costs(records: Records, capsys: pytest.CaptureFixture[str]) -> None:
    """A figure, and no verdict on it: how opening a stage grows with the attempts before."""
    took = []
    for number in range(60):
        started = time.perf_counter()
        io = StageIO("asr", records.job)
        took.append((time.perf_counter() - started) * 1000)
        io.track_input(f"{number}.wav")
        io.finalize()
    means = [f"{sum(took[first : first + 10]) / 10:.1f}" for first in range(0, 60, 10)]
    record, manifest = records.job / ".stageio" / "run.json", records.job / "06_asr" / "manifest.json"
    sizes = f"run.json {os.path.getsize(record)} bytes, manifest.json {os.path.getsize(manifest)}"
    with capsys.disabled():
        print(f"\nopening a stage, ms, tens of attempts: {' '.join(means)}; {sizes}")
    assert len(RunRecord.load(records.job).earlier) == 59
    assert len(records.manifest("asr")["attempts"]) == 59


# -- the text of the file --------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_a_record_is_indented_as_the_original_indented_it(content: Any) -> None:
    assert _indented(content) == json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False)
