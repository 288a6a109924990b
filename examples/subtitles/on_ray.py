"""``python -m examples.subtitles.on_ray``: the same stages as Ray tasks, for any number of films at once.

A stage comes after those whose results it reads: looking the film up goes on beside listening to it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import ray

from examples.subtitles.__main__ import CLIP, HERE
from examples.subtitles.stages import (
    export_transcript,
    glossary_load,
    hallucination_removal,
    lyrics_detection,
    mux,
    pyannote_vad,
    source_separation,
    subtitle_generation,
    tmdb,
    translation,
)
from otel_stageio import StageIO
from otel_stageio.integrations.ray import RayStage, run_jobs


def program(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"examples.subtitles.stages.{name}", "--job-dir", "{job}", *arguments]


def mux_film(io: StageIO, media: str) -> None:
    (subtitles,) = io.get_input_path(".", from_stage="subtitle_generation").glob("*.srt")
    mux.run_stage(io, Path(media), subtitles)


def code(name: str) -> Path:
    return HERE / "stages" / f"{name}.py"


#: On a GPU host `asr` has `num_gpus=1` as well.
STAGES = [
    RayStage("demux", program("demux", "--media", "{media}"), code=code("demux"), timeout=600),
    RayStage("tmdb", tmdb.run_stage, after=["demux"]),
    RayStage("glossary_load", glossary_load.run_stage, after=["tmdb"]),
    RayStage("source_separation", source_separation.run_stage, after=["demux"]),
    RayStage("pyannote_vad", pyannote_vad.run_stage, after=["source_separation"]),
    RayStage("asr", program("asr"), after=["pyannote_vad", "glossary_load"], code=code("asr"), max_retries=2),
    RayStage("hallucination_removal", hallucination_removal.run_stage),
    RayStage("alignment", program("alignment"), code=code("alignment"), max_retries=2),
    RayStage("lyrics_detection", lyrics_detection.run_stage),
    RayStage("export_transcript", export_transcript.run_stage),
    RayStage("translation", translation.run_stage, after=["lyrics_detection"]),
    RayStage("subtitle_generation", subtitle_generation.run_stage, after=["translation"]),
    RayStage("mux", mux_film),
]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.subtitles.on_ray", description=__doc__)
    parser.add_argument("media", type=Path, nargs="*", default=[CLIP], help="films (default: the clip in the repo)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the job directories are; on all nodes")
    parser.add_argument("--address", help="of the Ray cluster; without it, one is started on this machine")
    arguments = parser.parse_args(argv)
    ray.init(arguments.address or "local", log_to_driver=False)
    jobs = {str(arguments.out / film.stem): {"media": str(film.absolute())} for film in arguments.media}
    results = run_jobs(jobs, "subtitles", STAGES, resume=True)
    for result in results:
        print(f"{result.job}  {result.status}  {result.message}".rstrip())
    return 0 if all(result.status == "success" for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
