"""Every member of the original API, with its parameters, defaults and return values (contract-v1 §2)."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from helpers import clean_environment as clean_environment
from helpers import clock as clock
from helpers import job as job
from helpers import pipeline_log, pipeline_logs, read_manifest, records, strict_json, texts
from helpers import stage as stage

from otel_stageio import StageIO, StageManifest
from otel_stageio.compat import logger as compat_logger
from otel_stageio.compat import stage_manifest as compat_manifest
from otel_stageio.compat import stage_order as compat_order
from otel_stageio.compat import stage_utils as compat_utils
from otel_stageio.testing import FixedClock

OpenStage = Callable[..., StageIO]
REQUIRED = inspect.Parameter.empty

TABLE = {
    "demux": (1, "01_demux"),
    "tmdb": (2, "02_tmdb"),
    "glossary_load": (3, "03_glossary_load"),
    "source_separation": (4, "04_source_separation"),
    "pyannote_vad": (5, "05_pyannote_vad"),
    "asr": (6, "06_asr"),
    "hallucination_removal": (6, "06_asr"),
    "alignment": (7, "07_alignment"),
    "lyrics_detection": (8, "08_lyrics_detection"),
    "export_transcript": (9, "09_export_transcript"),
    "translation": (10, "10_translation"),
    "hybrid_translation": (10, "10_translation"),
    "indictrans2_translation": (10, "10_translation"),
    "nllb_translation": (10, "10_translation"),
    "load_transcript": (10, "10_translation"),
    "subtitle_generation": (11, "11_subtitle_generation"),
    "subtitle_generation_source": (11, "11_subtitle_generation"),
    "subtitle_generation_target": (11, "11_subtitle_generation"),
    "hinglish_detection": (11, "11_subtitle_generation"),
    "mux": (12, "12_mux"),
}
UNKNOWN = ("song_bias_injection", "silero_vad", "hybrid_translation_en", "ner")
DIRECTORIES = list(dict.fromkeys(directory for _, directory in TABLE.values()))


def aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None, f"{text} does not say its zone"
    return moment


# -- parameters and defaults -----------------------------------------------------------------------------------------

V1_SIGNATURES: list[tuple[Callable[..., Any], list[tuple[str, Any]], bool]] = [
    (StageIO, [("stage_name", REQUIRED), ("output_base", None), ("enable_manifest", True)], False),
    (StageIO.get_stage_logger, [("log_level", "INFO")], False),
    (StageIO.track_input, [("file_path", REQUIRED), ("file_type", "file")], True),
    (StageIO.track_output, [("file_path", REQUIRED), ("file_type", "file")], True),
    (StageIO.track_intermediate, [("file_path", REQUIRED), ("retained", False), ("reason", "")], False),
    (StageIO.add_config, [("key", REQUIRED), ("value", REQUIRED)], False),
    (StageIO.set_config, [("config_dict", REQUIRED)], False),
    (StageIO.set_resources, [], True),
    (StageIO.add_warning, [("message", REQUIRED)], False),
    (StageIO.add_error, [("message", REQUIRED), ("exception", None)], False),
    (StageIO.finalize, [("status", "success"), ("save_manifest", True)], True),
    (StageIO.get_input_path, [("filename", REQUIRED), ("from_stage", None)], False),
    (StageIO.get_output_path, [("filename", REQUIRED)], False),
    (StageIO.save_json, [("data", REQUIRED), ("filename", REQUIRED)], False),
    (StageIO.load_json, [("filename", REQUIRED), ("from_stage", None)], False),
    (StageIO.save_metadata, [("metadata", REQUIRED)], False),
    (StageIO.load_metadata, [("from_stage", None)], False),
    (StageIO.get_log_path, [("timestamp", None)], False),
    (StageIO.copy_to_base, [("filename", REQUIRED)], False),
    (StageIO.get_all_inputs, [], False),
    (StageManifest, [("stage_name", REQUIRED), ("stage_number", REQUIRED)], False),
    (StageManifest.add_input, [("file_path", REQUIRED), ("file_type", "file")], True),
    (StageManifest.add_output, [("file_path", REQUIRED), ("file_type", "file")], True),
    (StageManifest.add_intermediate, [("file_path", REQUIRED), ("retained", False), ("reason", "")], False),
    (StageManifest.add_config, [("key", REQUIRED), ("value", REQUIRED)], False),
    (StageManifest.set_config, [("config_dict", REQUIRED)], False),
    (StageManifest.add_warning, [("message", REQUIRED)], False),
    (StageManifest.add_error, [("message", REQUIRED), ("exception", None)], False),
    (StageManifest.set_resources, [], True),
    (StageManifest.finalize, [("status", "success")], True),
    (StageManifest.save, [("path", REQUIRED)], False),
    (StageManifest.load, [("path", REQUIRED)], False),
    (StageManifest.to_dict, [], False),
    (StageManifest.get_inputs, [], False),
    (StageManifest.get_outputs, [], False),
    (StageManifest.get_intermediate_files, [], False),
    (StageManifest.has_errors, [], False),
    (StageManifest.has_warnings, [], False),
    (
        compat_utils.get_stage_logger,
        [("stage_name", REQUIRED), ("log_level", "DEBUG"), ("stage_io", None)],
        False,
    ),
    (
        compat_logger.get_stage_logger,
        [("stage_name", REQUIRED), ("stage_dir", None), ("log_level", "INFO")],
        False,
    ),
    (
        compat_logger.setup_dual_logger,
        [("stage_name", REQUIRED), ("stage_log_file", REQUIRED), ("main_log_dir", REQUIRED), ("log_level", "INFO")],
        False,
    ),
    (
        compat_logger.setup_logger,
        [
            ("name", REQUIRED),
            ("log_level", "INFO"),
            ("log_format", "json"),
            ("log_to_console", True),
            ("log_to_file", True),
            ("log_dir", "/app/logs"),
        ],
        False,
    ),
    (
        compat_logger.PipelineLogger,
        [("module_name", REQUIRED), ("log_file", None), ("log_level", "INFO"), ("log_format", "text")],
        False,
    ),
    (compat_logger.get_stage_log_filename, [("stage_name", REQUIRED), ("timestamp", None)], False),
    (compat_order.get_stage_number, [("stage_name", REQUIRED)], False),
    (compat_order.get_stage_dir, [("stage_name", REQUIRED), ("job_dir", None)], False),
    (compat_order.get_all_stage_dirs, [], False),
]


@pytest.mark.parametrize(
    ("member", "expected", "open_ended"),
    V1_SIGNATURES,
    ids=[f"{member.__module__.rsplit('.', 1)[-1]}-{member.__qualname__}" for member, _, _ in V1_SIGNATURES],
)
def test_parameters_and_defaults_are_the_originals(
    member: Callable[..., Any], expected: list[tuple[str, Any]], open_ended: bool
) -> None:
    parameters = [p for p in inspect.signature(member).parameters.values() if p.name != "self"]
    by_position = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in by_position[: len(expected)]] == expected
    for extra in by_position[len(expected) :] + [p for p in parameters if p.kind is p.KEYWORD_ONLY]:
        assert extra.default is not REQUIRED, f"{extra.name} is new and must not be required"
    if open_ended:
        assert any(p.kind is p.VAR_KEYWORD for p in parameters)


def test_what_is_new_in_the_constructor_is_keyword_only() -> None:
    new = inspect.signature(StageIO).parameters
    assert new["attributes"].kind is inspect.Parameter.KEYWORD_ONLY
    assert new["attributes"].default is None
    assert new["capture_logging"].kind is inspect.Parameter.KEYWORD_ONLY
    assert new["capture_logging"].default is None


# -- construction and attributes -------------------------------------------------------------------------------------


def test_attributes(stage: OpenStage, job: Path) -> None:
    io = stage("asr", job)
    assert io.stage_name == "asr"
    assert io.stage_number == 6
    assert io.output_base == job
    assert io.stage_dir == job / "06_asr"
    assert io.stage_log == job / "06_asr" / "stage.log"
    assert io.logs_dir == job / "logs"
    assert io.enable_manifest is True
    assert io.manifest_path == job / "06_asr" / "manifest.json"
    assert isinstance(io.manifest, StageManifest)
    for path in (io.output_base, io.stage_dir, io.stage_log, io.logs_dir, io.manifest_path):
        assert isinstance(path, Path)


def test_a_plainly_constructed_stage_is_open_at_once(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    assert sorted(path.name for path in io.stage_dir.iterdir()) == ["manifest.json", "stage.log"]
    manifest = read_manifest(io.stage_dir)
    assert manifest["status"] == "running"
    assert "completed_at" not in manifest or manifest["completed_at"] is None
    assert pipeline_log(job).exists()


def test_the_manifest_can_be_switched_off(stage: OpenStage, job: Path) -> None:
    io = stage("asr", job, False)
    assert io.enable_manifest is False
    assert io.manifest is None
    assert io.manifest_path == job / "06_asr" / "manifest.json"
    io.get_stage_logger().info("still logging")
    io.track_input(job / "in.wav", "audio")
    io.track_output(job / "out.json")
    io.track_intermediate(job / "tmp.bin")
    io.add_config("model", "large")
    io.set_config({"beam": 5})
    io.set_resources(gpu_used=True)
    io.add_warning("careful")
    io.add_error("broken", ValueError("really"))
    io.finalize(status="failed")
    assert not io.manifest_path.exists()
    assert "still logging" in texts(io.stage_log)


def test_the_base_is_a_str_or_a_path(stage: OpenStage, job: Path) -> None:
    io = stage("asr", str(job))
    assert io.output_base == job
    assert isinstance(io.output_base, Path)


def test_the_base_is_output_dir(stage: OpenStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTPUT_DIR", str(tmp_path / "elsewhere"))
    io = stage("asr", None)
    assert io.output_base == tmp_path / "elsewhere"
    assert io.manifest_path.exists()


def test_the_base_is_out_without_output_dir(stage: OpenStage) -> None:
    io = stage("asr", None)
    assert io.output_base == Path("out")
    assert io.stage_dir == Path("out/06_asr")
    assert (Path.cwd() / "out" / "06_asr" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["", "..", "/"])
def test_a_name_of_which_nothing_can_be_made_is_refused(name: str, job: Path) -> None:
    with pytest.raises(ValueError):
        StageIO(name, job)


# -- numbers, directories, aliases -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "number", "directory"), [(n, *where) for n, where in TABLE.items()])
def test_numbers_and_directories(stage: OpenStage, job: Path, name: str, number: int, directory: str) -> None:
    io = stage(name)
    assert io.stage_number == number
    assert io.stage_dir == job / directory
    assert io.stage_name == name
    assert io.get_stage_logger().name == f"stage.{name}"


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_stage_that_the_table_does_not_know_is_99(stage: OpenStage, job: Path, name: str) -> None:
    io = stage(name)
    assert io.stage_number == 99
    assert io.stage_dir == job / f"99_{name}"


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_an_unknown_stage_wrote_is_found_by_its_reader(stage: OpenStage, job: Path, name: str) -> None:
    written = stage(name).save_json({"who": name}, "result.json")
    reader = stage("asr")
    assert reader.get_input_path("result.json", from_stage=name) == written == job / f"99_{name}" / "result.json"
    assert reader.load_json("result.json", name) == {"who": name}


# -- get_input_path --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(TABLE))
def test_the_default_input_is_the_stage_before(stage: OpenStage, job: Path, name: str) -> None:
    number = TABLE[name][0]
    before = dict(TABLE.values()).get(number - 1)
    expected = job / before / "x.json" if before else job / "x.json"
    path = stage(name).get_input_path("x.json")
    assert path == expected
    assert not path.exists()


@pytest.mark.parametrize("name", ["demux", *UNKNOWN])
def test_without_a_stage_before_the_input_is_in_the_job_root(stage: OpenStage, job: Path, name: str) -> None:
    assert stage(name).get_input_path("movie.mkv") == job / "movie.mkv"


@pytest.mark.parametrize("source", list(TABLE))
def test_an_explicit_source(stage: OpenStage, job: Path, source: str) -> None:
    assert stage("mux").get_input_path("a.json", from_stage=source) == job / TABLE[source][1] / "a.json"
    assert stage("mux").get_input_path("a.json", source) == job / TABLE[source][1] / "a.json"


def test_an_absent_input_is_taken_from_the_job_root_if_it_is_there(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    (job / "audio.wav").write_bytes(b"root")
    assert io.get_input_path("audio.wav") == job / "audio.wav"
    assert io.get_input_path("audio.wav", from_stage="demux") == job / "audio.wav"
    assert io.get_input_path("audio.wav", from_stage="nobody") == job / "audio.wav"
    (job / "01_demux").mkdir()
    (job / "01_demux" / "audio.wav").write_bytes(b"stage")
    assert io.get_input_path("audio.wav", from_stage="demux") == job / "01_demux" / "audio.wav"


def test_an_absent_input_is_the_path_in_the_stage(stage: OpenStage, job: Path) -> None:
    path = stage("alignment").get_input_path("segments.json", "asr")
    assert path == job / "06_asr" / "segments.json"
    assert not path.exists()


def test_an_unknown_source_where_nothing_was_written_has_the_originals_answer(stage: OpenStage, job: Path) -> None:
    assert stage("alignment").get_input_path("x.json", from_stage="nobody") == job / "06_nobody" / "x.json"


def test_an_unknown_source_is_found_where_the_original_looked_for_it(stage: OpenStage, job: Path) -> None:
    (job / "06_custom").mkdir(parents=True)
    (job / "06_custom" / "x.json").write_text("{}")
    assert stage("alignment").get_input_path("x.json", from_stage="custom") == job / "06_custom" / "x.json"


# -- output paths and files ------------------------------------------------------------------------------------------


def test_output_paths(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    assert io.get_output_path("segments.json") == job / "06_asr" / "segments.json"
    assert io.get_output_path("sub/x.json") == job / "06_asr" / "sub" / "x.json"
    assert not io.get_output_path("segments.json").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "sub/../../x", ".."])
def test_output_paths_stay_in_the_stage(stage: OpenStage, name: str) -> None:
    with pytest.raises(ValueError):
        stage("asr").get_output_path(name)


def test_save_json(stage: OpenStage) -> None:
    io = stage("asr")
    data = {"text": "नमस्ते, Zoë", "segments": [1, 2.5, None, True]}
    path = io.save_json(data, "segments.json")
    assert path == io.stage_dir / "segments.json"
    assert path.read_text(encoding="utf-8") == json.dumps(data, indent=2, ensure_ascii=False)
    assert io.save_json([1], "segments.json") == path
    assert json.loads(path.read_text()) == [1]


def test_load_json(stage: OpenStage) -> None:
    stage("pyannote_vad").save_json({"speech": [0, 1]}, "speech_segments.json")
    stage("demux").save_json({"rate": 16000}, "audio.json")
    io = stage("asr")
    assert io.load_json("speech_segments.json") == {"speech": [0, 1]}
    assert io.load_json("audio.json", from_stage="demux") == {"rate": 16000}
    with pytest.raises(FileNotFoundError):
        io.load_json("audio.json")


def test_metadata(stage: OpenStage) -> None:
    writer = stage("pyannote_vad")
    path = writer.save_metadata({"status": "done", "language": "हिन्दी"})
    assert path == writer.stage_dir / "metadata.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["stage"] == "pyannote_vad"
    assert written["stage_number"] == 5
    datetime.fromisoformat(written["timestamp"])
    assert written["status"] == "done"
    reader = stage("asr")
    assert reader.load_metadata() == written
    assert reader.load_metadata(from_stage="pyannote_vad") == written
    assert reader.load_metadata("demux") == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("asr", "06_asr_20251127_101112.log"),
        ("hallucination_removal", "06_hallucination_removal_20251127_101112.log"),
        ("hybrid_translation", "10_hybrid_translation_20251127_101112.log"),
        ("silero_vad", "99_silero_vad_20251127_101112.log"),
    ],
)
def test_log_path(stage: OpenStage, job: Path, name: str, expected: str) -> None:
    io = stage(name)
    assert io.get_log_path("20251127_101112") == job / "logs" / expected
    assert io.get_log_path(timestamp="20251127_101112") == job / "logs" / expected


def test_log_path_of_now(stage: OpenStage, job: Path) -> None:
    path = stage("asr").get_log_path()
    assert path.parent == job / "logs"
    assert re.fullmatch(r"06_asr_\d{8}_\d{6}\.log", path.name)


def test_copy_to_base(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    io.get_output_path("segments.json").write_text("[]")
    assert io.copy_to_base("segments.json") == job / "segments.json"
    assert (job / "segments.json").read_text() == "[]"
    assert io.get_output_path("segments.json").exists()
    assert io.copy_to_base("nothing.json") == job / "nothing.json"
    assert not (job / "nothing.json").exists()


def test_all_inputs_are_the_entries_of_the_stage_before(stage: OpenStage) -> None:
    before = stage("pyannote_vad")
    before.save_json([], "speech_segments.json")
    before.get_output_path("chunks").mkdir()
    found = stage("asr").get_all_inputs()
    assert sorted(found) == [
        before.stage_dir / name for name in ("chunks", "manifest.json", "speech_segments.json", "stage.log")
    ]


@pytest.mark.parametrize("name", ["demux", "alignment", "silero_vad"])
def test_all_inputs_of_a_stage_with_none_before(stage: OpenStage, name: str) -> None:
    assert stage(name).get_all_inputs() == []


# -- the record ------------------------------------------------------------------------------------------------------


def test_tracking_returns_the_path_as_it_was_given(stage: OpenStage, job: Path) -> None:
    """The original returns None here; DESIGN §1 lets the call stand where the path is used."""
    io = stage("asr")
    for path in (job / "a.wav", "b.json"):
        assert io.track_input(path, "audio") is path
        assert io.track_output(path) is path
        assert io.track_intermediate(path) is path


def test_recording_returns_nothing(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    assert io.add_config("a", 1) is None  # type: ignore[func-returns-value]
    assert io.set_config({"b": 2}) is None  # type: ignore[func-returns-value]
    assert io.set_resources(cpu_percent=1.5) is None  # type: ignore[func-returns-value]
    assert io.add_warning("w") is None  # type: ignore[func-returns-value]
    assert io.add_error("e") is None  # type: ignore[func-returns-value]
    assert io.finalize() is None  # type: ignore[func-returns-value]


def test_the_keys_of_a_manifest(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    io.finalize()
    manifest = read_manifest(io.stage_dir)
    for key, kind in {
        "stage": str,
        "stage_number": int,
        "timestamp": str,
        "status": str,
        "inputs": list,
        "outputs": list,
        "intermediate_files": list,
        "config": dict,
        "resources": dict,
        "errors": list,
        "warnings": list,
        "duration_seconds": float,
        "completed_at": str,
        "kind": str,
        "schema_version": object,
        "attempt": int,
        "attempts": list,
        "trace": dict,
        "lost": dict,
        "redactions": int,
        "substages": dict,
    }.items():
        assert isinstance(manifest[key], kind), key
    assert manifest["stage"] == "asr"
    assert manifest["stage_number"] == 6
    assert manifest["status"] == "success"
    assert manifest["kind"] == "stageio.manifest"
    assert manifest["attempt"] == 1
    assert manifest["attempts"] == []
    assert manifest["lost"] == {}
    assert manifest["redactions"] == 0
    assert manifest["substages"] == {}
    assert {"trace_id", "span_id", "run_id"} <= set(manifest["trace"])
    assert re.fullmatch(r"[0-9a-f]{32}", manifest["trace"]["trace_id"])
    assert re.fullmatch(r"[0-9a-f]{16}", manifest["trace"]["span_id"])
    assert manifest["trace"]["run_id"]
    assert aware(manifest["timestamp"]) <= aware(manifest["completed_at"])
    assert manifest["duration_seconds"] >= 0


def test_the_manifest_is_written_as_the_original_wrote_it(stage: OpenStage) -> None:
    io = stage("asr")
    io.add_config("title", "Zoë")
    io.finalize()
    text = io.manifest_path.read_text(encoding="utf-8")
    assert text.isascii()
    assert text.rstrip("\n") == json.dumps(strict_json(text), indent=2)


def test_tracked_files(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    audio = job / "audio.wav"
    audio.write_bytes(b"x" * 44)
    segments = io.save_json([], "segments.json")
    work = io.get_output_path("chunks.bin")
    work.write_bytes(b"12345")
    io.track_input(audio, "audio", format="wav", sample_rate=16000)
    io.track_output(segments, file_type="transcript", segments=41)
    io.track_output(job / "plain")
    io.track_intermediate(work, retained=True, reason="for the report")
    io.track_intermediate(job / "gone.tmp")
    io.finalize()
    manifest = read_manifest(io.stage_dir)

    (source,) = manifest["inputs"]
    assert list(source)[:5] == ["type", "path", "format", "sample_rate", "size_bytes"]
    assert source["type"] == "audio"
    assert source["path"] == str(audio)
    assert source["format"] == "wav"
    assert source["sample_rate"] == 16000
    assert source["size_bytes"] == 44

    first, absent = manifest["outputs"]
    assert list(first)[:4] == ["type", "path", "segments", "size_bytes"]
    assert (first["type"], first["path"], first["segments"]) == ("transcript", str(segments), 41)
    assert first["size_bytes"] == segments.stat().st_size
    assert absent["type"] == "file"
    assert absent["exists"] is False
    assert "size_bytes" not in absent

    kept, gone = manifest["intermediate_files"]
    assert (kept["type"], kept["path"], kept["retained"], kept["reason"], kept["size_bytes"]) == (
        "intermediate", str(work), True, "for the report", 5,
    )  # fmt: skip
    assert (gone["retained"], gone["reason"], gone["exists"]) == (False, "", False)


def test_the_same_path_twice_is_one_entry(stage: OpenStage) -> None:
    io = stage("asr")
    path = io.save_json([], "segments.json")
    io.track_output(path, "transcript", segments=1)
    io.track_output(path, "transcript", segments=2)
    io.finalize()
    (entry,) = read_manifest(io.stage_dir)["outputs"]
    assert entry["segments"] == 2


def test_config_and_resources_merge(stage: OpenStage) -> None:
    io = stage("asr")
    io.add_config("model", "small")
    io.set_config({"model": "large-v3", "beam_size": 5})
    io.add_config("vad", True)
    io.set_resources(cpu_percent=50.0, gpu_used=False)
    io.set_resources(gpu_used=True, memory_mb=812)
    io.finalize()
    manifest = read_manifest(io.stage_dir)
    assert manifest["config"] == {"model": "large-v3", "beam_size": 5, "vad": True}
    assert {"cpu_percent": 50.0, "gpu_used": True, "memory_mb": 812}.items() <= manifest["resources"].items()


def test_warnings_and_errors(stage: OpenStage) -> None:
    io = stage("asr")
    io.add_warning("low confidence")
    io.add_error("no audio")
    io.add_error("no model", FileNotFoundError("large-v3.bin"))
    io.finalize(status="failed")
    manifest = read_manifest(io.stage_dir)
    (warning,) = manifest["warnings"]
    assert warning["message"] == "low confidence"
    aware(warning["timestamp"])
    plain, caused = manifest["errors"]
    assert plain["message"] == "no audio"
    assert not plain.get("exception_type")
    assert caused["message"] == "no model"
    assert caused["exception_type"] == "FileNotFoundError"
    assert caused["exception_detail"] == "large-v3.bin"
    aware(caused["timestamp"])


def test_the_record_is_on_disk_while_the_stage_runs(stage: OpenStage, job: Path, clock: FixedClock) -> None:
    io = stage("asr")
    io.track_input(job / "audio.wav", "audio")
    io.add_config("model", "large-v3")
    io.add_warning("low confidence")
    manifest = read_manifest(io.stage_dir)
    assert manifest["status"] == "running"
    assert [entry["path"] for entry in manifest["inputs"]] == [str(job / "audio.wav")]
    assert manifest["config"] == {"model": "large-v3"}
    assert [entry["message"] for entry in manifest["warnings"]] == ["low confidence"]


@pytest.mark.parametrize("status", ["success", "failed", "skipped"])
def test_finalize(stage: OpenStage, status: str) -> None:
    io = stage("asr")
    io.finalize(status=status, segments=41, reason="because", nested={"a": [1]})
    manifest = read_manifest(io.stage_dir)
    assert manifest["status"] == status
    assert manifest["segments"] == 41
    assert manifest["reason"] == "because"
    assert manifest["nested"] == {"a": [1]}


def test_finalize_by_position(stage: OpenStage) -> None:
    io = stage("asr")
    io.finalize("skipped", True, reason="disabled")
    assert read_manifest(io.stage_dir)["status"] == "skipped"


def test_another_status_word_is_kept(stage: OpenStage) -> None:
    io = stage("asr")
    io.finalize(status="partly")
    assert read_manifest(io.stage_dir)["status"] == "partly"


def test_finalize_without_saving_leaves_no_claim_of_success(stage: OpenStage) -> None:
    io = stage("asr")
    io.finalize(save_manifest=False)
    assert read_manifest(io.stage_dir)["status"] != "success"


def test_a_second_finalize_is_late_and_changes_nothing(stage: OpenStage) -> None:
    io = stage("asr")
    io.finalize(status="success", segments=41)
    before = read_manifest(io.stage_dir)
    io.finalize(status="failed", segments=0)
    after = read_manifest(io.stage_dir)
    assert after["lost"]["late"] == 1
    assert {**after, "lost": {}} == {**before, "lost": {}}


def test_a_log_line_after_finalize_is_still_written(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    log = io.get_stage_logger()
    log.info("before")
    io.finalize()
    log.info("after")
    assert [text for text in texts(io.stage_log) if text in ("before", "after")] == ["before", "after"]
    assert "after" in texts(pipeline_log(job))


def test_the_manifest_object_of_a_stage(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    manifest = io.manifest
    assert manifest is not None
    assert (manifest.stage_name, manifest.stage_number) == ("asr", 6)
    assert manifest.data["status"] == "running"
    assert not manifest.has_errors()
    io.track_input(job / "a.wav", "audio")
    manifest.add_output(job / "b.json", "transcript", segments=3)
    manifest.add_intermediate(job / "c.tmp", True, "kept")
    manifest.add_config("model", "large")
    manifest.set_config({"beam": 5})
    manifest.set_resources(gpu=True)
    manifest.add_warning("careful")
    manifest.add_error("broken", KeyError("x"))
    assert [entry["path"] for entry in manifest.get_inputs()] == [str(job / "a.wav")]
    assert [entry["segments"] for entry in manifest.get_outputs()] == [3]
    assert [entry["reason"] for entry in manifest.get_intermediate_files()] == ["kept"]
    assert manifest.has_errors()
    assert manifest.has_warnings()
    assert manifest.to_dict()["config"] == {"model": "large", "beam": 5}
    io.finalize(status="failed")
    written = read_manifest(io.stage_dir)
    assert written["outputs"][0]["type"] == "transcript"
    assert written["resources"]["gpu"] is True
    assert written["errors"][0]["exception_type"] == "KeyError"


# -- StageManifest by itself -----------------------------------------------------------------------------------------


def test_a_manifest_by_itself_begins_as_running() -> None:
    manifest = StageManifest("asr", 6)
    assert (manifest.stage_name, manifest.stage_number) == ("asr", 6)
    assert isinstance(manifest.start_time, datetime)
    assert manifest.data["stage"] == "asr"
    assert manifest.data["stage_number"] == 6
    assert manifest.data["status"] == "running"
    aware(manifest.data["timestamp"])
    for key in ("inputs", "outputs", "intermediate_files", "errors", "warnings"):
        assert manifest.data[key] == []
    assert manifest.data["config"] == {}
    assert manifest.data["resources"] == {}


def test_a_manifest_by_itself_records(tmp_path: Path) -> None:
    audio = tmp_path / "audio.wav"
    audio.write_bytes(b"1234")
    manifest = StageManifest("asr", 6)
    manifest.add_input(audio, "audio", format="wav")
    manifest.add_output(tmp_path / "none.json")
    manifest.add_intermediate(audio, retained=True, reason="cache")
    manifest.add_config("model", "small")
    manifest.set_config({"beam": 5})
    manifest.set_resources(cpu_percent=3)
    assert not manifest.has_warnings()
    manifest.add_warning("careful")
    assert manifest.has_warnings()
    assert not manifest.has_errors()
    manifest.add_error("broken", ValueError("bad"))
    assert manifest.has_errors()
    manifest.finalize("failed", reason="bad")
    (source,) = manifest.get_inputs()
    assert (source["type"], source["path"], source["format"], source["size_bytes"]) == ("audio", str(audio), "wav", 4)
    (output,) = manifest.get_outputs()
    assert output["type"] == "file"
    assert "size_bytes" not in output
    (kept,) = manifest.get_intermediate_files()
    assert (kept["type"], kept["retained"], kept["reason"]) == ("intermediate", True, "cache")
    data = manifest.to_dict()
    assert data["config"] == {"model": "small", "beam": 5}
    assert data["resources"]["cpu_percent"] == 3
    assert data["errors"][0]["exception_type"] == "ValueError"
    assert data["errors"][0]["exception_detail"] == "bad"
    assert data["status"] == "failed"
    assert data["reason"] == "bad"
    assert data["duration_seconds"] >= 0
    aware(data["completed_at"])


def test_a_manifest_by_itself_is_saved_and_loaded(tmp_path: Path) -> None:
    manifest = StageManifest("asr", 6)
    manifest.add_output("segments.json", "transcript")
    manifest.finalize()
    path = tmp_path / "new" / "directory" / "manifest.json"
    assert manifest.save(path) is None  # type: ignore[func-returns-value]
    assert read_manifest(path)["status"] == "success"
    loaded = StageManifest("other", 99)
    assert loaded.load(path) is None  # type: ignore[func-returns-value]
    assert loaded.data["stage"] == "asr"
    assert loaded.data["status"] == "success"
    assert [entry["path"] for entry in loaded.get_outputs()] == ["segments.json"]


def test_loading_an_absent_manifest_changes_nothing(tmp_path: Path) -> None:
    manifest = StageManifest("asr", 6)
    before = manifest.to_dict()
    manifest.load(tmp_path / "absent.json")
    assert manifest.to_dict() == before


# -- the three get_stage_loggers -------------------------------------------------------------------------------------


def test_the_logger_of_a_stage(stage: OpenStage, job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    io = stage("asr")
    log = io.get_stage_logger()
    assert isinstance(log, logging.Logger)
    assert log.name == "stage.asr"
    assert log.propagate is False
    log.debug("a detail")
    log.info("%d of %d", 3, 41)
    log.warning("careful")
    mine = [("stage.asr", "INFO", "3 of 41"), ("stage.asr", "WARNING", "careful")]
    assert records(io.stage_log)[-3:] == [("stage.asr", "DEBUG", "a detail"), *mine]
    assert records(pipeline_log(job))[-2:] == mine
    out = capsys.readouterr().out
    assert "[stage.asr] [INFO] 3 of 41" in out
    assert "a detail" not in out


def test_asking_for_the_logger_again_writes_nothing_twice(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    io.get_stage_logger()
    compat_utils.get_stage_logger("asr", stage_io=io)
    io.get_stage_logger("DEBUG").info("once")
    assert texts(io.stage_log).count("once") == 1
    assert texts(pipeline_log(job)).count("once") == 1


def test_both_logs_have_the_same_lines(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    log = io.get_stage_logger()
    log.info("first\nsecond line")
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("it broke")
    stage_log = io.stage_log.read_bytes()
    assert b"Traceback (most recent call last)" in stage_log
    assert stage_log[stage_log.index(b"[stage.asr] [INFO] first") :] in pipeline_log(job).read_bytes()


def test_stage_loggers_are_apart(stage: OpenStage) -> None:
    one, two = stage("asr"), stage("alignment")
    one.get_stage_logger().info("of asr")
    two.get_stage_logger().info("of alignment")
    assert "of alignment" not in texts(one.stage_log)
    assert "of asr" not in texts(two.stage_log)


def test_stage_utils_get_stage_logger_with_a_stage(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    log = compat_utils.get_stage_logger("asr", log_level="DEBUG", stage_io=io)
    assert log.name == "stage.asr"
    log.debug("a detail")
    log.info("a fact")
    assert [record for record in records(io.stage_log) if record[2].startswith("a ")] == [
        ("stage.asr", "DEBUG", "a detail"),
        ("stage.asr", "INFO", "a fact"),
    ]
    assert ("stage.asr", "INFO", "a fact") in records(pipeline_log(job))
    assert "a detail" not in texts(pipeline_log(job))


def test_stage_utils_get_stage_logger_without_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    log = compat_utils.get_stage_logger("lyrics")
    assert log.name == "lyrics"
    assert log.propagate is True
    log.debug("a detail")
    out = capsys.readouterr().out
    assert re.search(r"\[lyrics\] \[DEBUG\] a detail\n", out)
    assert list(Path.cwd().iterdir()) == []


def test_the_level_of_a_logger_without_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    log = compat_utils.get_stage_logger("lyrics", "WARNING")
    log.info("quiet")
    log.warning("loud")
    out = capsys.readouterr().out
    assert "quiet" not in out
    assert out.count("loud") == 1
    again = compat_utils.get_stage_logger("lyrics", "INFO")
    again.info("audible")
    assert capsys.readouterr().out.count("audible") == 1


def test_logger_get_stage_logger_with_a_directory(job: Path) -> None:
    log = compat_logger.get_stage_logger("asr", stage_dir=job / "06_asr")
    assert log.name == "stage.asr"
    log.debug("a detail")
    log.info("a fact")
    found = records(job / "06_asr" / "stage.log")
    assert ("stage.asr", "DEBUG", "a detail") in found
    assert ("stage.asr", "INFO", "a fact") in found
    assert ("stage.asr", "INFO", "a fact") in records(pipeline_log(job))


@pytest.mark.parametrize(
    ("name", "directory"),
    [("asr", "06_asr"), ("hybrid_translation", "10_translation"), ("silero_vad", "99_silero_vad")],
)
def test_logger_get_stage_logger_goes_by_output_dir(
    job: Path, monkeypatch: pytest.MonkeyPatch, name: str, directory: str
) -> None:
    monkeypatch.setenv("OUTPUT_DIR", str(job))
    compat_logger.get_stage_logger(name).info("a fact")
    assert "a fact" in texts(job / directory / "stage.log")
    assert "a fact" in texts(pipeline_log(job))


def test_setup_dual_logger(tmp_path: Path) -> None:
    stage_log = tmp_path / "somewhere" / "stage.log"
    log = compat_logger.setup_dual_logger("asr", stage_log, tmp_path / "central")
    assert log.name == "stage.asr"
    assert log.propagate is False
    log.debug("a detail")
    log.info("a fact")
    assert ("stage.asr", "DEBUG", "a detail") in records(stage_log)
    (central,) = (tmp_path / "central").glob("99_pipeline_*.log")
    assert "a fact" in texts(central)
    assert "a detail" not in texts(central)


def test_setup_dual_logger_joins_the_log_of_a_stage(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    log = compat_logger.setup_dual_logger("asr", stage_log_file=io.stage_log, main_log_dir=io.logs_dir)
    log.info("a fact")
    assert texts(io.stage_log).count("a fact") == 1
    assert texts(pipeline_log(job)).count("a fact") == 1
    assert len(pipeline_logs(job)) == 1


# -- shared.logger ---------------------------------------------------------------------------------------------------

LOG_NUMBERS = {
    "orchestrator": 0,
    "demux": 1,
    "tmdb": 2,
    "pre-ner": 3,
    "pre_ner": 3,
    "silero-vad": 4,
    "silero_vad": 4,
    "pyannote-vad": 5,
    "pyannote_vad": 5,
    "asr": 6,
    "song-bias-injection": 7,
    "song_bias_injection": 7,
    "lyrics-detection": 8,
    "lyrics_detection": 8,
    "bias-correction": 9,
    "bias_correction": 9,
    "bias-injection": 9,
    "bias_injection": 9,
    "diarization": 10,
    "glossary-builder": 11,
    "glossary_builder": 11,
    "second-pass-translation": 12,
    "second_pass_translation": 12,
    "post-ner": 13,
    "post_ner": 13,
    "subtitle-gen": 14,
    "subtitle_gen": 14,
    "mux": 15,
    "finalize": 16,
}


def test_the_second_number_table() -> None:
    assert compat_logger.STAGE_ORDER == LOG_NUMBERS


@pytest.mark.parametrize(("name", "number"), [*LOG_NUMBERS.items(), ("pipeline", 99), ("ner", 99)])
def test_log_file_names(name: str, number: int) -> None:
    expected = f"{number:02d}_{name}_20251127_101112.log"
    assert compat_logger.get_stage_log_filename(name, "20251127_101112") == expected
    now = compat_logger.get_stage_log_filename(name)
    assert re.fullmatch(rf"{number:02d}_{name}_\d{{8}}_\d{{6}}\.log", now)


def test_setup_logger_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = compat_logger.setup_logger("diarization", log_dir=str(tmp_path / "logs"))
    assert log.name == "diarization"
    log.debug("quiet")
    log.info("two speakers, नमस्ते")
    (path,) = (tmp_path / "logs").iterdir()
    assert re.fullmatch(r"10_diarization_\d{8}_\d{6}\.log", path.name)
    for text in (path.read_text(encoding="utf-8"), capsys.readouterr().out):
        (line,) = text.splitlines()
        entry = strict_json(line)
        assert entry["message"] == "two speakers, नमस्ते"
        assert entry["levelname"] == "INFO"
        assert entry["name"] == "diarization"
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", entry["asctime"])


def test_setup_logger_writes_text(tmp_path: Path) -> None:
    log = compat_logger.setup_logger("asr", "DEBUG", "text", False, True, str(tmp_path / "logs"))
    log.debug("a detail")
    (path,) = (tmp_path / "logs").iterdir()
    assert records(path) == [("asr", "DEBUG", "a detail")]


def test_setup_logger_to_the_console_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = compat_logger.setup_logger("asr", log_format="text", log_to_file=False, log_dir=str(tmp_path / "logs"))
    log.info("a fact")
    assert "[asr] [INFO] a fact" in capsys.readouterr().out
    assert not (tmp_path / "logs").exists()


def test_setup_logger_to_the_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = compat_logger.setup_logger("asr", log_to_console=False, log_dir=str(tmp_path / "logs"))
    log.info("a fact")
    assert capsys.readouterr().out == ""
    assert len(list((tmp_path / "logs").iterdir())) == 1


def test_setup_logger_again_writes_nothing_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        log = compat_logger.setup_logger("asr", log_format="text", log_dir=str(tmp_path / "logs"))
    log.info("once")
    assert capsys.readouterr().out.count("once") == 1
    assert sum(texts(path).count("once") for path in (tmp_path / "logs").iterdir()) == 1


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_pipeline_logger(tmp_path: Path, capsys: pytest.CaptureFixture[str], level: str) -> None:
    path = tmp_path / "logs" / "99_mine_20251127_101112.log"
    log = compat_logger.PipelineLogger("mine", path, "DEBUG")
    assert log.module_name == "mine"
    assert isinstance(log.logger, logging.Logger)
    assert getattr(log, level)("said") is None
    assert records(path) == [("mine", level.upper(), "said")]
    assert f"[mine] [{level.upper()}] said" in capsys.readouterr().out


def test_pipeline_logger_is_text_at_info(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = compat_logger.PipelineLogger(module_name="mine", log_file=path)
    log.debug("quiet")
    log.info("heard")
    assert ("mine", "INFO", "heard") in records(path)


# -- the original's module names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            compat_utils,
            ["StageIO", "StageManifest", "get_stage_logger", "get_stage_number", "get_stage_dir", "STAGE_NUMBERS"],
        ),
        (
            compat_logger,
            [
                "STAGE_ORDER",
                "PipelineLogger",
                "get_stage_log_filename",
                "get_stage_logger",
                "setup_dual_logger",
                "setup_logger",
            ],
        ),
        (compat_manifest, ["StageManifest"]),
        (
            compat_order,
            [
                "STAGE_DIRECTORIES",
                "STAGE_NUMBERS",
                "STAGE_ORDER",
                "SUB_STAGES",
                "get_all_stage_dirs",
                "get_stage_dir",
                "get_stage_number",
            ],
        ),
    ],
    ids=["stage_utils", "logger", "stage_manifest", "stage_order"],
)
def test_the_modules_have_the_originals_names(module: Any, names: list[str]) -> None:
    assert [name for name in names if not hasattr(module, name)] == []


def test_the_classes_are_one() -> None:
    assert compat_utils.StageIO is StageIO
    assert compat_utils.StageManifest is compat_manifest.StageManifest is StageManifest


@pytest.mark.parametrize(("name", "number", "directory"), [(n, *where) for n, where in TABLE.items()])
def test_stage_order(name: str, number: int, directory: str) -> None:
    assert compat_order.STAGE_NUMBERS[name] == number
    assert compat_order.get_stage_number(name) == number
    assert compat_order.get_stage_dir(name) == directory
    assert compat_order.get_stage_dir(name, "/jobs/1") == os.path.join("/jobs/1", directory)
    assert isinstance(compat_order.get_stage_dir(name, "/jobs/1"), str)


def test_stage_order_does_not_know_more() -> None:
    assert set(compat_order.STAGE_NUMBERS) == set(TABLE)
    for function in (compat_order.get_stage_number, compat_order.get_stage_dir):
        with pytest.raises(ValueError, match="silero_vad"):
            function("silero_vad")


def test_sub_stages() -> None:
    assert compat_order.SUB_STAGES == {
        "hallucination_removal": "asr",
        "load_transcript": "translation",
        "hinglish_detection": "subtitle_generation",
    }
    assert set(compat_order.STAGE_ORDER) == set(TABLE) - set(compat_order.SUB_STAGES)
    assert isinstance(compat_order.STAGE_ORDER, list)


def test_all_stage_dirs() -> None:
    directories = compat_order.get_all_stage_dirs()
    assert isinstance(directories, list)
    assert list(dict.fromkeys(directories)) == DIRECTORIES
    directories.clear()
    assert compat_order.get_all_stage_dirs()
