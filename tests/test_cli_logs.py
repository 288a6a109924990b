"""What stages say, read back: records from log files in any state, ``logs`` over a whole job, and ``logs --follow``."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import LIMIT, environment, run_command, start_python, write_script
from typer.testing import CliRunner, Result

from otel_stageio import Pipeline, StageIO
from otel_stageio.cli.app import app
from otel_stageio.reading.logs import Entry, LogFile, entries, severity
from otel_stageio.testing import FixedClock, fixed

pytestmark = pytest.mark.usefixtures("no_terminal")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "out" / "job1"


@pytest.fixture
def clock() -> Iterator[FixedClock]:
    """A clock that stands still until a test moves it, for log lines too."""
    standing = FixedClock()
    usual = logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = usual(*args, **kwargs)
        made.created = standing.wall / 1e9
        return made

    logging.setLogRecordFactory(record)
    with fixed(standing):
        yield standing
    logging.setLogRecordFactory(usual)


def call(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def shown(*words: object) -> str:
    result = call("logs", *words)
    assert result.exit_code == 0, result.output
    return result.stdout


def said(*words: object) -> list[tuple[str, str]]:
    """(who, what) of what ``logs`` shows."""
    records = [json.loads(line) for line in shown(*words, "--json").splitlines()]
    return [(record["stage"], record["text"]) for record in records]


def write_log(path: Path, *lines: str, end: str = "\n") -> Path:
    """A line that begins with a time such as ``12 asr INFO`` is a record of that second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = []
    for line in lines:
        words = line.split(" ", 3)
        if len(words) == 4 and words[0].isdecimal():
            line = f"[2025-11-27 10:11:{words[0]}] [{words[1]}] [{words[2]}] {words[3]}"
        whole.append(line)
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n".join(whole) + end)
    return path


# -- one file ----------------------------------------------------------------------------------------------------------


def test_a_record_has_time_logger_level_text_and_stage(job: Path) -> None:
    path = write_log(job / "06_asr/stage.log", "12 stage.asr INFO listening to [2] files")
    assert list(entries(path, "asr")) == [
        Entry("2025-11-27 10:11:12", "stage.asr", "INFO", "listening to [2] files", "asr")
    ]


def test_lines_without_a_head_are_of_the_record_before_them(job: Path) -> None:
    path = write_log(job / "stage.log", "12 stage.asr ERROR failed", "Traceback:", "", "  File", "13 stage.asr INFO on")
    assert [entry.text for entry in entries(path, "asr")] == ["failed\nTraceback:\n\n  File", "on"]


def test_lines_before_the_first_record_have_no_time_and_are_kept(job: Path) -> None:
    path = write_log(job / "stage.log", "half a line", "[odd] [but] no head", "12 stage.asr INFO on")
    found = [(entry.time, entry.text) for entry in entries(path, "asr")]
    assert found == [("", "half a line"), ("", "[odd] [but] no head"), ("2025-11-27 10:11:12", "on")]


def test_a_directory_that_two_stages_share(job: Path) -> None:
    path = write_log(
        job / "06_asr/stage.log",
        "12 stage.asr INFO a",
        "13 stage.hallucination_removal INFO b",
        "13 stage.asr.decoder INFO c",
        "14 transformers WARNING d",
    )
    assert [entry.stage for entry in entries(path, "asr")] == ["asr", "hallucination_removal", "asr", "asr"]


def test_a_torn_end_is_read_and_a_torn_middle_hides_nothing(job: Path) -> None:
    path = write_log(job / "stage.log", "12 stage.asr INFO one", "[2025-11-27 10:1", "13 stage.asr INFO two")
    write_log(path, "14 stage.asr INFO thr", end="")
    assert [entry.text for entry in entries(path, "asr")] == ["one\n[2025-11-27 10:1", "two", "thr"]


def test_no_text_at_all(job: Path) -> None:
    path = write_log(job / "stage.log", "12 stage.asr INFO ", "[2025-11-27 10:11:13] [stage.asr] [INFO]")
    assert [(entry.level, entry.text) for entry in entries(path, "asr")] == [("INFO", ""), ("INFO", "")]


def test_binary_and_windows_lines_survive(tmp_path: Path) -> None:
    path = tmp_path / "stage.log"
    path.write_bytes(b"\x00\xff\xfe\n[2025-11-27 10:11:12] [stage.asr] [INFO] one\r\n\x80\x81\n")
    assert [entry.text for entry in entries(path, "asr")] == ["\x00��", "one\n��"]


def test_a_line_without_end_is_cut_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "stage.log"
    with open(path, "wb") as file:
        file.write(b"[2025-11-27 10:11:12] [stage.asr] [INFO] ")
        for _ in range(40):
            file.write(b"x" * 1_000_000)
        file.write(b"\n[2025-11-27 10:11:13] [stage.asr] [INFO] short\n")
    long, short = entries(path, "asr")
    assert short.text == "short"
    assert len(long.text) < 1_500_000
    assert "[cut: 3" in long.text


def test_a_record_of_very_many_lines_is_cut_and_says_so(tmp_path: Path) -> None:
    path = write_log(tmp_path / "stage.log", "12 stage.asr INFO dump", *["x" * 99] * 20_000, "13 stage.asr INFO on")
    long, short = entries(path, "asr")
    assert (len(long.text) < 1_100_000, short.text) == (True, "on")
    assert long.text.endswith("characters more]")


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "link"])
def test_what_is_no_file_has_no_records(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "stage.log"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        write_log(tmp_path / "secret", "12 stage.asr INFO one")
        path.symlink_to("secret")
    assert list(entries(path, "asr")) == []


@pytest.mark.parametrize(
    ("word", "number"),
    [("DEBUG", 10), ("INFO", 20), ("WARN", 30), ("WARNING", 30), ("ERROR", 40), ("FATAL", 50), ("Level 25", 25),
     ("", 20), ("NOTICE", 20)],
)  # fmt: skip
def test_severity(word: str, number: int) -> None:
    assert severity(word) == number


# -- a file that grows -------------------------------------------------------------------------------------------------


def texts(log: LogFile) -> list[str]:
    return [entry.text for entry in log.read()]


def test_a_log_is_read_on_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "stage.log"
    log = LogFile(path, "asr")
    assert texts(log) == []
    write_log(path, "12 stage.asr INFO one")
    assert texts(log) == ["one"]
    write_log(path, "13 stage.asr INFO tw", end="")
    assert texts(log) == []
    write_log(path, "o", "  more of it", "14 stage.asr INFO three")
    assert texts(log) == ["two\n  more of it", "three"]
    write_log(path, "a late line")
    assert [(entry.level, entry.text) for entry in log.read()] == [("INFO", "a late line")]
    log.close()


def test_a_log_that_is_rotated_cut_short_or_written_anew_is_followed(tmp_path: Path) -> None:
    path = write_log(tmp_path / "stage.log", "12 stage.asr INFO one")
    log = LogFile(path, "asr")
    assert texts(log) == ["one"]
    write_log(path, "13 stage.asr INFO its last")
    path.rename(tmp_path / "stage.log.1")
    write_log(path, "14 stage.asr INFO of another file")
    assert texts(log) == ["its last", "of another file"]
    path.write_bytes(b"")
    assert texts(log) == []
    write_log(path, "15 stage.asr INFO anew")
    assert texts(log) == ["anew"]
    path.unlink()
    assert texts(log) == []
    write_log(path, "16 stage.asr INFO back")
    assert texts(log) == ["back"]
    log.close()


# -- a job -------------------------------------------------------------------------------------------------------------


def test_all_stages_in_order_and_the_pipelines_own_lines_once(job: Path, clock: FixedClock) -> None:
    with Pipeline("subtitles", job) as run:
        with run.stage("demux") as io:
            io.get_stage_logger().info("demuxing")
            io.get_stage_logger().debug("a detail")
        with run.stage("asr") as io:
            io.get_stage_logger().warning("listening")
    found = [(who, what.partition(" after")[0]) for who, what in said(job)]
    assert found == [
        ("pipeline", "subtitles: run 1 of job1 started"),
        ("pipeline", "demux started"),
        ("demux", "demuxing"),
        ("demux", "a detail"),
        ("pipeline", "demux: success"),
        ("pipeline", "asr started"),
        ("asr", "listening"),
        ("pipeline", "asr: success"),
        ("pipeline", "subtitles: success"),
    ]


def test_a_line_of_another_logger_is_in_both_logs_and_shown_once(job: Path) -> None:
    with Pipeline("subtitles", job) as run, run.stage("asr"):
        logging.getLogger("transformers.models").warning("slow attention")
    output = shown(job)
    assert output.count("slow attention") == 1
    assert "asr      WARNING  transformers.models: slow attention" in output


def original_job(job: Path) -> None:
    """As the original leaves it: every line of a stage stands in the pipeline log too, under the pipeline's name."""
    write_log(job / "01_demux/stage.log", "12 stage.demux INFO extracting", "14 stage.demux ERROR failed", "Traceback:")
    write_log(job / "06_asr/stage.log", "13 stage.asr DEBUG only here", "13 stage.asr INFO listening")
    write_log(
        job / "logs/99_pipeline_20251127_101112.log",
        "12 pipeline INFO extracting",
        "13 pipeline INFO starting asr",
        "13 pipeline INFO listening",
        "14 pipeline ERROR failed",
        "Traceback:",
        "14 pipeline INFO giving up",
    )


def test_a_job_of_the_originals(job: Path) -> None:
    original_job(job)
    assert said(job) == [
        ("demux", "extracting"),
        ("pipeline", "starting asr"),
        ("asr", "only here"),
        ("asr", "listening"),
        ("demux", "failed\nTraceback:"),
        ("pipeline", "giving up"),
    ]


def test_one_stage_by_name_directory_or_number(job: Path) -> None:
    original_job(job)
    for name in ("asr", "06_asr", "6"):
        assert said(job, name) == [("asr", "only here"), ("asr", "listening")]
    assert said(job, "pipeline") == [("pipeline", "starting asr"), ("pipeline", "giving up")]
    result = call("logs", job, "mux")
    assert result.exit_code == 1
    assert "has no stage mux; there are: demux, asr" in result.stderr


def test_a_stage_that_has_left_only_lines_in_anothers_directory(job: Path) -> None:
    original_job(job)
    write_log(job / "06_asr/stage.log", "15 stage.hallucination_removal INFO removed 3")
    assert said(job, "hallucination_removal") == [("hallucination_removal", "removed 3")]
    assert said(job, "asr") == [("asr", "only here"), ("asr", "listening")]


def test_level_grep_and_tail(job: Path) -> None:
    original_job(job)
    assert said(job, "--level", "error") == [("demux", "failed\nTraceback:")]
    assert said(job, "--level", "30") == [("demux", "failed\nTraceback:")]
    assert said(job, "--grep", "^(listen|extract)ing$") == [("demux", "extracting"), ("asr", "listening")]
    assert said(job, "--grep", "Traceback") == [("demux", "failed\nTraceback:")]
    assert said(job, "--tail", "2") == [("demux", "failed\nTraceback:"), ("pipeline", "giving up")]
    assert said(job, "--tail", "1", "--level", "debug", "--grep", "ing$") == [("asr", "listening")]
    assert said(job, "--tail", "0") == []
    assert said(job, "--tail", "99") == said(job)


def test_the_last_lines_of_long_logs_are_those_of_the_whole(job: Path) -> None:
    for number, stage in enumerate(("demux", "asr", "mux")):
        path = job / f"{(1, 6, 12)[number]:02d}_{stage}" / "stage.log"
        lines = [f"{second} stage.{stage} INFO {stage} {line} {'x' * 200}"
                 for second in range(10, 60) for line in range(10 ** (number + 1))]  # fmt: skip
        write_log(path, *lines)
    write_log(job / "logs/99_pipeline_20251127_101112.log", "10 pipeline INFO begun", "11 pipeline INFO going")
    every = said(job)
    assert said(job, "-n", "70") == every[-70:]
    assert said(job, "-n", "3000") == every[-3000:]
    assert said(job, "-n", "3", "--grep", "^demux") == [item for item in every if item[0] == "demux"][-3:]


@pytest.mark.parametrize(("option", "value"), [("--grep", "("), ("--level", "loud"), ("--tail", "-1")])
def test_what_is_no_regex_level_or_number_is_a_usage_error(job: Path, option: str, value: str) -> None:
    original_job(job)
    result = call("logs", job, option, value)
    assert result.exit_code == 2
    assert option in result.stderr


def test_only_the_newest_run_unless_asked_for_all(job: Path, clock: FixedClock) -> None:
    for number in (1, 2):
        with Pipeline("subtitles", job) as run:
            for stage in ("demux", "asr")[number - 1 :]:
                with run.stage(stage) as io:
                    io.get_stage_logger().info(f"in run {number}")
        clock.advance(60)
    assert [text for stage, text in said(job) if stage != "pipeline"] == ["in run 2"]
    assert [text for _, text in said(job, "asr", "--all")] == ["in run 1", "in run 2"]
    assert [text for _, text in said(job, "--all")].count("in run 1") == 2
    assert sum("run 1 of" in text for _, text in said(job, "--all")) == 1
    assert [text for _, text in said(job, "demux")] == ["in run 1"], "its newest attempt is in an earlier run"


def test_a_clock_that_is_set_back_hides_nothing(job: Path, clock: FixedClock) -> None:
    with Pipeline("subtitles", job) as run, run.stage("asr") as io:
        io.get_stage_logger().info("summer")
        clock.step(-3600)
        io.get_stage_logger().info("winter")
    assert {"summer", "winter"} <= {text for _, text in said(job)}


def test_further_lines_are_indented_and_nothing_commands_the_terminal(job: Path) -> None:
    write_log(
        job / "06_asr/stage.log", "12 stage.asr INFO one\x1b[31m\u202ered", "two", "13 evil\x1b[0m IN\x07FO three"
    )
    output = shown(job)
    assert output.splitlines() == [
        r"2025-11-27 10:11:12 asr      INFO     one\x1b[31m\u202ered",
        "    two",
        r"2025-11-27 10:11:13 asr      IN\x07FO evil\x1b[0m: three",
    ]


def test_json_is_one_object_a_line(job: Path) -> None:
    original_job(job)
    first, *_ = shown(job, "--json").splitlines()
    assert json.loads(first) == {
        "time": "2025-11-27 10:11:12", "logger": "stage.demux", "level": "INFO", "text": "extracting", "stage": "demux",
    }  # fmt: skip


def test_what_cannot_be_read_is_said(job: Path) -> None:
    original_job(job)
    (job / "12_mux/stage.log").mkdir(parents=True)
    result = call("logs", job)
    assert result.exit_code == 0
    assert "12_mux/stage.log: is not a regular file" in result.stderr


def test_colours_on_a_terminal_only_and_not_where_none_are_wanted(job: Path) -> None:
    original_job(job)
    argv = [sys.executable, "-m", "otel_stageio", "logs", str(job)]
    coloured = run_command(argv, cwd=job, env=environment(FORCE_COLOR="1")).stdout
    assert "\x1b[31mfailed" in coloured
    assert coloured.splitlines()[0] == "\x1b[2m2025-11-27\x1b[0m", "the day stands once, above"
    assert "\x1b" not in run_command(argv, cwd=job, env=environment(FORCE_COLOR="1", NO_COLOR="1")).stdout
    assert "\x1b" not in run_command(argv, cwd=job).stdout


def test_an_ascii_console_gets_escapes(job: Path) -> None:
    write_log(job / "06_asr/stage.log", "12 stage.asr INFO schön")
    argv = [sys.executable, "-m", "otel_stageio", "logs", str(job)]
    shown = run_command(argv, cwd=job, env=environment(PYTHONIOENCODING="ascii"))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert r"sch\xf6n" in shown.stdout


def test_whoever_reads_only_the_beginning_gets_no_traceback(job: Path) -> None:
    write_log(job / "06_asr/stage.log", *[f"12 stage.asr INFO line {number}" for number in range(50_000)])
    reader = following(job, follow=False)
    assert reader.stdout is not None
    assert reader.stderr is not None
    assert "line 0" in reader.stdout.readline()
    reader.stdout.close()
    assert reader.stderr.read() == ""
    reader.wait(LIMIT)


# -- follow ------------------------------------------------------------------------------------------------------------

PIPELINE = """
    import sys
    from otel_stageio import Pipeline

    def wait():
        print("ready", flush=True)
        sys.stdin.readline()

    with Pipeline("subtitles", sys.argv[1]) as run:
        for stage in ("demux", "asr"):
            with run.stage(stage) as io:
                log = io.get_stage_logger()
                log.info("%s begins", stage)
                wait()
                log.info("%s ends", stage)
"""


def following(job: Path, *words: str, follow: bool = True) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "otel_stageio", "logs", str(job), *(["-f"] if follow else []), *words]
    process = subprocess.Popen(
        argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    # Nothing here waits for this; it ends a test that would otherwise hang.
    limit = threading.Timer(LIMIT, process.kill)
    limit.daemon = True
    limit.start()
    return process


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} never came; there was: {read!r}")


def end_of(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    stdout, stderr = process.communicate(timeout=LIMIT)
    return stdout, stderr, process.returncode


@pytest.fixture
def pipeline(job: Path, tmp_path: Path) -> Iterator[Any]:
    """A run in a process of its own, whose first stage has begun; ``go()`` lets it come to the next step."""
    process = start_python(write_script(tmp_path / "pipeline.py", PIPELINE), job, OTEL_STAGEIO_CONSOLE="off")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()

    def go() -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    process.go = go  # type: ignore[attr-defined]
    yield process
    process.kill()
    process.communicate(timeout=LIMIT)


def test_follow_shows_what_was_said_then_what_comes_and_ends_with_the_run(job: Path, pipeline: Any) -> None:
    follower = following(job)
    assert "demux started" in read_until(follower, "demux begins")
    pipeline.go()
    read = read_until(follower, "asr begins")
    assert "demux ends" in read, "a stage that begins later is followed too"
    pipeline.go()
    stdout, stderr, code = end_of(follower)
    assert "asr ends" in stdout
    assert "subtitles: success" in stdout
    assert (stderr, code) == ("", 0)


def test_follow_of_one_stage_that_is_yet_to_begin_as_json(job: Path, pipeline: Any) -> None:
    follower = following(job, "asr", "--json")
    pipeline.go()
    record = json.loads(read_until(follower, "asr begins"))
    assert (record["stage"], record["text"]) == ("asr", "asr begins")
    pipeline.go()
    stdout, stderr, code = end_of(follower)
    assert [json.loads(line)["text"] for line in stdout.splitlines()] == ["asr ends"]
    assert (stderr, code) == ("", 0)


def test_follow_goes_on_across_rotation(job: Path, pipeline: Any) -> None:
    follower = following(job, "demux")
    read_until(follower, "demux begins")
    log = job / "01_demux/stage.log"
    log.rename(job / "01_demux/stage.log.1")
    write_log(log, "[2099-11-27 10:11:12] [stage.demux] [INFO] in a new file")
    read_until(follower, "in a new file")
    follower.send_signal(signal.SIGINT)
    end_of(follower)


def test_follow_ends_when_the_run_has_died(job: Path, pipeline: Any) -> None:
    follower = following(job)
    read_until(follower, "demux begins")
    pipeline.kill()
    _, stderr, code = end_of(follower)
    assert (stderr, code) == ("", 0)


def test_follow_of_a_run_that_is_over_shows_its_last_lines_and_ends(job: Path) -> None:
    with Pipeline("subtitles", job) as run, run.stage("asr") as io:
        for number in range(30):
            io.get_stage_logger().info(f"line {number}")
    assert [text for _, text in said(job, "-f") if text.startswith("line")] == [f"line {n}" for n in range(22, 30)]
    assert said(job, "-f", "--tail", "1") == said(job)[-1:]


def test_ctrl_c_ends_it_without_a_word(job: Path, pipeline: Any) -> None:
    follower = following(job)
    read_until(follower, "demux begins")
    follower.send_signal(signal.SIGINT)
    _, stderr, code = end_of(follower)
    assert (stderr, code) == ("", 130)


def test_it_ends_when_its_reader_has_gone_though_nobody_says_anything(job: Path, pipeline: Any) -> None:
    follower = following(job)
    read_until(follower, "demux begins")
    assert follower.stdout is not None
    assert follower.stderr is not None
    follower.stdout.close()
    assert follower.wait(LIMIT) == 0
    assert follower.stderr.read() == ""


# -- runs --------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_with_how_their_stages_ended(job: Path, clock: FixedClock) -> None:
    with pytest.raises(RuntimeError), Pipeline("subtitles", job) as run:
        with run.stage("demux"):
            clock.advance(5)
        with run.stage("asr"):
            raise RuntimeError("no memory")
    clock.advance(60)
    with Pipeline("subtitles", job) as run:
        with run.stage("asr"):
            clock.advance(90)
        with run.stage("mux") as io:
            io.skip("nothing to do")
    result = call("runs", job)
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0].endswith("run 2  success in 1 min 30 s")
    assert "stages   1 success; 1 skipped" in lines
    assert any(line.endswith("run 1  failed after 5.0 s") for line in lines)
    assert "stages   1 success; 1 failed: asr" in lines
    newest, first = json.loads(call("runs", job, "--json").stdout)["runs"]
    assert (newest["number"], newest["state"], first["number"], first["state"]) == (2, "success", 1, "failed")
    assert [(item["stage"], item["attempt"], item["state"]) for item in newest["stages"]] == [
        ("asr", 2, "success"), ("mux", 1, "skipped"),
    ]  # fmt: skip
    assert first["trace_id"] in result.stdout


def test_runs_of_a_job_that_keeps_no_record_of_them(job: Path) -> None:
    original_job(job)
    result = call("runs", job)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing is recorded of the runs" in result.stderr


def test_a_run_without_a_pipeline_says_who_opened_it(job: Path) -> None:
    with StageIO("asr", job):
        pass
    assert "none, opened by its stages" in call("runs", job).stdout
