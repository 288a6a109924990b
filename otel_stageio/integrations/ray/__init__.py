"""The stages of a pipeline as Ray tasks: one job or thousands, on one machine or many.

The driver, where :func:`run_jobs` is called, owns each job's run; a task opens its stage in the job directory, which
lies on a file system that all nodes share. What Ray tells the driver of a worker or node that died closes the stage as
``crashed``, with that cause, and runs it again if asked. Results of stages are files: nothing of ours goes through
Ray's object store but names and a few numbers.

Example::

    from otel_stageio.integrations.ray import RayStage, run_jobs

    def asr(io, model="small"):                       # runs in a Ray worker, with its stage open
        audio = io.track_input(io.get_input_path("audio.wav", from_stage="demux"), "audio")
        io.track_output(io.save_json(transcribe(audio, model), "segments.json"), "transcript")

    STAGES = [
        RayStage("demux", ["ffmpeg", "-i", "{media}", "{job}/01_demux/audio.wav"]),
        RayStage("asr", asr, num_gpus=1, max_retries=2),
        RayStage("mux", ["python", "mux.py"]),
    ]
    jobs = {f"out/{film.stem}": {"media": film} for film in films}
    for result in run_jobs(jobs, "subtitles", STAGES, resume=True):
        print(result.job, result.status)
"""

from __future__ import annotations

from .driver import JobResult
from .jobs import run_job, run_jobs
from .progress import Progress
from .stage import RayStage

__all__ = ["JobResult", "Progress", "RayStage", "run_job", "run_jobs"]
