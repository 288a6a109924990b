"""Many at once: processes, threads, tasks, stages, attempts and jobs; nothing torn, nothing lost, nothing mixed up.

What has been said is known beforehand, and a small reader of our own looks whether it is all there, once, and in order.
"""

from __future__ import annotations

import asyncio
import collections
import json
import logging
import re
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers import LIMIT, read_manifest, run_python, start_python, strict_json, write_script

from otel_stageio import Manifest, Pipeline, RunRecord, StageIO
from otel_stageio.testing import Records

HEAD = re.compile(rb"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[([^\]]+)\] \[[A-Z]+\] (.*)")

#: What the scripts below share: processes by the dozen out of one that has imported everything, so that hundreds take
#: seconds; they begin in the same instant, and each must end well, without an internal error of ours.
FLEET = """
    import os, sys, traceback
    from otel_stageio import Pipeline, StageIO
    from otel_stageio.runtime import runtime

    runtime.strict = True

    def fork(work, *args):
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            work(*args)
            assert not runtime.internal_errors, runtime.internal_errors
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def wait(pids):
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)

    def fleet(count, work):
        gate, latch = os.pipe()

        def begin(number):
            os.close(latch)
            os.read(gate, 1)  # until the last latch is closed
            work(number)

        pids = [fork(begin, number) for number in range(count)]
        os.close(latch)
        wait(pids)
        os.close(gate)

"""


def fleet(tmp_path: Path, job: Path, body: str) -> None:
    """Run a script that begins with :data:`FLEET`."""
    done = run_python(write_script(tmp_path / "fleet.py", FLEET + body), job, OTEL_STAGEIO_CONSOLE="off")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def said(log: Path) -> list[tuple[str, str]]:
    """(logger, text) of every record of a log file. Whatever is no record, and no further line of one, is torn."""
    raw = log.read_bytes()
    assert raw.endswith(b"\n")
    found: list[tuple[str, list[bytes]]] = []
    for line in raw[:-1].split(b"\n"):
        if line.startswith(b"["):
            match = HEAD.fullmatch(line)
            assert match, f"torn: {line[:200]!r}"
            found.append((match[1].decode(), [match[2]]))
        else:
            found[-1][1].append(line)
    return [(logger, b"\n".join(lines).decode()) for logger, lines in found]


def by_speaker(log: Path) -> dict[str, list[str]]:
    """What each speaker said, in order; the first word of a text is its speaker."""
    found: dict[str, list[str]] = collections.defaultdict(list)
    for _, text in said(log):
        found[text.split(" ", 1)[0]].append(text)
    return dict(found)


def spool_text(records: Records, stage: str, attempt: int = 1) -> str:
    """What one attempt has in the spool; every line of it is strict JSON."""
    spool = records.job / ".stageio" / "spool"
    parts = [path.read_text(encoding="utf-8") for path in sorted(spool.glob(f"{stage}.{attempt}.*.jsonl"))]
    for part in parts:
        assert part.endswith("\n")
        for line in part.splitlines():
            strict_json(line)
    return "".join(parts)


def names(entries: list[dict[str, Any]]) -> list[str]:
    return [Path(entry["path"]).name for entry in entries]


# -- one pipeline log ------------------------------------------------------------------------------------------------

#: 40 stages, each a process with four workers: 200 processes with one pipeline log.
STAGES, WORKERS = 40, 4


def speech(speaker: str) -> list[str]:
    """What each process says: short lines, one of 100,000 characters, and records of several lines."""
    forged = "\n[2025-11-27 10:11:12] [stage.asr] [INFO] forged"
    return [
        *(f"{speaker} {number} short" for number in range(8)),
        f"{speaker} long ".ljust(100_000, speaker[-1]),
        f"{speaker} lines" + "".join(f"\n  frame {number} of {speaker}" for number in range(30)),
        f"{speaker} forger{forged}{forged}",
        f"{speaker} last",
    ]


def test_two_hundred_processes_write_one_pipeline_log(records: Records, tmp_path: Path) -> None:
    write_script(tmp_path / "speech.py", f"def speech(speaker):\n    return {json.dumps(speech('WHO'))}")
    fleet(
        tmp_path,
        records.job,
        f"""
    from speech import speech

    def speak(log, speaker):
        for text in speech(speaker):
            if " long " in text:
                text = "WHO long ".replace("WHO", speaker).ljust(100_000, speaker[-1])
            log.info("%s", text.replace("WHO", speaker))

    def stage(number):
        name = f"stage{{number}}"
        with StageIO(name, sys.argv[1]) as io:
            log = io.get_stage_logger()
            workers = [fork(speak, log, f"{{name}}.{{worker}}") for worker in range({WORKERS})]
            speak(log, name)
            wait(workers)

    fleet({STAGES}, stage)
        """,
    )
    (log,) = (records.job / "logs").iterdir()
    stages = [f"stage{number}" for number in range(STAGES)]
    speakers = {stage: [stage, *(f"{stage}.{worker}" for worker in range(WORKERS))] for stage in stages}
    expected = {
        speaker: [text.replace("\n[", "\n [") for text in speech(speaker)]
        for stage in stages
        for speaker in speakers[stage]
    }
    assert len(expected) == 200
    assert by_speaker(log) == expected
    for stage in stages:
        assert by_speaker(records.job / f"99_{stage}" / "stage.log") == {who: expected[who] for who in speakers[stage]}
        assert records.manifest(stage)["status"] == "success"
        spooled = spool_text(records, stage)
        assert all(f"{who} last" in spooled and f"{who} long " in spooled for who in speakers[stage])


# -- one run ---------------------------------------------------------------------------------------------------------


def test_processes_that_start_in_the_same_instant_share_one_run(records: Records, tmp_path: Path) -> None:
    fleet(
        tmp_path,
        records.job,
        """
    def stage(number):
        with StageIO(f"stage{number % 32}", f"{sys.argv[1]}{number // 32}") as io:
            io.get_stage_logger().info("here")

    fleet(4 * 32, stage)  # in four jobs, to have four races for the first place
        """,
    )
    for number in range(4):
        job = Path(f"{records.job}{number}")
        run = RunRecord.load(job)
        assert (run.attempt, run.earlier) == (1, [])
        assert sorted(entry.stage for entry in run.stages) == sorted(f"stage{number}" for number in range(32))
        assert {entry.attempt for entry in run.stages} == {1}
        (log,) = (job / "logs").iterdir()
        assert f"logs/{log.name}" == run.pipeline_log
        assert len(said(log)) == 32
        spans = Records(job).spans()
        assert {span["traceId"] for span in spans} == {run.trace_id}
        assert {span["parentSpanId"] for span in spans} == {run.root_span_id}


# -- one directory ---------------------------------------------------------------------------------------------------


def test_thirty_two_processes_write_one_stage_directory(records: Records, tmp_path: Path) -> None:
    """Half of them are attempts at asr, half at the stage that shares its directory, all at once."""
    path = records.job / "06_asr" / "manifest.json"
    over = threading.Event()
    looks: collections.Counter[str] = collections.Counter()

    def look() -> None:
        while not over.is_set():
            try:
                content = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                continue
            for record in all_records(strict_json(content)):
                looks[record["status"]] += 1

    with ThreadPoolExecutor(1) as reader:
        looking = reader.submit(look)
        try:
            fleet(
                tmp_path,
                records.job,
                """
    def stage(number):
        name = ("asr", "hallucination_removal")[number % 2]
        with StageIO(name, sys.argv[1]) as io:
            io.add_config("writer", number)
            for item in range(10):
                io.track_input(io.get_output_path(f"{number}.{item}.in"), "part")
                io.track_output(io.get_output_path(f"{number}.{item}.out"), "part")
                io.add_warning(f"{number} {item}")

    fleet(32, stage)
                """,
            )
        finally:
            over.set()
        looking.result()
    assert looks.keys() <= {"running", "success"}
    assert looks["running"] > 0
    manifest = read_manifest(path)
    seen = []
    for stage, whole in (("asr", manifest), ("hallucination_removal", manifest["substages"]["hallucination_removal"])):
        attempts = [*whole["attempts"], whole]
        assert [attempt["attempt"] for attempt in attempts] == list(range(1, 17))
        for attempt in attempts:
            number = attempt["config"]["writer"]
            seen.append(number)
            assert (attempt["stage"], attempt["status"]) == (stage, "success")
            assert names(attempt["inputs"]) == [f"{number}.{item}.in" for item in range(10)]
            assert names(attempt["outputs"]) == [f"{number}.{item}.out" for item in range(10)]
            own = [warning["message"] for warning in attempt["warnings"] if "already running" not in warning["message"]]
            assert own == [f"{number} {item}" for item in range(10)]
    assert sorted(seen) == list(range(32))
    assert Manifest.load(path).of("hallucination_removal") is not None


def all_records(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Every attempt at every stage of a directory."""
    stages = [manifest, *manifest["substages"].values()]
    return [record for stage in stages for record in (stage, *stage["attempts"])]


# -- one stage, twice ------------------------------------------------------------------------------------------------

OBEYS = """
    import sys
    from otel_stageio import StageIO

    job, who = sys.argv[1:]
    io = StageIO("asr", job)
    io.add_config("who", who)
    print("open", flush=True)
    for word in map(str.strip, sys.stdin):
        if word in ("success", "failed"):
            io.finalize(status=word)
        else:
            io.get_stage_logger().info("%s %s", who, word)
            io.track_output(io.get_output_path(f"{who}.{word}"))
        print("done", flush=True)
"""


class Attempt:
    """A process with the stage open, which does what it is told."""

    def __init__(self, script: Path, job: Path, who: str) -> None:
        self.who = who
        self.process = start_python(script, job, who, OTEL_STAGEIO_CONSOLE="off")
        self._hear("open")

    def _hear(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{word}\n", self.process.communicate()

    def tell(self, *words: str) -> None:
        assert self.process.stdin is not None
        for word in words:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
            self._hear("done")

    def leave(self) -> None:
        _, stderr = self.process.communicate(timeout=LIMIT)
        assert (self.process.returncode, stderr) == (0, "")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=LIMIT)


@pytest.fixture
def attempt(records: Records, tmp_path: Path) -> Any:
    """``attempt("first")`` opens the stage in a process of its own."""
    script = write_script(tmp_path / "obeys.py", OBEYS)
    begun: list[Attempt] = []

    def begin(who: str) -> Attempt:
        begun.append(Attempt(script, records.job, who))
        return begun[-1]

    yield begin
    for one in begun:
        if one.process.poll() is None:
            one.kill()


def of(manifest: dict[str, Any], number: int) -> dict[str, Any]:
    """One attempt's record."""
    (found,) = [record for record in (manifest, *manifest["attempts"]) if record["attempt"] == number]
    return found


@pytest.mark.parametrize("last", ["first", "second"])
def test_the_second_of_two_attempts_at_once_is_told_and_neither_harms_the_other(
    records: Records, attempt: Any, last: str
) -> None:
    first = attempt("first")
    first.tell("a")
    second = attempt("second")
    manifest = records.manifest("asr")
    assert (manifest["attempt"], manifest["status"], manifest["config"]) == (2, "running", {"who": "second"})
    assert (of(manifest, 1)["status"], of(manifest, 1)["config"]) == ("running", {"who": "first"})
    (warning,) = manifest["warnings"]
    assert warning["message"] == "stage asr is already running in this job (attempt 1); both write here"
    assert of(manifest, 1)["warnings"] == []

    first.tell("b")
    second.tell("a", "b")
    first.tell("c")
    ends = [(second, "failed"), (first, "success")] if last == "first" else [(first, "success"), (second, "failed")]
    for one, status in ends:
        one.tell(status)
    for one, _ in ends:
        one.leave()

    manifest = records.manifest("asr")
    assert (manifest["attempt"], manifest["status"]) == (2, "failed")  # the newest stands on top, whoever ends last
    assert of(manifest, 1)["status"] == "success"
    assert names(of(manifest, 1)["outputs"]) == ["first.a", "first.b", "first.c"]
    assert names(manifest["outputs"]) == ["second.a", "second.b"]
    lines = by_speaker(records.job / "06_asr" / "stage.log")
    assert lines["first"] == ["first a", "first b", "first c"]
    assert lines["second"] == ["second a", "second b"]
    spans = records.spans("asr")
    assert len({span["spanId"] for span in spans}) == 2
    assert not re.search(r"second[ .][ab]", spool_text(records, "asr", 1))
    assert not re.search(r"first[ .][abc]", spool_text(records, "asr", 2))


def test_the_second_of_two_attempts_is_told_so_in_its_log(records: Records, attempt: Any) -> None:
    attempt("first")
    attempt("second")
    assert "stage asr is already running in this job (attempt 1)" in records.log("asr")


def test_of_two_attempts_at_once_one_is_killed_and_the_other_goes_on(records: Records, attempt: Any) -> None:
    first, second = attempt("first"), attempt("second")
    first.tell("a")
    first.kill()
    third = attempt("third")  # finds the first dead, and the second alive
    manifest = records.manifest("asr")
    assert [of(manifest, number)["status"] for number in (1, 2, 3)] == ["crashed", "running", "running"]
    assert "already running in this job (attempt 2)" in manifest["warnings"][0]["message"]
    for one in (second, third):
        one.tell("b", "success")
        one.leave()
    manifest = records.manifest("asr")
    assert [of(manifest, number)["status"] for number in (1, 2, 3)] == ["crashed", "success", "success"]
    assert names(of(manifest, 1)["outputs"]) == ["first.a"]


def test_attempts_at_once_in_threads_of_one_process_are_told_as_well(records: Records) -> None:
    at_once = threading.Barrier(8)

    def work(number: int) -> None:
        with StageIO("asr", records.job) as io:
            at_once.wait(LIMIT)
            io.add_config("number", number)
            io.track_output(io.get_output_path(f"{number}.json"))
            at_once.wait(LIMIT)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    manifest = records.manifest("asr")
    attempts = [*manifest["attempts"], manifest]
    assert [record["attempt"] for record in attempts] == list(range(1, 9))
    for record in attempts:
        assert record["status"] == "success"
        assert names(record["outputs"]) == [f"{record['config']['number']}.json"]
        # Each opened while all before it were running.
        told = [warning["message"] for warning in record["warnings"]]
        before = ", ".join(str(number) for number in range(1, record["attempt"]))
        assert told == (
            [f"stage asr is already running in this job (attempt {before}); both write here"] if before else []
        )


def test_two_pipelines_at_work_on_one_job_are_two_runs(records: Records) -> None:
    with Pipeline("first", records.job) as first, first.stage("demux") as demux:
        with Pipeline("second", records.job) as second, second.stage("asr") as asr:
            asr.get_stage_logger("CRITICAL").info("of the second")
        demux.get_stage_logger("CRITICAL").info("of the first")
        with first.stage("mux"):
            pass
    run = RunRecord.load(records.job)
    (earlier,) = run.earlier
    assert (run.pipeline, run.status, [entry.stage for entry in run.stages]) == ("second", "success", ["asr"])
    assert (earlier.pipeline, earlier.status) == ("first", "success")
    assert [entry.stage for entry in earlier.stages] == ["demux", "mux"]
    roots = {span["name"]: span for span in records.spans() if span["name"].startswith("RUN")}
    assert roots.keys() == {"RUN first", "RUN second"}
    log = (records.job / earlier.pipeline_log).read_text()
    other = (records.job / run.pipeline_log).read_text()
    assert ("of the first" in log, "of the second" in log) == (True, False)
    assert ("of the first" in other, "of the second" in other) == (False, True)
    assert "another pipeline is at work on this job" in other


# -- parallel stages of one job --------------------------------------------------------------------------------------


def test_parallel_stages_in_threads_of_one_process(records: Records) -> None:
    stages = [f"stage{number}" for number in range(12)]
    at_once = threading.Barrier(len(stages))

    def work(name: str) -> None:
        with StageIO(name, records.job) as io:
            at_once.wait(LIMIT)
            log = io.get_stage_logger("CRITICAL")
            for number in range(40):
                log.info("%s own %d", name, number)
                logging.getLogger("library").info("%s library %d", name, number)
                io.track_output(io.get_output_path(f"{name}.{number}"))
                with io.span(f"span of {name}"):
                    io.event("event", of=name)
            io.add_warning(f"{name} warns")
            at_once.wait(LIMIT)

    with ThreadPoolExecutor(len(stages)) as pool:
        list(pool.map(work, stages))
    run = RunRecord.load(records.job)
    assert sorted(entry.stage for entry in run.stages) == sorted(stages)
    (log,) = (records.job / "logs").iterdir()
    own = {name: [f"{name} own {number}" for number in range(40)] for name in stages}
    assert by_speaker(log) == own
    for name in stages:
        texts = by_speaker(records.job / f"99_{name}" / "stage.log")[name]
        assert texts == [f"{name} {kind} {number}" for number in range(40) for kind in ("own", "library")]
        manifest = records.manifest(name)
        assert names(manifest["outputs"]) == [f"{name}.{number}" for number in range(40)]
        assert [warning["message"] for warning in manifest["warnings"]] == [f"{name} warns"]
        *inner, outer = records.spans(name)
        assert outer["name"] == name
        assert {(span["name"], span["parentSpanId"]) for span in inner} == {(f"span of {name}", outer["spanId"])}
        assert len(inner) == 40
        events = [event for event in records.events(name) if event.name == "event"]
        assert [event.attributes["of"] for event in events] == [name] * 40


def test_parallel_commands_that_open_their_stage_themselves(records: Records, tmp_path: Path) -> None:
    """Each program is one stage and one attempt, also where several of a name run at once."""
    script = write_script(
        tmp_path / "program.py",
        """
        import socket, sys
        from otel_stageio import StageIO

        name, item, port = sys.argv[1:]
        with StageIO(name) as io:
            with socket.create_connection(("127.0.0.1", int(port))) as together:
                together.recv(1)  # until all are there
            with io.span("work", item=item):
                io.get_stage_logger().info("item %s of %s", item, name)
                io.track_output(io.get_output_path(f"{name}.{item}"))
            io.add_warning(f"{name} {item}")
        """,
    )
    work = [(name, item) for name in ("asr", "translation", "mux") for item in range(3)]
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(len(work)) as pool:
        server.settimeout(LIMIT)
        with Pipeline("parallel", records.job) as run:
            argv = [sys.executable, script]
            port = str(server.getsockname()[1])
            running = [pool.submit(run.command, name, [*argv, name, str(item), port]) for name, item in work]
            there = [server.accept()[0] for _ in work]
            for one in there:
                one.close()
            results = [future.result(LIMIT) for future in running]
    assert [(result.stage, result.status) for result in results] == [(name, "success") for name, _ in work]
    record = RunRecord.load(records.job)
    assert sorted((entry.stage, entry.attempt) for entry in record.stages) == sorted(
        (name, attempt) for name in ("asr", "translation", "mux") for attempt in (1, 2, 3)
    )
    for name in ("asr", "translation", "mux"):
        manifest = records.manifest(name)
        attempts = [*manifest["attempts"], manifest]
        assert sorted(names([output for record in attempts for output in record["outputs"]])) == [
            f"{name}.{item}" for item in range(3)
        ]
        for found in attempts:
            ((output,), attempt) = names(found["outputs"]), found["attempt"]
            item = output.rpartition(".")[2]
            assert found["status"] == "success"
            assert f"{name} {item}" in [warning["message"] for warning in found["warnings"]]
            spooled = spool_text(records, name, attempt)
            assert f"item {item} of {name}" in spooled
            assert not [other for other in "012" if other != item and f"item {other} of {name}" in spooled]
    spans = records.spans()
    assert collections.Counter(span["name"] for span in spans) == {
        "asr": 3, "translation": 3, "mux": 3, "work": 9, Path(sys.executable).name: 9, "RUN parallel": 1
    }  # fmt: skip
    by_id = {span["spanId"]: span for span in spans}
    for span in spans:
        if span["name"] == "work":  # in its program, in its stage, in the run
            program = by_id[span["parentSpanId"]]
            stage = by_id[program["parentSpanId"]]
            assert by_id[stage["parentSpanId"]]["name"] == "RUN parallel"


# -- many jobs of one process ----------------------------------------------------------------------------------------


def test_many_jobs_at_once_in_one_process_do_not_mix(tmp_path: Path) -> None:
    """The same stage of each, with loggers of the same name, open at once and taking turns."""
    jobs = [Records(tmp_path / f"job{number}") for number in range(40)]
    stages = [StageIO("asr", records.job) for records in jobs]
    loggers = [io.get_stage_logger("CRITICAL") for io in stages]
    assert {logger.name for logger in loggers} == {"stage.asr"}
    at_once = threading.Barrier(8)

    def work(first: int) -> None:
        at_once.wait(LIMIT)
        for number in range(20):
            for records, io, log in list(zip(jobs, stages, loggers, strict=True))[first::8]:
                name = records.job.name
                log.info("%s. line %d", name, number)
                io.track_output(io.get_output_path(f"{name}.{number}"))
                with io.span(f"{name}."):
                    io.event("event", of=f"{name}.")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    for io in stages:
        io.finalize()
    for records in jobs:
        name = records.job.name
        assert by_speaker(records.job / "06_asr" / "stage.log") == {
            f"{name}.": [f"{name}. line {n}" for n in range(20)]
        }
        (log,) = (records.job / "logs").iterdir()
        assert len(said(log)) == 20
        manifest = records.manifest("asr")
        assert names(manifest["outputs"]) == [f"{name}.{number}" for number in range(20)]
        assert [span["name"] for span in records.spans("asr")] == [f"{name}."] * 20 + ["asr"]
        text = spool_text(records, "asr") + json.dumps(manifest) + json.dumps(records.run())
        assert set(re.findall(r"job\d+", text)) == {name}
        assert RunRecord.load(records.job).attempt == 1


# -- threads and tasks of one stage ----------------------------------------------------------------------------------


def test_threads_of_one_stage_lose_nothing(records: Records) -> None:
    at_once = threading.Barrier(16)

    def work(io: StageIO, number: int) -> None:
        who = f"thread{number}"
        at_once.wait(LIMIT)
        for item in range(50):
            io.get_stage_logger("CRITICAL").info("%s own %d", who, item)
            logging.getLogger("library").info("%s library %d", who, item)
            io.track_output(io.get_output_path(f"{who}.{item}"))
            io.add_config(f"{who}.{item}", item)
            io.add_warning(f"{who} {item}")
            with io.span(who):
                io.event("event", who=who)

    with StageIO("asr", records.job) as io, ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [io] * 16, range(16)))
    manifest = records.manifest("asr")
    every = [f"thread{number}.{item}" for number in range(16) for item in range(50)]
    assert sorted(names(manifest["outputs"])) == sorted(every)
    assert manifest["config"].keys() == set(every)
    assert len({warning["message"] for warning in manifest["warnings"]}) == len(manifest["warnings"]) == len(every)
    assert manifest["lost"] == {}
    found = by_speaker(records.job / "06_asr" / "stage.log")
    for number in range(16):
        who = f"thread{number}"
        assert found[who] == [f"{who} {kind} {item}" for item in range(50) for kind in ("own", "library")]
    *inner, outer = records.spans("asr")
    assert collections.Counter(span["name"] for span in inner) == {f"thread{number}": 50 for number in range(16)}
    assert {span["parentSpanId"] for span in inner} == {outer["spanId"]}
    spool_text(records, "asr")


def test_tasks_with_several_stages_open_at_once(records: Records) -> None:
    """One loop, eight stages, each task giving way to the others after every word; one of them is cancelled."""
    stages = [f"stage{number}" for number in range(8)]

    async def part(io: StageIO, number: int) -> None:
        with io.span(f"part of {io.stage_name}"):
            await asyncio.sleep(0)
            logging.getLogger("library").info("%s part %d", io.stage_name, number)
            await asyncio.sleep(0)

    async def stage(name: str, everybody: asyncio.Event) -> None:
        with StageIO(name, records.job) as io:
            everybody.there += 1  # type: ignore[attr-defined]
            if everybody.there == len(stages):  # type: ignore[attr-defined]
                everybody.set()
            await everybody.wait()
            for number in range(10):
                logging.getLogger("library").info("%s own %d", name, number)
                await asyncio.sleep(0)
            await asyncio.gather(*(part(io, number) for number in range(10)))
            if name == "stage0":
                await asyncio.Event().wait()

    async def main() -> None:
        everybody = asyncio.Event()
        everybody.there = 0  # type: ignore[attr-defined]
        first, *others = (asyncio.ensure_future(stage(name, everybody)) for name in stages)
        await asyncio.gather(*others)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())
    for name in stages:
        assert records.manifest(name)["status"] == ("cancelled" if name == "stage0" else "success")
        texts = by_speaker(records.job / f"99_{name}" / "stage.log")
        assert texts.keys() == {name}
        assert sorted(texts[name]) == sorted(
            f"{name} {kind} {number}" for kind in ("own", "part") for number in range(10)
        )
        *inner, outer = records.spans(name)
        assert [span["name"] for span in inner] == [f"part of {name}"] * 10
        assert {span["parentSpanId"] for span in inner} == {outer["spanId"]}
    assert len({span["traceId"] for span in records.spans()}) == 1


# -- multiprocessing -------------------------------------------------------------------------------------------------

POOL = """
    import logging, multiprocessing, os, sys
    from otel_stageio import StageIO
    from otel_stageio.runtime import runtime

    runtime.strict = True
    io = None

    def work(item):
        io.get_stage_logger().info("item%d own", item)
        logging.getLogger("library").info("item%d library", item)
        io.track_input(io.get_output_path(f"{item}.in"))
        io.add_warning(f"warning {item}")
        with io.span("work", item=item):
            io.event("event", item=item)
        io.add_error(f"error {item}") if item == 7 else None
        assert not runtime.internal_errors
        return os.getpid()

    def main():
        global io
        with StageIO("asr", sys.argv[1]) as io:
            io.track_output(io.get_output_path("before"))
            with multiprocessing.get_context(sys.argv[2]).Pool(3) as pool:
                pids = set(pool.map(work, range(60), chunksize=1))
                assert os.getpid() not in pids
                pool.close()
                pool.join()
            assert io.manifest.data["status"] == "running"
            io.track_output(io.get_output_path("after"))
            io.get_stage_logger().info("parent last")

    if __name__ == "__main__":
        main()
"""


def test_a_pool_of_forked_workers_inside_a_stage(records: Records, tmp_path: Path) -> None:
    """What workers say, log and track is the stage's; it ends when the parent ends it."""
    script = write_script(tmp_path / "pool.py", POOL)
    done = run_python(script, records.job, "fork", OTEL_STAGEIO_CONSOLE="off")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    manifest = records.manifest("asr")
    assert (manifest["status"], manifest["attempt"], manifest["attempts"]) == ("success", 1, [])
    assert names(manifest["outputs"]) == ["before", "after"]
    assert sorted(names(manifest["inputs"])) == sorted(f"{item}.in" for item in range(60))
    assert sorted(item["message"] for item in manifest["warnings"]) == sorted(f"warning {item}" for item in range(60))
    assert [error["message"] for error in manifest["errors"]] == ["error 7"]
    found = by_speaker(records.job / "06_asr" / "stage.log")
    for item in range(60):
        assert found[f"item{item}"] == [f"item{item} own", f"item{item} library"]
    *inner, outer = records.spans("asr")
    assert outer["name"] == "asr"
    assert {(span["name"], span["parentSpanId"]) for span in inner} == {("work", outer["spanId"])}
    assert sorted(span["attributes"]["item"] for span in inner) == list(range(60))
    assert [event.name for event in records.events("asr")].count("stageio.stage.ended") == 1
    assert sorted(event.attributes["item"] for event in records.events("asr") if event.name == "event") == list(
        range(60)
    )
    run = RunRecord.load(records.job)
    assert [(entry.stage, entry.attempt) for entry in run.stages] == [("asr", 1)]


def test_a_worker_killed_in_the_middle_of_a_span_leaves_an_ended_one(records: Records, tmp_path: Path) -> None:
    """The stage goes on and ends well; the span of the dead worker is ended as an error, under the stage."""
    fleet(
        tmp_path,
        records.job,
        """
    import signal

    def die(io):
        io.track_output(io.get_output_path("of the worker"))
        with io.span("half"):
            os.kill(os.getpid(), signal.SIGKILL)

    with StageIO("asr", sys.argv[1]) as io:
        assert os.waitpid(fork(die, io), 0)[1] == signal.SIGKILL
        """,
    )
    manifest = records.manifest("asr")
    assert (manifest["status"], names(manifest["outputs"])) == ("success", ["of the worker"])
    spans = {span["name"]: span for span in records.spans("asr")}
    assert spans["half"]["parentSpanId"] == spans["asr"]["spanId"]
    assert spans["half"]["status"]["code"] == 2
