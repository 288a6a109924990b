"""``report`` over a job of twelve stages, each with 20,000 log lines, against reading these logs once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from otel_stageio.units import size
from tests.report_jobs import BIG_STAGES, big

from .measure import Result, Scale

_MEMORY = 250 << 20


def report(where: Path, scale: Scale) -> Iterator[Result]:
    os.environ["OTEL_STAGEIO_CONSOLE"] = "off"
    yield report_of(where, scale.files * 2, min(scale.repetitions, 5))


def report_of(where: Path, lines: int, repetitions: int) -> Result:
    """Args:
    lines: of each stage; there are as many spans in all, and a fourth as many files.
    """
    job, made = where / f"job{lines}", where / f"report{lines}.html"
    big(job, lines=lines, spans=lines, files=lines // 4)
    words = [sys.executable, "-m", "otel_stageio", "report", str(job), "-o", str(made)]
    ours, theirs, peak = [], [], 0
    for _ in range(repetitions):
        began = time.perf_counter()
        peak = max(peak, _peak(words))
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        for log in job.glob("*/stage.log"):
            for _line in log.open("rb"):
                pass
        theirs.append(time.perf_counter() - began)
    what = f"report of {lines * len(BIG_STAGES):,} log lines: {size(made.stat().st_size)}, memory {size(peak)}"
    if peak > _MEMORY:
        what += " (250 MiB: missed)"
    return Result("report", what, "reading its stage.logs", ours, theirs, limit=5.0)


def _peak(words: list[str]) -> int:
    """Runs a program; the most memory that it had, in bytes."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the report ended with {process.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
