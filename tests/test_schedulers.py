"""What docs/SCHEDULERS.md says, and the examples that it points to, run as they stand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, cli, environment, read_manifest, run_command, write_script

from otel_stageio import RunRecord
from otel_stageio.layout import Job
from otel_stageio.otlp import decode

EXAMPLES = ROOT / "examples" / "schedulers"
STAGES = {"demux": "01_demux", "asr": "06_asr", "mux": "12_mux"}

#: What stands for the user's programs. What one of them is to do in a job, a file in it says, once: see `fate`.
PROGRAM = """\
#!/bin/bash
fate=$1/$(basename "$0").fate
if [[ -e $fate ]]; then
    how=$(<"$fate")
    rm "$fate"
    eval "$how"
fi
echo "$(basename "$0") is done"
"""


class World:
    """A directory with an example in it, and the programs that it calls.

    Attributes:
        place: where the example's files are.
        env: its environment.
    """

    def __init__(self, tmp_path: Path, example: str) -> None:
        self.place = tmp_path / "example"
        shutil.copytree(EXAMPLES / example, self.place)
        self.bin = tmp_path / "bin"
        self.program("otel-stageio", f'#!/bin/bash\nexec {" ".join(map(repr, cli()))} "$@"\n')
        for name in ("extract-audio", "transcribe", "mux-film"):
            self.program(name, PROGRAM)
        self.env = environment(PATH=f"{self.bin}:{os.environ['PATH']}")
        self.out = tmp_path / "all films"

    def program(self, name: str, text: str) -> None:
        write_script(self.bin / name, text).chmod(0o755)

    def jobs(self, number: int) -> list[Path]:
        """So many directories, and ``jobs.txt`` that lists them. Half of them are there already; all have a space."""
        jobs = [self.out / f"film {n}" for n in range(number)]
        for job in jobs[::2]:
            job.mkdir(parents=True)
        (self.place / "jobs.txt").write_text("".join(f"{job}\n" for job in jobs))
        return jobs

    def fate(self, job: Path, program: str, how: str) -> None:
        write_script(job / f"{program}.fate", how)

    def run(self, *command: str) -> Any:
        return run_command(list(command), cwd=self.place, env=self.env)


def stages_of(job: Path) -> dict[str, str]:
    """How each stage of a job stands, by its manifest."""
    return {
        stage: read_manifest(job / directory)["status"]
        for stage, directory in STAGES.items()
        if (job / directory / "manifest.json").exists()
    }


def is_one_trace(job: Path) -> None:
    """Its run, ended, and every attempt at a stage: one trace, one root, and nothing below anything else."""
    found = [span for path in Job(job).spool.glob("*.spans.jsonl") for span in decode.spans(decode.Lines(path))]
    record = RunRecord.load(job)
    (root,) = [span for span in found if span["name"] == f"RUN {record.pipeline}"]
    assert {span["traceId"] for span in found} == {record.trace_id}
    below = [span for span in found if span["name"] in STAGES]
    assert {span["parentSpanId"] for span in below} <= {root["spanId"]}
    assert len(below) == len(record.stages)


GOOD = dict.fromkeys(STAGES, "success")


# -- Slurm ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path: Path) -> World:
    """The example, and the stand-in for Slurm in tests/slurm."""
    world = World(tmp_path, "slurm")
    for name in ("sbatch", "srun", "sacct", "slurm-fate"):
        (world.bin / name).symlink_to(ROOT / "tests" / "slurm" / "standin.py")
    state = tmp_path / "slurm"
    state.mkdir()
    world.env["SLURM_STANDIN"] = str(state)
    return world


def test_an_array_of_eight_jobs_on_slurm(slurm: World) -> None:
    jobs = slurm.jobs(8)
    slurm.fate(jobs[1], "transcribe", "exit 3")
    slurm.fate(jobs[2], "transcribe", "slurm-fate NODE_FAIL")  # is requeued
    slurm.fate(jobs[3], "mux-film", "slurm-fate NODE_FAIL")  # is not
    slurm.fate(jobs[4], "extract-audio", "slurm-fate OUT_OF_MEMORY")
    slurm.fate(jobs[5], "transcribe", "slurm-fate TIMEOUT\nsleep 60")
    done = slurm.run("./submit.sh", "jobs.txt", "4")
    assert (done.returncode, done.stderr) == (0, "")
    (end,) = slurm.place.glob("logs/end-*.out")
    for job in jobs:
        is_one_trace(job)
    for job in (jobs[0], jobs[6], jobs[7]):
        assert (RunRecord.load(job).status, stages_of(job)) == ("success", GOOD)
    # failed: what comes after it did not run
    assert (RunRecord.load(jobs[1]).status, stages_of(jobs[1])) == ("failed", {"demux": "success", "asr": "failed"})
    # its node failed, and it was requeued
    assert (RunRecord.load(jobs[2]).status, stages_of(jobs[2])) == ("success", GOOD)
    asr = read_manifest(jobs[2] / "06_asr")
    assert [(each["status"], each["cause"]) for each in asr["attempts"]] == [("crashed", "slurm: requeued (restart 1)")]
    # its node failed for good
    assert RunRecord.load(jobs[3]).status == "crashed"
    assert read_manifest(jobs[3] / "12_mux")["cause"] == "slurm: NODE_FAIL"
    assert stages_of(jobs[4]) == {"demux": "crashed"}
    assert read_manifest(jobs[4] / "01_demux")["cause"] == "slurm: OUT_OF_MEMORY"
    # the time was up: the stage says that it was ended, Slurm knows why
    assert (RunRecord.load(jobs[5]).status, stages_of(jobs[5])["asr"]) == ("timeout", "cancelled")
    # and the end says how each of them went, last
    said = [line.rsplit("  ", 1)[1] for line in end.read_text().splitlines()[-8:]]
    assert said == ["success", "failed", "success", "crashed", "crashed", "timeout", "success", "success"]
