"""``recover`` of a job whose twelve stages were all killed after 10,000 log lines, against reading what they left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from otel_stageio import Manifest, recover
from otel_stageio.layout import STAGES, Job

from .measure import Result, Scale

_WAITS = """
import sys
from otel_stageio import StageIO
with StageIO(sys.argv[1], sys.argv[2]) as io:
    log = io.get_stage_logger("ERROR")
    for number in range(int(sys.argv[3])):
        log.info("decoded chunk %d of 500 in %.2f s", number, 0.25)
    io.add_config("beam_size", 5)  # what was said before is in the journal then
    print("ready", flush=True)
    input()
"""


def recovery(where: Path, scale: Scale) -> Iterator[Result]:
    yield recovery_of(where, scale.files, min(scale.repetitions, 7))


def recovery_of(where: Path, lines: int, repetitions: int) -> Result:
    """Args:
    lines: of each of the twelve stages.
    """
    dead = where / f"dead{lines}"
    _kill_all(dead, lines)
    ours, theirs = [], []
    for number in range(repetitions):
        job = where / f"copy{number}"
        shutil.copytree(dead, job)
        began = time.perf_counter()
        closed = recover(job)
        ours.append(time.perf_counter() - began)
        if len(closed) != len(STAGES) or Manifest.load(job / "06_asr" / "manifest.json").status != "crashed":
            raise RuntimeError(f"not all were closed: {closed}")
        began = time.perf_counter()
        for journal in Path(Job(job).spool).glob("*.logs.jsonl"):
            for _line in journal.open("rb"):
                pass
        theirs.append(time.perf_counter() - began)
        shutil.rmtree(job)
    what = f"recovery of {len(STAGES)} dead stages, {lines:,} log lines each"
    return Result("recovery", what, "reading their journals", ours, theirs, limit=2.0)


def _kill_all(job: Path, lines: int) -> None:
    """Twelve stages of a run, all at work in processes of their own, and then SIGKILL."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OTEL_STAGEIO_CONSOLE": "off"}
    words = [sys.executable, "-c", _WAITS]
    processes = [
        subprocess.Popen(
            [*words, stage, str(job), str(lines)], env=environment, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for stage in STAGES
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("a stage did not get ready")
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()
