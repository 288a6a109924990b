"""What looking at an idle stage costs: processor time a second, and memory, against a process that only waits.

With ``--quick`` it waits less, and that means less.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .measure import Result, Scale, take_turns
from .scratch import new_job

_PROGRAM = """
import json, os, resource, sys, time
from otel_stageio import StageIO

def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

looking = sys.argv[2] == "looking"
if not looking:
    os.environ["OTEL_STAGEIO_SAMPLE_INTERVAL"] = "0"
with StageIO("asr", sys.argv[1]):
    before, began = used(), time.perf_counter()
    time.sleep(float(sys.argv[3]))
    share = (used() - before) / (time.perf_counter() - began)
resident = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([share, int(resident) / 1024]))  # not ru_maxrss: a new program inherits that of its parent
"""


def sampler(where: Path, scale: Scale) -> Iterator[Result]:
    script = where / "idle.py"
    script.write_text(_PROGRAM)
    seconds, turns = (20, 5) if scale.repetitions > 10 else (3, 2)
    memory: dict[str, list[float]] = {"looking": [], "waiting": []}

    def process(how: str) -> Callable[[], float]:
        def run() -> float:
            command = [sys.executable, str(script), str(new_job(where)), how, str(seconds)]
            env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OTEL_STAGEIO_CONSOLE": "off"}
            done = subprocess.run(command, check=True, cwd=where, env=env, capture_output=True, text=True)
            share, mebibytes = json.loads(done.stdout.splitlines()[-1])
            memory[how].append(mebibytes)
            return float(share)

        return run

    shares = take_turns({how: process(how) for how in memory}, turns)
    yield Result(
        "sampler", "a second of an idle stage", "the same, nobody looks", shares["looking"], shares["waiting"],
        limit=0.005,
    )  # fmt: skip
    more = [with_it - without for with_it, without in zip(memory["looking"], memory["waiting"], strict=True)]
    print(f"sampler: {sorted(more)[len(more) // 2]:.1f} MiB more memory (aim: under 10)", file=sys.stderr)
