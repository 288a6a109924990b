"""The odd ways in which existing stage scripts use StageIO, each of which must go on working (contract-v1 §4)."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import clean_environment as clean_environment
from helpers import cli, environment, pipeline_log, read_manifest, records, run_command, run_python, texts, write_script
from helpers import job as job
from helpers import stage as stage

from otel_stageio import StageIO
from otel_stageio.compat.logger import PipelineLogger
from otel_stageio.compat.stage_utils import get_stage_logger

OpenStage = Callable[..., StageIO]


# -- in one process --------------------------------------------------------------------------------------------------


def test_type_in_the_metadata_overrides_the_type(stage: OpenStage) -> None:
    io = stage("source_separation")
    vocals = io.get_output_path("vocals.wav")
    vocals.write_bytes(b"RIFF")
    io.track_output(vocals, "audio", format="wav", type="vocals", sample_rate=44100)
    io.finalize()
    (entry,) = read_manifest(io.stage_dir)["outputs"]
    assert entry["type"] == "vocals"
    assert list(entry)[:5] == ["type", "path", "format", "sample_rate", "size_bytes"]


def test_paths_relative_to_a_relative_base(stage: OpenStage) -> None:
    io = stage("tmdb", Path("out/job"))
    assert io.stage_log.relative_to(io.output_base) == Path("02_tmdb/stage.log")
    assert io.manifest_path.relative_to(io.output_base) == Path("02_tmdb/manifest.json")
    assert io.stage_dir.relative_to(io.output_base) == Path("02_tmdb")
    assert io.logs_dir.relative_to(io.output_base) == Path("logs")
    assert io.get_output_path("a.json").relative_to(io.output_base) == Path("02_tmdb/a.json")
    assert io.get_input_path("a.json").relative_to(io.output_base) == Path("01_demux/a.json")
    assert io.get_log_path("x").relative_to(io.output_base) == Path("logs/02_tmdb_x.log")
    assert not any(path.is_absolute() for path in (io.output_base, io.stage_log, io.manifest_path))


def test_paths_relative_to_a_base_with_dots_and_links(stage: OpenStage, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    base = Path(f"{tmp_path}/link/../link/job")
    io = stage("tmdb", base)
    assert io.manifest_path == base / "02_tmdb" / "manifest.json"
    assert io.stage_log.relative_to(base) == Path("02_tmdb/stage.log")
    assert (tmp_path / "real" / "job" / "02_tmdb" / "manifest.json").exists()


def test_finalize_with_error_reason_and_exit_code(stage: OpenStage) -> None:
    failed = stage("asr")
    failed.finalize(status="failed", error="Missing file: audio.wav", exit_code=1)
    manifest = read_manifest(failed.stage_dir)
    assert (manifest["status"], manifest["error"], manifest["exit_code"]) == ("failed", "Missing file: audio.wav", 1)
    skipped = stage("source_separation")
    skipped.finalize(status="skipped", reason="Disabled in config")
    manifest = read_manifest(skipped.stage_dir)
    assert (manifest["status"], manifest["reason"]) == ("skipped", "Disabled in config")


def test_tests_for_a_manifest(stage: OpenStage, job: Path) -> None:
    with_manifest, without = stage("tmdb"), stage("asr", job, enable_manifest=False)
    assert hasattr(with_manifest, "manifest")
    assert with_manifest.manifest is not None
    assert bool(with_manifest.manifest)
    assert hasattr(without, "manifest")
    assert without.manifest is None
    # What the TMDB stage does with a StageIO that came without one: open it again.
    again = stage("tmdb", with_manifest.output_base, enable_manifest=True)
    assert again.manifest is not None
    assert again.output_base == job


@pytest.mark.parametrize("debug", [True, False])
def test_the_level_as_an_expression(stage: OpenStage, capsys: pytest.CaptureFixture[str], debug: bool) -> None:
    io = stage("asr")
    log = get_stage_logger("asr", log_level="DEBUG" if debug else "INFO", stage_io=io)
    log.debug("a detail")
    assert "a detail" in texts(io.stage_log)
    assert ("a detail" in capsys.readouterr().out) is debug


def test_exc_info(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    log = io.get_stage_logger()
    try:
        raise FileNotFoundError("audio.wav")
    except FileNotFoundError as error:
        log.error(f"File not found: {error}", exc_info=True)
    for path in (io.stage_log, pipeline_log(job)):
        text = path.read_text(encoding="utf-8")
        assert "[stage.asr] [ERROR] File not found: audio.wav\n" in text
        assert text.count("Traceback (most recent call last)") == 1
        assert "FileNotFoundError: audio.wav" in text


def test_pipeline_logger_with_the_log_path_of_a_stage(stage: OpenStage) -> None:
    io = stage("hallucination_removal")
    path = io.get_log_path()
    log = PipelineLogger("hallucination_removal", path)
    log.info("removing loops")
    log.error("gone wrong")
    assert ("hallucination_removal", "INFO", "removing loops") in records(path)
    assert ("hallucination_removal", "ERROR", "gone wrong") in records(path)


def test_get_input_path_with_required(stage: OpenStage, job: Path) -> None:
    io = stage("translation")
    absent = io.get_input_path("aligned_transcript.json", from_stage="alignment", required=False)
    assert not absent.exists()
    (job / "07_alignment").mkdir()
    (job / "07_alignment" / "aligned_transcript.json").write_text("{}")
    found = io.get_input_path("aligned_transcript.json", from_stage="alignment", required=False)
    assert found == job / "07_alignment" / "aligned_transcript.json"


def test_output_dir(stage: OpenStage, job: Path) -> None:
    io = stage("glossary_load")
    assert io.output_dir == io.stage_dir == job / "03_glossary_load"
    assert io.output_dir / "film_glossary.tsv" == io.get_output_path("film_glossary.tsv")


def test_job_dir(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    assert io.job_dir == io.output_base == job


def test_compute_hash(stage: OpenStage, tmp_path: Path) -> None:
    path = tmp_path / "transcript.txt"
    path.write_bytes(b"five sentences")
    digest = stage("asr").compute_hash(path)
    assert isinstance(digest, str)
    assert hashlib.sha256(b"five sentences").hexdigest() in digest
    assert stage("asr").compute_hash(str(path)) == digest


@pytest.mark.parametrize(("exit_code", "status"), [(0, "success"), (1, "failed"), (2, "failed")])
def test_finalize_stage_manifest(stage: OpenStage, exit_code: int, status: str) -> None:
    io = stage("lyrics_detection")
    io.finalize_stage_manifest(exit_code=exit_code)
    manifest = read_manifest(io.stage_dir)
    assert manifest["status"] == status
    assert manifest["exit_code"] == exit_code


def test_add_input_with_a_hash(stage: OpenStage, tmp_path: Path) -> None:
    transcript = tmp_path / "transcript.txt"
    transcript.write_text("five sentences")
    io = stage("ai_summarization")
    assert io.manifest is not None
    digest = io.compute_hash(transcript)
    io.manifest.add_input(transcript, digest)
    io.manifest.add_output(transcript, digest)
    io.finalize_stage_manifest(exit_code=0)
    manifest = read_manifest(io.stage_dir)
    for entry in (*manifest["inputs"], *manifest["outputs"]):
        assert entry["path"] == str(transcript)
        assert entry["size_bytes"] == 14
        assert hashlib.sha256(b"five sentences").hexdigest() in str(entry)


# -- scripts that leave without a word -------------------------------------------------------------------------------


def test_a_script_that_never_finalizes_is_incomplete(tmp_path: Path, job: Path) -> None:
    script = write_script(
        tmp_path / "demux.py",
        """
        import sys
        from otel_stageio import StageIO

        io = StageIO("demux", sys.argv[1])
        io.get_stage_logger().info("extracting")
        io.track_output(io.save_json([], "audio.json"), "audio")
        """,
    )
    done = run_python(script, job)
    assert (done.stderr, done.returncode) == ("", 0)
    manifest = read_manifest(job / "01_demux")
    assert manifest["status"] == "incomplete"
    assert [entry["size_bytes"] for entry in manifest["outputs"]] == [2]
    assert manifest["completed_at"]
    assert "extracting" in texts(job / "01_demux" / "stage.log")


def test_a_script_that_leaves_early_claims_no_success(tmp_path: Path, job: Path) -> None:
    script = write_script(
        tmp_path / "align.py",
        """
        import sys
        from otel_stageio import StageIO

        def main():
            io = StageIO("alignment", sys.argv[1])
            if not io.get_input_path("segments.json", "asr").exists():
                return 3
            io.finalize(status="success")
            return 0

        sys.exit(main())
        """,
    )
    done = run_python(script, job)
    assert (done.stderr, done.returncode) == ("", 3)
    assert read_manifest(job / "07_alignment")["status"] in ("incomplete", "failed")


# -- unmodified scripts: the drop-in ---------------------------------------------------------------------------------

REPLACED = ("stage_utils", "logger", "stage_manifest")

STAGE_SCRIPT = """
    import sys
    from pathlib import Path

    PROJECT_ROOT = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(PROJECT_ROOT))

    from shared.stage_utils import StageIO, get_stage_logger
    from shared.config import load_config


    def main():
        stage_io = StageIO("asr")
        logger = get_stage_logger("asr", log_level="DEBUG", stage_io=stage_io)
        logger.info("model %s", load_config()["model"])
        stage_io.track_output(stage_io.save_json([], "segments.json"), "transcript")
        stage_io.finalize(status="success")
        return 0


    if __name__ == "__main__":
        sys.exit(main())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with its own ``shared`` package, whose three replaced modules raise if anybody imports them."""
    root = tmp_path / "project"
    write_script(root / "shared" / "__init__.py", "NAME = 'the project'\n")
    for name in REPLACED:
        write_script(root / "shared" / f"{name}.py", f"raise ImportError('the original {name} was imported')\n")
    write_script(
        root / "shared" / "stage_order.py", "def get_stage_number(name):\n    return 'the number of ' + name\n"
    )
    write_script(root / "shared" / "config.py", "def load_config():\n    return {'model': 'large-v3'}\n")
    write_script(root / "scripts" / "asr.py", STAGE_SCRIPT)
    return root


def drop_in(project: Path, job: Path, *command: object, **env: str) -> Any:
    return run_command(
        cli("run", "--drop-in", "shared", "--", *command), cwd=project, env=environment(OUTPUT_DIR=str(job), **env)
    )


def test_the_fake_project_fails_without_the_drop_in(project: Path, job: Path) -> None:
    done = run_python(project / "scripts" / "asr.py", OUTPUT_DIR=str(job))
    assert done.returncode == 1
    assert "the original stage_utils was imported" in done.stderr


def test_an_unmodified_script(project: Path, job: Path) -> None:
    done = drop_in(project, job, sys.executable, "scripts/asr.py")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "[stage.asr] [INFO] model large-v3" in done.stdout
    manifest = read_manifest(job / "06_asr")
    assert manifest["kind"] == "stageio.manifest"
    assert manifest["status"] == "success"
    assert [entry["type"] for entry in manifest["outputs"]] == ["transcript"]
    assert "model large-v3" in texts(pipeline_log(job))


@pytest.mark.parametrize(
    "statement",
    [
        "from shared.stage_utils import StageIO",
        "import shared.stage_utils; StageIO = shared.stage_utils.StageIO",
        "import shared.stage_utils as utils; StageIO = utils.StageIO",
        "from shared import stage_utils; StageIO = stage_utils.StageIO",
        "import importlib; StageIO = importlib.import_module('shared.stage_utils').StageIO",
        "from shared import config; from shared.stage_utils import StageIO",
    ],
)
def test_every_way_to_import(project: Path, job: Path, statement: str) -> None:
    script = write_script(
        project / "scripts" / "one.py",
        f"""
        import sys
        sys.path.insert(0, {str(project)!r})
        {statement}
        import otel_stageio, shared
        assert StageIO is otel_stageio.StageIO
        assert shared.NAME == "the project"
        """,
    )
    done = drop_in(project, job, sys.executable, script)
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("name", REPLACED)
def test_every_replaced_module(project: Path, job: Path, name: str) -> None:
    script = write_script(
        project / "scripts" / "one.py",
        f"""
        import sys
        sys.path.insert(0, {str(project)!r})
        import shared.{name} as theirs
        import otel_stageio.compat.{name} as ours
        public = [n for n in vars(ours) if not n.startswith("_")]
        assert public
        assert all(getattr(theirs, n) is getattr(ours, n) for n in public)
        """,
    )
    done = drop_in(project, job, sys.executable, script)
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_projects_other_modules_use_the_drop_in_too(project: Path, job: Path) -> None:
    write_script(
        project / "shared" / "glossary.py",
        """
        from shared.logger import PipelineLogger
        from shared import config
        from . import stage_order
        from .stage_manifest import StageManifest

        NUMBER = stage_order.get_stage_number("asr")
        """,
    )
    script = write_script(
        project / "scripts" / "one.py",
        f"""
        import sys
        sys.path.insert(0, {str(project)!r})
        from shared.glossary import NUMBER, PipelineLogger, StageManifest, config
        import otel_stageio
        assert NUMBER == "the number of asr"
        assert StageManifest is otel_stageio.StageManifest
        assert PipelineLogger.__module__.startswith("otel_stageio")
        assert config.load_config() == {{"model": "large-v3"}}
        """,
    )
    done = drop_in(project, job, sys.executable, script)
    assert (done.stderr, done.returncode) == ("", 0)


def test_children_too(project: Path, job: Path) -> None:
    parent = write_script(
        project / "scripts" / "run_pipeline.py",
        """
        import os, subprocess, sys
        from pathlib import Path

        PROJECT_ROOT = Path(__file__).resolve().parent.parent
        sys.path.insert(0, str(PROJECT_ROOT))
        from shared.stage_utils import StageIO

        io = StageIO("demux")
        env = os.environ.copy()
        env["DEBUG_MODE"] = "true"
        done = subprocess.run(
            [sys.executable, str(PROJECT_ROOT / "scripts" / "asr.py")], env=env, capture_output=True, text=True
        )
        io.finalize(status="success" if done.returncode == 0 else "failed", child=done.stderr)
        sys.exit(done.returncode)
        """,
    )
    done = drop_in(project, job, sys.executable, parent)
    assert (done.stderr, done.returncode) == ("", 0)
    demux, asr = read_manifest(job / "01_demux"), read_manifest(job / "06_asr")
    assert (demux["status"], demux["child"], asr["status"]) == ("success", "", "success")
    assert demux["trace"]["trace_id"] == asr["trace"]["trace_id"]
    assert demux["trace"]["run_id"] == asr["trace"]["run_id"]


def test_children_of_a_shell_too(project: Path, job: Path) -> None:
    done = drop_in(project, job, "sh", "-c", f"'{sys.executable}' scripts/asr.py && exit 7")
    assert (done.stderr, done.returncode) == ("", 7)
    assert read_manifest(job / "06_asr")["status"] == "success"


def test_a_script_without_a_project_package(tmp_path: Path, job: Path) -> None:
    """The quick start imports ``shared.stage_utils`` and nothing else of ``shared``."""
    script = write_script(
        tmp_path / "alone" / "quick.py",
        """
        from shared.stage_utils import StageIO

        io = StageIO("asr")
        io.finalize(status="success")
        """,
    )
    done = drop_in(script.parent, job, sys.executable, script)
    assert (done.stderr, done.returncode) == ("", 0)
    assert read_manifest(job / "06_asr")["status"] == "success"


@pytest.mark.parametrize("code", [0, 3, 120])
def test_the_wrapper_passes_everything_through(project: Path, job: Path, code: int) -> None:
    script = write_script(
        project / "scripts" / "echo.py",
        f"""
        import sys
        print("out:", sys.stdin.read(), sys.argv[1:])
        print("err", file=sys.stderr)
        sys.exit({code})
        """,
    )
    done = run_command(
        cli("run", "--drop-in", "shared", "--", sys.executable, script, "--flag", "--", "a b", ""),
        cwd=project,
        env=environment(OUTPUT_DIR=str(job)),
        stdin="from here",
    )
    assert done.returncode == code
    assert done.stdout == "out: from here ['--flag', '--', 'a b', '']\n"
    assert done.stderr == "err\n"
    assert not job.exists()


def test_a_program_that_does_not_import_it_is_left_alone(project: Path, job: Path) -> None:
    script = write_script(
        project / "scripts" / "plain.py",
        """
        import sys
        print(sorted(name for name in sys.modules if name.startswith(("otel_stageio", "opentelemetry", "shared"))))
        """,
    )
    done = drop_in(project, job, sys.executable, script)
    assert (done.stderr, done.returncode) == ("", 0)
    loaded = done.stdout.strip()
    assert "opentelemetry" not in loaded
    assert "shared" not in loaded


def test_the_users_own_path_and_site_customisation_stay(project: Path, job: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    write_script(mine / "sitecustomize.py", "import builtins\nbuiltins.MINE = 'ran'\n")
    write_script(mine / "my_module.py", "VALUE = 7\n")
    script = write_script(
        project / "scripts" / "one.py",
        f"""
        import builtins, sys
        sys.path.insert(0, {str(project)!r})
        import my_module
        from shared.stage_utils import StageIO
        assert my_module.VALUE == 7
        print(builtins.MINE, StageIO.__module__.split(".")[0])
        """,
    )
    path = os.pathsep.join([str(mine), environment()["PYTHONPATH"]])
    done = drop_in(project, job, sys.executable, script, PYTHONPATH=path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "ran otel_stageio\n"


def test_a_command_that_is_not_there(project: Path, job: Path) -> None:
    assert drop_in(project, job, "no-such-program-anywhere").returncode == 127
