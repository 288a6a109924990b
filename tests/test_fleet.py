"""Many jobs of many hosts: what ``status`` says of them, and what may run on every host at once.

A host is a process with a name of its own in OTEL_STAGEIO_HOST_ID; all share this machine's locks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import LIMIT, clean_environment, cli, environment, kill_after, run_python, start_python, write_script
from receiver import Answer, Received, Receiver
from stack import wait_until

from otel_stageio import Pipeline, StageIO
from otel_stageio.cli.jobs_page import page
from otel_stageio.delivery import shipper
from otel_stageio.delivery.delivery import Delivery
from otel_stageio.delivery.settings import endpoints
from otel_stageio.delivery.shipper import Watch
from otel_stageio.layout import Job
from otel_stageio.otlp import decode
from otel_stageio.reading.job import read_job
from otel_stageio.reading.jobs import summaries

__all__ = ["clean_environment"]  # a fixture of all that is here

#: Opens so many stages at once, each in a job of its own, and holds them until it is told to end them or is killed.
WORKER = """
    import sys
    from otel_stageio import StageIO

    root, name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    stages = [StageIO("asr", f"{root}/{name}-{at:03d}") for at in range(number)]
    for at, io in enumerate(stages):
        io.get_stage_logger().info("line of %s-%03d", name, at)
    print("open", flush=True)
    sys.stdin.readline()
    for io in stages:
        io.finalize("success")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    return write_script(tmp_path / "worker.py", WORKER)


@contextmanager
def living(worker: Path, root: Path, host: str, number: int, name: str = "") -> Iterator[subprocess.Popen[str]]:
    """Stages that run on a host for the length of a block."""
    process = start_python(
        worker, root, name or f"alive-{host}", number, OTEL_STAGEIO_HOST_ID=host, OTEL_STAGEIO_CONSOLE="off"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    try:
        yield process
    finally:
        _, err = process.communicate("end\n", timeout=LIMIT)
    assert (process.returncode, err) == (0, "")


def dead(worker: Path, root: Path, host: str, number: int, name: str = "") -> None:
    """Stages whose process was killed on a host."""
    process = start_python(
        worker, root, name or f"dead-{host}", number, OTEL_STAGEIO_HOST_ID=host, OTEL_STAGEIO_CONSOLE="off"
    )
    kill_after(process, 1)


def aged(root: Path, pattern: str, seconds: float) -> None:
    """As if the jobs had been written to for the last time so long ago."""
    moment = time.time() - seconds
    for job in root.glob(pattern):
        for path in (job, *job.rglob("*")):
            os.utime(path, (moment, moment))


def ask(*args: object, **env: str) -> str:
    done = subprocess.run(
        cli(*args), env=environment(**env), capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def events(job: Path) -> Counter[str]:
    lines = decode.Lines(Job(job).journal("asr", 1))
    return Counter(event.name for event in decode.events(lines))


def span_ids(job: Path) -> list[str]:
    return [span["spanId"] for span in decode.spans(decode.Lines(Job(job).journal("asr", 1, "spans")))]


def records_of(root: Path) -> tuple[Counter[str], int]:
    """What is to arrive of a tree: its spans by their ids, and how many log records."""
    spans: Counter[str] = Counter()
    logs = 0
    for path in root.glob("*/.stageio/spool/*.jsonl"):
        if path.name.endswith(".spans.jsonl"):
            spans.update(span["spanId"] for span in decode.spans(decode.Lines(path)))
        elif path.name.endswith(".logs.jsonl"):
            logs += sum(1 for _ in decode.log_records(decode.Lines(path)))
    return spans, logs


# -- status ----------------------------------------------------------------------------------------------------------


def test_a_directory_of_jobs_says_what_each_host_does_and_who_has_gone_silent(worker: Path, root: Path) -> None:
    with living(worker, root, "gpu-1", 3), living(worker, root, "gpu-2", 1):
        dead(worker, root, "gpu-3", 2, "silent")
        aged(root, "silent-*", 300)
        dead(worker, root, "gpu-4", 1, "lost")
        aged(root, "lost-*", 700)
        shown = ask("status", root, COLUMNS="80").splitlines()
        assert shown[0].startswith("6 running, 1 lost  in ")
        assert shown[1].startswith("  ✗ gpu-3  silent for 5 min")
        assert shown[1].endswith(" s, 2 running")
        assert shown[2] == "  ✗ gpu-4  1 lost     ● gpu-1  3 running  ● gpu-2  1 running"
        rows = {line.split()[1]: line for line in ask("status", root, COLUMNS="120").splitlines() if line[:1] in "✗●"}
        assert rows["alive-gpu-1-000"].endswith("  asr on gpu-1")
        assert "  asr on gpu-3, silent for 5 min" in rows["silent-000"]
        assert "  asr on gpu-4: nothing is heard of it any more" in rows["lost-000"]

        found = json.loads(ask("status", root, "--json"))
        assert [host["name"] for host in found["hosts"]] == ["gpu-3", "gpu-4", "gpu-1", "gpu-2"]
        assert found["hosts"][0]["stages"] == {"running": 2}
        assert found["hosts"][0]["silent_seconds"] == pytest.approx(300, abs=60)
        assert [host["silent_seconds"] for host in found["hosts"][1:]] == [None, None, None]
        stages = {job["name"]: job["stages"][0] for job in found["jobs"]}
        assert stages["alive-gpu-2-000"]["host"] == "gpu-2"
        assert stages["alive-gpu-2-000"]["silent_seconds"] is None
        assert stages["silent-001"]["silent_seconds"] == pytest.approx(300, abs=60)

        named = json.loads(ask("status", root, "--json", "--host", "gpu-4", "--host", "gpu-2"))
        assert {job["name"] for job in named["jobs"]} == {"lost-000", "alive-gpu-2-000"}
        assert "  none of them is on gpu-9\n" in ask("status", root, "--host", "gpu-9")
        browser = page(root)
        assert "<td>gpu-3</td>" in browser
        assert "asr on gpu-1" in browser


def test_what_it_says_of_a_lost_stage_is_what_recover_says(worker: Path, root: Path) -> None:
    dead(worker, root, "gpu-4", 1)
    for seconds, state, died in ((0, "running", False), (700, "lost", True)):
        aged(root, "*", seconds)
        (found,) = summaries(str(root))
        assert (found.state, found.dead, read_job(found.path, close=False).state) == (state, died, state)
    assert json.loads(ask("recover", root, "--json"))["closed"] == 1
    (found,) = summaries(str(root))
    assert (found.state, found.dead) == ("lost", False)
    assert [(stand.host, stand.state) for stand in found.stages] == [("gpu-4", "lost")]


def test_where_everything_is_on_one_host_none_is_named(worker: Path, root: Path) -> None:
    with Pipeline("films", root / "here") as run, run.stage("asr"):
        found = json.loads(ask("status", root, "--json"))
        assert (found["hosts"], found["states"]) == ([], {"running": 1})
        assert os.uname().nodename not in ask("status", root)
        assert "<th>host</th>" not in page(root)
    assert " on " not in ask("status", root / "here").split("\n", 6)[-1]


def test_what_runs_elsewhere_is_said_by_whoever_asks(worker: Path, root: Path) -> None:
    with living(worker, root, "gpu-1", 1):
        assert "  ● gpu-1  1 running\n" in ask("status", root)


def test_one_job_says_where_each_of_its_stages_was(worker: Path, root: Path) -> None:
    with StageIO("demux", root / "job-000"):
        pass
    with living(worker, root, "gpu-1", 1, "job"):
        lines = [line for line in ask("status", root / "job-000").splitlines() if "──" in line]
        assert f"on {os.uname().nodename}" in lines[0]
        assert "on gpu-1" in lines[1]


def test_where_not_all_have_room_what_has_to_be_seen_to_comes_first(worker: Path, root: Path) -> None:
    dead(worker, root, "gpu-4", 1)
    aged(root, "dead-*", 700)
    with living(worker, root, "gpu-1", 2):
        for number in range(4):
            with Pipeline("films", root / f"good{number}") as run, run.stage("asr"):
                pass
        shown = json.loads(ask("status", root, "--json", "--limit", 4))["jobs"]
        assert [job["state"] for job in shown] == ["lost", "running", "running", "success"]
        assert [job["state"] for job in json.loads(ask("status", root, "--json"))["jobs"]][:4] == ["success"] * 4
        assert shown[3]["name"] == "good3"


def test_hosts_with_hostile_names_are_one_line(worker: Path, root: Path) -> None:
    with living(worker, root, "gpu\x1b[2J\n✗ forged", 1), living(worker, root, "gpu-1", 1):
        shown = ask("status", root)
        assert "\x1b" not in shown
        assert not [line for line in shown.splitlines() if line.startswith("✗")]
        assert "\x1b" not in page(root)


def test_a_detached_run_is_running_between_its_stages(root: Path) -> None:
    with Pipeline("films", root / "job") as run, run.stage("asr"):
        pass
    record = root / "job/.stageio/run.json"
    content = {**json.loads(record.read_text()), "status": "running", "ended_at": None, "detached": True}
    record.write_text(json.dumps(content))
    (found,) = summaries(str(root))
    assert (found.state, found.dead, found.urgent) == ("running", False, False)


# -- recover, on every host at once ------------------------------------------------------------------------------------


def together(commands: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """What each host's command says as JSON, all run at once."""
    running = {
        host: subprocess.Popen(
            command, env=environment(OTEL_STAGEIO_HOST_ID=host), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for host, command in commands.items()
    }  # fmt: skip
    said = {host: process.communicate(timeout=LIMIT) for host, process in running.items()}
    assert all(err == "" for _, err in said.values()), said
    return {host: json.loads(out) for host, (out, _) in said.items()}


HOSTS = ("gpu-1", "gpu-2", "gpu-3", "gpu-4")


def test_recover_on_every_host_at_once_closes_each_dead_stage_once_and_none_that_lives(
    worker: Path, root: Path
) -> None:
    with ExitStack() as stack:
        for host in HOSTS:
            stack.enter_context(living(worker, root, host, 15))
            dead(worker, root, host, 15)
        dead(worker, root, "gone", 40, "lost")
        aged(root, "lost-*", 700)
        dead(worker, root, "cut-off", 10, "quiet")  # not heard of for a moment: nobody's to judge yet
        before = {path: span_ids(path) for path in root.iterdir()}
        closed: Counter[str] = Counter()
        dying = {path.name for path in root.iterdir() if path.name.startswith(("dead", "lost"))}
        for _ in range(5):  # who comes upon one that another host is just looking at leaves it to the next
            said = together({host: cli("recover", root, "--json") for host in HOSTS})
            for host, found in said.items():
                names = [Path(job).name for job in found["by_job"]]
                closed.update(names)
                # Only the host itself can say that a process of its own is gone.
                assert all(name.startswith((f"dead-{host}-", "lost-")) for name in names)
            if closed.keys() == dying:
                break
        assert closed == dict.fromkeys(dying, 1)
        for job in root.iterdir():
            manifest = json.loads((job / "06_asr/manifest.json").read_text())
            kind = job.name.partition("-")[0]
            word = {"alive": "running", "quiet": "running", "dead": "crashed", "lost": "lost"}[kind]
            assert manifest["status"] == word
            ends = 0 if word == "running" else 1
            counted = events(job)
            assert (counted["stageio.stage.ended"], counted["stageio.error"]) == (ends, ends)
            assert span_ids(job) == before[job] + [manifest["trace"]["span_id"]] * ends
        assert all(
            found["closed"] == 0 for found in together({h: cli("recover", root, "--json") for h in HOSTS}).values()
        )
    for job in root.glob("alive-*"):
        assert json.loads((job / "06_asr/manifest.json").read_text())["status"] == "success"


def test_an_old_tree_is_passed_over_and_a_job_that_is_named_is_not(root: Path) -> None:
    with Pipeline("films", root / "old") as run, run.stage("asr"):
        pass
    journal = Path(Job(root / "old").journal("asr", 1))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b"stageio.stage.ended" not in line))
    aged(root, "old", 100_000)
    before = journal.read_bytes()
    assert ask("recover", root) == "nothing has died in 1 job\n"
    assert journal.read_bytes() == before
    ask("recover", root / "old")
    assert journal.read_bytes() != before


# -- push --watch, on every host at once -------------------------------------------------------------------------------


#: As on a file system whose locks each host has for itself.
LOCKS_OF_ITS_OWN = """
    import fcntl, sys
    from otel_stageio.cli import main

    fcntl.flock = lambda fd, operation: None
    sys.exit(main())
"""


class Shipping:
    """``push --watch`` on a host."""

    def __init__(self, root: Path, url: str, host: str, command: list[str] | None = None) -> None:
        words = [*(command or cli()), "push", "--watch", str(root), "--endpoint", url]
        self.process = subprocess.Popen(
            words, env=environment(OTEL_STAGEIO_HOST_ID=host), cwd=root.parent,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("watching ")

    def stop(self) -> None:
        self.process.terminate()
        _, err = self.process.communicate(timeout=LIMIT)
        assert (self.process.returncode, err) == (0, "")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=LIMIT)


def ended(root: Path, number: int) -> None:
    script = write_script(
        root.parent / "ended.py",
        """
        import sys
        from otel_stageio import Pipeline

        for number in range(int(sys.argv[2])):
            with Pipeline("films", f"{sys.argv[1]}/ended-{number:03d}") as run, run.stage("asr") as io:
                io.get_stage_logger().info("line of %d", number)
        """,
    )
    assert run_python(script, root, number).returncode == 0


def test_shippers_on_every_host_send_each_record_once(worker: Path, root: Path) -> None:
    ended(root, 60)
    with Receiver() as receiver, ExitStack() as stack:
        for host in HOSTS:
            dead(worker, root, host, 5)
        workers = [stack.enter_context(living(worker, root, host, 5)) for host in HOSTS]
        shippers = [Shipping(root, receiver.url, host) for host in HOSTS]
        # The dead are closed, each by its own host, and arrive with their ends.
        wait_until(lambda: sum(span.name == "asr" for span in receiver.spans) >= 80, LIMIT, "what has ended")
        assert [span.status.code for span in receiver.spans if span.name == "asr"].count(2) == 20
        assert not [body for body in receiver.bodies if "ended: lost" in body]
        for process in workers:
            assert process.stdin is not None
            process.stdin.write("end\n")
            process.stdin.flush()
        wait_until(lambda: sum(span.name == "asr" for span in receiver.spans) >= 100, LIMIT, "the others")
        wait_until(lambda: len(receiver.logs) >= records_of(root)[1], LIMIT, "the log records")
        for shipping in shippers:
            shipping.stop()
    spans, logs = records_of(root)
    assert receiver.span_ids == spans
    assert set(spans.values()) == {1}
    assert len(receiver.logs) == logs


def test_where_a_shipper_is_killed_another_goes_on(root: Path) -> None:
    ended(root, 80)
    killed: list[Shipping] = []

    def answer(received: Received) -> Answer:
        if len(receiver.requests) == 40:
            killed[0].kill()
        return Answer()

    with Receiver(answer) as receiver:
        killed += [Shipping(root, receiver.url, host) for host in HOSTS[:3]]
        spans, logs = records_of(root)
        wait_until(lambda: receiver.span_ids.keys() == spans.keys(), LIMIT, "everything")
        wait_until(lambda: len(receiver.logs) >= logs, LIMIT, "the log records")
        for shipping in killed[1:]:
            shipping.stop()
    assert killed[0].process.returncode == -9
    # The request that was under way when it died is all that can come twice.
    assert sum(receiver.span_ids.values()) - len(spans) <= max(len(received.spans) for received in receiver.requests)


def test_where_each_host_has_locks_of_its_own_nothing_is_lost(root: Path, tmp_path: Path) -> None:
    ended(root, 40)
    script = write_script(tmp_path / "own.py", LOCKS_OF_ITS_OWN)
    with Receiver() as receiver:
        shippers = [Shipping(root, receiver.url, host, [sys.executable, str(script)]) for host in HOSTS[:3]]
        spans, logs = records_of(root)
        wait_until(lambda: receiver.span_ids.keys() == spans.keys(), LIMIT, "everything")
        wait_until(lambda: len(receiver.logs) >= logs, LIMIT, "the log records")
        for shipping in shippers:
            shipping.stop()
    assert set(receiver.bodies) >= {f"line of {number}" for number in range(40)}


IDLE = """
    import sys
    from otel_stageio.delivery.delivery import Delivery
    from otel_stageio.delivery.settings import endpoints
    from otel_stageio.delivery.shipper import Watch

    watch = Watch(sys.argv[1], Delivery(endpoints({}, endpoint=sys.argv[2])))
    for _ in range(3):
        watch.look()
    touched = []
    sys.addaudithook(lambda event, args: touched.append((event, str(args[0])))
                     if event in ("open", "os.listdir", "os.scandir", "os.rename") else None)
    watch.look()
    listing = list(touched)
    print([event for event in listing if event[1] != sys.argv[1]])
"""


def test_a_look_at_jobs_that_are_over_and_sent_opens_nothing(root: Path, tmp_path: Path) -> None:
    ended(root, 5)
    with Receiver() as receiver:
        done = run_python(write_script(tmp_path / "idle.py", IDLE), root, receiver.url)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_what_a_process_says_late_in_a_job_that_is_over_is_sent_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pipeline("films", root / "job") as run, run.stage("asr"):
        pass
    with Receiver() as receiver:
        watch = Watch(root, Delivery(endpoints({}, endpoint=receiver.url)))
        for _ in range(3):
            watch.look()
        before = len(receiver.logs)
        journal = Path(Job(root / "job").journal("asr", 1))
        with open(journal, "ab") as file:  # nothing is created, only a file that is there grows
            file.write(journal.read_bytes().splitlines(keepends=True)[-1])
        now = time.monotonic
        monkeypatch.setattr(shipper.time, "monotonic", lambda: now() + 400)
        watch.look()
        assert len(receiver.logs) > before
