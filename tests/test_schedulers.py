"""What docs/SCHEDULERS.md says, and the examples for Slurm, GNU parallel and xargs, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import needs
from helpers import ROOT, read_manifest
from schedulers import GOOD, World, is_one_trace, stages_of

from otel_stageio import RunRecord, semconv

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
    listed = (slurm.place / "jobs.txt").read_text().replace(f"{slurm.place.parent}/", "../")
    (slurm.place / "jobs.txt").write_text(listed)  # paths as the working directory has them
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


# -- GNU parallel and xargs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["parallel", "xargs"])
def test_a_list_of_jobs_under(program: str, tmp_path: Path) -> None:
    needs(program)
    world = World(tmp_path, "parallel")
    jobs = world.jobs(4)
    world.fate(jobs[1], "transcribe", "exit 3")
    world.fate(jobs[2], "extract-audio", "kill -KILL $$")
    done = world.run(f"./with-{program}.sh", "jobs.txt")
    assert done.returncode == 123  # as xargs says that not all of them ended well
    said = [line.rsplit("  ", 1)[1] for line in done.stdout.splitlines()[-4:]]
    assert said == ["success", "failed", "crashed", "success"]
    for job, word in zip(jobs, said, strict=True):
        is_one_trace(job)
        assert RunRecord.load(job).status == word
    assert stages_of(jobs[1]) == {"demux": "success", "asr": "failed"}
    assert "SIGKILL" in read_manifest(jobs[2] / "01_demux")["errors"][-1]["message"]
    if program == "parallel":
        _, *lines = (world.place / "joblog.txt").read_text().splitlines()
        codes = {
            line.split("\t")[8].split("/")[-1].strip("'\\").replace("\\ ", " "): line.split("\t")[6] for line in lines
        }
        assert codes == {"film 0": "0", "film 1": "3", "film 2": "137", "film 3": "0"}


# -- the page ---------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "SCHEDULERS.md").read_text(encoding="utf-8")


def test_what_the_page_points_to_is_there() -> None:
    for place in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / place).exists(), place
    names = set(re.findall(r"`(OTEL_STAGEIO_[A-Z_]+)`", PAGE))
    assert names <= {value for name, value in vars(semconv).items() if name.startswith("ENV_")}
