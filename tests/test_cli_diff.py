"""What changed: between two runs of a job, two jobs, two attempts at a stage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from otel_stageio import Pipeline
from otel_stageio.cli.app import app
from otel_stageio.reading.difference import Change, differences
from otel_stageio.record.manifest import Record
from otel_stageio.testing import FixedClock, fixed

pytestmark = pytest.mark.usefixtures("no_terminal")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "out" / "job1"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return tmp_path / "out" / "job2"


def call(*words: object) -> Result:
    result = CliRunner().invoke(app, ["diff", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(*words: object) -> dict[str, Any]:
    content = json.loads(call(*words, "--json").stdout)
    assert isinstance(content, dict)
    return content


def run_once(
    job: Path, *, beam: int = 5, audio: int = 1000, seconds: float = 10.0, stages: str = "demux asr mux"
) -> None:
    clock = FixedClock()
    with fixed(clock), Pipeline("subtitles", job) as run:
        if "demux" in stages:
            with run.stage("demux") as io:
                path = io.get_output_path("audio.wav")
                path.write_bytes(b"x" * audio)
                io.track_output(path, "audio")
                clock.advance(1)
        if "asr" in stages:
            with run.stage("asr") as io:
                io.track_input(io.get_input_path("audio.wav", from_stage="demux"), "audio")
                io.set_config({"model": "large-v3", "decoder": {"beam_size": beam}})
                io.track_output(io.save_json({"text": "…"}, "segments.json"), "transcript")
                clock.advance(seconds)
        if "mux" in stages:
            with run.stage("mux"):
                clock.advance(1)


def test_two_runs_that_did_the_same_do_not_differ(job: Path) -> None:
    run_once(job)
    run_once(job)
    result = call(job)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "no difference in 3 stages" in result.stdout
    assert document(job)["differs"] is False


def test_what_changed_first_is_said_first(job: Path) -> None:
    run_once(job)
    run_once(job, beam=8, audio=2000, seconds=20)
    result = call(job)
    assert result.exit_code == 1
    assert "first difference: asr: decoder.beam_size 5 → 8, and 1 other" in result.stdout
    found = document(job)
    assert (found["before"]["run"], found["after"]["run"]) == (1, 2)
    assert [stage["stage"] for stage in found["stages"]] == ["demux", "asr"]
    assert found["stages"][1]["changes"] == [
        {"kind": "config", "key": "decoder.beam_size", "before": 5, "after": 8},
        {"kind": "input", "key": "01_demux/audio.wav", "before": 1000, "after": 2000},
        {"kind": "duration", "key": "duration_seconds", "before": 10.0, "after": 20.0},
    ]
    assert "10.0 s → 20.0 s  (2.0 times as long)" in result.stdout


def test_a_stage_that_was_not_run_again_stands_as_it_was_left(job: Path) -> None:
    run_once(job)
    run_once(job, beam=8, stages="asr mux")
    assert [stage["stage"] for stage in document(job)["stages"]] == ["asr"]


def test_runs_by_number_and_one_stage_of_them(job: Path) -> None:
    run_once(job, beam=1)
    run_once(job, beam=2, audio=2000)
    run_once(job, beam=3, audio=2000)
    assert document(f"{job}@1", f"{job}@3")["first"] == {
        "stage": "asr", "kind": "config", "key": "decoder.beam_size", "before": 1, "after": 3,
    }  # fmt: skip
    assert document(f"{job}@2")["before"]["run"] == 1, "a run alone is compared with the one before it"
    assert [stage["stage"] for stage in document(f"{job}@1", f"{job}@2", "06_asr")["stages"]] == ["asr"]
    assert call(f"{job}@1", f"{job}@2", "mux").exit_code == 0
    for words, sentence in (
        ((f"{job}@7", job), "has no run 7; there are: 1, 2, 3"),
        ((f"{job}@1",), "has no run before run 1; give a second job"),
        ((job, job, "nix"), "has no stage nix"),
    ):
        result = call(*words)
        assert (result.exit_code, result.stdout) == (1, "")
        assert sentence in result.stderr


def test_two_jobs_are_compared_by_their_files_places_in_them(job: Path, other: Path) -> None:
    run_once(job)
    run_once(other)
    assert call(job, other).exit_code == 0
    moved = other.with_name("moved")
    shutil.move(other, moved)
    assert call(job, moved).exit_code == 0, "though its record has the paths of its former place"


def test_a_stage_of_one_job_only_and_a_failure(job: Path, other: Path) -> None:
    run_once(job)
    with pytest.raises(RuntimeError), Pipeline("subtitles", other) as run:
        with run.stage("demux") as io:
            io.get_output_path("audio.wav").write_bytes(b"x" * 1000)
            io.track_output(io.get_output_path("audio.wav"), "audio")
        with run.stage("asr") as io:
            io.track_input(io.get_input_path("audio.wav", from_stage="demux"), "audio")
            io.set_config({"model": "large-v3", "decoder": {"beam_size": 5}})
            raise RuntimeError("no memory")
    result = call(job, other, "asr")
    assert result.exit_code == 1
    assert "what the stages were given is the same" in result.stdout
    assert "success → failed" in result.stdout
    assert "06_asr/segments.json  removed, " in result.stdout
    assert "only before: success" in call(job, other, "mux").stdout


def test_other_versions_are_found_in_the_journals(job: Path) -> None:
    run_once(job)
    run_once(job)
    journal = job / ".stageio/spool/asr.1.logs.jsonl"
    text = journal.read_text()
    assert '"process.runtime.version"' in text
    before, _, rest = text.partition('{"key":"process.runtime.version","value":{"stringValue":"')
    journal.write_text(
        f'{before}{{"key":"process.runtime.version","value":{{"stringValue":"3.9.1{rest[rest.index(chr(34)) :]}'
    )
    first = document(job)["first"]
    assert (first["stage"], first["kind"], first["key"], first["before"]) == (
        "asr", "version", "process.runtime.version", "3.9.1",
    )  # fmt: skip
    journal.unlink()
    assert call(job).exit_code == 0, "what is not known any more is no difference"


def test_a_job_of_the_originals_and_what_is_no_job(job: Path, tmp_path: Path) -> None:
    for name, beam in (("a", 5), ("b", 8)):
        place = tmp_path / name / "06_asr"
        place.mkdir(parents=True)
        outputs = [{"type": "t", "path": f"{tmp_path}/{name}/06_asr/s.json", "size_bytes": 3}]
        config = {"beam": beam, "x": float("nan")}
        record = {"stage": "asr", "stage_number": 6, "status": "success", "config": config, "outputs": outputs}
        (place / "manifest.json").write_text(json.dumps(record))
    result = call(tmp_path / "a", tmp_path / "b")
    assert result.exit_code == 1
    assert "first difference: asr: beam 5 → 8\n" in result.stdout
    assert "give a second job" in call(tmp_path / "a").stderr
    job.mkdir(parents=True)
    assert "is empty" in call(job, tmp_path / "a").stderr


def test_nothing_in_a_record_commands_the_terminal(job: Path) -> None:
    run_once(job)
    with Pipeline("subtitles", job) as run, run.stage("asr") as io:
        io.set_config({"mo\x1bdel": "[red]\x1b[31m\nred", "long": "y" * 5000})
    result = call(job, job.parent / "job1@1")
    assert not [char for char in result.stdout if char != "\n" and (ord(char) < 32 or 0x7F <= ord(char) < 0xA0)]
    assert r"[red]\x1b[31m\nred" in result.stdout
    assert "5,000 characters in all" in result.stdout


# -- two records -------------------------------------------------------------------------------------------------------


def changes(before: dict[str, Any], after: dict[str, Any], **roots: str) -> list[tuple[str, str, Any, Any]]:
    found = differences(Record.model_validate(before), Record.model_validate(after), **roots)
    assert all(isinstance(change, Change) for change in found)
    return [tuple(change) for change in found]


def test_configuration_key_by_key() -> None:
    before = {"config": {"a": 1, "b": {"c": [1], "d": "x"}, "gone": None, "same": {}}}
    after = {"config": {"a": 1.0, "b": {"c": [1, 2], "d": "x", "e": True}, "same": {}}}
    assert changes(before, after) == [
        ("config", "b.c", [1], [1, 2]),
        ("config", "b.e", None, True),
    ]


def test_a_configured_path_is_the_same_in_both_jobs() -> None:
    before, after = {"config": {"in": ["/x/a/1.wav"]}}, {"config": {"in": ["/x/b/1.wav"]}}
    assert changes(before, after, root_before="/x/a", root_after="/x/b") == []
    assert changes(before, after) == [("config", "in", ["/x/a/1.wav"], ["/x/b/1.wav"])]
    assert changes(before, before, root_before="/x/a", root_after="/x/b") == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"size_bytes": 3}, {"size_bytes": 3}, None),
        ({"size_bytes": 3}, {"size_bytes": 4}, (3, 4)),
        ({"size_bytes": 3}, {}, None),
        ({"size_bytes": 3}, {"exists": False}, (3, "missing")),
        ({"digest": {"sha256": "ab"}}, {"digest": {"sha256": "cd"}}, ("sha256:ab", "sha256:cd")),
        ({"digest": {"sha256": "ab"}}, {"digest": {"md5": "cd"}}, None),
        ({"size_bytes": 3, "hash": "ab"}, {"size_bytes": 3, "hash": "cd"}, ("hash:ab", "hash:cd")),
        ({"size_bytes": 3}, None, (3, None)),
        (None, {}, (None, "there")),
    ],
)
def test_files(before: dict[str, Any] | None, after: dict[str, Any] | None, expected: Any) -> None:
    def record(root: str, file: dict[str, Any] | None) -> dict[str, Any]:
        return {"inputs": [] if file is None else [{"type": "audio", "path": f"{root}/a.wav", **file}]}

    found = changes(record("/x/a", before), record("/x/b", after), root_before="/x/a", root_after="/x/b")
    assert found == ([] if expected is None else [("input", "a.wav", *expected)])


def test_quantities_within_a_tenth_are_the_same() -> None:
    before = {"duration_seconds": 100.0, "resources": {"peak_memory_bytes": 10**9, "cpu_seconds": 0.1, "words": 100}}
    after = {"duration_seconds": 109.0, "resources": {"peak_memory_bytes": 2 * 10**9, "cpu_seconds": 0.2, "words": 105}}
    assert changes(before, after) == [("resource", "peak_memory_bytes", 10**9, 2 * 10**9)]
    assert changes({"duration_seconds": 100.0}, {"duration_seconds": 120.0}) == [
        ("duration", "duration_seconds", 100.0, 120.0)
    ]
    assert changes({"duration_seconds": 100.0}, {}) == []


def test_another_gpu_and_what_the_stage_itself_said() -> None:
    before = {"resources": {"gpus": [{"uuid": "1", "name": "A100"}], "model": "large", "batch": {"size": 8}}}
    after = {"resources": {"gpus": [{"uuid": "2", "name": "H100"}], "model": "small", "batch": {"size": 16}}}
    assert changes(before, after) == [
        ("resource", "gpu", "A100", "H100"),
        ("resource", "model", "large", "small"),
        ("resource", "batch.size", 8, 16),
    ]
    assert changes({"resources": {"gpus": [{"uuid": "1", "name": "A100"}]}}, {"resources": {}}) == []


def test_ids_stamps_and_numbers_of_attempts_are_no_difference() -> None:
    before = {"timestamp": "2025-11-27T10:11:12", "attempt": 1, "trace": {"trace_id": "a"}, "status": "success"}
    after = {"timestamp": "2025-11-28T10:11:12", "attempt": 2, "trace": {"trace_id": "b"}, "status": "failed"}
    assert changes(before, after) == [("status", "status", "success", "failed")]
