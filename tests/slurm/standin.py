#!/usr/bin/env python3
"""A stand-in for Slurm: sbatch, srun and sacct as far as examples/schedulers/slurm uses them. It is not Slurm.

It has no queue: ``sbatch`` runs the tasks and returns when they are over, so that what depends on them can be judged at
once. Of the options that it knows it does what sbatch(1) and sacct(1) say, and it refuses the others. Every task runs
on a "node" of its own name. What happens to a node, a program asks for: ``slurm-fate NODE_FAIL`` (or ``TIMEOUT`` or
``OUT_OF_MEMORY``) sends the signals that Slurm would send to its own task, which ends in that state.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(os.environ["SLURM_STANDIN"])
FIRST_ID = 100


def new_id() -> int:
    with open(HERE / "ids", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("x")
        return FIRST_ID + file.tell()


# -- sbatch -----------------------------------------------------------------------------------------------------------


def sbatch(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("sbatch", allow_abbrev=False)
    for name in ("array", "dependency", "gres", "job-name", "kill-on-invalid-dep", "open-mode", "output", "time"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--parsable", action="store_true")
    parser.add_argument("--requeue", action="store_true", default=False)
    parser.add_argument("--no-requeue", action="store_false", dest="requeue")
    parser.add_argument("script")
    parser.add_argument("args", nargs=argparse.REMAINDER)
    script = Path(parser.parse_args(arguments).script)
    lines = re.findall(r"^#SBATCH +(.*)$", script.read_text(), re.MULTILINE)
    options = parser.parse_args([word for line in lines for word in shlex.split(line)] + arguments)
    job = Batch(new_id(), options, script)
    job.run()
    print(job.id if options.parsable else f"Submitted batch job {job.id}")
    return 0


class Batch:
    def __init__(self, number: int, options: argparse.Namespace, script: Path) -> None:
        self.id = number
        self.options = options
        self.name = options.job_name or script.name
        self.script = HERE / f"{number}.script"  # as Slurm does: a script does not run from where it lies
        shutil.copy(script, self.script)

    def run(self) -> None:
        indices: list[int | None] = [None]
        limit = 1
        if self.options.array:
            first, last, at_once = re.fullmatch(r"(\d+)-(\d+)%(\d+)", self.options.array).groups()
            indices, limit = [*range(int(first), int(last) + 1)], int(at_once)
        with ThreadPoolExecutor(limit) as pool:
            states = dict(zip(indices, pool.map(self.task, indices), strict=True))
        named = {str(self.id) if index is None else f"{self.id}_{index}": state for index, state in states.items()}
        (HERE / f"{self.id}.json").write_text(json.dumps(named))

    def task(self, index: int | None) -> str:
        if not self.may_run(index):
            return "CANCELLED" if self.options.kill_on_invalid_dep == "yes" else "PENDING"
        number = self.id if index is None else new_id()
        restarts = 0
        while True:
            state = self.start(number, index, restarts)
            if not (state == "NODE_FAIL" and self.options.requeue):
                return state
            restarts += 1

    def may_run(self, index: int | None) -> bool:
        for each in (self.options.dependency or "").split(","):
            kind, *ids = each.split(":")
            states = {task: state for number in ids for task, state in states_of(number).items()}
            if kind == "aftercorr":
                states = {task: state for task, state in states.items() if task.endswith(f"_{index}")}
            good = {"afterany": lambda state: state != "PENDING"}.get(kind, lambda state: state == "COMPLETED")
            if not all(map(good, states.values())):
                return False
        return True

    def start(self, number: int, index: int | None, restarts: int) -> str:
        fate = HERE / f"{number}.fate"
        fate.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "SLURM_JOB_ID": str(number),
            "SLURM_JOB_NAME": self.name,
            "OTEL_STAGEIO_HOST_ID": f"node-{number}-{restarts}",  # what a node's own name tells on a cluster
        }
        if index is not None:
            environment |= {"SLURM_ARRAY_JOB_ID": str(self.id), "SLURM_ARRAY_TASK_ID": str(index)}
        if restarts:
            environment["SLURM_RESTART_COUNT"] = str(restarts)
        words = {"%x": self.name, "%A": self.id, "%a": index, "%j": number}
        output = re.sub("%[xAaj]", lambda match: str(words[match[0]]), self.options.output or "slurm-%j.out")
        with open(output, "a" if self.options.open_mode == "append" else "w") as file:
            command = ["/bin/bash", self.script, *self.options.args]
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        return fate.read_text() if fate.exists() else "FAILED" if done.returncode else "COMPLETED"


# -- the others -------------------------------------------------------------------------------------------------------


def states_of(number: str) -> dict[str, str]:
    return json.loads((HERE / f"{number}.json").read_text())


def sacct(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("sacct", allow_abbrev=False)
    for name in ("allocations", "noheader", "parsable2"):
        parser.add_argument(f"--{name}", action="store_true", required=True)
    parser.add_argument("--format", choices=["JobID,State"], required=True)
    parser.add_argument("--jobs", required=True)
    for number in parser.parse_args(arguments).jobs.split(","):
        for task, state in states_of(number).items():
            print(f"{task}|{state}")
    return 0


def srun(arguments: list[str]) -> int:
    os.setpgid(0, 0)  # a step, which is signalled apart from its batch script
    os.execvp(arguments[0], arguments)


def slurm_fate(arguments: list[str]) -> int:
    (state,) = arguments
    (HERE / f"{os.environ['SLURM_JOB_ID']}.fate").write_text(state)
    if state == "TIMEOUT":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ours is no part of the step
        os.killpg(0, signal.SIGTERM)
        return 0
    if state == "NODE_FAIL":
        os.killpg(os.getsid(0), signal.SIGKILL)
    os.killpg(0, signal.SIGKILL)
    return 0


FACES = {"sbatch": sbatch, "sacct": sacct, "srun": srun, "slurm-fate": slurm_fate}

if __name__ == "__main__":
    sys.exit(FACES[Path(sys.argv[0]).name](sys.argv[1:]))
