"""Pipelines on a real Ray cluster of three nodes: what the record says, what a death becomes, what a caller hears."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray_stages as work
from conftest import needs
from helpers import ROOT, environment, pipeline_log, read_manifest, write_script
from stack import wait_until

from otel_stageio import Pipeline, RunRecord, StageIO, join_run
from otel_stageio.testing import Records

needs("ray")

import ray  # noqa: E402
from ray_cluster import RayCluster  # noqa: E402

from otel_stageio.integrations.ray import JobResult, Progress, RayStage, run_job, run_jobs  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("no_terminal", "cluster"),
    # Ray leaves sockets and files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    saved = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(("OTEL_", "TRACE"))}
    cluster = RayCluster(3)
    cluster.connect()
    yield cluster
    cluster.stop()
    os.environ.update(saved)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "out" / "film"


def spans(job: Path) -> list[dict[str, Any]]:
    return Records(job).spans()


def ran(job: Path) -> list[str]:
    path = job / work.RAN
    return path.read_text().split() if path.exists() else []


def everything_of(job: Path) -> list[tuple[str, str]]:
    """(stage and attempt, status) of every attempt that there was."""
    found = []
    for path in sorted(job.glob("*/manifest.json")):
        manifest = read_manifest(path)
        for record in (*manifest.get("attempts", ()), manifest):
            found.append((f"{record.get('stage', manifest['stage'])}.{record['attempt']}", record["status"]))
    return found


# -- a job ------------------------------------------------------------------------------------------------------------


def test_functions_and_programs_are_the_stages_of_one_run(job: Path) -> None:
    stages = [
        RayStage("demux", work.write),
        RayStage("asr", work.read),
        RayStage("mux", [sys.executable, "-c", "print('muxing {model} of', '{job}')"], after=["demux", "asr"]),
    ]
    result = run_jobs({str(job): {"model": "large"}}, "subtitles", stages)[0]
    assert result.status == "success"
    assert result.stages == {"demux": "success", "asr": "success", "mux": "success"}
    record = RunRecord.load(job)
    assert (record.status, record.run_id, record.trace_id) == ("success", result.run_id, result.trace_id)
    assert [item.stage for item in record.stages] == ["demux", "asr", "mux"]
    assert read_manifest(job / "06_asr")["config"] == {"model": "large"}
    said = pipeline_log(job).read_text()
    assert "[stage.demux] [INFO] writing on demux" in said
    assert f"[stage.mux] [INFO] muxing large of {job}" in said
    found = spans(job)
    assert {span["traceId"] for span in found} == {result.trace_id}
    root = next(span for span in found if span["name"] == "RUN subtitles")
    (asr,) = [span for span in found if span["name"] == "asr"]
    assert asr["parentSpanId"] == root["spanId"]
    assert {"ray.node_id", "ray.task_id", "ray.worker_id"} <= asr["attributes"].keys()


def test_what_the_threads_of_a_function_log_is_the_stages(job: Path) -> None:
    assert run_job(job, "subtitles", [RayStage("asr", work.log_in_a_thread)]).status == "success"
    assert "from a thread" in (job / "06_asr" / "stage.log").read_text()


def test_branches_run_side_by_side_and_what_needs_both_comes_after(job: Path) -> None:
    stages = [
        RayStage("demux", work.write),
        RayStage("asr", work.read, after=["demux"], resources={"node1": 1}),
        RayStage("lyrics_detection", work.read, after=["demux"], resources={"node2": 1}),
        RayStage("mux", work.skip, after=["asr", "lyrics_detection"]),
    ]
    assert run_job(job, "subtitles", stages).status == "success"
    assert ran(job)[0] == "demux"
    assert dict(everything_of(job))["mux.1"] == "skipped"
    nodes = {read_manifest(path)["trace"]["run_id"] for path in job.glob("*/manifest.json")}
    assert len(nodes) == 1


def test_a_stage_that_fails_ends_its_job_and_no_other(tmp_path: Path) -> None:
    stages = [RayStage("demux", work.write), RayStage("asr", work.read), RayStage("mux", work.write)]
    (tmp_path / "b").mkdir()
    jobs = [tmp_path / name for name in ("a", "b", "c")]
    (tmp_path / "b" / "01_demux").write_text("in the way")
    results = run_jobs(jobs, "subtitles", stages)
    assert [Path(result.job).name for result in results] == ["a", "b", "c"]
    assert [result.status for result in results] == ["success", "failed", "success"]
    assert "mux" not in results[1].stages


def test_the_error_of_a_function_is_in_the_record_and_in_the_result(job: Path) -> None:
    result = run_job(job, "subtitles", [RayStage("asr", work.fail), RayStage("mux", work.write)])
    assert (result.status, result.message) == ("failed", "asr: ValueError: no GPU")
    error = read_manifest(job / "06_asr")["errors"][0]
    assert (error["exception_type"], "ray_stages.py" in error["traceback"]) == ("ValueError", True)
    assert not (job / "12_mux").exists()
    assert RunRecord.load(job).status == "failed"


def test_leaving_with_exit_0_is_a_success_and_the_worker_goes_on(job: Path) -> None:
    assert run_job(job, "subtitles", [RayStage("asr", work.leave)]).status == "success"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["sh", "-c", "echo no model; exit 3"], "failed", "asr: sh exited with code 3: no model"),
        (["sh", "-c", "kill -SEGV $$"], "crashed", "asr: sh was killed by SIGSEGV"),
        (["no-such-program"], "failed", "asr: cannot run no-such-program: No such file or directory"),
    ],
)
def test_a_program_that_fails(job: Path, words: list[str], status: str, message: str) -> None:
    result = run_job(job, "subtitles", [RayStage("asr", words)])
    assert (result.status, result.message) == (status, message)


def test_a_program_has_its_time(job: Path) -> None:
    result = run_job(job, "subtitles", [RayStage("asr", ["sleep", "600"], timeout=0.3)])
    assert (result.status, result.stages) == ("timeout", {"asr": "timeout"})


def test_a_program_that_opens_its_stage_is_the_same_attempt(job: Path) -> None:
    code = "from otel_stageio import StageIO\nwith StageIO('asr') as io: io.add_config('model', 'large')"
    assert run_job(job, "subtitles", [RayStage("asr", [sys.executable, "-c", code])]).status == "success"
    assert everything_of(job) == [("asr.1", "success")]
    assert read_manifest(job / "06_asr")["config"] == {"model": "large"}


# -- attempts ---------------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_a_crashed_attempt_with_rays_cause_and_the_next_attempt_succeeds(job: Path) -> None:
    news: list[str] = []
    stages = [RayStage("asr", work.die_once, max_retries=1), RayStage("mux", work.write)]
    result = run_jobs([job], "subtitles", stages, on_progress=lambda progress: news.append(progress.news))[0]
    assert (result.status, result.attempts) == ("success", 3)
    assert everything_of(job) == [("asr.1", "crashed"), ("asr.2", "success"), ("mux.1", "success")]
    former = read_manifest(job / "06_asr")["attempts"][0]
    assert former["cause"] == "Ray: The worker died unexpectedly while executing this task"
    assert any("about to die" in line for line in former["errors"][0]["last_lines"])
    assert any(re.fullmatch(r".*/film: asr is run again: Ray: .*", line) for line in news)
    crashed = [span for span in spans(job) if span["name"] == "asr" and span.get("status", {}).get("code") == 2]
    assert len(crashed) == 1
    assert {span["traceId"] for span in spans(job)} == {result.trace_id}


def test_without_a_retry_a_killed_worker_is_the_jobs_end(job: Path) -> None:
    result = run_job(job, "subtitles", [RayStage("asr", work.die), RayStage("mux", work.write)])
    assert (result.status, result.stages) == ("crashed", {"asr": "crashed"})
    assert everything_of(job) == [("asr.1", "crashed")]


def test_retries_have_an_end(job: Path) -> None:
    assert run_job(job, "subtitles", [RayStage("asr", work.die, max_retries=2)]).attempts == 3
    assert [status for _, status in everything_of(job)] == ["crashed"] * 3


def test_a_failure_is_run_again_only_if_asked(job: Path, tmp_path: Path) -> None:
    assert run_job(job, "subtitles", [RayStage("asr", work.fail_once, max_retries=1)]).status == "failed"
    other = tmp_path / "other"
    stages = [RayStage("asr", work.fail_once, max_retries=1, retry_exceptions=True)]
    assert run_job(other, "subtitles", stages).status == "success"
    assert everything_of(other) == [("asr.1", "failed"), ("asr.2", "success")]


def test_what_a_worker_cannot_even_begin_is_in_the_record(job: Path) -> None:
    result = run_job(job, "subtitles", [RayStage("asr", work.Foreign(), max_retries=3)])
    assert (result.status, result.attempts) == ("failed", 1)  # it would be the same again
    assert everything_of(job) == [("asr.1", "failed")]
    message = read_manifest(job / "06_asr")["errors"][0]["message"]
    assert message.startswith("Ray: ")
    assert "no_such_module" in message


def test_a_program_dies_with_its_worker(job: Path) -> None:
    """Else it would go on beside the next attempt."""
    program = """
        import os, sys, time
        with open(sys.argv[1], "w") as file:
            file.write(str(os.getpid()))
        os.kill(os.getppid(), 9)
        time.sleep(600)
    """
    script = write_script(job.parent / "program.py", program)
    result = run_job(job, "subtitles", [RayStage("asr", [sys.executable, str(script), "{job}/pid"])])
    assert result.status == "crashed"
    pid = int((job / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text())


def test_a_stage_that_ended_before_its_worker_died_is_what_its_record_says(job: Path, monkeypatch: Any) -> None:
    from otel_stageio.integrations.ray import driver

    real = driver.ray.get

    def as_if_the_worker_had_died(reference: Any) -> Any:
        real(reference)
        raise ray.exceptions.WorkerCrashedError

    monkeypatch.setattr(driver.ray, "get", as_if_the_worker_had_died)
    result = run_job(job, "subtitles", [RayStage("asr", work.write, max_retries=3)])
    assert (result.status, result.attempts) == ("success", 1)
    assert ran(job) == ["asr"]


# -- many jobs --------------------------------------------------------------------------------------------------------


def test_so_many_jobs_are_under_way_and_no_more(tmp_path: Path) -> None:
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(Progress(progress.total, dict(progress.ended), progress.running, progress.stages))

    drawn: list[str] = []

    def jobs() -> Iterator[Path]:
        for number in range(20):
            drawn.append(str(number))
            assert len(drawn) - sum(seen[-1].ended.values() if seen else ()) <= 4  # three under way, and this one
            yield tmp_path / f"job{number}"

    results = run_jobs(jobs(), "subtitles", [RayStage("demux", work.write)], at_once=3, on_progress=watch)
    assert len(results) == 20
    assert max(progress.running for progress in seen) == 3
    assert (seen[-1].total, seen[-1].ended, seen[-1].running) == (20, {"success": 20}, 0)


def test_progress_is_printed_as_lines_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_STAGEIO_CONSOLE", "plain")
    stages = [RayStage("asr", work.read), RayStage("mux", work.fail)]
    run_jobs([tmp_path / "a", tmp_path / "b"], "subtitles", stages, at_once=1)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("0 of 2 jobs; 1 running")
    assert rest == [
        f"{tmp_path}/a: failed: mux: ValueError: no GPU",
        f"{tmp_path}/b: failed: mux: ValueError: no GPU",
        "2 of 2 jobs: 2 failed; 0 running, 0 stages with Ray",
    ]


def test_what_was_done_is_not_done_again_on_another_cluster(job: Path) -> None:
    def stages(beam: int) -> list[RayStage]:
        program = ["sh", "-c", f"cp {{job}}/in {{job}}/out; echo {beam}; echo ran >> {{job}}/{work.RAN}"]
        return [RayStage("asr", program, inputs=["{job}/in"], outputs=["{job}/out"])]

    job.mkdir(parents=True)
    (job / "in").write_text("sound")
    assert run_job(job, "subtitles", stages(5), resume=True).stages == {"asr": "success"}
    assert run_job(job, "subtitles", stages(5), resume=True).stages == {"asr": "skipped"}
    assert run_job(job, "subtitles", stages(8), resume=True).stages == {"asr": "success"}
    assert len(ran(job)) == 2


def test_ctrl_c_stops_the_stages_and_every_run_is_cancelled(tmp_path: Path, cluster: RayCluster) -> None:
    script = write_script(
        tmp_path / "driver.py",
        f"""
        import ray, ray_stages as work
        from otel_stageio.integrations.ray import RayStage, run_jobs
        ray.init(address={cluster.address!r}, log_to_driver=False, logging_level="ERROR")
        stages = [RayStage("asr", work.go_on), RayStage("mux", work.write)]
        run_jobs(["job0", "job1", "job2"], "subtitles", stages)
        """,
    )
    env = environment(OTEL_STAGEIO_CONSOLE="off", PYTHONWARNINGS="default", RAY_AUTH_MODE="disabled")
    env["PYTHONPATH"] += f":{ROOT}/tests"
    with subprocess.Popen(
        [sys.executable, script], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        jobs = [tmp_path / f"job{number}" for number in range(3)]
        wait_until(lambda: all(ran(job) for job in jobs))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    for job in jobs:
        assert everything_of(job) == [("asr.1", "cancelled")]
        assert RunRecord.load(job).status == "cancelled"


def test_a_stage_that_does_not_hear_is_killed_in_the_end(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from otel_stageio.integrations.ray import driver

    def enough(progress: Progress) -> None:
        wait_until(lambda: bool(ran(job)))
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "GRACE", 0.2)
    other = job.parent / "other"
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job, other], "subtitles", [RayStage("asr", work.wait_for_ever)], on_progress=enough)
    assert not other.exists()
    assert everything_of(job) == [("asr.1", "crashed")]
    assert read_manifest(job / "06_asr")["cause"] == "it did not end when it was told to, and was killed"
    assert RunRecord.load(job).status == "cancelled"


def test_a_driver_that_is_killed_leaves_no_run_open(tmp_path: Path, cluster: RayCluster) -> None:
    from otel_stageio import recover

    script = write_script(
        tmp_path / "driver.py",
        f"""
        import ray, ray_stages as work
        from otel_stageio.integrations.ray import RayStage, run_job
        ray.init(address={cluster.address!r}, log_to_driver=False, logging_level="ERROR")
        run_job("job", "subtitles", [RayStage("asr", work.wait_for_ever)])
        """,
    )
    env = environment(OTEL_STAGEIO_CONSOLE="off", PYTHONWARNINGS="default", RAY_AUTH_MODE="disabled")
    env["PYTHONPATH"] += f":{ROOT}/tests"
    job = tmp_path / "job"
    with subprocess.Popen([sys.executable, script], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: bool(ran(job)))
        process.kill()
    wait_until(lambda: bool(recover(job)) or RunRecord.load(job).status != "running", 60)
    recover(job)
    assert [status for _, status in everything_of(job)] in (["cancelled"], ["crashed"])  # as Ray ends its tasks
    assert RunRecord.load(job).status != "success"


def test_a_worker_that_is_told_to_end_is_run_again(job: Path) -> None:
    """As those of a node that is drained are."""
    result = run_job(job, "subtitles", [RayStage("asr", work.be_told_to_end_once, max_retries=1)])
    assert (result.status, result.attempts) == ("success", 2)
    assert everything_of(job) == [("asr.1", "cancelled"), ("asr.2", "success")]


# -- Ray as others use it ---------------------------------------------------------------------------------------------


def test_a_task_of_ones_own_joins_the_run(job: Path) -> None:
    @ray.remote(max_retries=2)
    def asr(handed: dict[str, str]) -> str:
        with join_run(handed), StageIO("asr") as io:
            work.die_once(io)
            return io.trace_id

    with Pipeline("subtitles", job) as run:
        assert ray.get(asr.remote(run.environment)) == run.trace_id
    assert everything_of(job) == [("asr.1", "crashed"), ("asr.2", "success")]  # Ray's retry is an attempt


def test_rays_own_tracing_nests(tmp_path: Path) -> None:
    """It brings the driver's span into the worker; the stage is below that, and all of it below the run."""
    script = write_script(
        tmp_path / "driver.py",
        """
        import os, ray, ray_stages as work
        from otel_stageio.integrations.ray import RayStage, run_job
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
                 object_store_memory=80 * 2**20, _tracing_startup_hook="ray_tracing:to_files")
        print(run_job("job", "subtitles", [RayStage("asr", work.spans_of)]).status)
        """,
    )
    write_script(
        tmp_path / "ray_tracing.py",
        f"""
        import os
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

        def to_files():
            provider = TracerProvider()
            trace.set_tracer_provider(provider)
            file = open(f"{tmp_path}/spans-{{os.getpid()}}.jsonl", "w")
            line = lambda span: span.to_json(indent=None) + "\\n"
            provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=file, formatter=line)))
        """,
    )
    env = environment(OTEL_STAGEIO_CONSOLE="off", PYTHONWARNINGS="default", RAY_AUTH_MODE="disabled",
                      RAY_USAGE_STATS_ENABLED="0")  # fmt: skip
    env["PYTHONPATH"] += f":{ROOT}/tests:{tmp_path}"
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
                          timeout=120)  # fmt: skip
    assert done.stdout == "success\n", done.stderr
    found = {}
    for path in tmp_path.glob("spans-*.jsonl"):
        for line in path.read_text().splitlines():
            span = json.loads(line)
            found[span["name"]] = span
    root = next(span for span in spans(tmp_path / "job") if span["name"] == "RUN subtitles")
    chain, name = [], "inner"
    by_id = {span["context"]["span_id"].removeprefix("0x"): span for span in found.values()}
    at = found[name]
    while at is not None:
        chain.append(at["name"].removeprefix("otel_stageio.integrations.ray.task."))
        parent = (at["parent_id"] or "").removeprefix("0x")
        at = by_id.get(parent)
    assert parent == root["spanId"]
    assert chain == ["inner", "asr", "asr ray.remote_worker", "asr ray.remote"]
    assert {span["context"]["trace_id"].removeprefix("0x") for span in found.values()} == {root["traceId"]}


# -- what a caller hears ----------------------------------------------------------------------------------------------


def nothing(io: StageIO) -> None: ...


def needs_media(io: StageIO, media: str) -> None: ...


async def later(io: StageIO) -> None: ...


MISTAKES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: RayStage("asr", "echo"), TypeError, "argv must be a list of words"),
    (lambda: RayStage("asr", later), TypeError, "a Ray task is a plain function"),
    (lambda: RayStage("asr", nothing, timeout=3), ValueError, "are a program's"),
    (lambda: RayStage("asr", nothing, max_retries=-1), ValueError, "must not be negative"),
    (lambda: RayStage("asr", nothing, num_returns=2), ValueError, "num_returns cannot be given"),
    (lambda: RayStage("mux", nothing, after="asr"), TypeError, "after is a list of stages"),
    (lambda: run_jobs(["a"], "p", []), ValueError, "at least one stage"),
    (lambda: run_jobs(["a"], "p", [RayStage("asr", nothing)] * 2), ValueError, "two stages 'asr'"),
    (lambda: run_jobs(["a"], "p", [RayStage("asr", nothing, after=["vad"])]), ValueError, "'vad', which is no stage"),
    (
        lambda: run_jobs(["a"], "p", [RayStage("a", nothing, after=["b"]), RayStage("b", nothing, after=["a"])]),
        ValueError,
        "wait for each other: a, b",
    ),
    (lambda: run_jobs("a", "p", [RayStage("asr", nothing)]), TypeError, "for one job use run_job"),
    (lambda: run_jobs(["a", "b/../a"], "p", [RayStage("asr", nothing)]), ValueError, "b/../a is there twice"),
    (lambda: run_jobs(["a"], "p", [nothing]), TypeError, "a stage is a RayStage"),  # type: ignore[list-item]
    (lambda: run_jobs(["a"], "p", [RayStage("asr", nothing)], at_once=0), ValueError, "at least 1"),
    (lambda: run_jobs({"a": {"modle": 1}}, "p", [RayStage("asr", nothing)]), ValueError, "no stage takes 'modle'"),
    (lambda: run_jobs({"a": {}}, "p", [RayStage("asr", needs_media)]), ValueError, "missing a required argument"),
    (lambda: run_jobs(["a"], "p", [RayStage("asr", nothing, num_gpu=1)]), ValueError, "num_gpu"),
]


@pytest.mark.parametrize(("call", "kind", "message"), MISTAKES, ids=[mistake[2] for mistake in MISTAKES])
def test_a_mistake_is_said_at_the_call(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_a_result_says_what_came_of_a_job(job: Path) -> None:
    result = run_job(job, "subtitles", [RayStage("asr", work.write)])
    assert isinstance(result, JobResult)
    assert (result.job, result.attempts, result.message) == (str(job), 1, "")
    assert result.seconds > 0
