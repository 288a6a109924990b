"""Delivery and the life of processes: who sends, what an exit waits for, what a kill leaves."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import LIMIT, environment, run_python, start_python, write_script
from receiver import OK, Answer, CountingReceiver, GrpcReceiver, Received, Receiver, black_hole, free_port

from otel_stageio.delivery.delivery import Delivery
from otel_stageio.delivery.settings import endpoints
from otel_stageio.delivery.shipper import push
from otel_stageio.layout import Job
from otel_stageio.otlp import decode
from otel_stageio.sinks.files import is_locked, lock_file
from otel_stageio.testing import Records

STAGE = """
    import sys
    from otel_stageio import StageIO

    with StageIO(sys.argv[2], sys.argv[1]) as io:
        log = io.get_stage_logger()
        for number in range(5):
            with io.span("step", number=number):
                log.info("line %d", number)
    print("done")
"""

PIPELINE = """
    import sys
    from otel_stageio import Pipeline

    job, script = sys.argv[1:3]
    with Pipeline("demo", job) as run:
        for stage in ("demux", "asr"):
            run.command(stage, [sys.executable, script, job, stage])
        with run.stage("mux") as io:
            io.add_warning("careful")
"""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "job")


def spooled(job: Job) -> set[str]:
    return {span["spanId"] for span in Records(job.root).spans()}


def spooled_logs(job: Job) -> int:
    return sum(1 for path in Path(job.spool).glob("*.logs.jsonl") for _ in decode.log_records(decode.Lines(path)))


def push_rest(job: Job, url: str, **how: Any) -> dict[str, int]:
    delivery = Delivery(endpoints({}, endpoint=url, **how))
    try:
        return push(job, delivery).pending
    finally:
        delivery.close()


# -- who sends -------------------------------------------------------------------------------------------------------


def test_without_an_endpoint_nothing_of_delivery_is_even_imported(tmp_path: Path, job: Job) -> None:
    script = write_script(tmp_path / "stage.py", STAGE + PRINT_MODULES)
    done = run_python(script, job.root, "asr")
    assert done.returncode == 0, done.stderr
    assert loaded(done.stdout) == set()


PRINT_MODULES = """
    import json
    wanted = ("requests", "urllib3", "grpc", "google.protobuf", "otel_stageio.delivery.worker", "opentelemetry.proto")
    print(json.dumps([name for name in wanted if name in sys.modules]))
"""


def loaded(stdout: str) -> set[str]:
    return set(json.loads(stdout.splitlines()[-1]))


def test_a_stage_of_its_own_delivers_itself(tmp_path: Path, job: Job) -> None:
    script = write_script(tmp_path / "stage.py", STAGE)
    with Receiver() as receiver:
        done = run_python(script, job.root, "asr", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
                          OTEL_STAGEIO_EXIT_BUDGET="30")  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert receiver.span_ids == Counter(spooled(job))
        assert len(receiver.logs) == spooled_logs(job)


def test_a_program_that_is_over_at_once_ends_in_silence(tmp_path: Path, job: Job) -> None:
    source = """
        import sys
        from otel_stageio import Pipeline

        with Pipeline("subtitles", sys.argv[1]) as run, run.stage("asr"):
            pass
    """
    script = write_script(tmp_path / "short.py", source)
    with Receiver() as receiver:
        for _ in range(5):  # it first speaks with the receiver while the interpreter is ending, mostly
            done = run_python(script, job.base, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_STAGEIO_CONSOLE="off")
            assert (done.returncode, done.stderr) == (0, "")


def test_over_grpc_as_well(tmp_path: Path, job: Job) -> None:
    script = write_script(tmp_path / "stage.py", STAGE)
    with GrpcReceiver() as receiver:
        done = run_python(script, job.root, "asr", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
                          OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_STAGEIO_EXIT_BUDGET="30")  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert receiver.span_ids == Counter(spooled(job))


def test_what_a_stage_says_goes_out_while_it_works(tmp_path: Path, job: Job) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys
        from otel_stageio import StageIO

        with StageIO("asr", sys.argv[1]) as io:
            with io.span("early"):
                io.add_warning("said early")
            sys.stdin.readline()
        """,
    )
    with Receiver() as receiver:
        process = start_python(script, job.root, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        wait_for(lambda: any(span.name == "early" for span in receiver.spans))
        wait_for(lambda: any(record.event_name == "stageio.warning" for record in receiver.logs))
        _, stderr = process.communicate("\n", timeout=LIMIT)
        assert (process.returncode, stderr) == (0, "")


def wait_for(condition: Any, seconds: float = LIMIT) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_while_its_pipeline_lives_a_child_touches_no_network_and_the_pipeline_sends(tmp_path: Path, job: Job) -> None:
    """The children are told of a black hole, and would hang on it; the pipeline's process knows the receiver."""
    stage = write_script(tmp_path / "stage.py", STAGE + PRINT_MODULES + "    open(sys.argv[1] + '/' + sys.argv[2], 'w')"
                         ".write(json.dumps([name for name in wanted if name in sys.modules]))\n")  # fmt: skip
    script = write_script(tmp_path / "pipeline.py", PIPELINE)
    with Receiver() as receiver:
        done = run_python(script, job.root, stage, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
                          OTEL_STAGEIO_EXIT_BUDGET="30")  # fmt: skip
        assert done.returncode == 0, done.stderr
        for name in ("demux", "asr"):
            imported = set(json.loads((job.root / name).read_text()))
            assert not imported & {"requests", "urllib3", "grpc", "google.protobuf", "opentelemetry.proto"}
        assert receiver.span_ids == Counter(spooled(job))
        assert len(receiver.logs) == spooled_logs(job)
        roots = [span for span in receiver.spans if span.name == "RUN demo"]
        assert len(roots) == 1
        assert len({span.trace_id for span in receiver.spans}) == 1


def test_otel_stageio_run_delivers_for_the_command_it_wraps(tmp_path: Path, job: Job) -> None:
    stage = write_script(tmp_path / "stage.py", STAGE + PRINT_MODULES)
    with Receiver() as receiver:
        env = environment(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_STAGEIO_EXIT_BUDGET="30")
        done = subprocess.run(
            [sys.executable, "-m", "otel_stageio", "run", str(job.root), "--stage", "asr", "--",
             sys.executable, str(stage), str(job.root), "asr"],
            env=env, capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "requests" not in loaded(done.stdout)
        assert receiver.span_ids == Counter(spooled(job))


@pytest.mark.parametrize(("mode", "sent"), [("self", True), ("off", False)])
def test_delivery_can_be_made_a_childs_own_business_or_switched_off(
    tmp_path: Path, job: Job, mode: str, sent: bool
) -> None:
    script = write_script(tmp_path / "stage.py", STAGE)
    Path(job.machinery).mkdir(parents=True)
    from otel_stageio.runs.run import OwnerLock

    owner = OwnerLock(job)
    try:
        assert is_locked(job.owner_lock)
        with Receiver() as receiver, lock_file(job.deliverer_lock) as fd:
            fcntl.flock(fd, fcntl.LOCK_SH)  # as an owner that delivers has it
            for expected in (False, sent):  # by default the owner would do it
                how = {"OTEL_STAGEIO_DELIVERY": mode} if expected or mode == "off" else {}
                run_python(script, job.root, "asr", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
                           OTEL_STAGEIO_EXIT_BUDGET="30", **how)  # fmt: skip
                assert bool(receiver.requests) == expected
    finally:
        owner.release()


def test_stages_that_run_at_once_send_everything_once(tmp_path: Path, job: Job) -> None:
    script = write_script(tmp_path / "stage.py", STAGE)
    names = ["demux", "asr", "alignment", "mux", "translation"]
    with Receiver() as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_STAGEIO_EXIT_BUDGET": "30"}
        processes = [start_python(script, job.root, name, **env) for name in names]
        for process in processes:
            assert process.communicate(timeout=LIMIT)[1] == ""
        assert push_rest(job, receiver.url) == {}
        assert receiver.span_ids == Counter(spooled(job))
        assert len(receiver.logs) == spooled_logs(job)


def test_a_forked_worker_leaves_delivery_to_its_parent_and_holds_none_of_its_locks(tmp_path: Path, job: Job) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import multiprocessing, sys
        from otel_stageio import StageIO

        def work(number):
            with io.span("forked", number=number):
                io.get_stage_logger().info("worker %d", number)

        with StageIO("asr", sys.argv[1]) as io:
            with multiprocessing.get_context("fork").Pool(3) as pool:
                pool.map(work, range(12))
                pool.close()
                pool.join()
        """,
    )
    with Receiver() as receiver:
        done = run_python(script, job.root, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_STAGEIO_EXIT_BUDGET="30",
                          PYTHONWARNINGS="ignore")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert push_rest(job, receiver.url) == {}
        assert sum(1 for span in receiver.spans if span.name == "forked") == 12
        assert receiver.span_ids == Counter(spooled(job))
        assert sum(count for body, count in receiver.bodies.items() if body.startswith("worker")) == 12


@pytest.mark.parametrize("how", [{"OTEL_STAGEIO_DELIVERY": "off"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}])
def test_an_owner_that_does_not_deliver_silences_nobody(tmp_path: Path, job: Job, how: dict[str, str]) -> None:
    """A pipeline that was started without an endpoint, of whose programs one sets its own."""
    script = write_script(tmp_path / "stage.py", STAGE)
    pipeline = write_script(
        tmp_path / "pipeline.py",
        """
        import os, subprocess, sys
        from otel_stageio import Pipeline

        url = os.environ.pop("URL")
        with Pipeline("demo", sys.argv[1]) as run:
            env = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_STAGEIO_DELIVERY": ""}
            run.command("asr", [sys.executable, sys.argv[2], sys.argv[1], "asr"], env=env)
        """,
    )
    with Receiver() as receiver:
        done = run_python(pipeline, job.root, script, URL=receiver.url, OTEL_STAGEIO_EXIT_BUDGET="30", **how)
        assert done.returncode == 0, done.stderr
        assert "step" in {span.name for span in receiver.spans}


def test_the_runs_root_span_is_sent_by_the_process_that_ends_it(tmp_path: Path, job: Job) -> None:
    """Also when everything else of the job was sent long before, and the job let go."""
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys, time
        from otel_stageio import StageIO
        from otel_stageio.delivery import worker

        worker.INTERVAL = 0.01
        for stage in ("demux", "asr"):
            with StageIO(stage, sys.argv[1]):
                pass
        while worker._worker._jobs:
            time.sleep(0.01)
        """,
    )
    with Receiver() as receiver:
        done = run_python(script, job.root, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_STAGEIO_EXIT_BUDGET="30")
        assert (done.returncode, done.stderr) == (0, "")
        assert receiver.span_ids == Counter(spooled(job))
        assert any(name.startswith("RUN") for name in (span.name for span in receiver.spans))


# -- exits -----------------------------------------------------------------------------------------------------------

TROUBLES: dict[str, Any] = {
    "absent": None,
    "black hole": "black hole",
    "silent": Answer(hang=True),
    "drops": Answer(drop=True),
    **{str(status): Answer(status) for status in (400, 401, 404, 413, 500, 503)},
    "429": Answer(429, {"retry-after": "1"}),
}


@pytest.mark.parametrize("ending", ["done", "raise SystemExit(3)"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_the_collector_does_the_stage_ends_as_without_one_and_all_of_it_arrives_later(
    tmp_path: Path, job: Job, trouble: str, ending: str
) -> None:
    script = write_script(tmp_path / "stage.py", STAGE.replace('print("done")', 'print("done")\n    ' + (
        "" if ending == "done" else ending)))  # fmt: skip
    plain = run_python(script, tmp_path / "plain", "asr")
    answer = TROUBLES[trouble]
    if isinstance(answer, Answer):
        with Receiver(answer) as receiver:
            done = run_python(script, job.root, "asr", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    elif answer:
        with black_hole() as url:
            done = run_python(script, job.root, "asr", OTEL_EXPORTER_OTLP_ENDPOINT=url)
    else:
        done = run_python(script, job.root, "asr", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    said = [line.partition("] ")[2] for line in done.stdout.splitlines()]
    assert said == [line.partition("] ")[2] for line in plain.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)
    with Receiver() as receiver:
        assert push_rest(job, receiver.url) == {}
        assert receiver.span_ids == Counter(spooled(job))
        assert len(receiver.logs) == spooled_logs(job)


@pytest.mark.parametrize("kind", ["absent", "black hole", "silent"])
def test_over_grpc_too(tmp_path: Path, job: Job, kind: str) -> None:
    script = write_script(tmp_path / "stage.py", STAGE)
    how = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    if kind == "absent":
        url = f"http://127.0.0.1:{free_port()}"
        done = run_python(script, job.root, "asr", OTEL_EXPORTER_OTLP_ENDPOINT=url, **how)
    elif kind == "black hole":
        with black_hole() as url:
            done = run_python(script, job.root, "asr", OTEL_EXPORTER_OTLP_ENDPOINT=url, **how)
    else:
        with GrpcReceiver(Answer(hang=True)) as receiver:
            done = run_python(script, job.root, "asr", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **how)
    assert (done.returncode, done.stderr) == (0, "")
    with GrpcReceiver() as receiver:
        assert push_rest(job, receiver.url, protocol="grpc") == {}
        assert receiver.span_ids == Counter(spooled(job))


def test_that_settings_have_to_be_mended_is_said_once_in_the_pipeline_log(tmp_path: Path, job: Job) -> None:
    script = write_script(tmp_path / "stage.py", STAGE)
    with Receiver(Answer(401)) as receiver:
        for stage in ("demux", "asr", "mux"):
            run_python(script, job.root, stage, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_STAGEIO_EXIT_BUDGET="30")
    (log,) = Path(job.logs).glob("*.log")
    said = [line for line in log.read_text().splitlines() if "[delivery] [WARNING]" in line]
    assert sorted(line.partition("WARNING] ")[2].split()[0] for line in said) == ["log", "spans"]
    assert all("401 Unauthorized" in line and "otel-stageio push" in line for line in said)


@pytest.mark.parametrize("value", ["soon", "-1", "inf", ""])
def test_an_exit_budget_that_is_none_is_the_default(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    from otel_stageio.delivery.worker import DEFAULT_BUDGET, exit_budget

    monkeypatch.setenv("OTEL_STAGEIO_EXIT_BUDGET", value)
    assert exit_budget() == DEFAULT_BUDGET


# -- kills -----------------------------------------------------------------------------------------------------------

SHIPPER = """
    import os, sys
    from otel_stageio.delivery import http, outbox, wire
    from otel_stageio.delivery.delivery import Delivery
    from otel_stageio.delivery.settings import endpoints
    from otel_stageio.layout import Job

    outbox.BATCH_BYTES = 2000  # many small requests, so that there is something to be killed in the middle of
    for _ in sys.stdin:  # a deliverer a line, without the time that Python takes to start
        pid = os.fork()
        if not pid:
            Delivery(endpoints({}, endpoint=sys.argv[2])).deliver(outbox.Outbox(Job(sys.argv[1])))
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_a_deliverer_killed_200_times_loses_nothing_and_repeats_one_request_at_most(tmp_path: Path, job: Job) -> None:
    from otel_stageio import StageIO

    with StageIO("asr", job.root) as io:
        log = io.get_stage_logger()
        for number in range(3000):
            with io.span("step", number=number):
                log.info("line %d", number)
    script = write_script(tmp_path / "shipper.py", SHIPPER)
    rng = random.Random(20261123)
    kills = 0
    patience = 5

    def some_time_to_die_in(_received: Received) -> Answer:
        nonlocal patience
        patience -= 1
        if patience == 0:
            reached.set()
        return OK

    import threading

    reached = threading.Event()
    with Receiver(some_time_to_die_in) as receiver:
        process = start_python(script, job.root, receiver.url)
        assert process.stdin is not None
        assert process.stdout is not None
        while kills < 200:
            patience = rng.randint(1, 6)
            reached.clear()
            process.stdin.write("go\n")
            process.stdin.flush()
            pid = int(process.stdout.readline())
            assert reached.wait(LIMIT)
            time.sleep(rng.random() * 0.004)  # where in the cycle of send, answer, note it is hit
            os.kill(pid, signal.SIGKILL)
            assert int(process.stdout.readline()) == -signal.SIGKILL
            kills += 1
        process.communicate(timeout=LIMIT)
        assert push_rest(job, receiver.url) == {}
        assert set(receiver.span_ids) == spooled(job)
        assert receiver.span_ids.total() - len(receiver.span_ids) <= kills * 6
        assert receiver.bodies.total() >= spooled_logs(job)


def test_a_pipeline_that_is_killed_loses_nothing(tmp_path: Path, job: Job) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import os, sys
        from otel_stageio import Pipeline

        with Pipeline("demo", sys.argv[1]) as run:
            with run.stage("asr") as io:
                for number in range(2000):
                    with io.span("step", number=number):
                        pass
                    if number == 1000:
                        print("half", flush=True)
        """,
    )
    with Receiver() as receiver:
        process = start_python(script, job.root, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        assert process.stdout is not None
        assert "half\n" in iter(process.stdout.readline, "")
        process.kill()
        process.communicate(timeout=LIMIT)
        assert push_rest(job, receiver.url) == {}
        ids = receiver.span_ids
        assert set(ids) == spooled(job)
        names = Counter(span.name for span in receiver.spans)
        assert names["asr"] == names["RUN demo"] == 1
        assert names["step"] >= 1000


# -- a great deal ----------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_lines_and_twenty_thousand_spans_of_eight_stages_arrive_once(
    tmp_path: Path, job: Job
) -> None:
    stage = write_script(
        tmp_path / "stage.py",
        """
        import sys
        from otel_stageio import StageIO

        with StageIO(sys.argv[2], sys.argv[1]) as io:
            log = io.get_stage_logger("CRITICAL")
            for number in range(2500):
                with io.span("step", number=number):
                    for line in range(5):
                        log.info("line %d of step %d: %s", line, number, "words " * 10)
        """,
    )
    owner = write_script(
        tmp_path / "owner.py",
        """
        import sys
        from pathlib import Path
        from concurrent.futures import ThreadPoolExecutor
        from otel_stageio import Pipeline

        job, script = sys.argv[1:3]
        with Pipeline("scale", job) as run, ThreadPoolExecutor(8) as pool:
            names = [f"stage{number}" for number in range(8)]
            list(pool.map(lambda name: run.command(name, [sys.executable, script, job, name]), names))
        # Not getrusage: it has the peak of the process that this one was forked from as well.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        print("peak", int(status["VmHWM"].split()[0]) >> 10)
        """,
    )
    with CountingReceiver() as receiver:
        done = subprocess.run(
            [sys.executable, str(owner), str(job.root), str(stage)],
            env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url),
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert int(done.stdout.split()[-1]) < 150  # MiB, of the process that delivers
        assert push_rest(job, receiver.url) == {}
        assert receiver.names["step"] == 20_000
        assert receiver.lines == spooled_logs(job) >= 100_000
        assert set(receiver.ids.values()) == {1}
        assert {span_id.hex() for span_id in receiver.ids} == spooled(job)


def test_no_descriptor_stays_open(job: Job) -> None:
    from otel_stageio import StageIO

    with StageIO("asr", job.root):
        pass
    before = len(os.listdir("/dev/fd"))
    with Receiver() as receiver:
        push_rest(job, receiver.url)
    with Receiver() as receiver:
        push_rest(job, receiver.url)
    assert len(os.listdir("/dev/fd")) <= before + 2
