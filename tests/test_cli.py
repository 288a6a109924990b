"""The reading half of the command line: status, show, validate and schema, over jobs in every state."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from otel_stageio import Pipeline, StageIO, __version__
from otel_stageio.cli.app import app
from otel_stageio.reading import text
from otel_stageio.testing import FixedClock, fixed

READERS = ("status", "show", "validate")


pytestmark = pytest.mark.usefixtures("no_terminal")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "out" / "job1"


def cli(*words: object, code: int = 0, **env: str) -> str:
    """What ``otel-stageio`` prints on standard output; its exit code is checked."""
    result = call(*words, **env)
    assert result.exit_code == code, result.output
    return result.stdout


def call(*words: object, **env: str) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert_harmless(result.output)
    return result


def assert_harmless(output: str) -> None:
    """Nothing in it commands a terminal."""
    odd = [char for char in output if char != "\n" and (ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or char in "\u202e")]
    assert not odd, odd


def document(*words: object, code: int = 0) -> dict[str, Any]:
    """The one JSON document that ``--json`` gives, read strictly."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads(cli(*words, "--json", code=code), parse_constant=refuse)
    assert isinstance(content, dict)
    return content


def program(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """The same as a real process with pipes."""
    return subprocess.run(
        [sys.executable, "-m", "otel_stageio", *map(str, words)],
        env={**os.environ, "PYTHONWARNINGS": "error", **env},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def good_job(job: Path) -> None:
    with Pipeline("subtitles", job, stages=["demux", "asr", "translation"]) as run:
        run.command("demux", [sys.executable, "-c", "print('hello')"])
        with run.stage("asr") as io:
            (job / "audio.wav").write_bytes(b"x" * 2048)
            io.track_input(job / "audio.wav", "audio")
            io.set_config({"model": "large-v3", "beam_size": 5})
            io.get_stage_logger().info("listening")
            with io.span("load"):
                pass
            for number in range(3):
                with io.span("transcribe", chunk=number), io.span("decode"):
                    pass
            io.add_warning("low volume")
            io.track_output(io.save_json({"text": "…"}, "segments.json"), "transcript", language="en")
        with run.stage("translation") as io:
            io.skip("no target language")


def failed_job(job: Path) -> None:
    with pytest.raises(RuntimeError), Pipeline("subtitles", job, stages=["demux", "asr", "mux"]) as run:
        with run.stage("demux"):
            pass
        with run.stage("asr"):
            deep(8)


def deep(left: int) -> None:
    if left:
        deep(left - 1)
        return
    raise RuntimeError("CUDA out of memory\nTried to allocate 2 GiB")


KILLED = """
    import os, signal, sys
    from otel_stageio import StageIO

    with StageIO("demux", sys.argv[1]):
        pass
    with StageIO("asr", sys.argv[1]) as io:
        io.get_stage_logger().info("chunk 12 of 41")
        io.progress(12, 41, "chunks")
        with io.span("transcribe"):
            with io.span("decode"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)
"""


def crashed_job(job: Path) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(job)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def original_job(job: Path) -> None:
    """As the original leaves it: no .stageio, its four manifest dialects, stages that only log."""

    def write(path: str, content: Any) -> None:
        (job / path).parent.mkdir(parents=True, exist_ok=True)
        (job / path).write_text(content if isinstance(content, str) else json.dumps(content, indent=2))

    write("logs/99_pipeline_20251127_101112.log", "[2025-11-27 10:11:12] [pipeline] [INFO] starting\n")
    documented = {
        "stage": "asr", "stage_number": 6, "timestamp": "2025-11-27T10:11:12.345678", "status": "failed",
        "inputs": [{"type": "audio", "path": "out/job/01_demux/audio.wav", "size_bytes": 44}], "outputs": [],
        "intermediate_files": [], "config": {"model": "large-v3"}, "resources": {},
        "errors": [{"timestamp": "2025-11-27T10:12:00", "message": "CUDA out of memory"}], "warnings": [],
        "duration_seconds": 93.5, "completed_at": "2025-11-27T10:12:45.845678", "error": "CUDA",
    }  # fmt: skip
    write("06_asr/manifest.json", documented)
    runner = {"stage": "demux", "inputs": ["film.mkv"], "inputs_checksum": "0f", "params": {"rate": 16000},
              "runner_version": "1", "outputs": ["audio.wav"], "timestamp": 1764234672}  # fmt: skip
    write("01_demux/manifest.json", runner)
    exit_code = {"stage_name": "alignment", "inputs": [], "outputs": ["a.json"], "exit_code": 0, "duration": 1.5}
    write("07_alignment/stage_manifest.json", exit_code)
    write("08_lyrics_detection/stage.log", "[2025-11-27 10:11:12] [stage.lyrics_detection] [INFO] la\n")
    stages = [
        {"name": "demux", "status": "completed", "duration_seconds": 4.25},
        {"name": "tmdb", "status": "completed", "start_time": "2025-11-27T10:11:00", "end_time": "2025-11-27T10:11:10"},
        {"name": "asr", "status": "failed"},
        {"name": "mux", "status": "pending"},
    ]
    write("manifest.json", {"job_id": "20251127-user-1", "workflow": "subtitle", "status": "failed", "stages": stages})


def snapshot(job: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(job)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in job.rglob("*")
        if path.is_file()
    }


# -- status ----------------------------------------------------------------------------------------------------------


def test_status_of_a_good_job(job: Path) -> None:
    good_job(job)
    lines = cli("status", job).splitlines()
    assert lines[0].startswith("✓ subtitles  success in ")
    trace = json.loads((job / ".stageio" / "run.json").read_text())["trace_id"]
    assert f"  trace  {trace}" in lines
    words = [line.split() for line in lines]
    assert words[5][:5] == ["├──", "✓", "1", "demux", "success"]
    assert words[6][0:3:2] == ["│", Path(sys.executable).name]
    assert lines[6].endswith("process, exit 0")
    assert words[7][:5] == ["├──", "✓", "6", "asr", "success"]
    assert lines[7].endswith("1 warning")
    assert words[8][:3] == ["│", "├──", "load"]
    assert words[9][:4] == ["│", "└──", "transcribe", "×3"]
    assert words[10][:5] == ["└──", "–", "10", "translation", "skipped"]
    assert lines[10].endswith("no target language")
    assert len(lines) == 11


def test_status_of_a_failed_job_says_why_and_what_was_not_reached(job: Path) -> None:
    failed_job(job)
    output = cli("status", job)
    assert output.startswith("✗ subtitles  failed after ")
    (asr,) = [line for line in output.splitlines() if " asr " in line]
    assert "failed" in asr
    assert "CUDA out of memory [+1 line]" in asr
    (mux,) = [line for line in output.splitlines() if " mux " in line]
    assert mux.endswith("not reached")


def test_status_of_a_running_job(job: Path) -> None:
    clock = FixedClock()
    with fixed(clock), Pipeline("subtitles", job, stages=["asr", "mux"]) as run, run.stage("asr") as io:
        io.get_stage_logger().info("chunk 12 of 41")
        io.progress(12, 41, "chunks")
        with io.span("load"):
            pass
        clock.advance(200)
        output = cli("status", job)
        assert output.startswith("● subtitles  running for 3 min 20 s\n")
        assert f"process {os.getpid()} on" in output
        assert "●  6 asr  running  3 min 20 s\n" in output
        assert "29 %  12 of 41 chunks  8 min 03 s left\n" in output
        assert "[stage.asr] [INFO] chunk 12 of 41\n" in output
        assert output.endswith("mux  to come\n")
        found = document("status", job)
        assert found["state"] == "running"
        assert found["stages"][0]["progress"] == {"done": 12, "total": 41, "unit": "chunks"}
        assert found["stages"][0]["seconds"] == 200
        assert found["pending"] == ["mux"]
        assert "warning" not in cli("validate", job)
    assert document("status", job)["state"] == "success"


def test_status_closes_what_died(job: Path) -> None:
    crashed_job(job)
    manifest = job / "06_asr" / "manifest.json"
    assert json.loads(manifest.read_text())["status"] == "running"
    assert "otel-stageio status closes it" in cli("validate", job)

    output = cli("status", job)
    assert output.startswith("✗ job1  crashed after ")
    assert "its process is gone" in output
    assert "29 %  12 of 41 chunks" in output
    assert json.loads(manifest.read_text())["status"] == "crashed"
    assert cli("status", job) == output
    report = document("validate", job)
    assert report["valid"]
    assert report["warnings"] == []  # the span that was open around a finished one is closed as well


def test_a_job_that_cannot_be_written_still_tells_that_it_crashed(job: Path) -> None:
    crashed_job(job)
    journal = job / ".stageio" / "spool" / "asr.1.logs.jsonl"
    journal.rename(job / "elsewhere")
    journal.symlink_to(job / "elsewhere")  # which the writers refuse to follow
    before = (job / "elsewhere").read_bytes()
    (asr,) = [line for line in cli("status", job).splitlines() if " asr " in line]
    assert "crashed" in asr
    assert (job / "elsewhere").read_bytes() == before


def test_a_stage_that_ends_while_it_is_looked_at_has_not_crashed(job: Path) -> None:
    with StageIO("asr", job) as io:
        running = (job / "06_asr" / "manifest.json").read_bytes()
        io.add_config("model", "tiny")
    (job / "06_asr" / "manifest.json").write_bytes(running)  # as it was read a moment ago
    found = document("show", job, "asr")
    assert (found["state"], found["record"]["config"]) == ("success", {"model": "tiny"})


def test_former_runs_and_stages_that_belong_to_them(job: Path) -> None:
    failed_job(job)
    with Pipeline("subtitles", job) as run, run.stage("asr"):
        pass
    found = document("status", job)
    assert found["state"] == "success"
    assert [(stage["name"], stage["run"], stage["attempt"]) for stage in found["stages"]] == [
        ("demux", 1, 1),
        ("asr", 2, 2),
    ]
    assert [(run["number"], run["state"]) for run in found["earlier"]] == [(1, "failed")]
    output = cli("status", job)
    (demux,) = [line for line in output.splitlines() if " demux " in line]
    (asr,) = [line for line in output.splitlines() if " asr " in line]
    assert demux.endswith("in run 1")
    assert asr.endswith("attempt 2")
    former = output.split("Earlier runs\n")[1].splitlines()
    assert len(former) == 1
    assert former[0].startswith("  ✗  1  failed")


def test_stages_of_one_directory_are_stages_of_their_own(job: Path) -> None:
    with StageIO("asr", job):
        pass
    with pytest.raises(ValueError, match="bad"), StageIO("hallucination_removal", job):
        raise ValueError("bad")
    stages = {stage["name"]: stage["state"] for stage in document("status", job)["stages"]}
    assert stages == {"asr": "success", "hallucination_removal": "failed"}
    assert document("show", job, "06_asr")["name"] == "asr"
    assert document("show", job, "6")["name"] == "asr"
    assert document("show", job, "hallucination_removal")["record"]["errors"][0]["message"] == "ValueError: bad"


def test_an_implicit_run_stands_as_its_stages_do(job: Path) -> None:
    with StageIO("asr", job):
        assert document("status", job)["run"]["state"] == "running"
    run = document("status", job)["run"]
    assert (run["state"], run["implicit"], run["closed"]) == ("success", True, False)


def test_many_spans_are_summed_up(job: Path) -> None:
    with StageIO("asr", job) as io:
        for number in range(20):
            with io.span(f"step {number}"):
                pass
    output = cli("status", job)
    assert "13 further names" in output
    assert len(output.splitlines()) < 16
    assert document("status", job)["stages"][0]["span_count"] == 20


# -- jobs of the original --------------------------------------------------------------------------------------------


def test_an_original_job_is_read_and_never_written(job: Path) -> None:
    original_job(job)
    before = snapshot(job)
    found = document("status", job)
    assert (found["origin"], found["state"], found["pending"]) == ("original", "failed", ["mux"])
    assert [(stage["name"], stage["state"], stage["seconds"]) for stage in found["stages"]] == [
        ("demux", "success", 4.25),
        ("tmdb", "success", 10.0),
        ("asr", "failed", 93.5),
        ("alignment", "success", 1.5),
        ("lyrics_detection", "unknown", None),
    ]
    output = cli("status", job)
    assert output.startswith("✗ 20251127-user-1  failed\n")
    assert "1 min 34 s  CUDA out of memory" in output
    assert "no manifest, only a log" in output
    for words in ([], ["asr"], ["demux"], ["lyrics_detection"]):
        cli("show", job, *words)
    assert "valid" in cli("validate", job)
    assert snapshot(job) == before
    assert not (job / ".stageio").exists()


def test_a_killed_original_job_is_lost_rather_than_running(job: Path) -> None:
    original_job(job)
    content = json.loads((job / "manifest.json").read_text())
    (job / "manifest.json").write_text(json.dumps({**content, "status": "running"}))
    found = document("status", job)
    assert found["state"] == "lost"
    assert "nothing tells" in found["problems"][0]


def test_the_original_by_name(job: Path) -> None:
    """The later version of the job manifest: stages by name."""
    stages = {"asr": {"stage_name": "asr", "status": "failed", "error": "no GPU", "started_at": "2025-11-27T10:00:00",
                      "input_files": [], "outputs": {"transcript": {"path": "t.json", "exists": False}}}}  # fmt: skip
    job.mkdir(parents=True)
    (job / "manifest.json").write_text(json.dumps({"stages": stages, "pipeline": {"status": "failed"}}))
    found = document("show", job)
    assert (found["state"], found["stages"][0]["message"]) == ("failed", "no GPU")
    assert found["stages"][0]["record"]["outputs"][0]["path"] == "t.json"


def test_a_job_that_was_begun_by_the_original(job: Path) -> None:
    original_job(job)
    with StageIO("asr", job):
        pass
    found = document("show", job)
    assert (found["origin"], found["run"]["state"]) == ("otel_stageio", "success")
    states = {stage["name"]: stage["state"] for stage in found["stages"]}
    assert (states["demux"], states["asr"]) == ("success", "success")
    asr = found["stages"][2]
    assert [former["status"] for former in asr["record"]["attempts"]] == ["failed"]
    assert document("validate", job)["valid"]


# -- show ------------------------------------------------------------------------------------------------------------


def test_show_a_job(job: Path) -> None:
    good_job(job)
    output = cli("show", job)
    assert "Stages\n" in output
    assert "transcript" in output
    assert "06_asr/segments.json  language=en" in output
    assert str(job) not in output.split("Outputs")[1].split("Logs")[0]  # relative to the job
    assert "06_asr/stage.log" in output
    found = document("show", job)
    assert found["stages"][1]["record"] == json.loads((job / "06_asr" / "manifest.json").read_text())
    assert [log.startswith("logs/99_pipeline_") for log in found["logs"]] == [True]


def test_show_a_stage(job: Path) -> None:
    good_job(job)
    output = cli("show", job, "asr")
    for said in ("model      large-v3", "beam_size  5", "audio.wav", "2.0 KiB", "low volume", "Made of 7 spans", "×3"):
        assert said in output
    demux = cli("show", job, "demux")
    assert "process, exit 0" in demux
    assert "Inputs" not in demux


def test_show_folds_a_traceback(job: Path) -> None:
    failed_job(job)
    folded, full = cli("show", job, "asr"), cli("show", job, "asr", "--full")
    assert "lines of traceback above; --full shows all" in folded
    assert "Traceback (most recent call last)" not in folded
    assert "Traceback (most recent call last)" in full
    for output in (folded, full):
        assert "RuntimeError: CUDA out of memory" in output
        assert "Tried to allocate 2 GiB" in output


def test_show_counts_what_was_lost_masked_and_changed(job: Path) -> None:
    with StageIO("asr", job) as io:
        io.set_config({"api_key": "hunter2hunter2", "when": float("nan")})
    io.add_warning("too late")
    output = cli("show", job)
    assert "1 secret masked" in output
    assert "1 value changed to fit into JSON" in output
    assert "lost: calls after the stage had ended (1)" in output
    assert "hunter2" not in cli("show", job, "asr")


def test_show_what_is_not_there(job: Path) -> None:
    failed_job(job)
    result = call("show", job, "tmdb")
    assert result.exit_code == 1
    assert result.stderr == f"otel-stageio: {job} has no stage tmdb; there are: demux, asr\n"
    assert "has not begun" in call("show", job, "mux").stderr
    assert "no stage tmdb" in document("show", job, "tmdb", code=1)["error"]


def test_show_a_stage_without_a_manifest(job: Path) -> None:
    io = StageIO("asr", job, enable_manifest=False)
    io.add_error("half of it is missing")
    io.finalize("failed")
    found = document("show", job, "asr")
    assert (found["state"], found["message"]) == ("failed", "half of it is missing")


# -- what is no job, and what is damaged -----------------------------------------------------------------------------


def test_what_is_no_job(tmp_path: Path, job: Path) -> None:
    good_job(job)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.txt").write_text("x")
    for path, said in (
        (tmp_path / "empty", "is empty: no stage has run there yet"),
        (tmp_path / "other", "is no job"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "other" / "file.txt", "is a file"),
        (job.parent, "holds 1 job: job1"),
        (job / "06_asr", f"otel-stageio show {job} asr"),
    ):
        for command in ("show",) if path == job.parent else ("status", "show"):
            result = call(command, path)
            assert (result.exit_code, result.stdout) == (1, "")
            assert said in result.stderr
            assert said in document(command, path, code=1)["error"]
    assert not list((tmp_path / "empty").iterdir())
    assert call("validate", tmp_path / "empty").exit_code == 1
    assert call("validate", tmp_path / "nowhere").exit_code == 1
    assert call("status", "a\0b").exit_code == 1


DAMAGE = {
    "empty": b"",
    "half": None,
    "no JSON": b"\x00\xff\x1b[31m not json",
    "another type": b"[1, 2]\n",
    "deep": b"[" * 100_000,
    "wrong types": b'{"kind": "stageio.manifest", "stage": 5, "inputs": 7, "errors": "x", "timestamp": {}}\n',
    "not OTLP": b'{"resourceLogs": 5}\n{"resourceSpans": [{"scopeSpans": 1}]}\n',
    "a directory": None,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("make", [good_job, failed_job, original_job])
def test_any_damage_to_any_file_is_answered(tmp_path: Path, make: Any, damage: str) -> None:
    whole = tmp_path / "whole"
    make(whole)
    files = [path for path in whole.rglob("*") if path.suffix in (".json", ".jsonl", ".log")]
    assert files
    for number, file in enumerate(sorted(files)):
        job = tmp_path / str(number)
        shutil.copytree(whole, job)
        path = job / file.relative_to(whole)
        if damage == "a directory":
            path.unlink()
            path.mkdir()
        else:
            content = DAMAGE[damage]
            raw = path.read_bytes()
            path.write_bytes(raw[: len(raw) // 2] if content is None else content)
        for command in READERS:
            result = call(command, job)
            assert result.exit_code in ((0, 1) if command == "validate" else (0,)), (file, command, result.output)
            assert result.output.strip()
        document("show", job)


def test_a_damaged_manifest_is_told_and_the_journal_answers(job: Path) -> None:
    good_job(job)
    (job / "06_asr" / "manifest.json").write_text('{"stage": "asr", "stat')
    found = document("show", job, "asr")
    assert (found["state"], found["record"]["config"]["model"]) == ("success", "large-v3")
    assert "06_asr/manifest.json is not valid JSON" in found["problems"][0]
    assert "Problems with the record" in cli("status", job)
    report = document("validate", job, code=1)
    assert [error["file"] for error in report["errors"]] == ["06_asr/manifest.json"]


def test_one_bad_field_costs_that_field_alone(job: Path) -> None:
    good_job(job)
    path = job / "06_asr" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "duration_seconds": "long", "warnings": 3}))
    found = document("show", job, "asr")
    assert (found["record"]["config"]["model"], found["warnings"]) == ("large-v3", 0)
    assert len(found["problems"]) == 2
    messages = [error["message"] for error in document("validate", job, code=1)["errors"]]
    assert any(message.startswith("duration_seconds: ") for message in messages)
    assert any(message.startswith("warnings: ") for message in messages)


def test_a_moved_job_is_the_same_job(tmp_path: Path, job: Path) -> None:
    good_job(job)
    expected = document("show", job)
    job.rename(tmp_path / "moved")
    found = document("show", tmp_path / "moved")
    assert {**found, "job": "", "name": ""} == {**expected, "job": "", "name": ""}


# -- hostile text, pipes, terminals ----------------------------------------------------------------------------------

HOSTILE = "[red]x[/nope] \x1b[31m\x07\u202e\x85 :smile: [link=file:///etc]y\n[2025-01-01 00:00:00] forged"


def hostile_job(job: Path) -> None:
    with pytest.raises(RuntimeError), Pipeline(HOSTILE, job, stages=[HOSTILE]) as run, run.stage("[bold]evil") as io:
        io.set_config({HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}})
        io.track_output(HOSTILE.replace("\n", ""), HOSTILE, note=HOSTILE)
        io.track_intermediate("t", reason=HOSTILE)
        io.add_warning(HOSTILE)
        io.progress(1, 2, HOSTILE)
        with io.span(HOSTILE):
            pass
        raise RuntimeError(HOSTILE)
    # Whoever writes the file by hand is not bound to what our capture lets through.
    path = next(job.glob("99_*/manifest.json"))
    content = json.loads(path.read_text())
    content.update(status=HOSTILE, attempts=[{**content, "status": HOSTILE}], lost={HOSTILE: 1}, more=HOSTILE)
    content["errors"].append({"message": HOSTILE, "timestamp": HOSTILE, "traceback": HOSTILE * 9, "cause": HOSTILE})
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("columns", ["", "40", "80"])
def test_hostile_text_is_shown_and_obeyed_nowhere(job: Path, columns: str) -> None:
    hostile_job(job)
    env = {"COLUMNS": columns} if columns else {}
    stage = document("status", job)["stages"][0]["name"]
    for words in (["status", job], ["show", job], ["show", job, stage, "--full"], ["validate", job]):
        result = call(*words, **env)  # which looks for control characters
        if not columns:
            assert "[red]x[/nope] \\x1b[31m\\x07\\u202e\\x85 :smile:" in result.stdout or words[0] == "validate"
    for words in (["status", job], ["show", job], ["show", job, stage], ["validate", job]):
        assert "[/nope]" in json.dumps(document(*words)) or words[0] == "validate"


@pytest.mark.parametrize("make", [good_job, failed_job, hostile_job, original_job])
def test_eighty_columns_are_enough(job: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make(job)
    monkeypatch.chdir(job.parent)  # a path longer than the line is not cut
    relative = job.name
    stages = [stage["name"] for stage in document("status", job)["stages"]]
    for words in (["status"], ["show"], ["show", "--full"], *(["show", "--full", stage] for stage in stages)):
        for line in cli(words[0], relative, *words[1:], COLUMNS="80").splitlines():
            assert cell_len(line) <= 80, line
            assert line == line.rstrip()


def test_in_a_pipe_lines_are_whole_and_plain(job: Path) -> None:
    with pytest.raises(RuntimeError), StageIO("asr", job):
        raise RuntimeError("long " * 60 + "end")
    done = program("status", job)
    assert (done.returncode, done.stderr) == (0, "")
    assert_harmless(done.stdout)
    assert "long end\n" in done.stdout


def test_an_ascii_pipe_gets_ascii(job: Path) -> None:
    good_job(job)
    with StageIO("mux", job) as io, io.span("Übersetzung 字幕"):
        pass
    for command in READERS:
        done = program(command, job, PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.isascii()
    tree = program("status", job, PYTHONIOENCODING="ascii").stdout
    assert "|-- +  1 demux" in tree
    assert "\\xdcbersetzung \\u5b57\\u5e55" in tree


def test_a_terminal_has_colours_and_no_color_takes_them_away(job: Path) -> None:
    good_job(job)
    coloured = CliRunner().invoke(app, ["status", str(job)], env={"FORCE_COLOR": "1", "TERM": "xterm"}, color=True)
    assert "\x1b[32m✓" in coloured.stdout
    plain = CliRunner().invoke(
        app, ["status", str(job)], env={"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"}, color=True
    )
    assert "\x1b[32m" not in plain.stdout


def test_a_reader_that_stops_reading_is_no_error(job: Path) -> None:
    good_job(job)
    command = f"{sys.executable} -m otel_stageio show {job} --json | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


# -- validate --------------------------------------------------------------------------------------------------------


def spool(job: Path, name: str) -> Path:
    return job / ".stageio" / "spool" / name


def errors(job: Path) -> list[str]:
    return [f"{item['file']}:{item['line']}: {item['message']}" for item in document("validate", job, code=1)["errors"]]


def test_a_good_job_is_valid(job: Path) -> None:
    good_job(job)
    report = document("validate", job)
    assert (report["errors"], report["warnings"], report["left_out"]) == ([], [], {})
    assert report["checked"]["manifest"] == 3
    assert report["checked"]["span"] == 1 + 3 + 1 + 7
    assert cli("validate", job).startswith(f"✓ {job}  valid")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": 5}, "status: input should be a valid string"),
        ({"attempt": "x"}, "attempt: "),
        ({"inputs": [{"path": 1}]}, "inputs.0.path: "),
        ({"kind": "something.else"}, "kind is 'something.else'"),
        ({"config": {"x": float("nan")}}, "is not valid JSON: NaN is not a JSON value"),
        ({"status": "skipped"}, "says skipped of asr (attempt 1), its journal success"),
    ],
)
def test_validate_finds_a_bad_manifest(job: Path, change: dict[str, Any], message: str) -> None:
    good_job(job)
    path = job / "06_asr" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (error,) = errors(job)
    assert error.startswith(f"06_asr/manifest.json:None: {message}")
    if "journal" not in message:
        assert call("validate", path).exit_code == 1


def test_validate_finds_a_success_that_was_not_reached(job: Path) -> None:
    crashed_job(job)
    path = job / "06_asr" / "manifest.json"
    path.write_text(path.read_text().replace('"running"', '"success"'))
    (error,) = errors(job)
    assert error.endswith("says success of asr (attempt 1), its journal running")


def test_validate_finds_a_bad_run_record(job: Path) -> None:
    good_job(job)
    path = job / ".stageio" / "run.json"
    content = json.loads(path.read_text())
    del content["trace_id"]
    path.write_text(json.dumps(content))
    assert ".stageio/run.json:None: trace_id: field required" in errors(job)
    assert call("validate", path).exit_code == 1


@pytest.mark.parametrize("file", ["asr.1.spans.jsonl", "asr.1.logs.jsonl"])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hello", "is not JSON"),
        ("[]", "is not JSON"),
        ('{"hello": 1}', "is not an OTLP request"),
        ('{"resourceSpans": 1, "resourceLogs": 1}', "is not an OTLP request"),
        ('{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "soon"}]}]}]}', "is not an OTLP request"),
        ('{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}', "is not an OTLP request"),
        ('{"resourceLogs": [{"schemaUrl": "' + "x" * 1024 * 1024 + '"}]}', "is 1 MiB or longer"),
    ],
)
def test_validate_finds_a_line_that_is_not_otlp(job: Path, file: str, line: str, message: str) -> None:
    good_job(job)
    path = spool(job, file)
    number = len(path.read_text().splitlines()) + 1
    with open(path, "a") as out:
        out.write(line + "\n")
    (error,) = errors(job)
    assert error.startswith(f".stageio/spool/{file}:{number}: {message}")
    assert document("status", job)["state"] == "success"
    assert call("validate", path).exit_code == 1


def test_validate_finds_damage_in_the_middle_of_a_line(job: Path) -> None:
    good_job(job)
    path = spool(job, "asr.1.logs.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace(":[", ":;", 1)
    path.write_text("".join(lines))
    assert errors(job) == [".stageio/spool/asr.1.logs.jsonl:2: is not JSON"]


@pytest.mark.parametrize("cut", [1, 10, 200, -3, -40, -200])
def test_a_torn_line_is_a_warning(job: Path, cut: int) -> None:
    good_job(job)
    path = spool(job, "asr.1.logs.jsonl")
    line = path.read_bytes().splitlines()[1]
    with open(path, "ab") as out:
        out.write(line[:cut])
    report = document("validate", job)
    (warning,) = report["warnings"]
    assert warning["message"].startswith("is cut off")
    assert document("status", job)["state"] == "success"


def test_half_a_line_before_a_whole_one_is_a_warning(job: Path) -> None:
    good_job(job)
    path = spool(job, "asr.1.logs.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1][:150] + lines[1]
    path.write_bytes(b"".join(lines))
    (warning,) = document("validate", job)["warnings"]
    assert (warning["line"], warning["message"][:25]) == (2, "begins with half a line (")


def change_span(job: Path, file: str, name: str, **fields: str) -> None:
    path = spool(job, file)
    lines = []
    for line in path.read_text().splitlines():
        content = json.loads(line)
        for span in content["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            if span["name"] == name:
                span.update(fields)
        lines.append(json.dumps(content) + "\n")
    path.write_text("".join(lines))


@pytest.mark.parametrize(("file", "name"), [("asr.1.spans.jsonl", "load"), ("asr.1.spans.jsonl", "asr")])
def test_validate_finds_a_span_with_an_unknown_parent(job: Path, file: str, name: str) -> None:
    good_job(job)
    change_span(job, file, name, parentSpanId="00000000000000aa")
    (error,) = errors(job)
    assert f"({name}) has a parent that is not in its trace: 00000000000000aa" in error


def test_validate_finds_a_parent_in_another_trace(job: Path) -> None:
    good_job(job)
    change_span(job, "asr.1.spans.jsonl", "load", traceId="0" * 31 + "a")
    (error,) = errors(job)
    assert "(load) has a parent that is not in its trace" in error


def test_validate_finds_spans_that_are_missing_twice_or_backwards(job: Path) -> None:
    good_job(job)
    path = spool(job, "asr.1.spans.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[0]]))
    (error,) = errors(job)
    assert "(load) was written before, in .stageio/spool/asr.1.spans.jsonl:1" in error

    path.write_text("".join(lines[:-1]))
    assert errors(job) == [
        ".stageio/spool/asr.1.logs.jsonl:None: stage asr has ended, but its span is not in the spool"
    ]

    path.write_text("".join(lines))
    change_span(job, "asr.1.spans.jsonl", "load", endTimeUnixNano="5")
    (error,) = errors(job)
    assert error.endswith("(load) ends before it starts")

    path.write_text("".join(lines))
    spool(job, "@run.1.spans.jsonl").unlink()
    assert errors(job) == [".stageio/run.json:None: run 1 has ended, but its root span is not in the spool"]


def test_a_parent_outside_the_job_is_as_it_was_recorded(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    good_job(job)
    monkeypatch.delenv("TRACEPARENT")
    with StageIO("mux", job):
        pass
    assert document("validate", job)["valid"]


def test_a_job_without_spans_is_valid(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = program("run", job, "--stage", "asr", "--", "true", OTEL_SDK_DISABLED="true")
    assert done.returncode == 0
    report = document("validate", job)
    assert (report["valid"], report["checked"].get("span", 0)) == (True, 0)


def test_findings_beyond_the_first_are_counted(job: Path) -> None:
    good_job(job)
    with open(spool(job, "asr.1.logs.jsonl"), "a") as out:
        out.write("nonsense\n" * 1000)
    report = document("validate", job, code=1)
    assert len(report["errors"]) < 100
    assert sum(report["left_out"].values()) + len(report["errors"]) == 1000
    assert "1,000 errors" in cli("validate", job, code=1)


# -- lineage ---------------------------------------------------------------------------------------------------------


def test_an_output_outside_the_job_is_missing_only_where_that_can_be_known(
    tmp_path: Path, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    work.mkdir()
    other.mkdir()
    monkeypatch.chdir(work)
    names = ["kept.bin", "gone.bin", str(tmp_path / "absolute.bin"), str(job / "06_asr" / "inside.bin")]
    with StageIO("asr", job) as io:
        for name in names:
            Path(name).write_bytes(b"bytes")
            io.track_output(name)
    for name in names[1:]:
        Path(name).unlink()
    absolute = {names[2]: "missing", "06_asr/inside.bin": "missing"}
    for directory in (work, other):  # relative names say nothing elsewhere
        monkeypatch.chdir(directory)
        states = {file["name"]: file["state"] for file in document("lineage", job)["files"]}
        assert states == {"kept.bin": "as recorded", "gone.bin": "as recorded", **absolute}


# -- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "path"), [("manifest", "06_asr/manifest.json"), ("run", ".stageio/run.json")])
def test_the_schema_holds_for_what_is_written(job: Path, what: str, path: str) -> None:
    good_job(job)
    schema = json.loads(cli("schema", what))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((job / path).read_text()), schema)
    assert json.loads(cli("schema")) == json.loads(cli("schema", "manifest"))


def test_help_has_an_example_of_every_command() -> None:
    overview = cli("--help")
    for command in ("run", "status", "show", "validate", "schema"):
        assert f"\n  {command} " in overview
        assert f"otel-stageio {command}" in cli(command, "--help").partition("Example")[2]
    assert cli("--version") == f"otel-stageio {__version__}\n"


def test_usage_errors_exit_with_2(job: Path) -> None:
    assert call("status").exit_code == 2
    assert call("bogus").exit_code == 2
    assert call("schema", "bogus").exit_code == 2
    assert call("status", job, "--bogus").exit_code == 2
    assert "Commands:" in call().output


def test_without_the_extra_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    for missing in ("typer", "rich"):
        code = f"import sys; sys.modules[{missing!r}] = None; from otel_stageio.cli import main; sys.exit(main())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"needs {missing}" in done.stderr
        assert "pip install 'otel-stageio[cli]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_internal_error_is_a_sentence(job: Path, as_in_production: None, monkeypatch: pytest.MonkeyPatch) -> None:
    good_job(job)

    def broken(*_: object, **__: object) -> Any:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("otel_stageio.cli.status.show_status", broken)
    result = call("status", job)
    assert result.exit_code == 1
    assert "internal error, please report it: ZeroDivisionError: oh (test_cli.py:" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"), (0.0001, "<1 ms"), (0.0849, "85 ms"), (0.9996, "1.0 s"), (4.2, "4.2 s"), (59.94, "59.9 s"),
        (59.96, "1 min 00 s"), (200, "3 min 20 s"), (3599.6, "1 h 00 min"), (3840, "1 h 04 min"),
        (86_399, "1 d 00 h"), (97_200, "1 d 03 h"), (None, ""), (float("nan"), ""), (-2, "-2.0 s"),
    ],
)  # fmt: skip
def test_durations_as_people_say_them(seconds: float | None, words: str) -> None:
    assert text.duration(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB")]
)
def test_sizes(number: int, words: str) -> None:
    assert text.size(number) == words


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [(1, "span", "1 span"), (1204, "span", "1,204 spans"), (0, "entry", "0 entries"), (2, "process", "2 processes")],
)
def test_things_are_counted_as_people_say_it(number: int, noun: str, words: str) -> None:
    assert text.count(number, noun) == words
