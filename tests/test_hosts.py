"""Stages of one job on several hosts at once: with locks that all of them share, that each host keeps to itself, and
without any.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import needs
from helpers import LIMIT, cli, environment, kill_after, read_manifest, run_command, run_python, start_python
from helpers import write_script as write
from hosts import WORLDS, World, build
from receiver import Answer, Received, Receiver

from otel_stageio import Manifest, Pipeline, RunRecord, StageIO, recover
from otel_stageio.delivery.outbox import Outbox
from otel_stageio.layout import Job
from otel_stageio.reading.job import read_job
from otel_stageio.reading.trace import read_trace
from otel_stageio.report import render
from otel_stageio.report.waterfall import waterfall_of
from otel_stageio.sinks import claim
from otel_stageio.sinks.files import locked
from otel_stageio.testing import Records, fixed


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("flock"), needs("gcc"))


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, library: Path) -> World:
    return World(library, request.param)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "out" / "job"


def aged(job: Path, seconds: float) -> None:
    """As if nothing had been written for so long."""
    moment = time.time() - seconds
    for path in job.rglob("*"):
        os.utime(path, (moment, moment))


def recovered(tmp_path: Path, world: World, host: str, job: Path, **lost_after: float) -> list[str]:
    """What ``recover`` closes on a host."""
    source = "import json, sys\nfrom otel_stageio import recover\n"
    source += f"print(json.dumps(recover(sys.argv[1], **{lost_after})))"
    done = run_python(write(tmp_path / "recover.py", source), job, **world.on(host))
    assert (done.returncode, done.stderr) == (0, "")
    closed: list[str] = json.loads(done.stdout)
    return closed


def shown(world: World, host: str, job: Path, *command: str) -> Any:
    """What a command says, as JSON, on a host."""
    done = run_command(cli(*(command or ("status",)), job, "--json"), cwd=job, env=environment(**world.on(host)))
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


# -- at the same moment ----------------------------------------------------------------------------------------------

MANY = """
    import sys
    from otel_stageio import StageIO

    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(sys.argv[3])):
        for stage in sys.argv[4:]:
            with StageIO(stage.replace("HOST", sys.argv[2]), sys.argv[1]) as io:
                io.add_config("host", sys.argv[2])
"""
HOSTS = [f"node{number}" for number in range(8)]


def together(tmp_path: Path, world: World, job: Path, times: int, *stages: str, **env: str) -> None:
    """The same stages, so many times each, on all hosts, which begin at the same moment."""
    script = write(tmp_path / "many.py", MANY)
    every = [start_python(script, job, host, times, *stages, **world.on(host), **env) for host in HOSTS]
    for process in every:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in every:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in every:
        _, stderr = process.communicate(timeout=LIMIT)
        assert (process.returncode, stderr) == (0, "")


def no_claim_is_left(job: Path) -> bool:
    return not [path for path in (job / ".stageio").rglob("*") if ".claim" in path.name]


def test_hosts_that_begin_stages_at_the_same_moment_lose_no_entry(tmp_path: Path, world: World, job: Path) -> None:
    with Pipeline("many", job) as run:
        together(tmp_path, world, job, 3, "asr", "own_HOST", OTEL_STAGEIO_RUN_ID=run.run_id)
    record = RunRecord.load(job)
    assert (record.attempt, record.status, record.earlier) == (1, "success", [])
    noted = sorted((item.stage, item.attempt) for item in record.stages)
    assert [item for item in noted if item[0] == "asr"] == [("asr", number) for number in range(1, 25)]
    assert [item for item in noted if item[0] != "asr"] == [
        (f"own_{host}", number) for host in HOSTS for number in range(1, 4)
    ]
    assert {item.host for item in record.stages} == set(HOSTS)
    assert no_claim_is_left(job)


def test_a_directory_that_hosts_share_has_the_record_of_each(tmp_path: Path, world: World, job: Path) -> None:
    with Pipeline("many", job) as run:
        together(tmp_path, world, job, 2, "asr", "hallucination_removal", OTEL_STAGEIO_RUN_ID=run.run_id)
    top = read_manifest(job / "06_asr")
    for record in (top, top["substages"]["hallucination_removal"]):
        every = [*record["attempts"], record]
        assert [each["attempt"] for each in every] == list(range(1, 17))
        assert {each["status"] for each in every} == {"success"}
        assert Counter(each["config"]["host"] for each in every) == dict.fromkeys(HOSTS, 2)


def test_without_an_owner_every_stage_is_of_one_run(tmp_path: Path, world: World, job: Path) -> None:
    together(tmp_path, world, job, 2, "asr")
    every = [*RunRecord.load(job).earlier, RunRecord.load(job)]
    assert [run.attempt for run in every] == list(range(1, len(every) + 1))
    assert sorted(item.attempt for run in every for item in run.stages) == list(range(1, 17))
    of = {item.attempt: run.run_id for run in every for item in run.stages}
    for attempt in range(1, 17):
        (started,) = [event for event in Records(job).events("asr", attempt) if event.name.endswith("started")]
        assert started.attributes["cicd.pipeline.run.id"] == of[attempt]


# -- who may judge whom ----------------------------------------------------------------------------------------------

BUSY = """
    import sys
    from otel_stageio import StageIO

    with StageIO("asr", sys.argv[1]) as io:
        with io.span("transcribe"):
            print("working", flush=True)
            sys.stdin.readline()
"""
OTHER = """
    import sys
    from otel_stageio import StageIO

    with StageIO(sys.argv[2], sys.argv[1]) as io:
        pass
"""


def test_a_killed_stage_is_lost_to_another_host_only_after_silence(tmp_path: Path, world: World, job: Path) -> None:
    kill_after(start_python(write(tmp_path / "stage.py", BUSY), job, **world.on("a")), 1)
    assert recovered(tmp_path, world, "b", job) == []
    assert shown(world, "b", job)["state"] == "running"
    aged(job, 590)
    assert recovered(tmp_path, world, "b", job) == []
    aged(job, 610)
    assert recovered(tmp_path, world, "b", job) == ["asr.1"]
    manifest = Manifest.load(job / "06_asr")
    assert (manifest.status, manifest.cause) == ("lost", "nothing was heard of it on a for 10 min")


def test_on_its_own_host_it_is_crashed_at_once_where_there_are_locks(tmp_path: Path, world: World, job: Path) -> None:
    kill_after(start_python(write(tmp_path / "stage.py", BUSY), job, **world.on("a")), 1)
    if world.locks == "refused":
        assert recovered(tmp_path, world, "a", job) == []  # nothing tells it from one that lives
        aged(job, 610)
        assert recovered(tmp_path, world, "a", job) == ["asr.1"]
        assert Manifest.load(job / "06_asr").status == "lost"
    else:
        assert recovered(tmp_path, world, "a", job) == ["asr.1"]
        assert Manifest.load(job / "06_asr").status == "crashed"


def test_a_host_that_only_reads_says_lost_and_not_crashed(tmp_path: Path, world: World, job: Path) -> None:
    kill_after(start_python(write(tmp_path / "stage.py", BUSY), job, **world.on("a")), 1)
    aged(job, 700)
    (row,) = shown(world, "b", job.parent)["jobs"]
    assert row["state"] == "lost"
    assert Manifest.load(job / "06_asr").status == "running"


EVERYTHING = """
    import contextlib, io, json, sys
    from otel_stageio import StageIO, recover
    from otel_stageio.cli import main
    from otel_stageio.reading.job import read_job
    from otel_stageio.reading.jobs import summaries

    job, root, *stages = sys.argv[1:]

    def command(*words):
        sys.argv = ["otel-stageio", *words]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                main()
            except SystemExit as end:
                assert end.code != 2, words

    for stage in stages:
        StageIO(stage, job).finalize("success")
        assert recover(job) == []
        view = read_job(job)
        print(json.dumps([view.run.state, [found.state for found in summaries(root)]]))
        command("push", job, "--endpoint", "http://127.0.0.1:9")
        command("prune", job, "--spool", "--older-than", "0s", "--yes")
"""


def everything(tmp_path: Path, world: World, host: str, job: Path, *stages: str, **env: str) -> list[Any]:
    """Run stages on a host, and after each whatever may write the end of something: how run and job stand then."""
    script = write(tmp_path / "everything.py", EVERYTHING)
    done = run_python(script, job, job.parent, *stages, **world.on(host), **env, OTEL_STAGEIO_CONSOLE="off")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_lives_on_another_host_is_left_alone(tmp_path: Path, world: World, job: Path) -> None:
    living = start_python(write(tmp_path / "stage.py", BUSY), job, **world.on("a"))
    assert living.stdout is not None
    assert living.stdout.readline() == "working\n"
    journal = Path(Job(job).journal("asr", 1)).read_bytes()

    assert everything(tmp_path, world, "b", job, "mux", "vad") == [["running", ["running"]]] * 2
    assert Path(Job(job).journal("asr", 1)).read_bytes().startswith(journal)
    assert [event.name for event in Records(job).events("asr") if "ended" in event.name] == []

    _, stderr = living.communicate("\n", timeout=LIMIT)
    assert (living.returncode, stderr) == (0, "")
    assert Manifest.load(job / "06_asr").status == "success"
    found = list(Records(job).spans("asr"))
    assert [(span["name"], span.get("status", {})) for span in found] == [("transcribe", {}), ("asr", {})]
    assert {item.stage for item in RunRecord.load(job).stages} == {"asr", "mux", "vad"}


def test_nor_is_what_has_its_number_and_no_word_yet(tmp_path: Path, world: World, job: Path) -> None:
    """Between the two it is not in its journal where it runs."""
    source = """
        import sys
        from otel_stageio import StageIO
        from otel_stageio.runs import run

        def entered(*args, enter=run.enter, **kwargs):
            entry = enter(*args, **kwargs)
            print("entered", flush=True)
            sys.stdin.readline()
            return entry

        run.enter = entered
        StageIO("asr", sys.argv[1]).finalize("success")
    """
    (b := Pipeline("subtitles", job)).__enter__()
    living = start_python(write(tmp_path / "stage.py", source), job, **world.on("a"), OTEL_STAGEIO_RUN_ID=b.run_id)
    assert living.stdout is not None
    assert living.stdout.readline() == "entered\n"
    everything(tmp_path, world, "b", job, "mux", OTEL_STAGEIO_RUN_ID=b.run_id)
    assert Path(Job(job).journal("asr", 1)).read_bytes() == b""
    _, stderr = living.communicate("\n", timeout=LIMIT)
    assert (living.returncode, stderr) == (0, "")
    b.__exit__(None, None, None)
    assert Manifest.load(job / "06_asr").status == "success"


OWNER = """
    import sys
    from otel_stageio import Pipeline

    with Pipeline("subtitles", sys.argv[1]) as run:
        print(run.run_id, flush=True)
        sys.stdin.readline()
"""


@pytest.mark.parametrize("handed", [True, False])
def test_an_owner_that_waits_keeps_its_run_open(tmp_path: Path, world: World, job: Path, handed: bool) -> None:
    owner = start_python(write(tmp_path / "owner.py", OWNER), job, **world.on("a"), OTEL_STAGEIO_CONSOLE="off")
    assert owner.stdout is not None
    run_id = owner.stdout.readline().strip()
    env = {"OTEL_STAGEIO_RUN_ID": run_id} if handed else {}
    found = everything(tmp_path, world, "b", job, "asr", "mux", "asr", **env)
    assert found == [["running", ["running"]]] * 3
    _, stderr = owner.communicate("\n", timeout=LIMIT)
    assert (owner.returncode, stderr) == (0, "")
    record = RunRecord.load(job)
    assert (record.run_id, record.status, record.earlier) == (run_id, "success", [])
    assert [(item.stage, item.attempt) for item in record.stages] == [("asr", 1), ("mux", 1), ("asr", 2)]
    assert [span["name"] for span in Records(job).spans() if span["name"].startswith("RUN")] == ["RUN subtitles"]


def test_an_owner_is_heard_of_while_it_waits(job: Path) -> None:
    """Its file is touched; that is all that other hosts see of it."""
    with Pipeline("subtitles", job) as run:
        aged(job, 5000)
        run._beat()
        assert time.time() - Path(Job(job).owner_lock).stat().st_mtime < 60


def test_an_owner_that_died_leaves_a_run_that_is_lost_and_no_success(tmp_path: Path, world: World, job: Path) -> None:
    owner = start_python(write(tmp_path / "owner.py", OWNER), job, **world.on("a"), OTEL_STAGEIO_CONSOLE="off")
    assert owner.stdout is not None
    run_id = owner.stdout.readline().strip()
    env = {**world.on("b"), "OTEL_STAGEIO_RUN_ID": run_id}
    assert run_python(write(tmp_path / "other.py", OTHER), job, "asr", **env).returncode == 0
    owner.kill()
    owner.communicate(timeout=LIMIT)
    recovered(tmp_path, world, "b", job)
    assert RunRecord.load(job).status == "running"
    aged(job, 700)
    (row,) = shown(world, "b", job.parent)["jobs"]
    assert row["state"] == "lost"
    recovered(tmp_path, world, "b", job)
    assert RunRecord.load(job).status == "lost"


def test_a_command_of_a_pipeline_is_one_stage_and_one_attempt(tmp_path: Path, world: World, job: Path) -> None:
    source = """
        import sys
        from otel_stageio import Pipeline
        with Pipeline("subtitles", sys.argv[1]) as run:
            run.command("asr", [sys.executable, sys.argv[2], sys.argv[1], "asr"])
    """
    program = write(tmp_path / "other.py", OTHER)
    done = run_python(write(tmp_path / "owner.py", source), job, program, **world.on("a"), OTEL_STAGEIO_CONSOLE="off")
    assert (done.returncode, done.stderr) == (0, "")
    assert [(item.stage, item.attempt) for item in RunRecord.load(job).stages] == [("asr", 1)]


# -- killed where it must not be -------------------------------------------------------------------------------------


def a_claim(path: Path, *, host: str = "a") -> None:
    """As a host leaves it that was killed between reading and writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = "import os, sys\nfrom otel_stageio.sinks.claim import claimed\n"
    source += "with claimed(sys.argv[1], alone=False):\n    os._exit(0)\n"
    done = run_command(
        [sys.executable, "-c", source, str(path)], cwd=path.parent, env=environment(OTEL_STAGEIO_HOST_ID=host)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert os.path.islink(path)


@pytest.fixture
def host_b(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_STAGEIO_HOST_ID", "b")
    monkeypatch.setattr(claim, "LOOKS", 5)


def test_a_claim_that_a_dead_host_has_left_stops_nobody_for_long(host_b: None, job: Path) -> None:
    a_claim(job / ".stageio" / "run.lock.claim")
    a_claim(job / ".stageio" / "locks" / "06_asr.lock.claim")
    StageIO("asr", job).finalize("success")
    assert Manifest.load(job / "06_asr").status == "success"
    assert [item.stage for item in RunRecord.load(job).stages] == ["asr"]
    assert no_claim_is_left(job)


def test_nor_does_one_whose_heir_has_died_as_well(host_b: None, tmp_path: Path) -> None:
    place = tmp_path / "x.lock.claim"
    a_claim(place)
    heir = tmp_path / f"x.lock.claim.{claim._short(os.readlink(place))}"
    a_claim(heir, host="c")
    with locked(tmp_path / "x.lock"):
        assert os.readlink(place).startswith(claim._short("b "))
        assert not os.path.lexists(heir)
    assert sorted(os.listdir(tmp_path)) == ["cwd", "x.lock"] or sorted(os.listdir(tmp_path)) == ["x.lock"]


def test_one_that_was_killed_on_this_host_is_taken_over_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_STAGEIO_HOST_ID", "a")
    a_claim(tmp_path / "x.lock.claim")
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("there was nothing to wait for"))
    with locked(tmp_path / "x.lock"):
        pass
    assert no_claim_is_left(tmp_path)


def test_many_that_find_a_dead_claim_come_in_one_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(claim, "LOOKS", 3)
    inside: list[int] = []
    most: list[int] = []

    def come_in(number: int) -> None:
        with claim.claimed(str(tmp_path / "x.claim"), alone=False):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0)
            inside.remove(number)

    for _ in range(20):
        os.symlink(f"dead.1.{os.urandom(4).hex()}", tmp_path / "x.claim")
        threads = [threading.Thread(target=come_in, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(most), max(most)) == (120, 1)
    assert os.listdir(tmp_path) in (["cwd"], [])


def test_a_claim_that_cannot_be_had_stops_nothing(host_b: None, job: Path) -> None:
    for name in ("run.lock.claim", "locks/06_asr.lock.claim"):
        (job / ".stageio" / name).mkdir(parents=True)
    StageIO("asr", job).finalize("success")
    assert Manifest.load(job / "06_asr").status == "success"


def test_on_a_disk_of_this_machine_the_lock_is_enough(tmp_path: Path) -> None:
    with open(tmp_path / "y.lock", "w") as file:
        needed = claim.is_needed(file.fileno())
    if needed:
        pytest.skip(f"{tmp_path} is on a file system that is not known to be of one machine")
    with locked(tmp_path / "x.lock"):
        assert no_claim_is_left(tmp_path)


# -- delivery --------------------------------------------------------------------------------------------------------


def test_two_hosts_that_deliver_one_job_lose_nothing(world: World, job: Path) -> None:
    """One is in the middle of it while the other begins and ends."""
    for stage in ("demux", "vad", "asr", "mux"):
        StageIO(stage, job).finalize("success")
    recover(job)
    asked, other_is_through = threading.Event(), threading.Event()

    def answer(received: Received) -> Answer:
        if not asked.is_set():
            asked.set()
            other_is_through.wait(LIMIT)
        return Answer()

    def push(host: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            cli("push", job, "--endpoint", receiver.url),
            env=environment(**world.on(host), OTEL_EXPORTER_OTLP_TIMEOUT="60000"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    with Receiver(answer) as receiver:
        first = push("a")
        assert asked.wait(LIMIT)
        if world.locks != "shared":  # there it would wait for the first
            second = push("b")
            assert second.communicate(timeout=LIMIT)[0] is not None
            assert second.returncode == 0
        other_is_through.set()
        first.communicate(timeout=LIMIT)
        assert first.returncode == 0
        last = push("b")
        last.communicate(timeout=LIMIT)
        assert last.returncode == 0
        wanted = {span["spanId"] for span in Records(job).spans()}
        assert wanted <= set(receiver.span_ids)
        assert max(receiver.span_ids.values()) <= 2
    outbox = Outbox(Job(job))
    outbox.load()
    assert outbox.pending() == []


def test_a_note_that_another_deliverer_overwrites_goes_back_and_never_ahead(job: Path) -> None:
    for stage in ("demux", "asr"):
        StageIO(stage, job).finalize("success")
    one, other = Outbox(Job(job)), Outbox(Job(job))
    one.load()
    other.load()  # neither knows of the other
    first, second, *_ = one.journals()
    one.accept(first, first.size, 1)
    other.accept(second, second.size, 1)
    again = Outbox(Job(job))
    again.load()
    assert again.offset(second) == second.size
    assert first in again.pending()  # it is sent once more, with the same ids
    assert len(again.pending()) == len(one.journals()) - 1


# -- clocks ----------------------------------------------------------------------------------------------------------

SHIFTED = """
    import sys, time
    from otel_stageio import StageIO
    from otel_stageio.runtime import Clock, runtime

    class Shifted(Clock):
        def wall_ns(self):
            return time.time_ns() + int(sys.argv[3]) * 10**9

    runtime.clock = Shifted()
    with StageIO(sys.argv[2], sys.argv[1]) as io:
        with io.span("inner"):
            pass
"""


def with_a_shifted_clock(tmp_path: Path, job: Path, seconds: int) -> None:
    """A run whose owner and first stage are on one host, and the second on another, whose clock is off."""
    with Pipeline("subtitles", job) as run:
        with run.stage("demux"):
            pass
        env = {"OTEL_STAGEIO_HOST_ID": "gpu-7", "OTEL_STAGEIO_RUN_ID": run.run_id}
        done = run_python(write(tmp_path / "shifted.py", SHIFTED), job, "asr", seconds, **env)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("seconds", "said"), [(7, "ahead of"), (-7, "behind")])
def test_a_clock_that_is_off_is_told_of(tmp_path: Path, job: Path, seconds: int, said: str) -> None:
    with_a_shifted_clock(tmp_path, job, seconds)
    record = Manifest.load(job / "06_asr")
    assert record.host_clock is not None
    assert record.host_clock.host == "gpu-7"
    assert record.host_clock.ahead_seconds == pytest.approx(seconds, abs=0.9)
    assert record.duration_seconds is not None
    assert 0 < record.duration_seconds < 5
    assert Manifest.load(job / "01_demux").host_clock is None

    view = read_job(str(job))
    sentence = re.compile(
        rf"The clock of gpu-7 is [67]\.\d s {said} the file system's\. "
        r"Starts are as each host says them, durations are right\."
    )
    assert sentence.fullmatch(view.clocks)
    for command in ("show", "status", "trace"):
        text = run_command(cli(command, job), cwd=job).stdout
        assert sentence.search(" ".join(text.split())), text
    assert view.clocks.replace("'", "&#39;") in render(str(job))
    document = view.document(records=False)
    assert document["clocks"] == view.clocks
    assert {stage["name"]: stage["clock_ahead"] for stage in document["stages"]} == {
        "demux": None, "asr": record.host_clock.ahead_seconds,
    }  # fmt: skip


@pytest.mark.parametrize("seconds", [7, -7])
def test_no_bar_leaves_the_picture_for_it(tmp_path: Path, job: Path, seconds: int) -> None:
    with_a_shifted_clock(tmp_path, job, seconds)
    trace = read_trace(read_job(str(job)))
    assert trace is not None
    for _, bar in trace.root.walk():
        assert trace.root.start_ns <= bar.start_ns <= bar.end_ns <= trace.root.end_ns
    for gap in trace.gaps:
        assert gap.seconds > 0
    for group in waterfall_of(trace).groups:
        for row in (group.stage, *group.inside):
            assert float(row.x) >= 0
            assert float(row.width) > 0
            assert float(row.x) + float(row.width) <= 100.0001


def test_a_running_stage_has_run_for_as_long_as_it_has(tmp_path: Path, job: Path) -> None:
    source = SHIFTED.replace("pass", "print('working', flush=True); sys.stdin.readline()")
    env = {"OTEL_STAGEIO_HOST_ID": "gpu-7"}
    living = start_python(write(tmp_path / "shifted.py", source), job, "asr", 3600, **env)
    assert living.stdout is not None
    assert living.stdout.readline() == "working\n"
    (stage,) = read_job(str(job)).stages
    assert stage.seconds is not None
    assert 0 <= stage.seconds < LIMIT
    living.communicate("\n", timeout=LIMIT)


def test_clocks_that_go_together_are_not_spoken_of(tmp_path: Path, job: Path) -> None:
    for stage in ("demux", "asr"):
        env = {"OTEL_STAGEIO_HOST_ID": "gpu-7"}
        assert run_python(write(tmp_path / "shifted.py", SHIFTED), job, stage, 7, **env).returncode == 0
    assert read_job(str(job)).clocks == ""
    with fixed(), StageIO("mux", job):
        pass
    assert Manifest.load(Job(job).manifest("mux")).host_clock is None


def test_a_stage_that_begins_before_its_run_is_told_of(tmp_path: Path, job: Path) -> None:
    """Its owner's clock is ahead, and no stage ran there that would tell by how much."""
    source = """
        import sys, time
        from otel_stageio import Pipeline
        from otel_stageio.runtime import Clock, runtime

        class Shifted(Clock):
            def wall_ns(self):
                return time.time_ns() + 7 * 10**9

        runtime.clock = Shifted()
        with Pipeline("subtitles", sys.argv[1]) as run:
            print(run.run_id, flush=True)
            sys.stdin.readline()
    """
    env = {"OTEL_STAGEIO_HOST_ID": "login-1", "OTEL_STAGEIO_CONSOLE": "off"}
    owner = start_python(write(tmp_path / "owner.py", source), job, **env)
    assert owner.stdout is not None
    os.environ["OTEL_STAGEIO_RUN_ID"] = owner.stdout.readline().strip()
    StageIO("asr", job).finalize("success")
    owner.communicate("\n", timeout=LIMIT)
    assert re.fullmatch(
        r"A stage began [4-7]\.\d s before its run, so the clock of login-1 is ahead of others\. "
        r"Starts are as each host says them, durations are right\.",
        read_job(str(job)).clocks,
    )
