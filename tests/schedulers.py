"""An example of examples/schedulers in a directory of its own, and what is to be found when it has run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from helpers import ROOT, cli, environment, read_manifest, write_script

from otel_stageio import RunRecord
from otel_stageio.testing import Records

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
declare -A makes=([extract-audio]=audio.wav [transcribe]=words.json [mux-film]=film.mkv)
echo "$(basename "$0") of $1" >"$1/${makes[$(basename "$0")]}"
"""
LIMIT = 300  # seconds for a whole example: a safety net, no test waits for it


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

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.place,
            env={**self.env, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            start_new_session=True,
            check=False,
        )


def stages_of(job: Path) -> dict[str, str]:
    """How each stage of a job stands, by its manifest."""
    return {
        stage: read_manifest(job / directory)["status"]
        for stage, directory in STAGES.items()
        if (job / directory / "manifest.json").exists()
    }


def spans_of(job: Path) -> list[dict[str, Any]]:
    return Records(job).spans()


def is_one_trace(job: Path) -> None:
    """Its run, ended, and every attempt at a stage: one trace, one root, and nothing below anything else."""
    found = spans_of(job)
    record = RunRecord.load(job)
    (root,) = [span for span in found if span["name"] == f"RUN {record.pipeline}"]
    assert {span["traceId"] for span in found} == {record.trace_id}
    below = [span for span in found if span["name"] in STAGES]
    assert {span["parentSpanId"] for span in below} <= {root["spanId"]}
    assert len(below) == len(record.stages)


GOOD = dict.fromkeys(STAGES, "success")
