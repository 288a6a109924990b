"""How a stage begins and ends: with blocks, decorators, exceptions, signals, exits and forks, as real processes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from otel_stageio import StageIO, stage
from otel_stageio.testing import FixedClock, Records, SequentialIds, fixed


def run_script(body: str, job: Path, **env: str) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(body)
    environment = {**os.environ, "JOB": str(job), **env}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def started(body: str, job: Path) -> subprocess.Popen[str]:
    """A process that has said "ready" on its output."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(body)],
        env={**os.environ, "JOB": str(job)},
        stdin=subprocess.PIPE,  # who runs the tests may have none, and then nothing is waited for
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


# -- the record ------------------------------------------------------------------------------------------------------


def test_the_manifest_says_running_from_the_first_second(records: Records) -> None:
    with StageIO("asr", records.job):
        assert records.manifest("asr")["status"] == "running"
        assert (records.job / "06_asr" / "stage.log").exists()
        assert list((records.job / "logs").glob("99_pipeline_*.log"))
    assert records.manifest("asr")["status"] == "success"


def test_the_stage_directory_holds_only_the_documented_files(records: Records) -> None:
    with StageIO("asr", records.job) as io:
        io.get_stage_logger().info("hello")
        io.save_json({}, "segments.json")
    assert sorted(path.name for path in (records.job / "06_asr").iterdir()) == [
        "manifest.json",
        "segments.json",
        "stage.log",
    ]


def test_both_logs_get_the_same_bytes(records: Records) -> None:
    with StageIO("asr", records.job) as io:
        log = io.get_stage_logger("ERROR")
        log.info("first\nsecond line\n[2025-01-01 00:00:00] [stage.asr] [INFO] forged")
        log.warning("ünïcode नमस्ते")
        log.debug("only in the stage's own log")
    own = (records.job / "06_asr" / "stage.log").read_bytes().splitlines(keepends=True)
    main = next((records.job / "logs").iterdir()).read_bytes().splitlines(keepends=True)
    assert [line for line in own if b"only in" not in line] == main
    assert sum(line.startswith(b"[") for line in own) == 3
    assert b" [2025-01-01 00:00:00] [stage.asr] [INFO] forged\n" in own


def test_with_a_fixed_clock_the_record_is_exact(records: Records) -> None:
    clock = FixedClock()
    with fixed(clock, SequentialIds()), StageIO("asr", records.job) as io:
        clock.advance(1.5)
        clock.step(-18000)  # daylight saving, NTP, a traveller
        io.add_warning("quiet")
    manifest = records.manifest("asr")
    assert manifest["duration_seconds"] == 1.5
    (span,) = records.spans("asr")
    assert span["endTimeUnixNano"] - span["startTimeUnixNano"] == 1_500_000_000
    assert span["startTimeUnixNano"] == 1_764_238_272_000_000_000


def test_config_numbers_and_well_known_words_are_on_the_span_and_the_rest_is_not(records: Records) -> None:
    with StageIO("asr", records.job) as io:
        io.set_config({"model": "large-v3", "beam_size": 5, "title": "A Secret Film", "initial_prompt": "once upon"})
    (span,) = records.spans("asr")
    assert span["attributes"]["stageio.config.model"] == "large-v3"
    assert span["attributes"]["stageio.config.beam_size"] == 5
    assert "A Secret Film" not in json.dumps(span)
    assert records.manifest("asr")["config"]["title"] == "A Secret Film"


def test_attributes_of_the_caller_do_not_replace_the_stages_identity(records: Records) -> None:
    with StageIO("asr", records.job, attributes={"film": 7, "cicd.pipeline.task.name": "forged"}):
        pass
    (span,) = records.spans("asr")
    assert span["attributes"]["film"] == 7
    assert span["attributes"]["cicd.pipeline.task.name"] == "asr"


def test_identity_survives_more_attributes_than_the_sdk_keeps(records: Records) -> None:
    with StageIO("asr", records.job) as io:
        for number in range(300):
            io.otel_span.set_attribute(f"mine.{number}", number)
    (span,) = records.spans("asr")
    assert span["attributes"]["cicd.pipeline.task.name"] == "asr"
    assert span["droppedAttributesCount"] > 0


def test_span_events_are_the_first_and_the_last_and_the_rest_is_counted(records: Records) -> None:
    with StageIO("asr", records.job) as io:
        for number in range(300):
            io.event("tick", number=number)
    (span,) = records.spans("asr")
    numbers = [event["attributes"]["number"] for event in span["events"]]
    assert numbers == [*range(50), *range(250, 300)]
    assert span["attributes"]["stageio.span_events.dropped"] == 200
    assert len([event for event in records.events("asr") if event.name == "tick"]) == 300  # the journal has them all


def test_an_event_cannot_pass_for_the_stages_end(records: Records) -> None:
    with StageIO("asr", records.job) as io:
        io.event("stageio.stage.ended", **{"stageio.stage.status": "success"})
        assert records.manifest("asr")["status"] == "running"
        io.finalize("failed")
    assert records.manifest("asr")["status"] == "failed"


def test_progress_is_in_the_manifest_and_rate_limited(records: Records) -> None:
    with fixed(FixedClock()), StageIO("asr", records.job) as io:
        for done in range(1, 1001):
            io.progress(done, 1000, "chunks")
    assert records.manifest("asr")["progress"] == {"done": 1000, "total": 1000, "unit": "chunks"}
    assert len([event for event in records.events("asr") if event.name == "stageio.progress"]) == 2


# -- how it ends -----------------------------------------------------------------------------------------------------


def test_an_exception_is_recorded_once_and_raised_again(records: Records) -> None:
    expected = pytest.raises(ValueError, match="no speech")
    with expected as raised, StageIO("asr", records.job) as io, io.span("transcribe"), io.span("decode"):
        try:
            int("x")
        except ValueError as error:
            raise ValueError("no speech") from error
    manifest = records.manifest("asr")
    (error,) = manifest["errors"]
    assert (manifest["status"], error["exception_type"], error["exception_detail"]) == (
        "failed",
        "ValueError",
        "no speech",
    )
    assert "invalid literal" in error["traceback"]
    assert error["cause"].startswith("ValueError: invalid literal")
    decode, transcribe, asr = records.spans("asr")
    assert [event["name"] for span in (decode, transcribe, asr) for event in span.get("events", ())] == ["exception"]
    assert all(span["status"]["code"] == 2 for span in (decode, transcribe, asr))
    assert asr["attributes"]["error.type"] == "ValueError"
    assert records.log("asr").count("Traceback (most recent call last)") == 2  # it and its cause
    assert raised.value.__traceback__ is not None


@pytest.mark.parametrize(
    ("error", "status", "result"),
    [
        (SystemExit(0), "success", "success"),
        (SystemExit(None), "success", "success"),
        (SystemExit(3), "failed", "failure"),
        (SystemExit("no model"), "failed", "failure"),
        (KeyboardInterrupt(), "cancelled", "cancellation"),
        (asyncio.CancelledError(), "cancelled", "cancellation"),
        (concurrent.futures.CancelledError(), "cancelled", "cancellation"),
        (MemoryError(), "failed", "failure"),
    ],
)
def test_ways_out_of_the_block_are_told_apart(records: Records, error: BaseException, status: str, result: str) -> None:
    with pytest.raises(type(error)), StageIO("asr", records.job):
        raise error
    assert records.manifest("asr")["status"] == status
    (span,) = records.spans("asr")
    assert span["attributes"]["cicd.pipeline.task.run.result"] == result
    assert span.get("status", {}).get("code", 0) == (0 if status == "success" else 2)


def test_a_skipped_stage_says_why(records: Records) -> None:
    with StageIO("translation", records.job) as io:
        io.skip("no model for en→de")
        assert records.manifest("translation")["status"] == "running"
    assert records.manifest("translation")["status"] == "skipped"
    assert records.manifest("translation")["reason"] == "no model for en→de"
    (span,) = records.spans("translation")
    assert span["attributes"]["stageio.skip.reason"] == "no model for en→de"
    assert "status" not in span


def test_a_skipped_stage_that_fails_after_all_has_failed(records: Records) -> None:
    with pytest.raises(OSError, match="disk"), StageIO("translation", records.job) as io:
        io.skip("nothing to do")
        raise OSError("disk")
    assert records.manifest("translation")["status"] == "failed"


def test_an_ended_stage_is_not_running_whatever_it_says(records: Records) -> None:
    StageIO("asr", records.job).finalize("running")
    assert records.manifest("asr")["status"] == "incomplete"


def test_a_manifest_that_is_not_saved_claims_no_success(records: Records) -> None:
    io = StageIO("asr", records.job)
    io.finalize("success", save_manifest=False)
    assert records.manifest("asr")["status"] != "success"


@pytest.mark.parametrize(
    ("ending", "code", "status"),
    [
        ("pass", 0, "success"),
        ("sys.exit(0)", 0, "success"),
        ("sys.exit(4)", 4, "failed"),
        ("raise RuntimeError('bad')", 1, "failed"),
        ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, "cancelled"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "cancelled"),
    ],
)
def test_exit_codes_are_what_they_would_be_without_us(records: Records, ending: str, code: int, status: str) -> None:
    done = run_script(
        f"""
        import os, signal, sys
        from otel_stageio import StageIO
        with StageIO("asr", os.environ["JOB"]):
            {ending}
        """,
        records.job,
    )
    assert done.returncode == code, done.stderr
    assert records.manifest("asr")["status"] == status
    assert len(records.spans("asr")) == 1


@pytest.mark.parametrize(
    ("ending", "code", "status"),
    [
        ("pass", 0, "incomplete"),
        ("sys.exit(4)", 4, "incomplete"),
        ("raise RuntimeError('bad')", 1, "failed"),
        ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, "cancelled"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "cancelled"),
        ("io.finalize('success')", 0, "success"),
    ],
)
def test_without_a_block_the_exit_closes_what_was_never_finalized(
    records: Records, ending: str, code: int, status: str
) -> None:
    done = run_script(
        f"""
        import os, signal, sys
        from otel_stageio import StageIO
        io = StageIO("asr", os.environ["JOB"])
        {ending}
        """,
        records.job,
    )
    assert done.returncode == code, done.stderr
    assert records.manifest("asr")["status"] == status
    assert len(records.spans("asr")) == 1
    if "RuntimeError" in ending:
        assert "RuntimeError: bad" in records.log("asr")


def test_a_killed_stage_is_crashed_once_the_next_stage_starts(records: Records) -> None:
    process = started(
        """
        import os
        from otel_stageio import StageIO
        with StageIO("asr", os.environ["JOB"]) as io:
            io.get_stage_logger("ERROR").info("famous last words")
            io.track_output(io.get_output_path("half.json"), "transcript")
            print("ready", flush=True)
            input()
        """,
        records.job,
    )
    process.kill()
    process.communicate()
    assert records.manifest("asr")["status"] == "running"  # a dead process writes nothing
    with StageIO("alignment", records.job):
        pass
    manifest = records.manifest("asr")
    assert manifest["status"] == "crashed"
    assert manifest["outputs"][0]["type"] == "transcript"
    (span,) = records.spans("asr")
    assert span["spanId"] == manifest["trace"]["span_id"]
    assert "famous last words" in span["status"]["message"]


def test_a_programs_own_sigterm_handler_is_respected_and_ours_is_taken_back(records: Records) -> None:
    done = run_script(
        """
        import os, signal
        from otel_stageio import StageIO
        def mine(*_): print("mine")
        signal.signal(signal.SIGTERM, mine)
        with StageIO("asr", os.environ["JOB"]):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is mine
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with StageIO("mux", os.environ["JOB"]):
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        os.environ["OTEL_STAGEIO_SIGTERM"] = "off"
        with StageIO("demux", os.environ["JOB"]):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        """,
        records.job,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine\n", "")
    assert records.manifest("asr")["status"] == "success"


def test_a_sigterm_handler_is_not_asked_what_it_is_equal_to(records: Records) -> None:
    class Handler:
        def __call__(self, *_: object) -> None:
            pass

        def __eq__(self, other: object) -> bool:
            raise AttributeError("compares with its like alone")

        __hash__ = object.__hash__

    handler = Handler()
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with StageIO("asr", records.job):
            assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_forked_child_never_ends_its_parents_stage(records: Records) -> None:
    done = run_script(
        """
        import os
        from otel_stageio import StageIO
        with StageIO("asr", os.environ["JOB"]) as io:
            log = io.get_stage_logger("CRITICAL")
            with io.span("outer"):
                child = os.fork()
                if child == 0:
                    log.info("from the child")
                    io.track_output(io.get_output_path("of_the_child.json"))
                    with io.span("in the child"):
                        pass
                else:
                    assert os.waitpid(child, 0)[1] == 0
                    log.info("from the parent")
        if child == 0:
            os._exit(0) if io.manifest is None else None
        """,
        records.job,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(span["name"] for span in records.spans("asr")) == ["asr", "in the child", "outer"]
    manifest = records.manifest("asr")
    assert manifest["status"] == "success"
    assert [Path(entry["path"]).name for entry in manifest["outputs"]] == ["of_the_child.json"]
    assert "from the child" in records.log("asr")
    assert "from the parent" in records.log("asr")


def test_a_fork_after_a_thread_pool_was_first_used_does_not_hang(records: Records) -> None:
    done = run_script(
        """
        import os, sys
        from otel_stageio import StageIO
        with StageIO("asr", os.environ["JOB"]):
            from concurrent.futures import ThreadPoolExecutor
            with ThreadPoolExecutor(2) as pool:
                assert list(pool.map(str, range(2))) == ["0", "1"]
            child = os.fork()
            if child == 0:
                os._exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        """,
        records.job,
    )
    assert done.returncode == 0, done.stderr


def test_a_surviving_worker_does_not_keep_a_dead_stage_alive(records: Records) -> None:
    process = started(
        """
        import os, signal
        from otel_stageio import StageIO
        with StageIO("asr", os.environ["JOB"]) as io:
            if os.fork() == 0:
                print("ready", flush=True)
                print(os.getpid(), flush=True)
            signal.pause()
        """,
        records.job,
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        with StageIO("alignment", records.job):
            pass
        assert records.manifest("asr")["status"] == "crashed"
    finally:
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()
        assert process.stderr is not None
        process.stderr.close()


def test_a_reader_in_a_tight_loop_sees_only_whole_manifests(records: Records) -> None:
    path = records.job / "06_asr" / "manifest.json"
    seen: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.append(json.loads(path.read_bytes())["status"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with StageIO("asr", records.job) as io:
            for number in range(500):
                io.track_output(io.get_output_path(f"{number}.json"), "transcript")
    finally:
        stop.set()
        reader.join()
    assert set(seen) <= {"running", "success"}
    assert "running" in seen
    assert len(records.manifest("asr")["outputs"]) == 500


# -- decorators ------------------------------------------------------------------------------------------------------


def test_a_function_is_a_stage(records: Records) -> None:
    @stage("alignment", output_base=records.job)
    def align(io: StageIO, language: str) -> str:
        """Doc."""
        io.add_config("language", language)
        return language.upper()

    assert (align("en"), align.__doc__) == ("EN", "Doc.")
    assert records.manifest("alignment")["config"] == {"language": "en"}


def test_a_coroutine_is_a_stage_and_what_it_awaits_nests_under_it(records: Records) -> None:
    tracer = trace.get_tracer("library")

    async def library_call(number: int) -> None:
        with tracer.start_as_current_span(f"call {number}"):
            await asyncio.sleep(0)

    @stage("alignment", output_base=records.job)
    async def align(io: StageIO) -> None:
        with io.span("batch"):
            await asyncio.gather(*(library_call(number) for number in range(3)))

    asyncio.run(align())
    spans = {span["name"]: span for span in records.spans("alignment")}
    assert {spans[f"call {number}"]["parentSpanId"] for number in range(3)} == {spans["batch"]["spanId"]}
    assert spans["batch"]["parentSpanId"] == spans["alignment"]["spanId"]


def test_a_cancelled_task_is_a_cancelled_stage(records: Records) -> None:
    @stage("alignment", output_base=records.job)
    async def align(io: StageIO) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(align())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert records.manifest("alignment")["status"] == "cancelled"


def test_generators_are_refused_with_a_clear_error() -> None:
    def generator(io: StageIO) -> Any:
        yield 1

    async def async_generator(io: StageIO) -> Any:
        yield 1

    for function in (generator, async_generator):
        with pytest.raises(TypeError, match="generator"):
            stage("asr")(function)
    with pytest.raises(TypeError, match="name"):
        stage(generator)  # type: ignore[arg-type]


# -- threads, loggers, libraries -------------------------------------------------------------------------------------


def test_threads_and_executors_nest_under_the_stage(records: Records) -> None:
    with StageIO("asr", records.job) as io:
        tracer = trace.get_tracer("library")

        def work(number: int) -> None:
            with io.span(f"ours {number}"), tracer.start_as_current_span(f"theirs {number}"):
                pass
            with tracer.start_as_current_span(f"alone {number}"):
                logging.getLogger("library").warning("thread %d", number)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(work, range(3)))
    spans = {span["name"]: span for span in records.spans("asr")}
    for number in range(3):
        assert spans[f"ours {number}"]["parentSpanId"] == spans["asr"]["spanId"]
        assert spans[f"theirs {number}"]["parentSpanId"] == spans[f"ours {number}"]["spanId"]
        assert spans[f"alone {number}"]["parentSpanId"] == spans["asr"]["spanId"]
        assert f"[library] [WARNING] thread {number}" in records.log("asr")
    assert len({span["traceId"] for span in spans.values()}) == 1


def test_two_jobs_at_once_in_one_process_do_not_mix(tmp_path: Path) -> None:
    both = [Records(tmp_path / name) for name in ("one", "two")]
    barrier = threading.Barrier(2)

    def work(records: Records) -> None:
        with StageIO("asr", records.job) as io:
            log = io.get_stage_logger("CRITICAL")
            barrier.wait()
            for number in range(50):
                log.info("%s %d", records.job.name, number)
                logging.getLogger("library").info("%s %d", records.job.name, number)
                with io.span(records.job.name):
                    pass

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(work, both))
    for records in both:
        other = "two" if records.job.name == "one" else "one"
        assert records.log("asr").count(records.job.name) == 100
        assert other not in records.log("asr")
        assert {span["name"] for span in records.spans("asr")} == {"asr", records.job.name}


def test_libraries_logs_and_warnings_are_in_the_stage_log_under_their_own_names(records: Records) -> None:
    done = run_script(
        """
        import logging, os, warnings
        from otel_stageio import StageIO
        with StageIO("asr", os.environ["JOB"]):
            logging.getLogger("transformers").info("loading")
            logging.getLogger("transformers").debug("noise")
            logging.getLogger("transformers").warning("old weights")
            warnings.warn("deprecated thing")
        logging.getLogger("transformers").info("after")
        assert logging.getLogger().handlers == [] and logging.getLogger().level == logging.WARNING
        """,
        records.job,
    )
    assert done.returncode == 0, done.stderr
    log = records.log("asr")
    assert "[transformers] [INFO] loading\n" in log
    assert "[py.warnings] [WARNING] " in log
    assert "noise" not in log
    assert "after" not in log
    # As Python's last resort would have it: warnings on stderr, INFO not.
    assert "old weights" in done.stderr
    assert "deprecated thing" in done.stderr
    assert "loading" not in done.stderr


def test_handlers_that_were_there_show_no_more_than_before(
    records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    class Mine(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shown.append(record.getMessage())

    handler = Mine()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with StageIO("asr", records.job):
            logging.getLogger("library").info("quiet")
            logging.getLogger("library").warning("loud")
    finally:
        root.removeHandler(handler)
    assert shown == ["loud"]
    assert "quiet" in records.log("asr")


def test_what_is_done_to_the_root_loggers_handlers_ends_with_the_stage(records: Records) -> None:
    with StageIO("demux", records.job):
        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.ERROR)
            handler.addFilter(lambda record: record.levelno >= logging.ERROR)
    with StageIO("asr", records.job):
        logging.getLogger("lib").info("said")
    assert "said" in records.log("asr")


def test_capture_can_be_left_out(records: Records) -> None:
    with StageIO("asr", records.job, capture_logging=False):
        logging.getLogger("library").warning("elsewhere")
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            warnings.warn("elsewhere", stacklevel=1)
    assert "elsewhere" not in records.log("asr")


def test_a_stage_inside_an_applications_span_is_its_child(records: Records) -> None:
    application = trace.SpanContext(0xA, 0xB, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(application)), StageIO("asr", records.job):
        pass
    (span,) = records.spans("asr")
    assert (int(span["traceId"], 16), int(span["parentSpanId"], 16)) == (0xA, 0xB)


def test_a_process_that_opens_very_many_runs_does_not_end_them_all_at_its_exit(tmp_path: Path) -> None:
    """Nobody is to wait for ten thousand: the oldest are left to whoever finds them idle."""
    done = run_script(
        """
        import os
        from otel_stageio import StageIO
        from otel_stageio.stages import lifecycle
        lifecycle._MOST_RUNS = 2
        for number in range(3):
            for stage in ("demux", "asr"):
                with StageIO(stage, f"{os.environ['JOB']}{number}"):
                    pass
        """,
        tmp_path / "job",
    )
    assert done.returncode == 0, done.stderr
    runs = [Records(tmp_path / f"job{number}").run()["status"] for number in range(3)]
    assert runs == ["running", "success", "success"]


def test_a_disabled_sdk_means_files_only(records: Records) -> None:
    done = run_script(
        """
        import os
        from otel_stageio import Pipeline
        with Pipeline("p", os.environ["JOB"]) as run, run.stage("asr") as io:
            io.get_stage_logger().info("hello")
            with io.span("inner"):
                pass
        """,
        records.job,
        OTEL_SDK_DISABLED="true",
    )
    assert done.returncode == 0, done.stderr
    assert records.manifest("asr")["status"] == "success"
    assert "hello" in records.log("asr")
    assert records.spans() == []
