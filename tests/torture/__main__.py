"""``python -m tests.torture [--trials N] [--seed N]``: a long run, with figures."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from . import trials

#: Kills of one job: its attempts and runs pile up, as they do where a stage fails again and again.
_A_JOB = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="kills; of the other kinds a tenth of it each")
    parser.add_argument("--seed", type=int, default=20261126)
    options = parser.parse_args()
    os.environ["OTEL_STAGEIO_CONSOLE"] = "off"
    place = Path(tempfile.mkdtemp(prefix="torture-"))
    began = time.monotonic()
    print(f"seed {options.seed}, in {place}", flush=True)
    jobs = [place / f"kills{number}" for number in range(max(options.trials // _A_JOB, 1))]
    died = sum(trials.kills(job, options.seed + number, _A_JOB) for number, job in enumerate(jobs))
    print(f"{len(jobs) * _A_JOB} kills: {died} stages died and are crashed; nothing finished is missing", flush=True)
    _arrive([job for job in jobs if job.exists()], place, died)
    tenth = max(options.trials // 10, 1)
    trials.commands(place / "commands", options.seed, tenth)
    print(f"{tenth} programs killed under a pipeline: each signal named", flush=True)
    for number in range(tenth):
        trials.fills(place / f"fill{number}", options.seed + number)
    print(f"{tenth} full disks: no stage changed, every loss counted", flush=True)
    for number in range(tenth):
        trials.lies(place / f"lie{number}", options.seed + number)
    print(f"{tenth} damaged jobs: closed, none as a success", flush=True)
    shutil.rmtree(place)
    print(f"all promises kept, {time.monotonic() - began:.0f} s")
    return 0


def _arrive(jobs: list[Path], place: Path, died: int) -> None:
    from collector.build.build import BINARIES

    if not all(binary.path.exists() for binary in BINARIES.values()):
        print("the collector and Jaeger are not built (make binaries): whether it arrives was not looked at")
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from stack import Collector, Jaeger

    from .arrival import arrives

    for name in ("jaeger", "collector"):
        (place / name).mkdir()
    jaeger = Jaeger(place / "jaeger")
    jaeger.start()
    collector = Collector(place / "collector", jaeger.otlp_grpc)
    collector.start()
    errors = arrives(jobs, collector, jaeger)
    collector.stop()
    jaeger.stop()
    print(f"{errors} of {died} are errors in Jaeger, in whole traces", flush=True)
    if errors != died:
        raise SystemExit("some are not")


if __name__ == "__main__":
    sys.exit(main())
