"""Runs of which something else starts the stages: begun, joined and ended by a scheduler's script or a task."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
from helpers import (
    cli,
    environment,
    kill_after,
    pipeline_log,
    read_manifest,
    run_command,
    run_python,
    start_python,
    write_script,
)
from opentelemetry import trace

from otel_stageio import Pipeline, RunRecord, StageIO, StagesRunning, begin_run, end_run, join_run, recover
from otel_stageio.testing import Records

pytestmark = pytest.mark.usefixtures("no_terminal")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "out" / "film"


def spans(job: Path) -> list[dict[str, object]]:
    return Records(job).spans()


def root_of(job: Path) -> dict[str, object]:
    (root,) = [span for span in spans(job) if str(span["name"]).startswith("RUN ")]
    return root


# -- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_is_open_while_nobody_lives_and_is_one_trace(job: Path) -> None:
    handed = json.loads(json.dumps(begin_run("subtitles", job, stages=["demux", "asr"])))
    script = write_script(job.parent / "stage.py", "import sys\nfrom otel_stageio import StageIO\n"
                          "with StageIO(sys.argv[1]) as io: print(io.trace_id)")  # fmt: skip
    for stage in ("demux", "asr"):
        done = run_python(script, stage, OTEL_STAGEIO_CONSOLE="off", **handed)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip() == handed["TRACEPARENT"].split("-")[1]
        recover(job)
        assert RunRecord.load(job).status == "running"
    assert end_run(job) == "success"
    record = RunRecord.load(job)
    assert (record.status, record.attempt, len(record.stages)) == ("success", 1, 2)
    root = root_of(job)
    assert root["traceId"] == record.trace_id
    assert {span["traceId"] for span in spans(job)} == {record.trace_id}
    assert {span.get("parentSpanId") or None for span in spans(job)} == {None, root["spanId"]}
    assert [line.split("] ")[-1] for line in pipeline_log(job).read_text().splitlines()] == [
        "subtitles: run 1 of film begun",
        "subtitles: success",
    ]


def test_a_stage_that_is_told_of_nothing_but_the_directory_is_a_part_of_it(job: Path) -> None:
    begin_run("subtitles", job)
    with StageIO("demux", job):
        pass
    with StageIO("demux", job):  # the scheduler has run it again
        pass
    assert end_run(job) == "success"
    assert [item.attempt for item in RunRecord.load(job).stages] == [1, 2]


def test_a_pipeline_that_a_scheduler_starts_is_a_part_of_it(job: Path) -> None:
    begin_run("subtitles", job)
    with Pipeline("inner", job) as run, run.stage("asr"):
        pass
    record = RunRecord.load(job)
    assert (record.attempt, record.pipeline, record.status) == (1, "subtitles", "running")
    assert end_run(job) == "success"


def test_what_was_to_come_and_did_not_happen_is_no_success(job: Path) -> None:
    begin_run("subtitles", job, stages=["01_demux", "asr"])
    with StageIO("demux", job):
        pass
    assert end_run(job) == "incomplete"
    assert end_run(job) == "incomplete"  # a script that is run twice


def test_a_run_in_which_nothing_happened_is_no_success(job: Path) -> None:
    begin_run("subtitles", job)
    assert end_run(job) == "incomplete"


def test_the_last_attempt_at_each_stage_says_how_it_went(job: Path) -> None:
    begin_run("subtitles", job)
    with pytest.raises(RuntimeError), StageIO("asr", job):
        raise RuntimeError("no GPU")
    with StageIO("asr", job):
        pass
    with pytest.raises(RuntimeError), StageIO("mux", job):
        raise RuntimeError("no room")
    assert end_run(job) == "failed"


def test_the_scheduler_may_know_better_but_not_of_a_success(job: Path) -> None:
    begin_run("subtitles", job)
    with pytest.raises(ValueError, match="one of failed, cancelled, timeout"):
        end_run(job, "success")
    assert end_run(job, "cancelled") == "cancelled"


def test_the_next_run_of_the_job_ends_one_that_was_forgotten(job: Path) -> None:
    begin_run("subtitles", job)
    with StageIO("demux", job):
        pass
    begin_run("subtitles", job)
    record = RunRecord.load(job)
    assert (record.attempt, record.status) == (2, "running")
    assert [run.status for run in record.earlier] == ["incomplete"]  # it ended without saying how


def test_a_job_without_such_a_run_says_so(job: Path) -> None:
    with StageIO("demux", job):
        pass
    with pytest.raises(LookupError, match="was not begun by begin_run"):
        end_run(job)
    with pytest.raises(ValueError, match="name of its pipeline"):
        begin_run(" ", job)


# -- what somebody else knows to be dead ------------------------------------------------------------------------------

OPEN = """
    import sys
    from otel_stageio import StageIO
    io = StageIO(sys.argv[1], sys.argv[2])
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_a_stage_on_another_host_is_dead_once_somebody_who_must_know_says_so(job: Path) -> None:
    begin_run("subtitles", job)
    script = write_script(job.parent / "open.py", OPEN)
    kill_after(start_python(script, "asr", job, OTEL_STAGEIO_HOST_ID="gpu-1"), 1)
    assert recover(job) == []  # only silence would tell
    with pytest.raises(StagesRunning, match="asr may still be running"):
        end_run(job)
    assert RunRecord.load(job).status == "running"
    assert end_run(job, dead={"06_asr": "slurm: NODE_FAIL"}) == "crashed"
    manifest = read_manifest(job / "06_asr")
    assert (manifest["status"], manifest["cause"]) == ("crashed", "slurm: NODE_FAIL")


def test_a_stage_that_this_machine_knows_to_live_is_not_dead_whatever_is_said(job: Path) -> None:
    process = start_python(write_script(job.parent / "open.py", OPEN), "asr", job)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    assert recover(job, dead={"asr": "the node failed"}) == []
    process.communicate("\n")
    assert read_manifest(job / "06_asr")["status"] == "incomplete"


def test_one_that_was_only_cut_off_has_the_last_word(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start_python(write_script(job.parent / "open.py", OPEN), "asr", job, OTEL_STAGEIO_HOST_ID="gpu-1")
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    monkeypatch.setattr("otel_stageio.recovery.life.seize", lambda fd: True)  # from another host its lock is not seen
    assert recover(job, dead={"asr": "slurm: NODE_FAIL"}) == ["asr.1"]
    assert read_manifest(job / "06_asr")["status"] == "crashed"
    process.communicate("\n")
    assert read_manifest(job / "06_asr")["status"] == "incomplete"


def test_a_stage_may_be_asked_about_while_the_next_seems_to_run(job: Path) -> None:
    """On Kubernetes, before a stage is tried again: what the pod before it has left open is another stage."""
    command = ["run", str(job), "--stage", "demux", "--output", f"{job}/a", "--", "sh", "-c", f"echo > '{job}/a'"]
    assert run_command(cli(*command), cwd=job.parent.parent).returncode == 0
    kill_after(start_python(write_script(job.parent / "open.py", OPEN), "asr", job, OTEL_STAGEIO_HOST_ID="gpu-1"), 1)
    assert run_command(cli("why", job, "demux"), cwd=job.parent).returncode == 0
    assert "asr is running" in run_command(cli("why", job, "asr"), cwd=job.parent).stderr


def test_one_attempt_of_several_can_be_named(job: Path) -> None:
    script = write_script(job.parent / "open.py", OPEN)
    for host in ("gpu-1", "gpu-2"):
        kill_after(start_python(script, "asr", job, OTEL_STAGEIO_HOST_ID=host), 1)
    assert recover(job, dead={"asr.2": "its node failed"}) == ["asr.2"]
    assert recover(job, dead={"asr": "its node failed"}) == ["asr.1"]


@pytest.mark.parametrize("dead", [["asr"], "asr", {"asr": None}, {6: "gone"}])
def test_who_is_dead_is_said_with_a_cause(job: Path, dead: object) -> None:
    with pytest.raises(TypeError, match="dead is a mapping of stages to causes"):
        recover(job, dead=dead)  # type: ignore[arg-type]


# -- tasks that share a process ---------------------------------------------------------------------------------------


def test_tasks_of_two_jobs_in_one_process_stay_apart(tmp_path: Path) -> None:
    handed = {name: begin_run("subtitles", tmp_path / name) for name in ("a", "b")}
    both_open = threading.Barrier(2)

    def task(name: str) -> None:
        with join_run(handed[name]), StageIO("asr") as io:
            both_open.wait()
            io.add_config("job", name)

    threads = [threading.Thread(target=task, args=(name,)) for name in handed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in handed:
        assert read_manifest(tmp_path / name / "06_asr")["config"] == {"job": name}
        assert end_run(tmp_path / name) == "success"


def test_what_the_engine_does_in_other_threads_is_not_the_stages(job: Path) -> None:
    """It may be about the task of another job, which has not opened its stage yet."""
    traces = []

    def engine() -> None:
        logging.getLogger("engine").warning("the task of another job begins")
        with trace.get_tracer("engine").start_as_current_span("another task") as span:
            traces.append(span.get_span_context().trace_id)

    for shared in (True, False):
        with join_run(begin_run("subtitles", job)) if shared else nullcontext(), StageIO("asr", job) as io:
            thread = threading.Thread(target=engine)
            thread.start()
            thread.join()
            assert (traces.pop() == int(io.trace_id, 16)) is not shared
        assert ("another job" in (job / "06_asr" / "stage.log").read_text()) is not shared


def test_a_span_of_the_engine_in_the_same_trace_is_the_stages_parent(job: Path) -> None:
    with Pipeline("subtitles", job) as run:
        handed = run.environment
        engine = trace.SpanContext(int(run.trace_id, 16), 0xE, is_remote=True, trace_flags=trace.TraceFlags(1))
        with trace.use_span(trace.NonRecordingSpan(engine)), join_run(handed), StageIO("asr"):
            pass
        with join_run(handed), StageIO("mux"):
            pass
    parents = {str(span["name"]): span.get("parentSpanId") for span in spans(job)}
    assert parents["asr"] == f"{0xE:016x}"
    assert parents["mux"] == root_of(job)["spanId"]


def test_what_was_not_handed_over_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="OTEL_STAGEIO_RUN_ID and OUTPUT_DIR is missing"), join_run({}):
        pass


# -- in a shell -------------------------------------------------------------------------------------------------------


def test_a_shell_script_needs_three_commands(job: Path) -> None:
    program = """
        eval "$(otel-stageio begin "$1" --name subtitles --stages demux,asr)"
        otel-stageio run "$OUTPUT_DIR" --stage demux -- echo hello || exit 9
        otel-stageio run "$OUTPUT_DIR" --stage asr -- sh -c 'exit 3'
        otel-stageio end "$1"
    """
    tool = write_script(job.parent / "bin" / "otel-stageio", f'#!/bin/sh\nexec {" ".join(map(repr, cli()))} "$@"\n')
    tool.chmod(0o755)
    env = environment()
    env["PATH"] = f"{tool.parent}:{env['PATH']}"
    done = run_command(["sh", "-c", program, "sh", str(job)], cwd=job.parent, env=env)
    assert (done.returncode, done.stderr) == (1, "")
    assert "failed" in done.stdout
    record = RunRecord.load(job)
    assert (record.status, [item.stage for item in record.stages]) == ("failed", ["demux", "asr"])
    assert len({span["traceId"] for span in spans(job)}) == 1


def test_a_loop_over_jobs_in_one_shell_makes_a_trace_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = set()
    for name in ("a", "b", "c"):
        handed = begin_run("subtitles", tmp_path / name)
        for variable, value in handed.items():  # what `eval "$(otel-stageio begin a)"` leaves in a shell
            monkeypatch.setenv(variable, value)
        with StageIO("asr") as io:
            traces.add(io.trace_id)
        assert end_run(tmp_path / name) == "success"
        assert root_of(tmp_path / name).get("parentSpanId") in (None, "")
    assert len(traces) == 3


def test_a_span_around_everything_is_around_the_run(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{7:032x}-{8:016x}-01")
    begin_run("subtitles", job)
    assert end_run(job) == "incomplete"
    assert (root_of(job)["traceId"], root_of(job)["parentSpanId"]) == (f"{7:032x}", f"{8:016x}")


def test_a_stage_that_comes_after_the_end_is_of_that_run_only_if_it_was_told_of_it(job: Path) -> None:
    handed = begin_run("subtitles", job)
    with StageIO("demux", job):
        pass
    assert end_run(job) == "success"
    with join_run(handed), StageIO("asr") as late:
        assert late.trace_id == RunRecord.load(job).trace_id
    with StageIO("mux", job) as stranger:
        pass
    record = RunRecord.load(job)
    assert (record.attempt, record.trace_id) == (2, stranger.trace_id)


def test_many_jobs_at_once(tmp_path: Path) -> None:
    jobs = [str(tmp_path / f"job{number}") for number in range(5)]
    done = run_command(cli("begin", *jobs, "--name", "subtitles", "--json"), cwd=tmp_path)
    assert sorted(json.loads(done.stdout)) == jobs
    for path in jobs[1:]:
        with StageIO("asr", path):
            pass
    kill_after(start_python(write_script(tmp_path / "open.py", OPEN), "asr", jobs[0], OTEL_STAGEIO_HOST_ID="gpu-1"), 1)
    done = run_command(cli("end", tmp_path, "--json"), cwd=tmp_path)
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer.pop(jobs[0])["problem"].startswith("asr may still be running")
    assert {each["status"] for each in answer.values()} == {"success"}
    done = run_command(cli("end", tmp_path, "--dead", "asr=the node failed"), cwd=tmp_path)
    assert done.returncode == 1
    assert "crashed" in done.stdout
    for arguments, code in ((["--dead", "asr"], 2), (["--status", "success"], 2)):
        assert run_command(cli("end", tmp_path, *arguments), cwd=tmp_path).returncode == code
    assert run_command(cli("end", tmp_path / "nothing"), cwd=tmp_path).returncode == 1


def test_what_can_be_no_job_directory_is_said_before_anything_is_begun(tmp_path: Path) -> None:
    (tmp_path / "jobs.txt").write_text("a\n\n")
    for wrong, words in (("", "is blank"), ("jobs.txt", "is a file")):
        done = run_command(cli("begin", "a", wrong), cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
    assert not (tmp_path / "a").exists()
    begin_run("subtitles", tmp_path / "b")
    assert "is blank" in run_command(cli("end", ""), cwd=tmp_path).stderr  # and not the runs below this directory
    assert RunRecord.load(tmp_path / "b").status == "running"
    done = run_command(cli("begin", "/proc/none"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "/proc/none cannot be written to" in done.stderr


def test_beginning_again_says_that_a_run_was_open(tmp_path: Path) -> None:
    for again in (False, True):
        done = run_command(cli("begin", "a", "b", "a"), cwd=tmp_path)
        assert (done.returncode, "2 jobs had a run that nobody has ended" in done.stderr) == (0, again)
    assert RunRecord.load(tmp_path / "a").attempt == 2
