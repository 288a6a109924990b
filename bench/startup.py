"""Whole processes: what a stage script pays before its first line of work, against logfire's ready-made set-up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .measure import Result, Scale, take_turns
from .scratch import new_job

_PROGRAMS = {
    "interpreter": "pass",
    "import": "import otel_stageio",
    "stage": "import sys\nfrom otel_stageio import StageIO\nwith StageIO('asr', sys.argv[1]): pass",
    "logfire": (
        "import logfire\nlogfire.configure(send_to_logfire=False, console=False)\nwith logfire.span('asr'): pass"
    ),
}


def startup(where: Path, scale: Scale) -> Iterator[Result]:
    package = Path(__file__).parent.parent
    environment = {
        **os.environ,
        "PYTHONPATH": str(package),
        "PYTHONPYCACHEPREFIX": str(where / "bytecode"),  # compiled for all, in the round that does not count
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def process(name: str, program: str) -> Callable[[], float]:
        script = where / f"start_{name}.py"
        script.write_text(program + "\n")

        def run() -> float:
            job = new_job(where)
            started = time.perf_counter()
            subprocess.run([sys.executable, script, job], check=True, cwd=where, env=environment)
            return time.perf_counter() - started

        return run

    seconds = take_turns({name: process(name, program) for name, program in _PROGRAMS.items()}, scale.processes)
    bare, logfire = seconds["interpreter"], seconds["logfire"]
    yield Result("import", "process: import otel_stageio", "bare interpreter", seconds["import"], bare)
    yield Result("startup", "process: import, first stage", "logfire: configure, span", seconds["stage"], logfire, 0.5)
