"""What the README says is run: its Python blocks, its commands, its table of variables, and docstring examples."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from receiver import Receiver

from otel_stageio import Pipeline, StageIO, semconv
from otel_stageio.testing import FixedClock, SequentialIds, fixed

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str, text: str = README) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_readmes_python_runs(code: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_readmes_commands_run(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = "import sys\nfrom shared.stage_utils import StageIO\nStageIO('asr', output_base=sys.argv[2]).finalize()\n"
    (tmp_path / "scripts" / "asr.py").write_text(script)
    with Pipeline("subtitles", tmp_path / "out" / "demo") as run, run.stage("mux") as io:
        io.up_to_date()
        io.track_output(io.save_json({}, "film.json"))
    binaries = Path(sys.executable).parent
    with Receiver() as receiver:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_STAGEIO_DELIVERY": "off"}
        environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", **endpoint}
        ran = run_commands(tmp_path, environment)
        assert {"RUN subtitles", "mux"} <= {span.name for span in receiver.spans}
    assert ran >= 7
    assert (tmp_path / "out" / "job1" / "06_asr" / "manifest.json").exists()


def test_the_page_on_resuming_is_true(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "RESUME.md").read_text(encoding="utf-8")
    code = blocks("python", page)
    environment = {**os.environ, "OTEL_STAGEIO_CONSOLE": "off"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = []
    for block in code:
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said += done.stdout.splitlines()
    assert said == re.findall(r"^run\(\d\) +# (.*)$", code[0], re.MULTILINE)
    (tmp_path / "pipeline.sh").write_text("exit 3\n")
    assert run_commands(tmp_path, environment, page) == 4


def run_commands(where: Path, environment: dict[str, str], text: str = README) -> int:
    ran = 0
    for block in blocks("console", text):
        for command in re.findall(r"^\$ (otel-stageio .*)$", block, re.MULTILINE):
            words = shlex.split(command, comments=True)
            if words[1] == "serve":  # does not end by itself: test_serve.py, test_cli_help.py
                continue
            done = subprocess.run(
                words,
                cwd=where,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            ran += 1
    return ran


def test_every_variable_in_the_readme_is_one_that_the_library_reads() -> None:
    ours = {value for name, value in vars(semconv).items() if name.startswith("ENV_")}
    named = set(re.findall(r"`(OTEL_STAGEIO_[A-Z_]+)`", README))
    assert named <= ours


@pytest.mark.parametrize(
    "module",
    [
        "capture.redaction", "capture.text", "decorator", "delivery.settings",
        "handover", "layout", "manifest", "pipeline", "recovery", "run_record",
        "sinks.spool", "stage_io", "stage_manifest",
    ],
)  # fmt: skip
def test_docstring_examples_are_true(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_STAGEIO_CONSOLE", "off")
    job = tmp_path / "job"
    with StageIO("asr", job):
        pass
    loaded = importlib.import_module(f"otel_stageio.{module}")
    names: dict[str, Any] = {**vars(loaded), "job": job, "Pipeline": Pipeline, "StageIO": StageIO, "fixed": fixed,
                             "FixedClock": FixedClock, "SequentialIds": SequentialIds}  # fmt: skip
    if module == "decorator":
        names["job"] = tmp_path / "other"
    finder = doctest.DocTestFinder(recurse=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    ran = 0
    for test in finder.find(loaded, module, globs=names):
        ran += runner.run(test).attempted
    assert ran > 0
    assert runner.failures == 0
