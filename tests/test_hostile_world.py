"""A stage in a hostile world: full and read-only disks, no locks, signals while it ends, forks under a lock."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from errno import ENOLCK, EOPNOTSUPP
from pathlib import Path
from typing import Any

import pytest
from conftest import IN_CI, needs
from faults import FOR_EVER, LOCK, build
from helpers import environment

from otel_stageio import StageIO, recover
from otel_stageio.sinks.files import is_locked, locked
from otel_stageio.testing import FixedClock, Records, fixed

STAGE = """
import os, sys
from otel_stageio import StageIO
job = sys.argv[1]
with StageIO("asr", job) as io:
    log = io.get_stage_logger("CRITICAL")
    log.info("before")
    print("go", flush=True)
    sys.stdin.readline()
    for number in range(int(os.environ.get("LINES", 3))):
        log.info("line %d %s", number, "x" * 2000)
    with io.span("inner"):
        io.set_config({"model": "large"})
        io.add_warning("careful")
print("the work is done")
sys.exit(5)
"""


class Running:
    """That stage, waiting to be told to go on."""

    def __init__(self, job: Path, limit: int | None = None, **env: str) -> None:
        def prepare() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        self.process = subprocess.Popen(
            [sys.executable, "-c", STAGE, str(job)],
            env=environment(**env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "go\n", self.process.communicate()

    def finish(self) -> None:
        out, err = self.process.communicate("on\n", timeout=60)
        assert (self.process.returncode, out, err) == (5, "the work is done\n", "")


def succeed(job: Path) -> None:
    with StageIO("asr", job) as io:
        io.add_config("first", 1)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = f"no mounts to be had: {done.stderr.strip()}"
        if IN_CI:
            pytest.fail(f"{reason}; CI is to have everything", pytrace=False)
        pytest.skip(reason)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_ctrl_c_at_a_lock_lets_go_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come when the lock has just been taken, while it is asked whether it is enough."""

    def interrupted(_: int) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("otel_stageio.sinks.files.claim_is_needed", interrupted)
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "x.lock"):
        pass
    assert not is_locked(tmp_path / "x.lock")


def test_a_disk_that_is_full_changes_nothing_and_the_record_says_what_it_lost(disk: Path) -> None:
    job = disk / "job"
    succeed(job)
    running = Running(job, LINES="600")
    running.finish()
    records = Records(job)
    newest = records.manifest("asr")
    assert newest["attempts"][0]["status"] == "success"
    (job / "06_asr" / "stage.log").write_bytes(b"")  # room again
    recover(job)
    newest = records.manifest("asr")
    assert (newest["attempt"], newest["attempts"][0]["config"]) == (2, {"first": 1})
    assert newest["lost"]["stage_log"] > 0
    succeed(job)
    assert records.manifest("asr")["status"] == "success"


def test_a_disk_that_turns_read_only_changes_nothing_and_the_stage_is_closed_later(disk: Path) -> None:
    job = disk / "job"
    succeed(job)
    earlier = Records(job).manifest("asr")
    done = subprocess.run(["mount", "-o", "remount,ro", disk], check=False)
    assert done.returncode == 0
    Running(job).finish()
    assert Records(job).manifest("asr") == earlier
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    recover(job)
    succeed(job)
    assert Records(job).manifest("asr")["status"] == "success"


@pytest.mark.parametrize("what", ["", "06_asr", ".stageio", ".stageio/spool", "logs"])
def test_what_is_removed_while_a_stage_runs_changes_nothing(tmp_path: Path, what: str) -> None:
    job = tmp_path / "job"
    running = Running(job)
    shutil.rmtree(job / what)
    running.finish()
    assert Records(job).manifest("asr")["status"] == "success"
    recover(job)
    succeed(job)


@pytest.mark.parametrize(
    "planted", [".stageio", ".stageio/tmp", ".stageio/spool", ".stageio/run.json", "logs", "06_asr/stage.log"]
)
def test_a_planted_link_leads_to_no_harm_elsewhere(tmp_path: Path, planted: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")
    job = tmp_path / "job"
    link = job / planted
    link.parent.mkdir(parents=True)
    link.symlink_to(victim / "file" if "." in link.name[1:] else victim)
    Running(job).finish()
    assert (victim / "file").read_text() == "mine"


def test_a_path_that_is_too_long_changes_nothing(tmp_path: Path) -> None:
    Running(tmp_path.joinpath(*["x" * 250] * 18)).finish()


def test_a_clock_that_steps_back_and_forth_makes_no_duration_wrong(tmp_path: Path) -> None:
    clock = FixedClock()
    with fixed(clock), StageIO("asr", tmp_path / "job") as io:
        for step in (-7200, 86400, -3600):
            clock.step(step)
            clock.advance(1)
            io.add_warning(f"{step}")
    manifest = Records(tmp_path / "job").manifest("asr")
    assert manifest["duration_seconds"] == 3


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"), needs("gcc"))


@pytest.mark.parametrize("answer", [ENOLCK, EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path: Path, library: Path, answer: int) -> None:
    job = tmp_path / "job"
    Running(job, LD_PRELOAD=str(library), FAULTY=f"1:{FOR_EVER}:{answer}:{LOCK}:{job}").finish()
    manifest = Records(job).manifest("asr")
    assert (manifest["status"], manifest["lost"]) == ("success", {})


def test_a_child_forked_by_another_thread_does_not_keep_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    ours, childs = os.pipe()
    go_on, ending = os.pipe()
    children: list[int] = []

    def fork() -> None:
        child = os.fork()
        if child == 0:
            os.write(childs, b".")
            os.close(ending)
            os.read(go_on, 1)  # lives until the parent says
            os._exit(0)
        children.append(child)

    with locked(path):
        other = threading.Thread(target=fork)
        other.start()
        other.join()
        assert os.read(ours, 1) == b"."
        assert is_locked(path)  # still the parent's
    held = is_locked(path)
    os.close(ending)
    os.waitpid(children[0], 0)
    for fd in (ours, childs, go_on):
        os.close(fd)
    assert not held


SIGNALLED = """
import os, signal, sys
from otel_stageio import StageIO
number, after = int(sys.argv[2]), int(sys.argv[3])
seen = 0
def tracer(frame, event, arg):
    global seen
    if "otel_stageio" not in frame.f_code.co_filename:
        return None
    seen += 1
    if seen == after:
        sys.settrace(None)
        os.kill(os.getpid(), number)
    return tracer
io = StageIO("asr", sys.argv[1])
io.get_stage_logger("CRITICAL").info("hello")
io.track_output("x", "file")
sys.settrace(tracer)
try:
    io.finalize("success")
finally:
    sys.settrace(None)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_stage_ends_lets_it_end_once(tmp_path: Path, number: signal.Signals) -> None:
    chance = random.Random(int(number))
    bad = []
    for round_ in range(20):
        job = tmp_path / str(round_)
        after = chance.randrange(1, 900)
        done = subprocess.run(
            [sys.executable, "-c", SIGNALLED, str(job), str(int(number)), str(after)],
            env=environment(), capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        records = Records(job)
        manifest: dict[str, Any] = records.manifest("asr")
        ends = [event for event in records.events("asr") if event.name.endswith("ended")]
        spans = [span["name"] for span in records.spans("asr")]
        codes = (0, -number, 128 + number)
        if len(ends) != 1 or spans != ["asr"] or done.returncode not in codes or manifest["status"] == "running":
            bad.append((after, len(ends), spans, manifest["status"], done.returncode, done.stderr[-800:]))
    assert not bad, json.dumps(bad, indent=1)
