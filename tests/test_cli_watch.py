"""``status ROOT`` and ``status --watch``: many jobs at a glance, and one that runs before one's eyes."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers import LIMIT, environment, kill_after, run_command, start_python, strict_json, write_script
from terminals import CONTROL, Terminal, same_as_golden

from otel_stageio import Pipeline, StageIO
from otel_stageio.layout import Job
from otel_stageio.otlp.metrics import Series
from otel_stageio.reading.job import read_job
from otel_stageio.reading.jobs import summaries
from otel_stageio.reading.now import used_now
from otel_stageio.resources.gpu import Device, Reading
from otel_stageio.resources.tree import Look, Used
from otel_stageio.runtime import runtime
from otel_stageio.testing import FixedClock, SequentialIds, fixed

STAGES = ["demux", "asr", "alignment", "mux"]
#: The command line at a moment that stands still, so many seconds after the beginning of all jobs here.
LATER = """
    import sys
    from otel_stageio.cli.app import app
    from otel_stageio.testing import FixedClock, fixed

    clock = FixedClock()
    clock.advance(float(sys.argv.pop(1)))
    with fixed(clock):
        app(prog_name="otel-stageio")
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("OTEL_STAGEIO_CONSOLE", "off")
    monkeypatch.setenv("OTEL_STAGEIO_SAMPLE_INTERVAL", "0")  # what this process uses is another each time
    monkeypatch.chdir(tmp_path)
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(_by_our_clock)
    write_script(tmp_path / "later.py", LATER)
    yield tmp_path
    logging.setLogRecordFactory(factory)


def _by_our_clock(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    record.created = runtime.clock.wall_ns() / 1e9
    return record


def later(seconds: float, *words: object) -> list[str]:
    return [sys.executable, "later.py", str(seconds), *map(str, words)]


def settings(**changes: str) -> dict[str, str]:
    usual = {"TERM": "xterm-256color", "TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8"}
    env = environment(**{**usual, **changes})
    for name in ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR"):
        if name not in changes:
            env.pop(name, None)
    return env


def ask(*words: object, seconds: float = 60, code: int = 0, **env: str) -> str:
    done = run_command(later(seconds, *words), cwd=Path.cwd(), env=settings(**env))
    assert done.returncode == code, done.stderr + done.stdout
    assert done.stderr == ""
    assert not CONTROL.search(done.stdout)
    return done.stdout


def document(*words: object, **how: Any) -> Any:
    return strict_json(ask(*words, "--json", **how))


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# -- jobs in every state ---------------------------------------------------------------------------------------------


def good(job: str) -> None:
    with Pipeline("subtitles", job, stages=STAGES[:2]) as run:
        for stage in STAGES[:2]:
            with run.stage(stage):
                pass


def failed(job: str) -> None:
    with pytest.raises(RuntimeError), Pipeline("subtitles", job, stages=STAGES) as run:
        with run.stage("demux"):
            pass
        with run.stage("asr"):
            raise RuntimeError("CUDA out of memory\nTried to allocate 2 GiB")


def cancelled(job: str) -> None:
    with pytest.raises(KeyboardInterrupt), Pipeline("subtitles", job) as run, run.stage("asr"):
        raise KeyboardInterrupt


def timed_out(job: str) -> None:
    with Pipeline("subtitles", job) as run:
        run.command("asr", ["sleep", "60"], timeout=0.1, check=False)


def again(job: str) -> None:
    failed(job)
    good(job)


def alone(job: str) -> None:
    """Nobody owned the run, so nobody has closed it."""
    with StageIO("demux", job):
        pass
    with StageIO("asr", job) as io:
        io.skip("nothing is said")


def alone_and_failed(job: str) -> None:
    StageIO("demux", job).finalize()
    StageIO("asr", job).finalize("failed", error="no model")


def odd_word(job: str) -> None:
    StageIO("asr", job).finalize("half \u202ebaked")


def without_manifest(job: str) -> None:
    StageIO("asr", job, enable_manifest=False).finalize("failed")


def beside_another(job: str) -> None:
    StageIO("asr", job).finalize()
    StageIO("hallucination_removal", job).finalize("cancelled")


def without_journal(job: str) -> None:
    StageIO("asr", job).finalize()
    StageIO("mux", job).finalize("failed")
    for path in Path(job, ".stageio", "spool").glob("*.logs.jsonl"):
        path.unlink()


def without_spool_in_mid_run(job: str) -> None:
    killed(job, ALONE)
    shutil.rmtree(Path(job, ".stageio", "spool"))


def only_a_log(job: str) -> None:
    """As a later program of the original left it."""
    Path(job, "06_asr").mkdir(parents=True)
    Path(job, "06_asr", "stage.log").write_text("[2025-11-27 10:11:12] [stage.asr] [INFO] la\n")


def original(job: str) -> None:
    for stage, status in (("01_demux", "success"), ("06_asr", "failed")):
        record = {"stage": stage[3:], "timestamp": "2025-11-27T10:11:12", "status": status, "inputs": [],
                  "completed_at": "2025-11-27T10:12:12", "errors": [{"message": "no GPU"}]}  # fmt: skip
        Path(job, stage).mkdir(parents=True)
        Path(job, stage, "manifest.json").write_text(json.dumps(record))


def original_of_one_file(job: str) -> None:
    Path(job).mkdir(parents=True)
    stages = [{"name": "demux", "status": "completed"}, {"name": "mux", "status": "pending"}]
    Path(job, "manifest.json").write_text(json.dumps({"job_id": "j", "status": "running", "stages": stages}))


def damaged(job: str) -> None:
    failed(job)
    Path(job, ".stageio", "run.json").write_text('{"status": ["success"]')


def of_another_kind(job: str) -> None:
    good(job)
    Path(job, ".stageio", "run.json").write_text('{"kind": "stageio.run", "status": 7}')


ALONE = """
    import sys
    from otel_stageio import StageIO
    StageIO("demux", sys.argv[1]).finalize()
    io = StageIO("asr", sys.argv[1])
    io.progress(12, 41, "chunks")
    print("ready", flush=True)
    sys.stdin.readline()
"""
IN_A_STAGE = """
    import sys
    from otel_stageio import Pipeline
    with Pipeline("subtitles", sys.argv[1], stages=["demux", "asr"]) as run, run.stage("demux"):
        print("ready", flush=True)
        sys.stdin.readline()
"""
BETWEEN_STAGES = """
    import sys
    from otel_stageio import Pipeline
    with Pipeline("subtitles", sys.argv[1], stages=["demux", "asr"]) as run:
        run.stage("demux").finalize()
        print("ready", flush=True)
        sys.stdin.readline()
"""
AFTER_A_FAILURE = BETWEEN_STAGES.replace("finalize()", "finalize('failed')")


def killed(job: str, source: str) -> None:
    script = write_script(Path("killed.py"), source)
    kill_after(start_python(script, os.path.abspath(job), cwd=Path.cwd(), OTEL_STAGEIO_CONSOLE="off"), 1)


KINDS: dict[str, Callable[[str], None]] = {
    made.__name__: made
    for made in (
        good, failed, cancelled, timed_out, again, alone, alone_and_failed, odd_word, without_manifest, beside_another,
        without_journal, without_spool_in_mid_run, only_a_log, original, original_of_one_file, damaged,
        of_another_kind,
    )
}  # fmt: skip
KINDS["killed_alone"] = lambda job: killed(job, ALONE)
KINDS["killed_in_a_stage"] = lambda job: killed(job, IN_A_STAGE)
KINDS["killed_between_stages"] = lambda job: killed(job, BETWEEN_STAGES)
KINDS["killed_after_a_failure"] = lambda job: killed(job, AFTER_A_FAILURE)


def one(root: str) -> Any:
    (found,) = summaries(root)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_says_of_a_job_what_status_says_of_it(kind: str, here: Path) -> None:
    KINDS[kind](f"out/{kind}")
    before = snapshot(here / "out")
    found = one("out")
    looked_at = read_job(found.path, steps=False, close=False)
    assert (found.path, found.state) == (f"out/{kind}", looked_at.state)
    (row,) = document("status", "out")["jobs"]
    assert (row["name"], row["state"]) == (kind, looked_at.state)
    assert snapshot(here / "out") == before
    closed = read_job(found.path)  # this is what closes what has died
    assert closed.state == looked_at.state
    assert one("out").state == looked_at.state
    assert found.dead == (snapshot(here / "out") != before)


def test_the_table_says_of_a_running_job_what_status_says_of_it(here: Path) -> None:
    with ExitStack() as stack:
        run = stack.enter_context(Pipeline("subtitles", "out/owned", stages=STAGES))
        assert one("out").state == read_job("out/owned").state == "running"
        stack.enter_context(run.stage("asr"))
        assert one("out").state == read_job("out/owned").state == "running"
    io = StageIO("asr", "alone/job")
    assert one("alone").state == read_job("alone/job").state == "running"
    assert not one("alone").dead
    io.finalize()
    assert one("alone").state == read_job("alone/job").state == "success"


# -- the table -------------------------------------------------------------------------------------------------------


def several(root: str) -> FixedClock:
    """A dozen jobs, a minute apart; the last is left to be opened by the test."""
    clock = FixedClock()
    with fixed(clock, SequentialIds()):
        for number in range(8):
            good(f"{root}/2025/film{number}")
            clock.advance(60)
        failed(f"{root}/2025/broken")
        clock.advance(60)
        alone(f"{root}/nobodys")
        original(f"{root}/of-old")
        killed_job = f"{root}/dead"
        killed(killed_job, LATER_STAGE)
    return clock


LATER_STAGE = """
    import sys
    from otel_stageio import Pipeline
    from otel_stageio.testing import FixedClock, fixed
    clock = FixedClock()
    clock.advance(700)
    with fixed(clock), Pipeline("subtitles", sys.argv[1], stages=["demux", "asr"]) as run, run.stage("demux"):
        print("ready", flush=True)
        sys.stdin.readline()
"""


def test_a_directory_of_jobs_is_a_table_with_the_newest_first(here: Path) -> None:
    clock = several("out")
    clock.advance(300)
    with ExitStack() as stack:
        stack.enter_context(fixed(clock, SequentialIds()))
        run = stack.enter_context(Pipeline("translation", "out/now", stages=STAGES))
        stack.enter_context(run.stage("asr")).progress(12, 41, "chunks")
        same_as_golden("jobs-80.txt", ask("status", "out", seconds=1000, COLUMNS="80"))
        same_as_golden("jobs-pipe.txt", ask("status", "out", "--limit", 0, seconds=1000))
        assert ask("status", "out", seconds=1000, COLUMNS="80", PYTHONIOENCODING="ascii").isascii()
        found = document("status", "out", "--state", "running", seconds=1000)
    assert found["states"] == {"running": 1, "failed": 2, "crashed": 1, "success": 9}
    assert (found["left_out"], found["dead"]) == (0, 1)
    (job,) = found["jobs"]
    assert (job["job"], job["pipeline"], job["state"]) == ("out/now", "translation", "running")
    (asr,) = job["stages"]
    assert (asr["name"], asr["progress"]["done"]) == ("asr", 12)


def test_what_is_looked_for_is_found_among_many(here: Path) -> None:
    several("out")
    lines = ask("status", "out", "--state", "failed", "--state", "crashed").splitlines()
    assert [line.split()[1] for line in lines if line.startswith("✗")] == ["dead", "2025/broken", "of-old"]
    cut = ask("status", "out", "--limit", 2)
    assert len(re.findall("^[✓✗●]", cut, re.MULTILINE)) == 2
    assert "  10 more; --limit 0 shows all, --state failed those that failed\n" in cut
    assert "  none of them is faild\n" in ask("status", "out", "--state", "faild")
    assert len(document("status", "out", "--limit", 3)["jobs"]) == 3


def test_a_root_is_only_read_and_recover_closes_what_it_calls_dead(here: Path) -> None:
    killed("out/dead", IN_A_STAGE)
    before = snapshot(here / "out")
    assert "! 1 job has died and is not closed: otel-stageio recover out\n" in ask("status", "out")
    assert snapshot(here / "out") == before
    ask("recover", "out")
    assert "recover" not in ask("status", "out")


def test_options_of_a_table_do_not_go_with_one_job(here: Path) -> None:
    good("out/job1")
    done = run_command(later(60, "status", "out/job1", "--state", "failed"), cwd=here, env=settings())
    assert done.returncode == 2
    assert "go with a directory of jobs" in done.stderr


def test_a_hostile_job_is_one_line_of_a_table(here: Path) -> None:
    job = "out/\x1b[2Jjob\n✓ forged"
    with pytest.raises(RuntimeError), Pipeline("\x1b]0;x\x07\u202e", job) as run, run.stage("asr"):
        raise RuntimeError("\x1b[31mred\n✓ forged")
    output = ask("status", "out")
    assert "\u202e" not in output
    assert len(re.findall("^[✓✗●]", output, re.MULTILINE)) == 1


def test_what_is_no_job_yet_is_in_no_table(here: Path) -> None:
    good("out/job1")
    Path("out/job2/.stageio").mkdir(parents=True)
    Path("out/data/logs").mkdir(parents=True)
    assert [job["name"] for job in document("status", "out")["jobs"]] == ["job1"]
    done = run_command(later(60, "status", "out/data"), cwd=here, env=settings())
    assert (done.returncode, done.stdout) == (1, "")
    assert "out/data is no job" in done.stderr


def test_directories_are_searched_at_any_depth_and_links_are_not_followed(here: Path) -> None:
    good("out/a/b/c/deep")
    good("elsewhere/job")
    Path("out/link").symlink_to(here / "elsewhere")
    Path("out/loop").symlink_to(here / "out")
    Path("out/.hidden").mkdir()
    assert [job["name"] for job in document("status", "out")["jobs"]] == ["a/b/c/deep"]


# -- what it uses now ------------------------------------------------------------------------------------------------


def test_status_says_what_a_running_stage_uses_at_the_moment(here: Path) -> None:
    clock = FixedClock()
    with fixed(clock), StageIO("asr", "job1") as io:
        path = Path(Job("job1").journal("asr", 1, "metrics"))
        series = Series(clock.wall_ns())
        for seconds, user in ((1, 0.1), (2, 1.5)):
            series.process(clock.wall_ns() + seconds * 10**9, look(user), Used(user, user / 3), 1.0)
        series.gpus(clock.wall_ns() + 2 * 10**9, [gpu("GPU-1", 0.9, 2 << 30), gpu("GPU-2", 0.7, 1 << 30)])
        path.write_text(line(series))
        clock.advance(14)
        now = used_now(Job("job1"), "asr", 1)
        assert now is not None
        assert now.cpu == pytest.approx(2 / (os.cpu_count() or 1), rel=0.5)  # of those that it may run on
        assert (now.memory_bytes, now.gpus, now.gpu, now.gpu_memory_bytes) == (
            300 << 20,
            2,
            pytest.approx(0.8),
            3 << 30,
        )
        assert str(now).endswith("%, 300.0 MiB; 2 GPUs 80 %, 3.0 GiB (12 s ago)")
        assert str(now) in ask("status", "job1", seconds=14)
        assert document("status", "job1", seconds=14)["stages"][0]["now"]["gpus"] == 2
        io.finalize()
    assert document("status", "job1")["stages"][0]["now"] is None


def look(user: float) -> Look:
    return Look(Used(user, user / 3, 0, 0), 300 << 20, 2, frozenset({os.getpid()}))


def gpu(uuid: str, busy: float, memory: int) -> Reading:
    device = Device(uuid, 0, "NVIDIA H100", 80 << 30, "550", None)
    return Reading(device, busy, memory, None, None, None, (), None)


def line(series: Series) -> str:
    return f'{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{series.take()}]}}]}}]}}\n'


# -- a job that runs before one's eyes -------------------------------------------------------------------------------


@pytest.fixture
def on_terminal(here: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*words: object, rows: int = 20, seconds: float = 60, **env: str) -> Terminal:
        opened.append(Terminal(later(seconds, *words), rows=rows, columns=80, cwd=here, env=settings(**env)))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def shown(terminal: Terminal) -> str:
    """The screen, without what differs from run to run."""
    return re.sub(r"process \d+ on \S+", "process PID on HOST", terminal.screen())


def test_a_watched_job_is_drawn_in_place_until_its_run_is_over(on_terminal: Callable[..., Terminal]) -> None:
    clock = FixedClock()
    screens = []
    with fixed(clock, SequentialIds()):
        with Pipeline("subtitles", "job1", stages=STAGES) as run:
            with run.stage("demux"):
                clock.advance(5)
            with run.stage("asr") as io:
                io.progress(12, 41, "chunks")
                io.get_stage_logger().info("chunk 12 of 41")
                terminal = on_terminal("status", "job1", "--watch", seconds=100)
                terminal.wait_for("chunk 12 of 41", "mux")
                screens.append(shown(terminal))
                clock.advance(10)
                io.progress(30, 41, "chunks")
                terminal.wait_for("30 of 41 chunks", "mux")
                screens.append(shown(terminal))
            with run.stage("alignment") as io:
                io.skip("no words")
            with run.stage("mux"):
                clock.advance(2)
        assert terminal.end() == 0
    screens.append(shown(terminal))
    same_as_golden("watch-terminal.txt", "\n----\n\n".join(screens))
    assert terminal.cursor_is_seen
    assert b"\x1b[?1049h" not in terminal.raw  # the other screen, on which nothing stays


def test_a_tall_job_is_cut_to_the_terminal_with_what_runs_in_view(on_terminal: Callable[..., Terminal]) -> None:
    names = [f"part{number:02d}" for number in range(30)]
    clock = FixedClock()
    with fixed(clock, SequentialIds()):
        with pytest.raises(RuntimeError), Pipeline("subtitles", "job1", stages=names) as run:
            for name in names[:14]:
                with run.stage(name):
                    clock.advance(1)
            with run.stage(names[14]) as io:
                io.progress(1, 3, "files")
                terminal = on_terminal("status", "job1", "--watch", rows=12)
                terminal.wait_for("1 of 3 files", "to come")
                cut = shown(terminal)
                raise RuntimeError("disk full")
        assert terminal.end() == 1
    same_as_golden("watch-tall.txt", cut)
    assert "disk full" in terminal.raw.decode()
    assert "part29" in terminal.screen()  # at the end all of it is there


def test_in_a_pipe_a_watch_is_a_line_for_each_change(here: Path) -> None:
    clock = FixedClock()
    with fixed(clock, SequentialIds()):
        with pytest.raises(RuntimeError), Pipeline("subtitles", "job1", stages=STAGES) as run:
            with run.stage("demux"):
                clock.advance(5)
            process = watching("status", "job1", "--watch")
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(3)]
            with run.stage("asr") as io:
                said.append(process.stdout.readline())
                io.progress(12, 41, "chunks")
                said.append(process.stdout.readline())
                clock.advance(100)
                raise RuntimeError("CUDA out of memory")
        rest, stderr = process.communicate(timeout=LIMIT)
    assert (process.returncode, stderr) == (1, "")
    output = "".join(said) + rest
    assert not CONTROL.search(output)
    same_as_golden("watch-pipe.txt", output)


def watching(*words: object, seconds: float = 60) -> subprocess.Popen[str]:
    return subprocess.Popen(
        later(seconds, *words), env=settings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )


def test_as_json_a_watch_is_a_document_on_a_line_for_each_change(here: Path) -> None:
    with fixed(FixedClock(), SequentialIds()), Pipeline("subtitles", "job1") as run, run.stage("asr") as io:
        process = watching("status", "job1", "--watch", "--json")
        assert process.stdout is not None
        first = strict_json(process.stdout.readline())
        assert (first["state"], first["stages"][0]["state"]) == ("running", "running")
        io.progress(1, 2)
        assert strict_json(process.stdout.readline())["stages"][0]["progress"]["done"] == 1
    rest, stderr = process.communicate(timeout=LIMIT)
    assert (process.returncode, stderr) == (0, "")
    assert strict_json(rest.splitlines()[-1])["state"] == "success"


def test_a_watch_may_begin_before_the_pipeline_does(here: Path) -> None:
    (here / "out").mkdir()
    process = watching("status", "out/job1", "--watch")
    assert process.stdout is not None
    assert process.stdout.readline().endswith("waiting: out/job1 does not exist\n")
    with fixed(FixedClock(), SequentialIds()), Pipeline("subtitles", "out/job1") as run, run.stage("asr"):
        assert process.stdout.readline().endswith("subtitles: run 1 of out/job1 started\n")
    assert process.communicate(timeout=LIMIT)[0].endswith("subtitles: success after 0 ms\n")
    assert process.returncode == 0


def test_there_is_nothing_to_wait_for_where_no_directory_is(here: Path) -> None:
    done = run_command(later(60, "status", "out/job1", "--watch"), cwd=here, env=settings())
    assert done.returncode == 1
    assert "nor does the directory that it would be in" in done.stderr


def test_ctrl_c_leaves_the_last_picture_and_says_nothing(on_terminal: Callable[..., Terminal]) -> None:
    with Pipeline("subtitles", "job1") as run, run.stage("asr"):
        terminal = on_terminal("status", "job1", "--watch")
        terminal.wait_for("asr")
        terminal.interrupt()
        assert terminal.end() == 130
        assert "asr  running" in terminal.screen()
        assert "Abort" not in terminal.screen()
        assert "Traceback" not in terminal.screen()
        assert terminal.cursor_is_seen


def test_a_terminated_watch_gives_the_cursor_back(on_terminal: Callable[..., Terminal]) -> None:
    with Pipeline("subtitles", "job1") as run, run.stage("asr"):
        terminal = on_terminal("status", "job1", "--watch")
        terminal.wait_for("asr")
        terminal.signal(signal.SIGTERM)
        assert terminal.end() == 143
        assert terminal.cursor_is_seen


def test_a_watch_ends_with_a_pipeline_that_was_killed(here: Path) -> None:
    script = write_script(here / "killed.py", IN_A_STAGE)
    pipeline = start_python(script, here / "job1", cwd=here, OTEL_STAGEIO_CONSOLE="off")
    assert pipeline.stdout is not None
    assert pipeline.stdout.readline() == "ready\n"
    process = watching("status", "job1", "--watch")
    assert process.stdout is not None
    assert "started" in process.stdout.readline()
    pipeline.kill()
    pipeline.communicate(timeout=LIMIT)
    output = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 1
    assert "demux: crashed after" in output
    assert "its process is gone" in output
    assert output.splitlines()[-1].split("] ")[1].startswith("subtitles: crashed")


def test_a_run_that_nobody_owns_is_over_when_no_stage_has_come_for_a_while(here: Path) -> None:
    script = write_script(
        here / "patient.py",
        """
        import sys
        from otel_stageio.cli import watch
        from otel_stageio.cli.app import app
        watch.IDLE = 0.5
        app(prog_name="otel-stageio")
        """,
    )
    alone("job1")
    done = run_command([sys.executable, str(script), "status", "job1", "--watch"], cwd=here, env=settings())
    assert (done.returncode, done.stderr) == (0, "")
    said = [line.split("] ")[1] for line in done.stdout.splitlines()]
    assert said[1::2] == ["demux started", "asr started", said[-1]]
    assert said[-1].startswith("job1: success after")


def test_a_watched_root_says_which_job_has_changed(here: Path, on_terminal: Callable[..., Terminal]) -> None:
    with fixed(FixedClock(), SequentialIds()):
        good("out/job0")
        process = watching("status", "out", "--watch")
        assert process.stdout is not None
        table = [process.stdout.readline() for _ in range(2)]
        assert table[0].startswith("1 success")
        failed("out/job1")
        while "out/job1: failed" not in (said := process.stdout.readline()):
            assert said
        assert said.endswith("asr: RuntimeError: CUDA out of memory [+1 line]\n")
        terminal = on_terminal("status", "out", "--watch")
        terminal.wait_for("1 failed, 1 success", "job0")
        good("out/job2")
        terminal.wait_for("1 failed, 2 success", "job2")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    terminal.interrupt()
    assert terminal.end() == 130
