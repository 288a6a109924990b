"""Three stages over many jobs as a Prefect flow: each job is a run, and each retry of a task the stage's next attempt.

    python flow.py out/film1 out/film2 …

The tasks are threads of one process here; under Prefect's runners for Dask or Ray they need not even share a host.
"""

from __future__ import annotations

import subprocess
import sys

from prefect import flow, task

from otel_stageio import StageIO, begin_run, end_run, join_run


@task(retries=1)
def demux(job: str, run: dict[str, str]) -> None:
    with join_run(run), StageIO("demux") as io:
        subprocess.run(["extract-audio", job], check=True)
        io.track_output(f"{job}/audio.wav", "audio")


@task(retries=1)
def asr(job: str, run: dict[str, str], before: None) -> None:
    with join_run(run), StageIO("asr") as io:
        io.track_input(f"{job}/audio.wav", "audio")
        subprocess.run(["transcribe", job], check=True)
        io.track_output(f"{job}/words.json", "transcript")


@task
def mux(job: str, run: dict[str, str], before: None) -> None:
    with join_run(run), StageIO("mux"):
        subprocess.run(["mux-film", job], check=True)


@flow
def subtitles(jobs: list[str]) -> None:
    runs = [begin_run("subtitles", job, stages=["demux", "asr", "mux"]) for job in jobs]
    films = mux.map(jobs, runs, asr.map(jobs, runs, demux.map(jobs, runs)))
    films.wait()  # for those that failed as well: every task is over then
    ends = {job: end_run(job) for job in jobs}
    for job, word in ends.items():
        print(f"{job}: {word}")
    if any(word != "success" for word in ends.values()):
        raise RuntimeError("not every job has succeeded")


if __name__ == "__main__":
    subtitles(sys.argv[1:])
