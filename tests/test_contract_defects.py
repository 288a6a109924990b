"""The defects of the original (contract-v1 §6), one test each: what this library does instead.

Left to their own issues, and so not here: checking recorded files before a stage is skipped on resume, and torture.
"""

from __future__ import annotations

import gc
import json
import os
import re
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import (
    LIMIT,
    files_of,
    kill_after,
    pipeline_log,
    pipeline_logs,
    read_manifest,
    records,
    run_python,
    run_together,
    start_python,
    strict_json,
    texts,
    write_script,
)
from helpers import clean_environment as clean_environment
from helpers import clock as clock
from helpers import job as job
from helpers import stage as stage

from otel_stageio import Pipeline, RunRecord, StageIO, StageManifest, recover
from otel_stageio.compat.logger import PipelineLogger, setup_dual_logger, setup_logger
from otel_stageio.testing import FixedClock

OpenStage = Callable[..., StageIO]


# -- logs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_debug_kept_out_of_the_stage_log(
    stage: OpenStage, job: Path, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    io = stage("asr")
    log = io.get_stage_logger(level)
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(log, name)(f"at {name}")
    heard = [text for text in texts(io.stage_log) if text.startswith("at ")]
    assert heard == ["at debug", "at info", "at warning", "at error", "at critical"]
    assert [text for text in texts(pipeline_log(job)) if text.startswith("at ")] == heard[1:]
    shown = re.findall(r"at \w+", capsys.readouterr().out)
    assert shown == heard[("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL").index(level) :]


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"LOG_LEVEL": "DEBUG"}, ["at debug", "at info", "at error"]),
        ({"LOG_LEVEL": "ERROR"}, ["at error"]),
        ({"DEBUG_MODE": "true"}, ["at debug", "at info", "at error"]),
        ({"DEBUG_MODE": "false"}, ["at info", "at error"]),
        ({}, ["at info", "at error"]),
    ],
)
def test_log_level_ignored(
    stage: OpenStage,
    job: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    shown: list[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    io = stage("asr")
    log = io.get_stage_logger()
    log.debug("at debug")
    log.info("at info")
    log.error("at error")
    assert re.findall(r"at \w+", capsys.readouterr().out) == shown
    assert [text for text in texts(io.stage_log) if text.startswith("at ")] == ["at debug", "at info", "at error"]
    assert [text for text in texts(pipeline_log(job)) if text.startswith("at ")] == ["at info", "at error"]


def open_logs(directory: Path) -> list[str]:
    return [file.path for file in psutil.Process().open_files() if file.path.startswith(f"{directory}{os.sep}")]


def test_handlers_replaced_and_never_closed(stage: OpenStage) -> None:
    io = stage("asr")
    kept = list(io.get_stage_logger().handlers)
    descriptors = psutil.Process().num_fds()
    for _ in range(200):
        kept.extend(io.get_stage_logger().handlers)
    assert psutil.Process().num_fds() == descriptors
    assert len(io.get_stage_logger().handlers) <= 3
    assert len(open_logs(io.stage_dir)) <= 1
    io.finalize()
    assert open_logs(io.stage_dir) == []
    io.get_stage_logger().info("late, and no descriptor is kept for it")
    assert open_logs(io.stage_dir) == []
    gc.collect()  # a ResourceWarning is an error in this test run


def test_a_dual_logger_that_a_stage_replaces_is_closed(stage: OpenStage, tmp_path: Path) -> None:
    setup_dual_logger("asr", tmp_path / "odd" / "stage.log", tmp_path / "central").info("x")
    stage("asr").get_stage_logger().info("y")
    assert open_logs(tmp_path / "odd") == open_logs(tmp_path / "central") == []


def test_many_jobs_leave_no_descriptors(tmp_path: Path) -> None:
    descriptors = []
    for number in range(20):
        with StageIO("asr", tmp_path / str(number)) as io:
            io.get_stage_logger().info("x")
        descriptors.append(psutil.Process().num_fds())
    assert descriptors[-1] == descriptors[0]


def test_loggers_by_the_hundred_leave_no_descriptors(tmp_path: Path) -> None:
    setup_logger("asr", log_dir=str(tmp_path), log_to_console=False)
    descriptors = psutil.Process().num_fds()
    for _ in range(100):
        setup_logger("asr", log_dir=str(tmp_path), log_to_console=False).info("x")
    gc.collect()
    assert psutil.Process().num_fds() <= descriptors + 1


def test_the_pipeline_log_chosen_by_check_then_create(tmp_path: Path, job: Path) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys
        from otel_stageio import StageIO

        job, name = sys.argv[1:]
        print("ready", flush=True)
        sys.stdin.readline()
        io = StageIO(name, job)
        io.get_stage_logger("ERROR").info("from %s", name)
        io.finalize()
        """,
    )
    names = ["demux", "tmdb", "glossary_load", "source_separation", "pyannote_vad", "asr", "alignment", "mux"]
    run_together(script, job, names)
    assert {text for text in texts(pipeline_log(job)) if text.startswith("from")} == {f"from {name}" for name in names}
    assert len({read_manifest(path)["trace"]["run_id"] for path in job.glob("*/manifest.json")}) == 1


def test_a_second_run_on_one_day_shares_the_first_ones_log(job: Path, clock: FixedClock) -> None:
    for attempt in (1, 2):
        with StageIO("asr", job) as io:
            io.get_stage_logger().info("run %d", attempt)
    first, second = pipeline_logs(job)
    said = [[text for text in texts(log) if text.startswith("run ")] for log in (first, second)]
    assert sorted(said) == [["run 1"], ["run 2"]]


def test_midnight_splits_a_run(job: Path, clock: FixedClock) -> None:
    with StageIO("demux", job) as io:
        io.get_stage_logger().info("in the evening")
        clock.advance(86_400)
        io.get_stage_logger().info("the day after")
        with StageIO("asr", job) as other:
            other.get_stage_logger().info("another stage, the day after")
    said = texts(pipeline_log(job))
    assert {"in the evening", "the day after", "another stage, the day after"} <= set(said)


def test_pipeline_logger_ignores_its_file_name(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    announced = io.get_log_path("20251127_101112")
    PipelineLogger("asr", announced).info("where it said")
    assert "where it said" in texts(announced)
    assert sorted(path.name for path in job.glob("logs/06_*")) == [announced.name]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_newline_forges_log_lines(stage: OpenStage, job: Path, line_break: str) -> None:
    io = stage("asr")
    forged = "[2025-01-01 00:00:00] [stage.mux] [ERROR] forged"
    before = len(records(io.stage_log))
    io.get_stage_logger().info("title%s%s", line_break, forged)
    for log in (io.stage_log, pipeline_log(job)):
        lines = log.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.startswith("[2025-01-01")]
        assert "forged" in log.read_text(encoding="utf-8")
    assert len(records(io.stage_log)) == before + 1


def test_the_pipeline_log_loses_the_stages_name(stage: OpenStage, job: Path) -> None:
    stage("asr").get_stage_logger().info("who says it?")
    stage("mux").get_stage_logger().info("who says it?")
    said = [record for record in records(pipeline_log(job)) if record[2] == "who says it?"]
    assert said == [("stage.asr", "INFO", "who says it?"), ("stage.mux", "INFO", "who says it?")]


def test_a_surrogate_loses_the_record(stage: OpenStage, job: Path, capfd: pytest.CaptureFixture[str]) -> None:
    io = stage("asr")
    name = os.fsdecode(b"film\xff.mkv")
    io.get_stage_logger().info("reading %s now", name)
    io.track_input(job / name, "media")
    io.add_warning(f"odd name {name}")
    io.finalize()
    assert capfd.readouterr().err == ""
    for log in (io.stage_log, pipeline_log(job)):
        (line,) = [text for text in texts(log) if text.startswith("reading film")]
        assert line.endswith(".mkv now")
    assert read_manifest(io.stage_dir)["warnings"][0]["message"].startswith("odd name film")


def test_an_ascii_console_loses_the_record(tmp_path: Path, job: Path) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys
        from otel_stageio import StageIO

        from otel_stageio.compat.logger import PipelineLogger
        from otel_stageio.compat.stage_utils import get_stage_logger

        io = StageIO("asr", sys.argv[1])
        io.get_stage_logger().info("नमस्ते, Zoë")
        io.finalize()
        PipelineLogger("mine", io.get_log_path("x")).info("नमस्ते, Zoë")
        get_stage_logger("console").info("नमस्ते, Zoë")
        """,
    )
    done = run_python(script, job, PYTHONIOENCODING="ascii:strict", LC_ALL="C")
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.isascii()
    for name in ("stage.asr", "mine", "console"):
        assert f"[{name}] [INFO]" in done.stdout
    assert "नमस्ते, Zoë" in texts(job / "06_asr" / "stage.log")
    assert "नमस्ते, Zoë" in texts(job / "logs" / "06_asr_x.log")


@pytest.mark.parametrize("data", [{"name": "film\udcff"}, {"x": object()}, [1, 2, {3}], {"x": float("nan")}])
def test_save_json_destroys_the_previous_file(stage: OpenStage, data: Any) -> None:
    io = stage("asr")
    path = io.save_json({"good": [1, 2, 3]}, "segments.json")
    try:
        io.save_json(data, "segments.json")
    except (TypeError, ValueError):
        assert json.loads(path.read_text(encoding="utf-8")) == {"good": [1, 2, 3]}
    json.loads(path.read_text(encoding="utf-8"))
    assert [entry.name for entry in io.stage_dir.iterdir() if "segments" in entry.name] == ["segments.json"]


def test_api_keys_verbatim_in_logs_and_manifest(tmp_path: Path, job: Path) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import os, sys
        from otel_stageio import StageIO

        from otel_stageio.compat.logger import PipelineLogger

        secret = os.environ["TMDB_API_KEY"]
        io = StageIO("tmdb", sys.argv[1])
        log = io.get_stage_logger("DEBUG")
        log.info("asking https://api.example.com/3/movie?api_key=%s&language=en", secret)
        log.debug("Authorization: Bearer %s", "abcdef0123456789abcdef")
        log.info("cloning https://user:hunter2hunter2@example.com/x.git")
        io.set_config({"tmdb": {"api_key": "0123456789-in-config"}})
        io.set_config({"hf_token": "hf_abcdefghijklmnop", "max_tokens": 512})
        io.add_warning("key was " + secret)
        io.track_input("in.json", "response", note=secret, password="correct horse")
        try:
            raise ValueError("refused: " + secret)
        except ValueError as error:
            io.add_error("request failed with " + secret, error)
            log.exception("it broke")
        PipelineLogger("tmdb", io.get_log_path()).info("key %s", secret)
        io.finalize(status="failed", error=secret, token="a-token-in-finalize")
        """,
    )
    done = run_python(script, job, TMDB_API_KEY="s3cr3t-value-of-the-key")
    assert (done.stderr, done.returncode) == ("", 0)
    secrets = [
        "s3cr3t-value-of-the-key",
        "abcdef0123456789abcdef",
        "hunter2hunter2",
        "0123456789-in-config",
        "hf_abcdefghijklmnop",
        "correct horse",
        "a-token-in-finalize",
    ]
    found = [(path, secret) for path in files_of(job) for secret in secrets if secret.encode() in path.read_bytes()]
    assert found == []
    assert not [secret for secret in secrets if secret in done.stdout]
    manifest = read_manifest(job / "02_tmdb")
    assert manifest["config"]["tmdb"]["api_key"] == "[redacted]"
    assert manifest["config"]["max_tokens"] == 512
    assert manifest["redactions"] >= 8
    assert "[redacted]" in (job / "02_tmdb" / "stage.log").read_text()


def test_two_jobs_with_the_same_stage_steal_each_others_logger(stage: OpenStage, tmp_path: Path) -> None:
    one, two = stage("asr", tmp_path / "job1"), stage("asr", tmp_path / "job2")
    first, second = one.get_stage_logger(), two.get_stage_logger()
    first.info("of job 1")
    second.info("of job 2")
    first.info("again of job 1")
    one.finalize()
    second.info("again of job 2")
    for io, base, number in ((one, tmp_path / "job1", 1), (two, tmp_path / "job2", 2)):
        mine = [f"of job {number}", f"again of job {number}"]
        assert [text for text in texts(io.stage_log) if "of job" in text] == mine
        assert [text for text in texts(pipeline_log(base)) if "of job" in text] == mine


def test_one_job_after_the_other_steals_the_first_ones_logger(stage: OpenStage, tmp_path: Path) -> None:
    one = stage("asr", tmp_path / "job1")
    first = one.get_stage_logger()
    one.finalize()
    two = stage("asr", tmp_path / "job2")
    two.get_stage_logger().info("of job 2")
    first.info("of job 1, late")
    assert "of job 1, late" in texts(one.stage_log)
    assert "of job 1, late" not in texts(two.stage_log)


def test_pipeline_logger_takes_no_exc_info(tmp_path: Path) -> None:
    log = PipelineLogger("pipeline", tmp_path / "x.log")
    try:
        raise ValueError("bad")
    except ValueError as error:
        log.error(f"Stage failed: {error}", exc_info=True)
        log.error("stage %s: %s", "asr", error)
        log.warning("careful", extra={"a": 1}, stacklevel=2)
    text = (tmp_path / "x.log").read_text()
    assert "[pipeline] [ERROR] Stage failed: bad\n" in text
    assert "Traceback (most recent call last)" in text
    assert "stage asr: bad" in text
    assert "careful" in text


@pytest.mark.parametrize(
    ("level", "shown"), [(10, True), (20, False), ("10", True), ("debug", True), ("WARN", False), ("Info", False)]
)
def test_levels_crash(stage: OpenStage, capsys: pytest.CaptureFixture[str], level: Any, shown: bool) -> None:
    io = stage("asr")
    io.get_stage_logger(level).debug("a detail")
    assert ("a detail" in capsys.readouterr().out) is shown
    assert "a detail" in texts(io.stage_log)
    assert not [record for record in records(io.stage_log) if record[1] == "WARNING"]


def test_an_unknown_level_crashes(stage: OpenStage, capsys: pytest.CaptureFixture[str]) -> None:
    io = stage("asr")
    log = io.get_stage_logger("VERBOSE")
    io.get_stage_logger("VERBOSE")
    log.debug("a detail")
    log.info("a fact")
    out = capsys.readouterr().out
    assert "a fact" in out
    assert "a detail" not in out
    assert [text for _, level, text in records(io.stage_log) if level == "WARNING" and "VERBOSE" in text] != []
    assert len([level for _, level, _ in records(io.stage_log) if level == "WARNING"]) == 1


@pytest.mark.parametrize("level", ["VERBOSE", 10, "debug"])
def test_levels_crash_the_pipeline_logger(tmp_path: Path, level: Any) -> None:
    PipelineLogger("pipeline", tmp_path / "x.log", log_level=level).info("a fact")
    assert "a fact" in texts(tmp_path / "x.log")


def test_no_configuration_no_log(tmp_path: Path) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import os
        for name in list(os.environ):
            if name not in ("PATH", "LD_LIBRARY_PATH"):
                del os.environ[name]
        from otel_stageio import StageIO
        from otel_stageio.compat.logger import PipelineLogger

        PipelineLogger("pipeline", StageIO("demux").get_log_path("x")).info("before any configuration")
        io = StageIO("asr")
        io.get_stage_logger().info("no configuration")
        io.finalize()
        """,
    )
    done = run_python(script)
    assert (done.stderr, done.returncode) == ("", 0)
    assert "no configuration" in texts(tmp_path / "out" / "06_asr" / "stage.log")
    assert "before any configuration" in texts(tmp_path / "out" / "logs" / "01_demux_x.log")


# -- manifest --------------------------------------------------------------------------------------------------------


def test_a_path_in_the_config_destroys_the_manifest(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    config: dict[Any, Any] = {
        "model": Path("/models/large"),
        "languages": {"en", "hi"},
        "raw": b"\xff\x00",
        "when": datetime(2025, 11, 27),
        "nan": float("nan"),
        "infinite": float("-inf"),
        "cycle": cycle,
        "name": "film\udcff",
        "huge": 2**80,
        3: "a key that is a number",
        "object": object(),
    }
    io.set_config(config)
    io.finalize(status="success", where=Path("/x"))
    manifest = read_manifest(io.stage_dir)
    assert manifest["status"] == "success"
    assert manifest["where"] == "/x"
    assert manifest["config"]["model"] == "/models/large"
    assert sorted(manifest["config"]["languages"]) == ["en", "hi"]
    assert manifest["config"]["3"] == "a key that is a number"
    assert len(manifest["config"]) == 11


@pytest.mark.parametrize("content", ['{"stage": "asr", "sta', "", "[1, 2]", "\x00\x00", '"text"', '{"a": NaN'])
def test_an_unreadable_manifest_stops_the_next_stage(stage: OpenStage, job: Path, content: str) -> None:
    path = job / "06_asr" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    io = stage("asr")
    io.finalize()
    assert read_manifest(io.stage_dir)["status"] == "success"
    assert sorted(entry.name for entry in io.stage_dir.iterdir()) == ["manifest.json", "stage.log"]
    (aside,) = (job / ".stageio").rglob("*manifest.json.damaged-*")
    assert aside.read_text() == content


def test_a_reader_finds_half_a_manifest(stage: OpenStage) -> None:
    io = stage("asr")
    ended = threading.Event()
    statuses: list[str] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not ended.is_set():
                statuses.append(read_manifest(io.stage_dir)["status"])
            statuses.append(read_manifest(io.stage_dir)["status"])
        except BaseException as failure:
            failures.append(failure)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        io.track_output(io.stage_dir / f"{number}.json", "part", note="x" * 200)
    io.finalize()
    ended.set()
    reader.join(LIMIT)
    assert failures == []
    assert statuses[-1] == "success"
    assert set(statuses) <= {"running", "success"}
    assert len(read_manifest(io.stage_dir)["outputs"]) == 300


DIES = """
    import sys
    from otel_stageio import StageIO

    io = StageIO("asr", sys.argv[1])
    log = io.get_stage_logger("ERROR")
    for number in range(1_000_000):
        io.track_output(f"{number}.json", "part")
        log.info("part %d", number)
        print(number, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 2, 20, 150])
def test_sigkill_leaves_an_unparsable_manifest(tmp_path: Path, job: Path, lines: int) -> None:
    kill_after(start_python(write_script(tmp_path / "dies.py", DIES), job), lines)
    assert read_manifest(job / "06_asr")["status"] == "running"
    recover(job)
    manifest = read_manifest(job / "06_asr")
    assert manifest["status"] == "crashed"
    assert len(manifest["outputs"]) >= lines
    assert f"part {lines - 1}" in texts(job / "06_asr" / "stage.log")


def test_an_old_error_in_a_good_run(job: Path, clock: FixedClock) -> None:
    first = StageIO("asr", job)
    first.track_input("audio.wav", "audio")
    first.add_config("model", "small")
    first.add_error("out of memory", MemoryError("12 GiB"))
    first.finalize(status="failed", error="out of memory")
    before = read_manifest(job / "06_asr")
    clock.advance(60)
    for _ in range(2):
        clock.advance(60)
        again = StageIO("asr", job)
        assert again.manifest is not None
        assert not again.manifest.has_errors()
        again.track_input("audio.wav", "audio")
        clock.advance(7)
        again.finalize(status="success")
    manifest = read_manifest(job / "06_asr")
    assert manifest["status"] == "success"
    assert manifest["errors"] == []
    assert "error" not in manifest
    assert manifest["config"] == {}
    assert len(manifest["inputs"]) == 1
    assert manifest["attempt"] == 3
    assert manifest["timestamp"] > before["timestamp"]
    assert manifest["duration_seconds"] == pytest.approx(7)
    former = manifest["attempts"]
    assert [entry["status"] for entry in former] == ["failed", "success"]
    assert [entry["attempt"] for entry in former] == [1, 2]
    assert former[0]["errors"][0]["message"] == "out of memory"
    assert former[0]["error"] == "out of memory"
    assert former[0]["trace"] == before["trace"] != manifest["trace"]


def test_sigkill_goes_on_saying_success(tmp_path: Path, job: Path) -> None:
    with StageIO("asr", job):
        pass
    assert read_manifest(job / "06_asr")["status"] == "success"
    kill_after(start_python(write_script(tmp_path / "dies.py", DIES), job), 1)
    assert read_manifest(job / "06_asr")["status"] == "running"
    with StageIO("alignment", job):  # the next start finds the dead one
        pass
    manifest = read_manifest(job / "06_asr")
    assert manifest["status"] == "crashed"
    assert manifest["attempt"] == 2
    assert [entry["status"] for entry in manifest["attempts"]] == ["success"]


def test_an_uncaught_exception_leaves_no_manifest(tmp_path: Path, job: Path) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys
        from otel_stageio import StageIO

        io = StageIO("asr", sys.argv[1])
        raise RuntimeError("no model")
        """,
    )
    done = run_python(script, job)
    assert done.returncode == 1
    assert done.stderr.count("RuntimeError: no model") == 1
    manifest = read_manifest(job / "06_asr")
    assert manifest["status"] == "failed"
    assert [error["exception_type"] for error in manifest["errors"]] == ["RuntimeError"]
    assert (job / "06_asr" / "stage.log").read_text().count("RuntimeError: no model") == 1


def test_leaving_without_finalize_leaves_no_manifest(tmp_path: Path, job: Path) -> None:
    with StageIO("asr", job):
        pass
    script = write_script(
        tmp_path / "stage.py", "import sys; from otel_stageio import StageIO; io = StageIO('asr', sys.argv[1])\n"
    )
    done = run_python(script, job)
    assert (done.stderr, done.returncode) == ("", 0)
    manifest = read_manifest(job / "06_asr")
    assert manifest["status"] == "incomplete"
    assert [entry["status"] for entry in manifest["attempts"]] == ["success"]


def test_times_without_zone_and_durations_by_the_wall_clock(job: Path, clock: FixedClock) -> None:
    io = StageIO("asr", job)
    io.add_warning("w")
    clock.advance(0.25)
    clock.step(-18_000)  # the zone, summer time or NTP sets the clock back by five hours
    io.finalize()
    manifest = read_manifest(job / "06_asr")
    assert manifest["duration_seconds"] == pytest.approx(0.25)
    for text in (manifest["timestamp"], manifest["completed_at"], manifest["warnings"][0]["timestamp"]):
        assert datetime.fromisoformat(text).tzinfo is not None
    started = datetime.fromisoformat(manifest["timestamp"])
    assert started.timestamp() == pytest.approx(clock.wall / 1e9 + 18_000 - 0.25)


def test_a_manifest_by_itself_by_the_wall_clock(clock: FixedClock) -> None:
    manifest = StageManifest("asr", 6)
    clock.advance(0.25)
    clock.step(-18_000)
    manifest.finalize()
    assert manifest.data["duration_seconds"] == pytest.approx(0.25)


def test_sizes_at_tracking_time(stage: OpenStage, job: Path) -> None:
    io = stage("asr")
    growing, later, gone = (io.get_output_path(name) for name in ("growing.bin", "later.bin", "gone.bin"))
    chunks = io.get_output_path("chunks")
    growing.write_bytes(b"x" * 100)
    gone.write_bytes(b"x")
    (chunks / "deep").mkdir(parents=True)
    (chunks / "a").write_bytes(b"x" * 1_000)
    for path in (growing, later, gone, chunks):
        io.track_output(path)
    io.track_input(str(growing), "audio")  # a str, which the original did not take
    growing.write_bytes(b"x" * 420)
    later.write_bytes(b"x" * 7)
    gone.unlink()
    (chunks / "deep" / "b").write_bytes(b"x" * 10_000)
    io.finalize()
    manifest = read_manifest(io.stage_dir)
    sizes = {Path(entry["path"]).name: entry.get("size_bytes") for entry in manifest["outputs"]}
    assert sizes == {"growing.bin": 420, "later.bin": 7, "gone.bin": None, "chunks": 11_000}
    assert [entry["exists"] for entry in manifest["outputs"] if entry["path"] == str(gone)] == [False]
    assert (manifest["inputs"][0]["path"], manifest["inputs"][0]["size_bytes"]) == (str(growing), 420)


def test_metadata_overwrites_reserved_keys(stage: OpenStage) -> None:
    io = stage("asr")
    path = io.save_json([], "segments.json")
    mine = {"path": "/elsewhere", "size_bytes": -1, "exists": False, "digest": "mine", "type": "words", "note": "kept"}
    io.track_output(path, "transcript", **mine)
    io.finalize(
        status="failed",
        stage="mine",
        stage_number=0,
        outputs="mine",
        errors="mine",
        inputs=[],
        timestamp="mine",
        duration_seconds=-1,
        completed_at="mine",
        attempts="mine",
        note="kept",
    )
    manifest = read_manifest(io.stage_dir)
    (entry,) = manifest["outputs"]
    assert (entry["type"], entry["path"], entry["size_bytes"], entry["note"]) == ("words", str(path), 2, "kept")
    assert entry["metadata"] == {"path": "/elsewhere", "size_bytes": -1, "exists": False, "digest": "mine"}
    assert (manifest["stage"], manifest["stage_number"], manifest["status"]) == ("asr", 6, "failed")
    assert manifest["errors"] == []
    assert manifest["duration_seconds"] >= 0
    assert manifest["note"] == "kept"
    assert manifest["extra"] == {
        "stage": "mine",
        "stage_number": 0,
        "outputs": "mine",
        "errors": "mine",
        "inputs": [],
        "timestamp": "mine",
        "duration_seconds": -1,
        "completed_at": "mine",
        "attempts": "mine",
    }


def test_the_callers_dict_is_changed(stage: OpenStage) -> None:
    io = stage("asr")
    metadata = {"status": "done"}
    io.save_metadata(metadata)
    assert metadata == {"status": "done"}
    config: dict[str, Any] = {"beam": {"size": 5}}
    io.set_config(config)
    io.add_config("list", languages := ["en"])
    config["beam"]["size"] = 50
    languages.append("hi")
    io.finalize()
    manifest = read_manifest(io.stage_dir)
    assert manifest["config"] == {"beam": {"size": 5}, "list": ["en"]}


def test_to_dict_is_shallow(stage: OpenStage) -> None:
    alone = StageManifest("asr", 6)
    alone.set_config({"beam": {"size": 5}})
    io = stage("asr")
    io.set_config({"beam": {"size": 5}})
    for manifest in (alone, io.manifest):
        assert manifest is not None
        copy = manifest.to_dict()
        copy["config"]["beam"]["size"] = 50
        copy["outputs"].append("mine")
        assert manifest.to_dict()["config"] == {"beam": {"size": 5}}
        assert manifest.to_dict()["outputs"] == []


def test_two_stages_share_one_manifest(stage: OpenStage) -> None:
    asr, removal = stage("asr"), stage("hallucination_removal")
    asr.track_output(asr.save_json([], "segments.json"), "transcript")
    removal.add_error("nothing left", ValueError("0 segments"))
    removal.track_output(removal.save_json([], "cleaned.json"), "transcript")
    removal.finalize(status="failed")
    asr.finalize(status="success")
    manifest = read_manifest(asr.stage_dir)
    assert (manifest["stage"], manifest["status"], manifest["errors"]) == ("asr", "success", [])
    assert [Path(entry["path"]).name for entry in manifest["outputs"]] == ["segments.json"]
    (name,) = manifest["substages"]
    assert name == "hallucination_removal"
    other = manifest["substages"][name]
    assert (other["stage"], other["stage_number"], other["status"]) == ("hallucination_removal", 6, "failed")
    assert [Path(entry["path"]).name for entry in other["outputs"]] == ["cleaned.json"]
    assert other["errors"][0]["message"] == "nothing left"


def test_alone_in_a_shared_directory_a_stage_stands_at_the_top(stage: OpenStage) -> None:
    io = stage("hybrid_translation")
    io.finalize()
    manifest = read_manifest(io.stage_dir)
    assert (manifest["stage"], manifest["status"], manifest["substages"]) == ("hybrid_translation", "success", {})


WRITES = """
    import sys
    from otel_stageio import StageIO

    job, name = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    io = StageIO(name, job)
    for number in range(100):
        io.track_output(f"{name}.{number}", "part")
        io.add_warning(f"{name} {number}")
    io.finalize(status="success")
"""


def test_parallel_writers_of_one_directory_lose_outputs(tmp_path: Path, job: Path) -> None:
    names = ["asr", "hallucination_removal"]
    run_together(write_script(tmp_path / "writes.py", WRITES), job, names)
    manifest = read_manifest(job / "06_asr")
    for record, name in ((manifest, "asr"), (manifest["substages"]["hallucination_removal"], "hallucination_removal")):
        assert record["stage"] == name
        assert record["status"] == "success"
        assert [entry["path"] for entry in record["outputs"]] == [f"{name}.{number}" for number in range(100)]
        assert [entry["message"] for entry in record["warnings"]] == [f"{name} {number}" for number in range(100)]


def test_no_traceback_and_no_cause(job: Path) -> None:
    def load() -> None:
        try:
            raise FileNotFoundError("large-v3.bin")
        except FileNotFoundError as error:
            raise RuntimeError("no model") from error

    with pytest.raises(RuntimeError, match="no model"), StageIO("asr", job) as io:
        io.get_stage_logger()
        load()
    manifest = read_manifest(job / "06_asr")
    assert manifest["status"] == "failed"
    (error,) = manifest["errors"]
    assert (error["exception_type"], error["exception_detail"]) == ("RuntimeError", "no model")
    everything = json.dumps(error)
    assert "Traceback (most recent call last)" in everything
    assert "in load" in everything
    assert "FileNotFoundError: large-v3.bin" in everything
    log = (job / "06_asr" / "stage.log").read_text()
    assert log.count("RuntimeError: no model") == 1
    assert log.count("FileNotFoundError: large-v3.bin") == 1


def test_an_exception_that_was_already_added_is_recorded_once(job: Path) -> None:
    with pytest.raises(ValueError), StageIO("asr", job) as io:
        try:
            raise ValueError("bad")
        except ValueError as error:
            io.add_error("it is bad", error)
            raise
    assert len(read_manifest(job / "06_asr")["errors"]) == 1


@pytest.mark.parametrize("word", ["ok", "completed", "SUCCESS!"])
def test_any_status_is_accepted(job: Path, word: str) -> None:
    with Pipeline("subtitles", job) as run, run.stage("asr") as io:
        io.finalize(status=word)
    assert read_manifest(job / "06_asr")["status"] == word
    assert RunRecord.load(job).status != "success"


def test_tracking_after_finalize_is_lost_silently(stage: OpenStage) -> None:
    io = stage("asr")
    io.finalize()
    io.track_input("a.wav")
    io.track_output("b.json")
    io.add_warning("late")
    manifest = read_manifest(io.stage_dir)
    assert manifest["lost"] == {"late": 3}
    assert (manifest["inputs"], manifest["outputs"], manifest["warnings"]) == ([], [], [])
    assert manifest["status"] == "success"


def test_a_full_disk_loses_the_record(tmp_path: Path, job: Path) -> None:
    """No file can grow any more: what a full disk does, from the first byte on and half-way through."""
    script = write_script(
        tmp_path / "stage.py",
        """
        import resource, sys
        from otel_stageio import StageIO

        job, when = sys.argv[1:]

        def fill():
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

        if when == "early":
            fill()
        io = StageIO("asr", job)
        if when == "middle":
            fill()
        log = io.get_stage_logger("ERROR")
        log.info("cannot be written")
        io.track_output("a.json", "part")
        io.set_config({"model": "small"})
        io.add_warning("careful")
        if when == "freed":
            fill()
            log.info("cannot be written either")
            io.track_output("b.json", "part")
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        io.finalize(status="success")
        sys.exit(7)
        """,
    )
    for when in ("early", "middle", "freed"):
        done = run_python(script, job / when, when)
        assert (done.returncode, done.stdout) == (7, ""), when
        assert "Traceback" not in done.stderr
    manifest = read_manifest(job / "freed" / "06_asr")
    assert manifest["status"] == "success"
    assert sum(manifest["lost"].values()) >= 1
    assert read_manifest(job / "middle" / "06_asr")["status"] == "running"


def test_an_unusable_logs_directory_kills_the_stage(stage: OpenStage, job: Path) -> None:
    job.mkdir(parents=True)
    (job / "logs").write_text("a file is in the way")
    io = stage("asr")
    io.get_stage_logger().info("still here")
    io.track_output("a.json")
    io.finalize(status="success")
    manifest = read_manifest(io.stage_dir)
    assert manifest["status"] == "success"
    assert sum(manifest["lost"].values()) >= 1
    assert "still here" in texts(io.stage_log)
    assert (job / "logs").read_text() == "a file is in the way"


def test_an_unusable_stage_log_kills_the_stage(stage: OpenStage, job: Path) -> None:
    (job / "06_asr" / "stage.log").mkdir(parents=True)
    io = stage("asr")
    io.get_stage_logger().info("still here")
    io.finalize(status="success")
    manifest = read_manifest(io.stage_dir)
    assert manifest["status"] == "success"
    assert sum(manifest["lost"].values()) >= 1
    assert "still here" in texts(pipeline_log(job))


def test_chdir_moves_the_manifest(stage: OpenStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = Path.cwd(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    io = stage("asr", "out/job")
    assert io.get_output_path("a.json") == Path("out/job/06_asr/a.json")
    io.track_output(io.save_json([], "a.json"))
    monkeypatch.chdir(elsewhere)
    io.get_stage_logger().info("after the move")
    io.finalize()
    manifest = read_manifest(here / "out" / "job" / "06_asr")
    assert manifest["status"] == "success"
    assert [(entry["path"], entry.get("size_bytes")) for entry in manifest["outputs"]] == [("out/job/06_asr/a.json", 2)]
    assert "after the move" in texts(here / "out" / "job" / "06_asr" / "stage.log")
    assert list(elsewhere.iterdir()) == []


# -- names, runs, resume ---------------------------------------------------------------------------------------------


def test_the_reader_of_an_unknown_stage_looks_elsewhere(stage: OpenStage, job: Path) -> None:
    written = stage("song_bias_injection").save_json([1], "songs.json")
    assert written == job / "99_song_bias_injection" / "songs.json"
    reader = stage("lyrics_detection")
    assert reader.get_input_path("songs.json", from_stage="song_bias_injection") == written
    assert reader.load_json("songs.json", from_stage="song_bias_injection") == [1]
    assert reader.get_input_path("none.json", from_stage="never_ran") == job / "07_never_ran" / "none.json"


@pytest.mark.parametrize(
    "name",
    [
        "../../escaped",
        "a/../../escaped",
        "/escaped",
        "a\0b",
        "a\nb",
        "a\u202eb",
        "~/escaped",
        ".hidden",
        "logs",
        "n" * 400,
        "film\udcff",
    ],
)
def test_a_stage_name_escapes_the_job_directory(stage: OpenStage, tmp_path: Path, job: Path, name: str) -> None:
    before = set(tmp_path.iterdir())
    io = stage(name)
    io.get_stage_logger().info("here")
    path = io.save_json([], "a.json")
    io.finalize()
    assert io.stage_dir.parent == job
    assert path.parent == io.stage_dir
    assert re.fullmatch(r"99_[^/\x00-\x1f\u202e]+", io.stage_dir.name)
    assert read_manifest(io.stage_dir)["status"] == "success"
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "out"}
    assert sorted(entry.name for entry in job.iterdir()) == sorted([".stageio", "logs", io.stage_dir.name])
    assert list((tmp_path / "out").iterdir()) == [job]


@pytest.mark.parametrize("name", ["/tmp/escaped.json", "../escaped.json", "a/../../escaped.json"])
def test_absolute_file_names_are_accepted(stage: OpenStage, name: str) -> None:
    io = stage("asr")
    for call in (io.get_output_path, lambda n: io.save_json([], n), io.copy_to_base):
        with pytest.raises(ValueError):
            call(name)
    assert not Path("/tmp/escaped.json").exists()


def test_a_stage_that_was_not_announced_gets_no_status(job: Path) -> None:
    job.mkdir(parents=True)
    announced = {"job_id": "1", "status": "running", "stages": [{"name": "asr", "status": "pending"}]}
    (job / "manifest.json").write_text(json.dumps(announced))
    with Pipeline("subtitles", job, stages=["asr"]) as run:
        for name in ("pyannote_vad", "asr", "hallucination_removal", "lyrics_detection"):
            with run.stage(name):
                pass
    assert read_manifest(job / "05_pyannote_vad")["status"] == "success"
    assert read_manifest(job / "06_asr")["substages"]["hallucination_removal"]["status"] == "success"
    assert read_manifest(job / "08_lyrics_detection")["status"] == "success"
    assert RunRecord.load(job).status == "success"
    assert json.loads((job / "manifest.json").read_text()) == announced


def test_a_killed_orchestrator_stays_running(tmp_path: Path, job: Path) -> None:
    script = write_script(
        tmp_path / "orchestrator.py",
        """
        import sys
        from otel_stageio import Pipeline

        with Pipeline("subtitles", sys.argv[1]) as run:
            with run.stage("demux"):
                pass
            with run.stage("asr"):
                print("in asr", flush=True)
                sys.stdin.readline()
        """,
    )
    kill_after(start_python(script, job, OTEL_STAGEIO_CONSOLE="off"), 1)
    assert RunRecord.load(job).status == "running"
    recover(job)
    assert RunRecord.load(job).status in ("crashed", "failed")
    assert read_manifest(job / "01_demux")["status"] == "success"
    assert read_manifest(job / "06_asr")["status"] == "crashed"
    before = {path: path.read_bytes() for path in job.glob("*/manifest.json")}
    recover(job)
    assert {path: path.read_bytes() for path in job.glob("*/manifest.json")} == before


# -- HEAD only -------------------------------------------------------------------------------------------------------


def test_the_status_is_replaced_by_a_path(stage: OpenStage) -> None:
    io = stage("asr")
    io.finalize(status="success")
    assert read_manifest(io.stage_dir)["status"] == "success"
    assert io.manifest is not None
    assert io.manifest.data["status"] == "success"


def test_add_config_and_set_resources_are_missing(stage: OpenStage) -> None:
    io = stage("asr")
    io.add_config("model", "large-v3")
    io.set_resources(gpu_used=True)
    io.finalize()
    manifest = read_manifest(io.stage_dir)
    assert manifest["config"]["model"] == "large-v3"
    assert manifest["resources"]["gpu_used"] is True


V1_MANIFEST = {
    "stage": "asr",
    "stage_number": 6,
    "timestamp": "2025-11-27T10:11:12.345678",
    "status": "success",
    "inputs": [{"type": "audio", "path": "out/job/01_demux/audio.wav", "size_bytes": 44}],
    "outputs": [{"type": "transcript", "path": "out/job/06_asr/segments.json"}],
    "intermediate_files": [],
    "config": {"model": "large-v3"},
    "resources": {},
    "errors": [],
    "warnings": [{"timestamp": "2025-11-27T10:11:13", "message": "low confidence"}],
    "duration_seconds": 93.5,
    "completed_at": "2025-11-27T10:12:45.845678",
}


def test_an_old_job_cannot_be_reopened(stage: OpenStage, job: Path) -> None:
    (job / "06_asr").mkdir(parents=True)
    (job / "06_asr" / "manifest.json").write_text(json.dumps(V1_MANIFEST, indent=2))
    (job / "06_asr" / "segments.json").write_text("[1]")
    (job / "06_asr" / "stage.log").write_text("[2025-11-27 10:11:12] [stage.asr] [INFO] old\n")
    (job / "logs").mkdir()
    old_log = job / "logs" / "99_pipeline_20251127_101112.log"
    old_log.write_text("[2025-11-27 10:11:12] [pipeline] [INFO] old\n")
    job_manifest = '{"version": "1", "stages": [{"name": "asr", "status": "completed"}]}'
    (job / "manifest.json").write_text(job_manifest)

    assert stage("alignment").load_json("segments.json") == [1]
    io = stage("asr")
    io.get_stage_logger().info("new")
    io.finalize()

    manifest = read_manifest(io.stage_dir)
    assert manifest["status"] == "success"
    assert manifest["kind"] == "stageio.manifest"
    assert (manifest["inputs"], manifest["warnings"]) == ([], [])
    (former,) = manifest["attempts"]
    assert {key: former[key] for key in V1_MANIFEST} == V1_MANIFEST
    assert (job / "manifest.json").read_text() == job_manifest
    assert texts(io.stage_log)[0] == "old"
    assert "new" in texts(io.stage_log)
    assert "old" in old_log.read_text()


@pytest.mark.parametrize(
    ("name", "number", "directory"),
    [("demux", 1, "01_demux"), ("01_demux", 1, "01_demux"), ("03_glossary_load", 3, "03_glossary_load")],
)
def test_numbered_names_land_in_directories_of_their_own(
    stage: OpenStage, job: Path, name: str, number: int, directory: str
) -> None:
    io = stage(name)
    assert io.stage_number == number
    assert io.stage_dir == job / directory
    assert stage("mux").get_input_path("x.json", from_stage=name) == job / directory / "x.json"


def test_failed_is_sticky(job: Path) -> None:
    with pytest.raises(ValueError), Pipeline("subtitles", job) as run, run.stage("asr"):
        raise ValueError("bad")
    assert RunRecord.load(job).status == "failed"
    with Pipeline("subtitles", job) as run, run.stage("asr"):  # one stage, not exactly ten
        pass
    assert RunRecord.load(job).status == "success"
    assert run.attempt == 2
    assert RunRecord.load(job).attempt == 2


def test_concurrent_stages_lose_entries(tmp_path: Path, job: Path) -> None:
    names = ["demux", "asr", "alignment", "mux"]
    run_together(write_script(tmp_path / "writes.py", WRITES), job, names)
    for name in names:
        (directory,) = job.glob(f"*_{name}")
        manifest = read_manifest(directory)
        assert manifest["status"] == "success"
        assert [entry["path"] for entry in manifest["outputs"]] == [f"{name}.{number}" for number in range(100)]
    for path in files_of(job / ".stageio"):
        if path.suffix == ".jsonl":
            for line in path.read_text(encoding="utf-8").splitlines():
                strict_json(line)


# -- suspected -------------------------------------------------------------------------------------------------------


def test_long_records_of_several_processes_interleave(tmp_path: Path, job: Path) -> None:
    script = write_script(
        tmp_path / "long.py",
        """
        import sys
        from otel_stageio import StageIO

        job, name = sys.argv[1:]
        print("ready", flush=True)
        sys.stdin.readline()
        io = StageIO(name, job)
        log = io.get_stage_logger("ERROR")
        for number in range(20):
            log.info("%s %02d %s", name, number, name[0] * 50_000)
        io.finalize()
        """,
    )
    names = ["demux", "tmdb", "asr", "mux"]
    run_together(script, job, names)
    expected = {f"{name} {number:02d} {name[0] * 50_000}" for name in names for number in range(20)}
    assert {text for text in texts(pipeline_log(job)) if len(text) > 50_000} == expected
