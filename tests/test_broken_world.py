"""A stage is never broken by its telemetry: full disks, vanished directories, files where directories should be."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_stageio import Pipeline, StageIO
from otel_stageio.runtime import runtime
from otel_stageio.testing import Records

WORK = """
import os, sys
from otel_stageio import StageIO
with StageIO("asr", os.environ["JOB"]) as io:
    log = io.get_stage_logger("CRITICAL")
    for number in range(300):
        log.info("line %d %s", number, "x" * 200)
        io.track_output(io.get_output_path(f"{number}.json"))
    with io.span("inner"):
        io.add_warning("careful")
print("the work is done")
sys.exit(5)
"""


def work(job: Path, prepare: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WORK],
        env={**os.environ, "JOB": str(job)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=prepare,
    )


def unchanged(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout) == (5, "the work is done\n"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("limit", [0, 100, 3_000, 20_000, 60_000])
def test_files_that_may_not_grow_change_nothing_for_the_stage(tmp_path: Path, limit: int) -> None:
    job = tmp_path / "job"
    unchanged(work(job, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))))
    manifest = job / "06_asr" / "manifest.json"
    if manifest.exists() and manifest.stat().st_size:
        assert json.loads(manifest.read_bytes())["status"] in ("running", "success")


def test_what_could_not_be_written_is_counted_in_the_manifest(tmp_path: Path) -> None:
    job = tmp_path / "job"
    unchanged(work(job, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (58_000, 58_000))))
    # stage.log stops at 58 kB; the manifest, some 40 kB, still fits.
    manifest = Records(job).manifest("asr")
    assert manifest["status"] == "success"
    assert manifest["lost"]["stage_log"] > 0
    assert len(manifest["outputs"]) == 300


@pytest.mark.parametrize(
    "obstacle", ["06_asr", "logs", ".stageio", ".stageio/spool", "06_asr/stage.log/dir", "06_asr/manifest.json/dir"]
)
def test_a_file_in_the_way_changes_nothing_for_the_stage(tmp_path: Path, obstacle: str) -> None:
    path = tmp_path / "job" / obstacle
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    unchanged(work(tmp_path / "job"))


def test_no_file_descriptors_left_changes_nothing_for_the_stage(tmp_path: Path) -> None:
    code = """
        import os, resource, sys
        from otel_stageio import StageIO
        hoard = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True: hoard.append(os.open("/dev/null", os.O_RDONLY))
        except OSError: pass
        for fd in hoard[:2]: os.close(fd)
        with StageIO("asr", os.environ["JOB"]) as io:
            io.get_stage_logger("CRITICAL").info("hello")
            io.add_config("a", 1)
        print("done")
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "JOB": str(tmp_path / "job")},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_directory_that_vanishes_comes_back_with_what_follows(records: Records) -> None:
    with StageIO("asr", records.job) as io:
        shutil.rmtree(records.job)
        io.get_stage_logger("CRITICAL").info("still here")
        io.add_warning("careful")
    assert records.manifest("asr")["status"] == "success"


def test_a_record_outlives_its_journal(records: Records) -> None:
    """Somebody removes the spool after a worker has written to it: what the worker said is lost, and no more."""
    with StageIO("asr", records.job) as io:
        io.add_config("model", "large-v3")
        child = os.fork()
        if not child:
            io.add_config("worker", 1)
            os._exit(0)
        os.waitpid(child, 0)
        shutil.rmtree(records.job / ".stageio" / "spool")
    manifest = records.manifest("asr")
    assert (manifest["stage"], manifest["status"], manifest["config"]) == ("asr", "success", {"model": "large-v3"})


@pytest.mark.parametrize("link", ["logs", ".stageio", ".stageio/spool", ".stageio/open", ".stageio/locks", "06_asr"])
def test_a_link_that_leads_nowhere_changes_nothing_for_the_stage(tmp_path: Path, link: str) -> None:
    """The scratch disk is not mounted."""
    job = tmp_path / "job"
    (job / link).parent.mkdir(parents=True, exist_ok=True)
    (job / link).symlink_to("/not/mounted")
    done = work(job, lambda: None)
    assert (done.returncode, done.stdout) == (5, "the work is done\n"), done.stderr


def test_planted_symlinks_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    job = tmp_path / "job"
    (job / "06_asr").mkdir(parents=True)
    (job / "06_asr" / "stage.log").symlink_to(victim)
    (job / "06_asr" / "manifest.json").symlink_to(victim)
    unchanged(work(job))
    assert victim.read_text() == "mine"
    assert Records(job).manifest("asr")["lost"]["stage_log"] > 0


def test_an_internal_error_is_swallowed_counted_and_said_once(
    records: Records, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "strict", False)
    monkeypatch.setattr(runtime, "internal_errors", {})
    monkeypatch.setattr(runtime, "_said", False)

    def broken(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    with StageIO("asr", records.job) as io:
        monkeypatch.setattr(io._recorder, "_count", broken)
        io.add_config("a", 1)
        io.add_warning("b")
        monkeypatch.undo()
        monkeypatch.setattr(runtime, "strict", True)
        io.add_config("c", 2)
    assert records.manifest("asr")["status"] == "success"
    assert records.manifest("asr")["config"] == {"c": 2}
    assert capfd.readouterr().err.count("a bug of ours") == 1


def test_a_recorder_that_cannot_be_made_leaves_the_stage_without_a_record(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "strict", False)
    monkeypatch.setattr(runtime, "internal_errors", {})

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("otel_stageio.stages.recorder.Recorder.__init__", broken)
    with Pipeline("p", records.job) as run, run.stage("asr") as io:
        log = io.get_stage_logger("CRITICAL")
        log.info("hello")
        io.track_input("a.wav", "audio")
        io.set_config({"a": 1})
        io.progress(1, 2)
        io.event("x")
        with io.span("inner") as span:
            span.set_attribute("a", 1)
        assert io.save_json({}, "x.json").exists()
        assert io.trace_id == "0" * 32
        assert io.manifest is not None
        assert io.manifest.get_inputs() == []
    assert runtime.internal_errors
