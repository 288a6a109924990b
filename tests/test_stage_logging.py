#!/usr/bin/env python3
"""Does stage logging work here?  ``python3 tests/test_stage_logging.py`` answers with a check-list.

No set-up is needed: without an installed package it takes this repository, and without the dependencies it goes on
with the repository's own environment. The same checks run under pytest. Each takes an empty directory.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def _find_the_package() -> None:
    """Import otel_stageio from here or from .venv, or say what to do."""
    if importlib.util.find_spec("otel_stageio") is None:
        sys.path.insert(0, str(ROOT))
    try:
        for name in ("otel_stageio", "opentelemetry.sdk", "psutil", "typer", "rich"):
            importlib.import_module(name)
    except ModuleNotFoundError as missing:
        ours = ROOT / ".venv" / "bin" / "python"
        if ours.exists() and Path(sys.prefix).resolve() != ours.parents[1].resolve():
            sys.stdout.flush()
            os.execv(ours, [str(ours), *sys.argv])
        print(f"{missing.name} is not installed in {sys.executable}.")
        print(f"Install the package first:  {sys.executable} -m pip install '{ROOT}[cli]'")
        print("or make the development environment with `make setup`, and run this again.")
        sys.exit(2)


if __name__ == "__main__":
    _find_the_package()

from otel_stageio import StageIO  # noqa: E402

OUR_VARIABLES = ("OTEL_", "TRACE", "BAGGAGE", "OUTPUT_DIR", "LOG_LEVEL", "DEBUG_MODE")
LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[stage\.(\w+)\] \[(\w+)\] (.*)")


def _pipeline_log(job: Path) -> Path:
    logs = list((job / "logs").glob("99_pipeline_*.log"))
    assert len(logs) == 1, f"one pipeline log is expected, not {logs}"
    return logs[0]


def _said(log: Path) -> list[tuple[str, ...]]:
    """(stage, level, text) of every line that has the documented form."""
    found = map(LINE.fullmatch, log.read_text(encoding="utf-8").splitlines())
    return [match.groups() for match in found if match]


def _manifest(job: Path, directory: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((job / directory / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def _environment(job: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(OUR_VARIABLES)}
    path = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH", "")]))
    return {**env, "PYTHONPATH": path, "OUTPUT_DIR": str(job)}


def test_dual_logging(tmp_path: Path) -> None:
    """Two logs at once: stage.log has every level, the pipeline log INFO and up."""
    io = StageIO("asr", output_base=tmp_path / "job")
    logger = io.get_stage_logger()
    logger.debug("loading the model")
    logger.info("transcribing")
    logger.warning("low confidence")
    logger.error("no speech found")
    io.finalize(status="success")

    levels = [("DEBUG", "loading the model"), ("INFO", "transcribing")]
    levels += [("WARNING", "low confidence"), ("ERROR", "no speech found")]
    lines = [("asr", *line) for line in levels]
    assert [line for line in _said(io.stage_log) if line in lines] == lines
    assert [line for line in _said(_pipeline_log(tmp_path / "job")) if line in lines] == lines[1:]


def test_one_pipeline_log_for_all_stages(tmp_path: Path) -> None:
    """The pipeline log is one for all stages and says which of them spoke; each stage.log is its own."""
    for name in ("demux", "asr", "mux"):
        io = StageIO(name, output_base=tmp_path)
        io.get_stage_logger().info("hello from %s", name)
        io.finalize()
        assert [stage for stage, _, text in _said(io.stage_log) if text.startswith("hello")] == [name]
    hello = [(stage, text) for stage, _, text in _said(_pipeline_log(tmp_path)) if text.startswith("hello")]
    assert hello == [(name, f"hello from {name}") for name in ("demux", "asr", "mux")]


def test_manifest_from_the_first_second(tmp_path: Path) -> None:
    """The manifest exists and says "running" before the stage has done anything."""
    io = StageIO("asr", output_base=tmp_path)
    assert _manifest(tmp_path, "06_asr")["status"] == "running"
    io.finalize(status="success")
    assert _manifest(tmp_path, "06_asr")["status"] == "success"


def test_manifest_tracking(tmp_path: Path) -> None:
    """Inputs, outputs, intermediate files, configuration, resources, warnings and errors are all in the manifest."""
    audio = tmp_path / "audio.wav"
    audio.write_bytes(b"RIFF" + bytes(40))
    io = StageIO("asr", output_base=tmp_path / "job")
    io.track_input(audio, "audio", format="wav")
    segments = io.save_json([{"text": "नमस्ते"}], "segments.json")
    io.track_output(segments, "transcript", segments=1)
    io.track_intermediate(io.get_output_path("chunks"), retained=False, reason="removed at the end")
    io.set_config({"model": "large-v3", "beam_size": 5})
    io.add_config("language", "hi")
    io.set_resources(cpu_percent=93.5)
    io.add_warning("one segment is very short")
    io.add_error("diarization skipped", RuntimeError("no token"))
    io.finalize(status="success", segments=1)

    manifest = _manifest(tmp_path / "job", "06_asr")
    assert (manifest["stage"], manifest["stage_number"], manifest["status"]) == ("asr", 6, "success")
    (source,), (output,), (between,) = manifest["inputs"], manifest["outputs"], manifest["intermediate_files"]
    assert (source["type"], source["path"], source["format"], source["size_bytes"]) == ("audio", str(audio), "wav", 44)
    assert (output["type"], output["size_bytes"]) == ("transcript", segments.stat().st_size)
    assert (between["type"], between["retained"], between["exists"]) == ("intermediate", False, False)
    assert manifest["config"] == {"model": "large-v3", "beam_size": 5, "language": "hi"}
    assert manifest["resources"]["cpu_percent"] == 93.5
    assert manifest["warnings"][0]["message"] == "one segment is very short"
    assert manifest["errors"][0]["exception_type"] == "RuntimeError"
    assert manifest["segments"] == 1
    assert manifest["duration_seconds"] >= 0


def test_a_failure_is_recorded(tmp_path: Path) -> None:
    """An exception in a stage is recorded once, with its traceback, and goes on its way."""
    try:
        with StageIO("alignment", output_base=tmp_path) as io:
            raise ValueError("no words to align")
    except ValueError:
        pass
    else:
        raise AssertionError("the exception was swallowed")
    manifest = _manifest(tmp_path, "07_alignment")
    assert manifest["status"] == "failed"
    assert [error["exception_type"] for error in manifest["errors"]] == ["ValueError"]
    assert io.stage_log.read_text(encoding="utf-8").count("ValueError: no words to align") == 1


def test_a_run_again_starts_clean(tmp_path: Path) -> None:
    """A second run of a stage has a record of its own and keeps the first under "attempts"."""
    for status in ("failed", "success"):
        io = StageIO("asr", output_base=tmp_path)
        if status == "failed":
            io.add_error("out of memory")
        io.finalize(status=status)
    manifest = _manifest(tmp_path, "06_asr")
    assert (manifest["status"], manifest["errors"], manifest["attempt"]) == ("success", [], 2)
    assert [former["status"] for former in manifest["attempts"]] == ["failed"]


QUICK_START = """\
from {module} import StageIO

io = StageIO("stage_name")
logger = io.get_stage_logger()

logger.info("Processing")
io.track_input(input_file, "audio")
io.track_output(output_file, "transcript")
io.finalize(status="success")
"""


def _quick_start(tmp_path: Path, module: str, *wrapper: str) -> None:
    script = tmp_path / "script" / "quick_start.py"
    script.parent.mkdir()
    files = "input_file, output_file = 'audio.wav', 'transcript.json'\n\n"
    script.write_text(files + QUICK_START.format(module=module))
    (script.parent / "audio.wav").write_bytes(bytes(44))
    job = tmp_path / "out" / "job"
    done = subprocess.run(
        [*wrapper, sys.executable, script.name],
        cwd=script.parent,
        env=_environment(job),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "[stage.stage_name] [INFO] Processing" in done.stdout
    manifest = _manifest(job, "99_stage_name")
    assert manifest["status"] == "success"
    assert [(entry["type"], entry["path"], entry["size_bytes"]) for entry in manifest["inputs"]] == [
        ("audio", "audio.wav", 44)
    ]
    assert [(entry["type"], entry["path"], entry["exists"]) for entry in manifest["outputs"]] == [
        ("transcript", "transcript.json", False)
    ]
    assert ("stage_name", "INFO", "Processing") in _said(job / "99_stage_name" / "stage.log")
    assert ("stage_name", "INFO", "Processing") in _said(_pipeline_log(job))


def test_quick_start_with_its_import_changed(tmp_path: Path) -> None:
    """The original's quick start works with one import line changed."""
    _quick_start(tmp_path, "otel_stageio")


def test_quick_start_through_the_compatible_module(tmp_path: Path) -> None:
    """It works from otel_stageio.compat.stage_utils."""
    _quick_start(tmp_path, "otel_stageio.compat.stage_utils")


def test_quick_start_to_the_letter(tmp_path: Path) -> None:
    """It works unchanged, word for word, under `otel-stageio run --drop-in shared`."""
    start = "import sys; from otel_stageio.cli import main; sys.exit(main())"
    _quick_start(tmp_path, "shared.stage_utils", sys.executable, "-c", start, "run", "--drop-in", "shared", "--")


def test_output_structure(tmp_path: Path) -> None:
    """The layout is the documented one: logs/99_pipeline_*.log, 06_asr/ with stage.log, manifest.json, outputs."""
    job = tmp_path / "out" / "job"
    io = StageIO("asr", output_base=job)
    io.get_stage_logger().info("transcribing")
    io.track_output(io.save_json([], "segments.json"), "transcript")
    io.finalize(status="success")
    assert sorted(path.name for path in job.iterdir()) == [".stageio", "06_asr", "logs"]
    assert sorted(path.name for path in (job / "06_asr").iterdir()) == ["manifest.json", "segments.json", "stage.log"]
    assert [path.name for path in (job / "logs").iterdir()] == [_pipeline_log(job).name]
    assert re.fullmatch(r"99_pipeline_\d{8}_\d{6}\.log", _pipeline_log(job).name)


def main() -> int:
    """Run every check in a directory of its own and print the list. 0 if all of them passed."""
    import contextlib
    import inspect
    import io
    import tempfile
    import traceback

    for name in [name for name in os.environ if name.startswith(OUR_VARIABLES)]:
        del os.environ[name]
    checks = [check for name, check in list(globals().items()) if name.startswith("test_")]
    print("Stage logging and manifests")
    failed = 0
    for check in checks:
        what = (inspect.getdoc(check) or check.__name__).rstrip(".")
        output = io.StringIO()
        with tempfile.TemporaryDirectory() as directory:
            try:
                with contextlib.redirect_stdout(output):
                    check(Path(directory))
                print(f"  ✓ {what}")
            except Exception:
                failed += 1
                print(f"  ✗ {what}")
                print("      " + (output.getvalue() + traceback.format_exc()).rstrip().replace("\n", "\n      "))
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
