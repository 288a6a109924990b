"""One trial of each kind. All of it is decided by a seed, but for the very instant at which the kernel kills."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from random import Random

from otel_stageio import Pipeline, StageIO, recover

from . import promises, reader
from .program import STAGES, Busy

Announced = list[tuple[str, str]]


class Child:
    """A forked process; what it announces is read without waiting for it."""

    def __init__(self, work: Callable[[int], None]) -> None:
        self._pipe, end = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 70
            try:
                os.close(self._pipe)
                work(end)
                code = 0
            finally:
                os._exit(code)
        os.close(end)
        self._data = b""

    def read(self, seconds: float) -> bool:
        """Take in what there is. False at the end."""
        if select.select([self._pipe], [], [], seconds)[0]:
            data = os.read(self._pipe, 65536)
            self._data += data
            return bool(data)
        return True

    @property
    def announced(self) -> Announced:
        return [
            (kind, name) for kind, _, name in (line.decode().partition(" ") for line in self._data.split(b"\n")[:-1])
        ]

    def finish(self, limit: float = 60) -> int:
        """Wait for the end. Returns the exit code, negative for a signal."""
        deadline = time.monotonic() + limit
        while self.read(0.1):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGABRT)
        os.close(self._pipe)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def kills(job: Path, seed: int, number: int, look: Callable[[Path], None] | None = None) -> int:
    """Attempts at stages of one job, each killed at some instant; then recovered, perhaps by one that is killed too.

    Returns how many stages died.
    """
    random = Random(seed)
    attempts: list[tuple[str, int, Announced, bool]] = []
    for trial in range(number):
        stage = random.choice(STAGES)
        steps = random.choice((5, 200, 10_000))
        child = Child(lambda pipe, s=stage, n=steps, t=trial: Busy(str(job), seed * 1000 + t, pipe).run(s, n))
        patience = random.choice((0, 1, 1, 5, 40, 300))
        while len(child.announced) < patience and child.read(0.01):
            look_at(job)
        time.sleep(random.random() * random.choice((0.0005, 0.003, 0.02)))  # which instant: any will do
        os.kill(child.pid, signal.SIGKILL)
        code = child.finish()
        announced = child.announced
        attempt = _begun(job, stage, child.pid)
        if attempt is None:
            continue  # killed before there was anything to record
        ended = code == 0 or ("ended", "") in announced or _ended(job, stage, attempt)
        attempts.append((stage, attempt, announced, ended))
        if random.random() < 0.2:
            _killed_recovery(job, random)
    recover(job)
    recover(job)
    if attempts:
        promises.after_a_kill(job, attempts)
    return sum(not ended for *_, ended in attempts)


def _begun(job: Path, stage: str, pid: int) -> int | None:
    """The number of a process's attempt, once the record of a run lists it."""
    contents = [reader.strict(path.read_bytes()) for path in (job / ".stageio").glob("**/*.json")]
    runs = [run for content in contents for run in (content, *content.get("earlier", ()))]
    items = [item for run in runs for item in run.get("stages", ()) if (item["stage"], item["pid"]) == (stage, pid)]
    return items[0]["attempt"] if items else None


def _ended(job: Path, stage: str, attempt: int) -> bool:
    """Killed after its end was on disk, and before it could say so."""
    records = reader.read(job).records.get(f"{stage}.{attempt}.logs.jsonl", ())
    return any(record.get("eventName") == "stageio.stage.ended" for record in records)


def _killed_recovery(job: Path, random: Random) -> None:
    child = Child(lambda _pipe: recover(job) and None)
    time.sleep(random.random() * 0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.finish()


def look_at(job: Path) -> None:
    """A reader in a hurry: what it finds parses, at every instant."""
    for path in (*job.glob("*/manifest.json"), job / ".stageio" / "run.json"):
        with contextlib.suppress(FileNotFoundError):
            reader.strict(path.read_bytes())


def fills(place: Path, seed: int) -> None:
    """A stage on a disk that is full at some point. It ends as without a record; what is missing is counted."""
    random = Random(seed)
    size = random.randrange(40, 400) * 1024
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "torture", place], check=True)
    try:
        job = place / "job"
        child = Child(lambda pipe: Busy(str(job), seed, pipe).run("asr", 150))
        code = child.finish()
        if code or ("ended", "") not in child.announced:
            raise promises.Broken(f"a full disk changed how the stage ended: {code}")
        look_at(job)
        subprocess.run(["mount", "-o", "remount,size=16m", place], check=True)
        recover(job)  # what had no room is made up for
        promises.counted_or_there(job, "asr", 1, child.announced)
        child = Child(lambda pipe: Busy(str(job), seed + 1, pipe).run("asr", 20))
        if child.finish():
            raise promises.Broken("after the disk had room again, a stage failed")
        reader.read(job)
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        place.rmdir()


def lies(job: Path, seed: int) -> None:
    """A killed stage whose files somebody has damaged. It is closed all the same, and never as a success."""
    random = Random(seed)
    child = Child(lambda pipe: Busy(str(job), seed, pipe).run("asr", 500))
    while len(child.announced) < 30 and child.read(0.01):
        pass
    os.kill(child.pid, signal.SIGKILL)
    child.finish()
    ended = _ended(job, "asr", 1)
    killed_at = datetime.now(timezone.utc).isoformat()
    files = [
        path for path in sorted(job.rglob("*")) if path.is_file() and path.suffix in (".json", ".jsonl", ".log", "")
    ]
    for path in random.sample(files, min(3, len(files))):
        _damage(path, random)
    recover(job)
    recover(job)
    child = Child(lambda pipe: Busy(str(job), seed + 1, pipe).run("asr", 20))
    if child.finish() or ("ended", "") not in child.announced:
        raise promises.Broken("damaged files broke the next attempt")
    found = reader.read(job, lied_to=True)
    record = found.attempt("asr", 1)
    # If every trace of it is gone, its number is the next one's.
    if record is not None and record["status"] == "success" and not ended and record["timestamp"] < killed_at:
        raise promises.Broken("a stage that was killed is called a success")
    with StageIO("mux", job):
        pass


def _damage(path: Path, random: Random) -> None:
    data = path.read_bytes()
    how = random.randrange(6)
    if how == 0:
        path.write_bytes(data[: len(data) - random.randrange(min(len(data), 300) + 1)])
    elif how == 1:
        path.write_bytes(data + os.urandom(random.randrange(300)))
    elif how == 2:
        path.write_bytes(b"")
    elif how == 3:
        path.unlink()
    elif how == 4:
        where = random.randrange(len(data) + 1)
        path.write_bytes(data[:where] + b'{"resourceLogs":[{"scopeLogs":7}]}\n\0\0\0' + data[where:])
    else:
        path.write_bytes(data.replace(b"1", b"9"))


SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGTERM, signal.SIGXCPU)


def commands(job: Path, seed: int, number: int) -> None:
    """Programs of a pipeline that die by signals: the pipeline names each."""
    random = Random(seed)
    with Pipeline("torture", job) as run:
        for trial in range(number):
            word = random.choice(SIGNALS).name
            lines = random.randrange(5)
            script = f"for n in $(seq {lines}); do echo line {trial}-$n; done; ulimit -c 0; kill -{word[3:]} $$"
            result = run.command(f"stage {trial}", ["sh", "-c", script], check=False)
            if result.status != "crashed" or word not in result.message:
                raise promises.Broken(f"killed by {word}, recorded as {result}")
    found = reader.read(job)
    for trial in range(number):
        record = found.attempt(f"stage {trial}", 1)
        if record is None or record["status"] != "crashed" or "SIG" not in record["errors"][-1]["message"]:
            raise promises.Broken(f"the cause of stage {trial} is not in its record: {record}")
