"""Runs of a job: pipelines, child processes, implicit runs, and the trace that they make, checked from the spool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from stack import wait_until

from otel_stageio import Manifest, Pipeline, RunRecord, StageFailed, StageIO, recover
from otel_stageio.sinks.files import AppendFile
from otel_stageio.testing import FixedClock, Records, fixed

PYTHON = sys.executable


def script(tmp_path: Path, body: str, name: str = "script.py") -> str:
    path = tmp_path / name
    path.write_text(textwrap.dedent(body), encoding="utf-8")
    return str(path)


def by_name(spans: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {span["name"]: span for span in spans}


# -- one run is one trace --------------------------------------------------------------------------------------------


def test_one_run_is_one_trace_with_parents_right_across_processes(records: Records, tmp_path: Path) -> None:
    asr = script(
        tmp_path,
        """
        import subprocess, sys
        from otel_stageio import StageIO
        with StageIO("asr") as io:
            with io.span("transcribe"):
                pass
            subprocess.run([sys.executable, "-c", "from otel_stageio import StageIO\\nwith StageIO('helper'): pass"],
                           check=True)
        """,
    )
    with Pipeline("subtitles", records.job) as run:
        run.command("demux", ["true"])
        run.command("asr", [PYTHON, asr])
        with run.stage("mux") as io, io.span("remux"):
            pass
    spans = records.spans()
    assert {span["traceId"] for span in spans} == {run.trace_id}
    found = by_name(spans)
    root = found["RUN subtitles"]
    assert root.get("parentSpanId") is None
    assert root["kind"] == 2  # SERVER
    parents = {
        "demux": "RUN subtitles",
        "true": "demux",
        "asr": "RUN subtitles",
        Path(PYTHON).name: "asr",
        "transcribe": Path(PYTHON).name,
        "helper": Path(PYTHON).name,
        "mux": "RUN subtitles",
        "remux": "mux",
    }
    assert {name: found[name]["parentSpanId"] for name in parents} == {
        name: found[parent]["spanId"] for name, parent in parents.items()
    }
    assert len(spans) == len(parents) + 1
    assert found["true"]["kind"] == 3  # CLIENT
    assert found["true"]["attributes"]["process.exit.code"] == 0
    for span in spans:
        assert root["startTimeUnixNano"] <= span["startTimeUnixNano"]
        assert span["endTimeUnixNano"] <= root["endTimeUnixNano"]
    assert root["attributes"]["cicd.pipeline.result"] == "success"
    assert root["attributes"]["cicd.pipeline.run.id"] == run.run_id


def test_a_program_that_opens_its_own_stage_is_one_stage_and_one_attempt(records: Records, tmp_path: Path) -> None:
    asr = script(
        tmp_path,
        """
        from otel_stageio import StageIO
        with StageIO("asr") as io:
            log = io.get_stage_logger()
            log.info("from the logger")
            log.debug("details")
            print("from print")
            io.set_config({"beam_size": 5})
            io.track_output(io.save_json({}, "segments.json"), "transcript")
            io.event("chunk", number=1)
            io.otel_span.set_attribute("mine", 3)
        """,
    )
    with Pipeline("subtitles", records.job) as run:
        result = run.command("asr", [PYTHON, asr])
    assert (result.returncode, result.status, result.stage) == (0, "success", "asr")
    manifest = records.manifest("asr")
    assert (manifest["attempt"], manifest["attempts"], manifest["config"]) == (1, [], {"beam_size": 5})
    assert manifest["outputs"][0]["size_bytes"] == 2
    (span,) = [span for span in records.spans("asr") if span["name"] == "asr"]
    assert span["attributes"]["mine"] == 3
    assert span["attributes"]["stageio.config.beam_size"] == 5
    assert [event["name"] for event in span["events"]] == ["stageio.config", "stageio.artifact", "chunk"]
    # Said once each: by the program's own logger, and by what the pipeline reads of its output.
    for text in ("from the logger", "from print"):
        assert records.log("asr").count(text) == 1
        assert records.pipeline_log().count(text) == 1
    assert records.log("asr").count("details") == 1


def test_what_a_program_prints_is_in_the_stages_log_line_by_line(records: Records) -> None:
    code = "printf 'one\\ntwo\\n'; echo three >&2; printf '10%%\\r50%%\\r100%%\\n'; printf 'no newline'"
    with Pipeline("p", records.job) as run:
        run.command("vad", ["sh", "-c", code])
    texts = [line.split("] ", 3)[-1] for line in (records.log("vad")).splitlines()]
    assert sorted(texts) == sorted(["one", "two", "three", "100%", "no newline"])


def test_a_failed_command_raises_and_says_why(records: Records) -> None:
    expected = pytest.raises(StageFailed, match="asr: sh exited with code 3: no model")
    with expected as raised, Pipeline("p", records.job) as run:
        run.command("asr", ["sh", "-c", "echo no model >&2; exit 3"])
    assert raised.value.result.returncode == 3
    manifest = records.manifest("asr")
    assert (manifest["status"], manifest["exit_code"]) == ("failed", 3)
    assert manifest["errors"][0]["message"] == "sh exited with code 3: no model"
    root = by_name(records.spans())["RUN p"]
    assert (root["attributes"]["cicd.pipeline.result"], root["status"]["code"]) == ("failure", 2)
    assert RunRecord.load(records.job).status == "failed"


@pytest.mark.parametrize(
    ("argv", "returncode", "status", "why"),
    [
        (["sh", "-c", "exit 0"], 0, "success", None),
        (["sh", "-c", "exit 7"], 7, "failed", "code 7"),
        (["sh", "-c", "kill -KILL $$"], -9, "crashed", "SIGKILL"),
        (["sh", "-c", "kill -SEGV $$"], -11, "crashed", "SIGSEGV"),
        (["no-such-program"], 127, "failed", "No such file"),
        (["/"], 126, "failed", "Permission denied"),
    ],
)
def test_how_a_command_ended(records: Records, argv: list[str], returncode: int, status: str, why: str | None) -> None:
    with Pipeline("p", records.job) as run:
        result = run.command("asr", argv, check=False)
    assert (result.returncode, result.status) == (returncode, status)
    assert records.manifest("asr")["status"] == status
    (stage,) = [span for span in records.spans("asr") if span["name"] == "asr"]
    if why is not None:
        assert why in records.manifest("asr")["errors"][0]["message"]
        assert why in stage["status"]["message"]
    if returncode < 0:
        assert stage["attributes"]["stageio.signal"] == signal.Signals(-returncode).name


def test_a_timeout_ends_the_whole_process_group(records: Records, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    with Pipeline("p", records.job) as run:
        result = run.command("asr", ["sh", "-c", f"sleep 60 & echo $! > {marker}; wait"], timeout=0.5, check=False)
    assert result.status == "timeout"
    assert records.manifest("asr")["status"] == "timeout"
    state = Path(f"/proc/{marker.read_text().strip()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_program_that_ignores_sigterm_is_killed(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_stageio.pipeline.child.GRACE_SECONDS", 0.2)
    with Pipeline("p", records.job) as run:
        result = run.command("asr", ["sh", "-c", "trap '' TERM; sleep 60"], timeout=0.3, check=False)
    assert (result.status, result.returncode) == ("timeout", -9)


def test_a_daemon_that_keeps_the_output_open_does_not_keep_the_stage(records: Records) -> None:
    with Pipeline("p", records.job) as run:
        result = run.command("asr", ["sh", "-c", "sleep 30 & echo done"])
    assert result.status == "success"
    assert result.duration < 25


def test_the_programs_word_about_itself_stands(records: Records, tmp_path: Path) -> None:
    say = script(
        tmp_path,
        """
        import sys
        from otel_stageio import StageIO
        io = StageIO("asr")
        if sys.argv[1] != "nothing":
            io.finalize(sys.argv[1], reason="because")
        sys.exit(int(sys.argv[2]))
        """,
    )
    with Pipeline("p", records.job) as run:
        for word, code, status in (
            ("skipped", "0", "skipped"),
            ("failed", "0", "failed"),
            ("success", "1", "failed"),  # no success that was not reached
            ("nothing", "0", "success"),  # ended without a word: the exit code is its word
            ("nothing", "2", "failed"),
        ):
            assert run.command("asr", [PYTHON, say, word, code], check=False).status == status
            assert records.manifest("asr")["status"] == status


def test_a_joined_program_that_is_killed_is_crashed_with_all_it_recorded(records: Records, tmp_path: Path) -> None:
    die = script(
        tmp_path,
        """
        import os, signal
        from otel_stageio import StageIO
        with StageIO("asr") as io:
            io.set_config({"beam_size": 5})
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    with Pipeline("p", records.job) as run:
        assert run.command("asr", [PYTHON, die], check=False).status == "crashed"
    assert records.manifest("asr")["config"] == {"beam_size": 5}
    assert records.manifest("asr")["status"] == "crashed"


def test_wrong_calls_are_refused_at_the_call(records: Records) -> None:
    with pytest.raises(ValueError, match="name"):
        Pipeline("", records.job)
    with pytest.raises(RuntimeError, match="with"):
        Pipeline("p", records.job).stage("asr")
    with Pipeline("p", records.job) as run:
        with pytest.raises(TypeError, match="list"):
            run.command("asr", "ls -l")
        with pytest.raises(ValueError, match="empty"):
            run.command("asr", [])
        with pytest.raises(ValueError, match="NUL"):
            run.command("asr", ["a\0b"])
        with pytest.raises(ValueError, match="positive"):
            run.command("asr", ["true"], timeout=0)
    assert not (records.job / "06_asr").exists()
    with pytest.raises(RuntimeError, match="new one"), run:
        pass


def test_a_pipeline_that_is_terminated_takes_its_children_along(records: Records, tmp_path: Path) -> None:
    pipeline = script(
        tmp_path,
        """
        import os, sys
        from otel_stageio import Pipeline
        with Pipeline("p", os.environ["JOB"]) as run:
            run.command("asr", ["sh", "-c", "echo $$ > $JOB/pid; echo up; sleep 60"])
        """,
    )
    process = subprocess.Popen(
        [PYTHON, pipeline], env={**os.environ, "JOB": str(records.job)}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "up" not in process.stdout.readline():
        pass
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    child = Path("/proc") / (records.job / "pid").read_text().strip()
    assert not child.exists()
    assert records.manifest("asr")["status"] == "cancelled"
    assert records.run()["status"] == "cancelled"
    assert by_name(records.spans())["RUN p"]["attributes"]["cicd.pipeline.result"] == "cancellation"


def test_the_context_reaches_a_child_through_traceparent(records: Records) -> None:
    with Pipeline("p", records.job) as run:
        run.command("asr", ["sh", "-c", "echo $TRACEPARENT"])
    client = by_name(records.spans("asr"))["sh"]
    expected = f"00-{run.trace_id}-{client['spanId']}-"
    assert expected in records.log("asr")


# -- runs ------------------------------------------------------------------------------------------------------------


def test_without_an_owner_stages_join_one_run_and_the_same_stage_again_opens_the_next(records: Records) -> None:
    for name in ("demux", "asr", "mux"):
        with StageIO(name, records.job):
            pass
    first = RunRecord.load(records.job)
    assert (first.attempt, first.implicit, [item.stage for item in first.stages]) == (1, True, ["demux", "asr", "mux"])
    with StageIO("asr", records.job) as io:
        second_trace = io.trace_id
    second = RunRecord.load(records.job)
    assert second.attempt == 2
    assert second.previous is not None
    assert second.previous.trace_id == first.trace_id
    assert second_trace != first.trace_id
    assert [run.attempt for run in second.earlier] == [1]
    assert second.pipeline_log != first.pipeline_log


def test_the_implicit_runs_root_span_is_written_once_when_it_is_over(records: Records) -> None:
    for name in ("demux", "asr"):
        with StageIO(name, records.job):
            pass
    assert not [span for span in records.spans() if span["name"].startswith("RUN")]
    recover(records.job)
    recover(records.job)
    (root,) = [span for span in records.spans() if span["name"].startswith("RUN")]
    stages = [span for span in records.spans() if not span["name"].startswith("RUN")]
    assert root["endTimeUnixNano"] >= max(span["endTimeUnixNano"] for span in stages)
    assert {span["parentSpanId"] for span in stages} == {root["spanId"]}
    assert root["attributes"]["cicd.pipeline.result"] == "success"


def test_the_process_that_opened_a_run_and_outlives_the_others_closes_it(records: Records) -> None:
    code = """
        import os, subprocess, sys
        from otel_stageio import StageIO
        with StageIO("demux", os.environ["JOB"]): pass
        subprocess.run([sys.executable, "-c", "from otel_stageio import StageIO; StageIO('asr').finalize()"],
                       env={**os.environ, "OUTPUT_DIR": os.environ["JOB"]}, check=True)
        """
    subprocess.run(
        [PYTHON, "-c", textwrap.dedent(code)], env={**os.environ, "JOB": str(records.job)}, check=True, timeout=60
    )
    assert sorted(span["name"] for span in records.spans()) == sorted(["demux", "asr", f"RUN {records.job.name}"])
    assert records.run()["status"] == "success"


def test_each_attempt_is_its_own_trace_linked_to_the_last(records: Records) -> None:
    traces = []
    for _ in range(3):
        with Pipeline("p", records.job) as run, run.stage("asr"):
            traces.append(run.trace_id)
    assert len(set(traces)) == 3
    roots = [span for span in records.spans() if span["name"] == "RUN p"]
    assert [span.get("links", [{}])[0].get("traceId") for span in roots] == [None, *traces[:2]]
    manifest = Manifest.load(records.job / "06_asr")
    assert (manifest.attempt, [former.attempt for former in manifest.attempts]) == (3, [1, 2])
    assert [former.trace.trace_id for former in manifest.attempts] == traces[:2]


def test_a_stage_may_run_several_times_inside_one_run(records: Records) -> None:
    with Pipeline("p", records.job) as run:
        for _ in range(3):
            with run.stage("asr"):
                pass
    assert len([span for span in records.spans() if span["name"] == "asr"]) == 3
    assert records.run()["attempt"] == 1
    assert {span["traceId"] for span in records.spans()} == {run.trace_id}


def test_a_run_whose_owner_was_killed_is_closed_by_the_next(records: Records, tmp_path: Path) -> None:
    code = """
        import os, signal
        from otel_stageio import Pipeline
        with Pipeline("p", os.environ["JOB"]) as run, run.stage("asr"):
            os.kill(os.getpid(), signal.SIGKILL)
        """
    subprocess.run([PYTHON, "-c", textwrap.dedent(code)], env={**os.environ, "JOB": str(records.job)}, check=False)
    assert records.run()["status"] == "running"
    with Pipeline("p", records.job):
        pass
    first, second = [span for span in records.spans() if span["name"] == "RUN p"]
    assert first["attributes"]["cicd.pipeline.result"] == "error"
    assert second["links"][0]["spanId"] == first["spanId"]
    assert RunRecord.load(records.job).earlier[0].status == "crashed"


def test_a_traceparent_from_outside_is_the_runs_parent(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with Pipeline("p", records.job) as run, run.stage("asr"):
        pass
    assert run.trace_id == "0af7651916cd43dd8448eb211c80319c"
    found = by_name(records.spans())
    assert found["RUN p"]["parentSpanId"] == "b7ad6b7169203331"
    assert found["asr"]["parentSpanId"] == found["RUN p"]["spanId"]
    # The same for runs without an owner: stages are children of the run, not of the span outside.
    other = Records(records.job.parent / "other")
    for name in ("demux", "asr"):
        with StageIO(name, other.job):
            pass
    assert {span["parentSpanId"] for span in other.spans()} == {other.run()["root_span_id"]}
    assert other.run()["parent_span_id"] == "b7ad6b7169203331"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    ],
)
def test_a_malformed_traceparent_is_no_parent(records: Records, monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    monkeypatch.setenv("TRACEPARENT", header)
    with StageIO("asr", records.job):
        pass
    assert records.run()["parent_span_id"] is None


def test_a_stale_hand_over_from_another_job_is_no_hand_over(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_STAGEIO_RUN_ID", "0" * 32)
    monkeypatch.setenv("OTEL_STAGEIO_STAGE", "asr.1")
    monkeypatch.setenv("OTEL_STAGEIO_JOB", "/elsewhere")
    with StageIO("asr", records.job):
        pass
    assert records.manifest("asr")["status"] == "success"
    assert records.run()["attempt"] == 1


def test_one_pipeline_log_per_run_even_across_midnight(records: Records) -> None:
    clock = FixedClock()
    with fixed(clock):
        with Pipeline("p", records.job) as run:
            with run.stage("asr") as io:
                io.get_stage_logger("CRITICAL").info("before")
            clock.advance(86400)
            with run.stage("mux") as io:
                io.get_stage_logger("CRITICAL").info("after")
        with Pipeline("p", records.job):
            pass
        with Pipeline("p", records.job):  # two runs in the same second
            pass
    logs = sorted((records.job / "logs").iterdir())
    assert len(logs) == 3
    assert ["before" in log.read_text() and "after" in log.read_text() for log in logs].count(True) == 1


def test_eight_processes_starting_together_share_one_run_and_one_pipeline_log(records: Records, tmp_path: Path) -> None:
    code = script(
        tmp_path,
        """
        import os, sys
        from otel_stageio import StageIO
        sys.stdin.readline()
        with StageIO(f"stage{sys.argv[1]}", os.environ["JOB"]) as io:
            log = io.get_stage_logger("CRITICAL")
            for number in range(200):
                log.info("%s %d %s", sys.argv[1], number, "x" * 500)
        """,
    )
    processes = [
        subprocess.Popen(
            [PYTHON, code, str(number)], env={**os.environ, "JOB": str(records.job)}, stdin=subprocess.PIPE, text=True
        )
        for number in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0] * 8
    (log,) = (records.job / "logs").iterdir()
    lines = log.read_text().splitlines()
    assert len(lines) == 8 * 200
    assert all(line.startswith("[") and line.endswith("x" * 500) for line in lines)
    run = RunRecord.load(records.job)
    assert (run.attempt, len(run.stages)) == (1, 8)
    assert {span["traceId"] for span in records.spans()} == {run.trace_id}


def test_a_run_among_strangers_stays_open_for_the_ones_that_start_late(records: Records) -> None:
    code = (
        "import os, sys\nfrom otel_stageio import StageIO\nwith StageIO(sys.argv[1], os.environ['JOB']):\n    input()"
    )

    def start(stage: str) -> subprocess.Popen[str]:
        env = {**os.environ, "JOB": str(records.job)}
        process = subprocess.Popen([PYTHON, "-c", code, stage], env=env, stdin=subprocess.PIPE, text=True)
        wait_until(lambda: bool(list((records.job / ".stageio" / "spool").glob(f"{stage}.*.logs.jsonl"))))
        return process

    first, second = start("vad"), start("demux")
    for process in (second, first):  # the one that opened the run is the last of those that are there
        process.communicate("\n", timeout=60)
    start("asr").communicate("\n", timeout=60)
    run = RunRecord.load(records.job)
    assert (run.attempt, [entry.stage for entry in run.stages]) == (1, ["vad", "demux", "asr"])


def test_a_file_whose_last_line_is_being_written_is_not_torn(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.log"
    record = b"x" * (1 << 20) + b"\n"
    writer = AppendFile(path)
    thread = threading.Thread(target=lambda: [writer.write(record) for _ in range(200)])
    thread.start()
    while thread.is_alive():
        AppendFile(path).close()
        late = AppendFile(path)
        late.write(b"y\n")
        late.close()
    assert set(path.read_bytes().split(b"\n")[:-1]) == {record[:-1], b"y"}


def test_an_applications_span_around_a_pipeline_is_its_parent(records: Records) -> None:
    outer = trace.SpanContext(0xA, 0xB, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(outer)), Pipeline("p", records.job) as run, run.stage("asr"):
        pass
    assert int(run.trace_id, 16) == 0xA
    assert by_name(records.spans())["RUN p"]["parentSpanId"] == f"{0xB:016x}"


def test_no_parent_is_missing_in_a_trace(records: Records) -> None:
    """A span outside of all stages is seen by nobody, where the application has no provider: it is nobody's parent."""
    with StageIO("demux", records.job.parent / "warm"):  # makes our provider the global one
        pass
    tracer = trace.get_tracer("application")
    with tracer.start_as_current_span("outer"), Pipeline("p", records.job) as run:
        with tracer.start_as_current_span("first half"), run.stage("asr"), tracer.start_as_current_span("inside"):
            pass
        with tracer.start_as_current_span("second half"):
            run.command("mux", ["true"])
    spans = records.spans()
    assert {span["name"] for span in spans} == {"RUN p", "asr", "inside", "mux", "true"}
    assert {span.get("parentSpanId") for span in spans} - {None} <= {span["spanId"] for span in spans}


def test_attributes_of_the_run_are_on_its_root_span(records: Records) -> None:
    with Pipeline("p", records.job, stages=["asr", "mux"], attributes={"film": 7, "token": "hunter2222"}):
        pass
    root = by_name(records.spans())["RUN p"]
    assert root["attributes"]["film"] == 7
    assert root["attributes"]["token"] == "[redacted]"
    assert records.run()["planned"] == ["asr", "mux"]


def test_a_stage_whose_end_was_written_but_not_its_span_gets_its_span(records: Records, tmp_path: Path) -> None:
    """The program said how it ended, and its parent, who holds the span, was killed before it could."""
    asr = script(
        tmp_path,
        """
        import os, signal
        from otel_stageio import StageIO
        with StageIO("asr") as io:
            io.add_warning("careful")
        os.kill(os.getppid(), signal.SIGKILL)
        """,
    )
    code = f"""
        import os, sys
        from otel_stageio import Pipeline
        with Pipeline("p", os.environ["JOB"]) as run:
            run.command("asr", [sys.executable, {asr!r}])
        """
    environment = {**os.environ, "JOB": str(records.job)}
    done = subprocess.run([PYTHON, "-c", textwrap.dedent(code)], env=environment, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert "asr" not in by_name(records.spans())
    recover(records.job)
    recover(records.job)
    # The span of the program's process was open as well.
    assert sorted(span["name"] for span in records.spans()) == ["RUN p", "asr", "python"]
    span = by_name(records.spans())["asr"]
    assert span["spanId"] == records.manifest("asr")["trace"]["span_id"]
    assert [event["name"] for event in span["events"]] == ["stageio.warning"]


def test_a_program_runs_and_is_judged_though_nothing_can_be_recorded_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_in_production: None
) -> None:
    """An error of our own in the making of a record."""
    from otel_stageio.stages import recorder

    with Pipeline("films", tmp_path / "job") as run:
        monkeypatch.setattr(recorder.Spool, "__init__", lambda *_, **__: 1 / 0)
        assert run.command("asr", ["true"]).status == "success"
        assert run.command("mux", ["false"], check=False).status == "failed"
