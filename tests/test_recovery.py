"""What becomes of a stage that died: how it died, what it said last, and nothing of it lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import IN_CI
from helpers import LIMIT, cli, environment, kill_after, run_python, start_python, write_script

from otel_stageio import Manifest, Pipeline, RunRecord, StageIO, recover
from otel_stageio import semconv as sc
from otel_stageio.layout import Job
from otel_stageio.otlp import decode
from otel_stageio.sinks.open_spans import LINE
from otel_stageio.testing import Records

BUSY = """
    import os, sys
    from otel_stageio import StageIO

    with StageIO("asr", sys.argv[1]) as io:
        log = io.get_stage_logger("CRITICAL")
        for number in range(30):
            log.info("line %d", number)
        io.set_config({"model": "large-v3"})
        io.track_input("audio.wav", "audio")
        with io.span("transcribe", chunks=41), io.span("chunk", number=7):
            print("working", flush=True)
            sys.stdin.readline()
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "out" / "job"


def killed(tmp_path: Path, job: Path, source: str = BUSY, **env: str) -> None:
    """A stage that printed a line and was killed."""
    kill_after(start_python(write_script(tmp_path / "stage.py", source), job, **env), 1)


def spans(job: Path) -> dict[str, dict[str, Any]]:
    found = list(Records(job).spans())
    assert len({span["spanId"] for span in found}) == len(found)
    return {span["name"]: span for span in found}


# -- a kill on this machine ------------------------------------------------------------------------------------------


def test_a_killed_stage_is_crashed_with_its_cause_and_its_last_words(tmp_path: Path, job: Path) -> None:
    killed(tmp_path, job)
    assert Records(job).manifest("asr")["status"] == "running"
    assert recover(job) == ["asr.1"]
    manifest = Manifest.load(job / "06_asr")
    assert (manifest.status, manifest.config) == ("crashed", {"model": "large-v3"})
    assert [entry.path for entry in manifest.inputs] == ["audio.wav"]
    (error,) = manifest.errors
    assert error.cause == manifest.cause == "its process is gone and left no word: killed, or crashed in native code"
    assert error.message == f"stage asr crashed: {error.cause}"
    assert error.last_lines is not None
    assert [line.partition("] [INFO] ")[2] for line in error.last_lines] == [f"line {n}" for n in range(10, 30)]
    assert spans(job)["asr"]["status"]["message"].endswith("line 29")


def test_a_pipeline_killed_between_two_stages_is_no_success(tmp_path: Path, job: Path) -> None:
    source = """
        import os, signal, sys
        from otel_stageio import Pipeline

        with Pipeline("subtitles", sys.argv[1], stages=["demux", "asr"]) as run:
            with run.stage("demux"):
                pass
            print("between", flush=True)
            sys.stdin.readline()
    """
    killed(tmp_path, job, source, OTEL_STAGEIO_CONSOLE="off")
    assert Manifest.load(job / "01_demux").status == "success"
    recover(job)
    assert RunRecord.load(job).status == "crashed"
    assert spans(job)["RUN subtitles"]["attributes"][sc.PIPELINE_RESULT] == "error"


def test_the_spans_inside_it_are_ended_as_errors_with_the_ids_and_parents_that_they_had(
    tmp_path: Path, job: Path
) -> None:
    killed(tmp_path, job)
    recover(job)
    found = spans(job)
    assert found.keys() == {"asr", "transcribe", "chunk", "RUN job"}
    assert found["chunk"]["parentSpanId"] == found["transcribe"]["spanId"]
    assert (
        found["transcribe"]["parentSpanId"]
        == found["asr"]["spanId"]
        == Records(job).manifest("asr")["trace"]["span_id"]
    )
    assert found["transcribe"]["attributes"] == {"chunks": 41, "error.type": "crashed"}
    for name in ("transcribe", "chunk"):
        assert found[name]["status"] == {
            "code": 2, "message": "the stage ended as crashed in the middle of it"
        }  # fmt: skip
        assert found["asr"]["startTimeUnixNano"] < found[name]["startTimeUnixNano"] <= found[name]["endTimeUnixNano"]
    assert not list((job / ".stageio" / "open").iterdir())


def test_a_librarys_span_is_ended_too_and_its_secrets_stay_out(tmp_path: Path, job: Path) -> None:
    killed(
        tmp_path,
        job,
        """
        import sys
        from opentelemetry import trace
        from otel_stageio import StageIO

        with StageIO("asr", sys.argv[1]):
            tracer = trace.get_tracer("requests")
            url = "https://user:hunter2222@example.com/" + "x" * 2000
            with tracer.start_as_current_span("GET", attributes={"url": url}), tracer.start_as_current_span("inner"):
                print("working", flush=True)
                sys.stdin.readline()
        """,
    )
    for path in job.rglob("*"):
        assert path.is_dir() or b"hunter2222" not in path.read_bytes()
    recover(job)
    assert spans(job)["inner"]["status"]["code"] == 2


def test_spans_that_had_ended_stay_as_they_were(tmp_path: Path, job: Path) -> None:
    killed(
        tmp_path,
        job,
        """
        import sys
        from otel_stageio import StageIO

        with StageIO("asr", sys.argv[1]) as io:
            for number in range(100):
                with io.span(f"step {number}"):
                    pass
            with io.span("open"):
                print("working", flush=True)
                sys.stdin.readline()
        """,
    )
    (left,) = (job / ".stageio" / "open").iterdir()
    assert left.stat().st_size == 8 * LINE  # one line serves them all, and eight are there from the start
    recover(job)
    found = spans(job)
    assert sum("status" not in found[f"step {number}"] for number in range(100)) == 100
    assert found["open"]["status"]["code"] == 2


def test_what_is_written_for_it_carries_the_resource_that_it_had(
    tmp_path: Path, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(tmp_path, job, OTEL_SERVICE_NAME="subtitles", OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=gpu")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "cron")
    recover(job)
    for name in ("asr", "transcribe"):
        resource = spans(job)[name]["resource"]
        assert (resource["service.name"], resource["deployment.environment.name"]) == ("subtitles", "gpu")


def test_what_it_used_by_its_last_heartbeat_is_in_the_record(tmp_path: Path, job: Path) -> None:
    killed(
        tmp_path,
        job,
        """
        import sys, time
        from otel_stageio import StageIO
        from otel_stageio.layout import Job
        from otel_stageio.otlp import decode

        with StageIO("asr", sys.argv[1]):
            ballast = bytearray(64 << 20)
            ballast[::4096] = b"x" * len(ballast[::4096])
            journal = Job(sys.argv[1]).journal("asr", 1)
            while not any(event.name == "stageio.heartbeat" for event in decode.events(decode.Lines(journal))):
                time.sleep(0.05)
            print("working", flush=True)
            sys.stdin.readline()
        """,
    )
    recover(job)
    resources = Records(job).manifest("asr")["resources"]
    assert resources["peak_memory_bytes"] > 64 << 20
    assert 0 < resources["cpu_seconds"] < 60
    assert spans(job)["asr"]["attributes"]["stageio.process.memory.peak"] == resources["peak_memory_bytes"]


def test_log_lines_reach_the_spool_within_a_second_though_nothing_else_happens(tmp_path: Path, job: Path) -> None:
    process = start_python(
        write_script(
            tmp_path / "stage.py",
            """
            import sys
            from otel_stageio import StageIO

            with StageIO("asr", sys.argv[1]) as io:
                io.get_stage_logger("CRITICAL").info("and now for two hours of silence")
                sys.stdin.readline()
            """,
        ),
        job,
    )
    journal = Path(Job(job).journal("asr", 1))
    deadline = time.monotonic() + LIMIT
    while not any(
        record.get("body") == {"stringValue": "and now for two hours of silence"}
        for _, record in decode.log_records(decode.Lines(journal))
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    _, stderr = process.communicate("\n", timeout=LIMIT)
    assert (process.returncode, stderr) == (0, "")


def test_a_forked_worker_that_is_killed_within_a_span_leaves_no_span_open(tmp_path: Path, job: Path) -> None:
    done = run_python(
        write_script(
            tmp_path / "stage.py",
            """
            import os, signal, sys
            from otel_stageio import StageIO

            with StageIO("asr", sys.argv[1]) as io, io.span("outer"):
                pid = os.fork()
                if not pid:
                    with io.span("in the worker"):
                        os.kill(os.getpid(), signal.SIGKILL)
                os.waitpid(pid, 0)
            """,
        ),
        job,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = spans(job)
    assert found["in the worker"]["status"] == {"code": 2, "message": "its process died in the middle of it"}
    assert "status" not in found["outer"]
    assert Records(job).manifest("asr")["status"] == "success"
    assert recover(job) == []


def test_the_thread_that_beats_is_not_there_at_a_fork(tmp_path: Path, job: Path) -> None:
    """Since 3.12 Python warns of a fork beside other threads, and tests often make an error of that."""
    done = run_python(
        write_script(
            tmp_path / "stage.py",
            """
            import os, sys, threading
            from otel_stageio import StageIO

            with StageIO("asr", sys.argv[1]) as io:
                assert threading.active_count() == 2
                pid = os.fork()
                if not pid:
                    os._exit(threading.active_count())
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
                assert threading.active_count() == 2
            """,
        ),
        job,
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- more than once, and half ----------------------------------------------------------------------------------------


def snapshot(job: Path) -> dict[str, bytes]:
    return {str(path.relative_to(job)): path.read_bytes() for path in job.rglob("*") if path.is_file()}


def test_recovering_again_changes_nothing(tmp_path: Path, job: Path) -> None:
    killed(tmp_path, job)
    assert recover(job) == ["asr.1"]
    before = snapshot(job)
    assert recover(job) == []
    assert snapshot(job) == before


def test_many_recoveries_at_once_do_it_once(tmp_path: Path, job: Path) -> None:
    killed(tmp_path, job)
    script = write_script(
        tmp_path / "recover.py",
        """
        import sys
        from otel_stageio import recover

        print("ready", flush=True)
        sys.stdin.readline()
        print(recover(sys.argv[1]))
        """,
    )
    processes = [start_python(script, job) for _ in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=LIMIT) for process in processes]
    assert all(stderr == "" for _, stderr in said)
    assert sum("asr.1" in stdout for stdout, _ in said) == 1
    events = [event.name for event in Records(job).events("asr")]
    assert events.count("stageio.stage.ended") == events.count("stageio.error") == 1
    assert spans(job).keys() == {"asr", "transcribe", "chunk", "RUN job"}


def test_a_recovery_that_is_killed_anywhere_is_finished_by_the_next(tmp_path: Path, job: Path) -> None:
    """After each of the files that it writes to, in turn."""
    killed(tmp_path, job)
    recovering = """
        import os, sys
        from otel_stageio import recover
        from otel_stageio.sinks import files, manifest_file

        left = int(sys.argv[2])

        def counted(function):
            def call(*args, **kwargs):
                global left
                result = function(*args, **kwargs)
                left -= 1
                if not left:
                    os.kill(os.getpid(), 9)
                return result
            return call

        files.AppendFile.write = counted(files.AppendFile.write)
        files.replace = manifest_file.replace = counted(files.replace)
        recover(sys.argv[1])
    """
    deaths = 0
    for number in range(1, 30):
        copy = tmp_path / "copies" / str(number)
        shutil.copytree(job, copy)
        done = run_python(write_script(tmp_path / "recover.py", recovering), copy, number)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        deaths += 1
        recover(copy)
        assert spans(copy).keys() == {"asr", "transcribe", "chunk", f"RUN {job.name}"}
        assert Manifest.load(copy / "06_asr").status == "crashed"
        assert RunRecord.load(copy).status == "crashed"
        events = [event.name for event in Records(copy).events("asr")]
        assert events.count("stageio.stage.ended") == 1
        assert not list((copy / ".stageio" / "open").iterdir())
    assert deaths >= 5


def test_a_stage_killed_before_it_said_a_word_is_crashed_all_the_same(tmp_path: Path, job: Path) -> None:
    script = """
        import os, sys
        from otel_stageio import StageIO
        from otel_stageio.stages import opening

        take_number = opening.runs.enter

        def taken(*args, **kwargs):
            take_number(*args, **kwargs)
            os.kill(os.getpid(), 9)

        opening.runs.enter = taken
        StageIO("asr", sys.argv[1])
    """
    done = run_python(write_script(tmp_path / "stage.py", script), job)
    assert done.returncode == -signal.SIGKILL
    assert Path(Job(job).journal("asr", 1)).read_bytes() == b""
    assert recover(job) == ["asr.1"]
    assert Manifest.load(job / "06_asr").status == "crashed"
    assert RunRecord.load(job).status == "crashed"
    assert spans(job).keys() == {"asr", "RUN job"}


def test_a_killed_recovery_is_finished_though_the_stage_has_run_again_meanwhile(tmp_path: Path, job: Path) -> None:
    """Of a stage that died before its first word, of which nothing was left open."""
    killed(tmp_path, job)
    shutil.rmtree(job / ".stageio" / "open")
    (job / "06_asr" / "manifest.json").unlink()
    pid = os.fork()
    if not pid:
        from otel_stageio.recovery import recover as recovery

        recovery._complete = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,func-returns-value]
        recover(job)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with StageIO("asr", job):
        pass
    recover(job)
    manifest = Manifest.load(job / "06_asr")
    assert (manifest.status, [former.status for former in manifest.attempts]) == ("success", ["crashed"])
    assert Counter(span["name"] for span in Records(job).spans())["asr"] == 2
    assert not list((job / ".stageio" / "open").iterdir())


def test_a_stage_that_is_about_to_begin_is_left_alone(job: Path) -> None:
    """Between its journal's making and its locking there is a moment, under the lock of the run record."""
    from otel_stageio.runs import run
    from otel_stageio.sinks.files import AppendFile

    place = Job(job)
    Path(place.spool).mkdir(parents=True)
    with run.edit(place) as content:
        run._begin(place, content, "job", True, None)["stages"].append({"stage": "asr", "attempt": 1, "pid": 1})
        journal = AppendFile(place.journal("asr", 1))
        recovering = subprocess.Popen(
            [sys.executable, "-c", f"import otel_stageio; print(otel_stageio.recover({str(job)!r}))"],
            env=environment(), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with pytest.raises(subprocess.TimeoutExpired):
            recovering.wait(1)  # it waits for the lock
        run.share_life(journal)
    assert recovering.communicate(timeout=LIMIT)[0] == "[]\n"
    journal.close()


@pytest.mark.parametrize("torn", ["journal", "spans"])
def test_a_torn_last_line_costs_nothing_but_itself(tmp_path: Path, job: Path, torn: str) -> None:
    killed(tmp_path, job)
    path = Path(Job(job).journal("asr", 1, "logs" if torn == "journal" else "spans"))
    whole = path.read_bytes() if path.exists() else b""
    with open(path, "ab") as file:
        file.write(b'{"resourceLogs":[{"resource":{"attributes":[{"key":"servi')
    recover(job)
    assert Manifest.load(job / "06_asr").status == "crashed"
    assert spans(job).keys() == {"asr", "transcribe", "chunk", "RUN job"}
    assert path.read_bytes().startswith(whole)


def test_a_copied_job_is_recovered_without_touching_the_original(tmp_path: Path, job: Path) -> None:
    killed(tmp_path, job)
    copy = tmp_path / "elsewhere" / "job"
    shutil.copytree(job, copy)
    before = snapshot(job)
    assert recover(copy) == ["asr.1"]
    assert snapshot(job) == before
    assert Manifest.load(copy / "06_asr").status == "crashed"


def test_a_living_stage_is_never_touched(tmp_path: Path, job: Path) -> None:
    process = start_python(write_script(tmp_path / "stage.py", BUSY), job)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    assert recover(job, lost_after=0) == []
    assert Records(job).manifest("asr")["status"] == "running"
    _, stderr = process.communicate("\n", timeout=LIMIT)
    assert (process.returncode, stderr) == (0, "")
    assert Records(job).manifest("asr")["status"] == "success"
    assert recover(job) == []


def test_a_stage_without_a_manifest_gets_none_by_dying(tmp_path: Path, job: Path) -> None:
    killed(tmp_path, job, BUSY.replace("sys.argv[1])", "sys.argv[1], False)"))
    assert recover(job) == ["asr.1"]
    assert not (job / "06_asr" / "manifest.json").exists()
    assert spans(job)["asr"]["status"]["code"] == 2


# -- where a free lock says nothing ----------------------------------------------------------------------------------


def aged(job: Path, seconds: float) -> None:
    """As if nothing had been written for so long."""
    moment = time.time() - seconds
    for path in job.rglob("*"):
        os.utime(path, (moment, moment))


def test_a_stage_of_another_host_is_lost_after_a_long_silence_and_no_sooner(tmp_path: Path, job: Path) -> None:
    killed(tmp_path, job, OTEL_STAGEIO_HOST_ID="gpu-7")
    assert recover(job) == []  # its lock is free here, and that says nothing
    aged(job, 590)
    assert recover(job) == []
    assert Records(job).manifest("asr")["status"] == "running"
    assert RunRecord.load(job).status == "running"
    aged(job, 610)
    assert recover(job) == ["asr.1"]
    manifest = Manifest.load(job / "06_asr")
    assert (manifest.status, manifest.cause) == ("lost", "nothing was heard of it on gpu-7 for 10 min")
    assert spans(job)["asr"]["attributes"]["error.type"] == "lost"
    assert RunRecord.load(job).status == "lost"


def test_it_is_running_to_those_who_ask_until_then(tmp_path: Path, job: Path) -> None:
    killed(tmp_path, job, OTEL_STAGEIO_HOST_ID="gpu-7")
    for seconds, state in ((0, "running"), (700, "lost")):
        aged(job, seconds)
        shown = subprocess.run(cli("status", job, "--json"), env=environment(), capture_output=True, check=True)
        assert json.loads(shown.stdout)["stages"][0]["state"] == state


def test_the_clock_of_the_other_host_does_not_matter(tmp_path: Path, job: Path) -> None:
    """Its records are hours ahead or behind; silence is measured by the clock of the file system."""
    for number, step in enumerate((-7200, 7200)):
        place = job / str(number)
        killed(
            tmp_path, place,
            BUSY.replace("from otel_stageio import StageIO", "from otel_stageio import StageIO\n"
            "    from otel_stageio.runtime import Clock, runtime\n    import time\n"
            "    class Wrong(Clock):\n        def wall_ns(self):\n"
            f"            return time.time_ns() + {step} * 10**9\n    runtime.clock = Wrong()"),
            OTEL_STAGEIO_HOST_ID="gpu-7",
        )  # fmt: skip
        assert recover(place) == []
        aged(place, 700)
        assert recover(place) == ["asr.1"]


def test_a_lost_stage_that_comes_back_has_the_last_word(
    tmp_path: Path, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start_python(write_script(tmp_path / "stage.py", BUSY), job, OTEL_STAGEIO_HOST_ID="gpu-7")
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    monkeypatch.setattr("otel_stageio.recovery.life.seize", lambda fd: True)  # from another host its lock is not seen
    assert recover(job, lost_after=0) == ["asr.1"]
    assert Manifest.load(job / "06_asr").status == "lost"
    _, stderr = process.communicate("\n", timeout=LIMIT)
    assert (process.returncode, stderr) == (0, "")
    assert Manifest.load(job / "06_asr").status == "success"


def as_before_a_restart(job: Path, *, said: str) -> None:
    """The journal as a machine left it that had another boot id, with times of its own."""
    journal = Path(Job(job).journal("asr", 1))
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    text = journal.read_text().replace(boot, "4d2f3c1a-0000-4000-8000-000000000000")
    journal.write_text(re.sub(r'(?<=UnixNano":")\d{19}(?=")', said, text) if said else text)


def test_a_machine_that_went_down_takes_its_stages_along(tmp_path: Path, job: Path) -> None:
    killed(tmp_path, job)
    as_before_a_restart(job, said="1500000000000000000")
    (job / "06_asr" / "stage.log").write_text("")
    assert recover(job) == ["asr.1"]
    manifest = Manifest.load(job / "06_asr")
    assert (manifest.status, manifest.cause) == ("crashed", "the machine went down: it has been started anew since")


def test_another_machine_of_the_same_name_is_not_taken_for_this_one_after_a_restart(tmp_path: Path, job: Path) -> None:
    killed(tmp_path, job)
    as_before_a_restart(job, said="")
    assert recover(job) == []  # it has spoken since this machine came up
    aged(job, 700)
    assert recover(job) == ["asr.1"]
    assert Manifest.load(job / "06_asr").status == "lost"


# -- out of memory ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group with 160 MiB; the path of its list of processes."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    v1 = Path("/sys/fs/cgroup/memory") / own.get("memory", "/").lstrip("/")
    v2 = Path("/sys/fs/cgroup") / own.get("", "/").lstrip("/")
    group = (v1 if "memory" in own else v2) / f"otel_stageio_test_{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if "memory" in own else "memory.max")).write_text(str(160 << 20))
    except OSError as error:
        reason = f"no control group can be made here: {error}"
        pytest.fail(reason) if IN_CI else pytest.skip(reason)
    yield group / "cgroup.procs"
    group.rmdir()


HOG = """
    import os, sys
    open(sys.argv[2], "w").write(str(os.getpid()))
    from otel_stageio import Pipeline, StageIO

    def eat():
        eaten = []
        while True:
            eaten.append(bytearray(b"x") * (8 << 20))

"""


def test_a_stage_that_the_kernel_killed_for_memory_is_known_for_it(
    tmp_path: Path, job: Path, small_memory: Path
) -> None:
    stage = write_script(tmp_path / "stage.py", HOG + "    with StageIO('asr', sys.argv[1]) as io:\n        eat()\n")
    assert run_python(stage, job, small_memory).returncode == -signal.SIGKILL
    assert recover(job) == ["asr.1"]
    manifest = Manifest.load(job / "06_asr")
    assert manifest.cause is not None
    assert manifest.cause.startswith("out of memory, it seems")
    assert spans(job)["asr"]["attributes"]["stageio.oom"] is True


@pytest.mark.parametrize("through_a_shell", [False, True])
def test_a_pipeline_says_so_at_once(tmp_path: Path, job: Path, small_memory: Path, through_a_shell: bool) -> None:
    """A shell survives the program that it ran, and says 137."""
    hog = write_script(tmp_path / "hog.py", HOG + "    eat()\n")
    command = f"[sys.executable, {str(hog)!r}, sys.argv[1], sys.argv[2]]"
    if through_a_shell:
        command = f"['sh', '-c', '\"$@\"; exit $?', 'sh', *{command}]"
    pipeline = write_script(
        tmp_path / "pipeline.py",
        HOG + f"    with Pipeline('p', sys.argv[1]) as run:\n        run.command('asr', {command}, check=False)\n",
    )
    done = run_python(pipeline, job, small_memory)
    assert done.returncode == 0, done.stderr
    manifest = Manifest.load(job / "06_asr")
    assert manifest.status == ("failed" if through_a_shell else "crashed")
    assert manifest.cause is not None
    assert manifest.cause.startswith("out of memory: the kernel killed a process")
    assert "memory" in manifest.errors[-1].message


def test_a_kill_without_lack_of_memory_is_not_called_that(job: Path) -> None:
    with Pipeline("p", job) as run:
        run.command("asr", ["sh", "-c", "kill -KILL $$"], check=False)
    manifest = Manifest.load(job / "06_asr")
    assert (manifest.status, manifest.cause) == ("crashed", None)
    assert "SIGKILL" in manifest.errors[-1].message


# -- by itself, and by command ---------------------------------------------------------------------------------------


def test_the_next_stage_the_next_pipeline_and_status_close_what_died(tmp_path: Path, job: Path) -> None:
    def next_stage(place: Path) -> None:
        with StageIO("mux", place):
            pass

    def next_pipeline(place: Path) -> None:
        with Pipeline("p", place):
            pass

    def status(place: Path) -> None:
        subprocess.run(cli("status", place), env=environment(), capture_output=True, check=True)

    for number, look in enumerate((next_stage, next_pipeline, status)):
        place = job / str(number)
        killed(tmp_path, place)
        look(place)
        assert Manifest.load(place / "06_asr").status == "crashed"
        assert spans(place)["chunk"]["status"]["code"] == 2


def test_recover_by_command_for_jobs_and_for_a_whole_tree(tmp_path: Path) -> None:
    root = tmp_path / "out"
    for name in ("a", "b/c"):
        killed(tmp_path, root / name)
    with StageIO("asr", root / "fine"):
        pass
    done = subprocess.run(cli("recover", root), env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"✗ {root}/a  asr, attempt 1: crashed; its process is gone")
    assert lines[2] == "2 dead stages closed in 3 jobs"
    again = subprocess.run(cli("recover", root / "a", root / "fine", "--json"), env=environment(),
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert json.loads(again.stdout) == {"jobs": 2, "closed": 0, "by_job": {}}


@pytest.mark.parametrize(("args", "code"), [(["nowhere"], 1), (["--lost-after", "soon", "."], 2), ([], 2)])
def test_recover_says_what_it_cannot_do(tmp_path: Path, args: list[str], code: int) -> None:
    done = subprocess.run(
        cli("recover", *args), env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
