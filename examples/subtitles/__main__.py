"""``python -m examples.subtitles``: the whole pipeline, from a film to the film with subtitles."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

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
from examples.subtitles.stages.asr import BACKENDS, WHISPER_MODEL
from examples.subtitles.wer import word_error_rate
from otel_stageio import Manifest, Pipeline, StageFailed

HERE = Path(__file__).parent
CLIP = HERE / "media" / "sense_and_sensibility.mp4"
REFERENCE = HERE / "media" / "reference.txt"
STAGES = (
    "demux", "tmdb", "glossary_load", "source_separation", "pyannote_vad", "asr", "hallucination_removal", "alignment",
    "lyrics_detection", "export_transcript", "translation", "subtitle_generation", "mux",
)  # fmt: skip


def run_pipeline(media: Path, job_dir: Path, backend: str, model: str) -> tuple[Path, Path]:
    """Run all stages. Returns the transcript and the muxed film.

    Three stages are child processes, as they are where each has its own environment: those programs open the stage
    themselves. The others run here. A stage is skipped where nothing that it depends on has changed since it succeeded:
    the pipeline asks before it starts a program, the others ask themselves.
    """

    def program(name: str, *arguments: str | Path) -> list[str]:
        words = [sys.executable, "-m", f"examples.subtitles.stages.{name}", "--job-dir", job_dir, *arguments]
        return [str(word) for word in words]

    def code(name: str) -> Path:
        return HERE / "stages" / f"{name}.py"

    with Pipeline("subtitles", job_dir, stages=STAGES, resume=True) as run:
        run.command("demux", program("demux", "--media", media), timeout=600, code=code("demux"))
        with run.stage("tmdb") as io:
            tmdb.run_stage(io)
        with run.stage("glossary_load") as io:
            glossary_load.run_stage(io)
        with run.stage("source_separation") as io:
            source_separation.run_stage(io)
        with run.stage("pyannote_vad") as io:
            pyannote_vad.run_stage(io)
        run.command("asr", program("asr", "--backend", backend, "--model", model), timeout=7200, code=code("asr"))
        with run.stage("hallucination_removal") as io:
            hallucination_removal.run_stage(io)
        run.command("alignment", program("alignment"), timeout=3600, code=code("alignment"))
        with run.stage("lyrics_detection") as io:
            lyrics_detection.run_stage(io)
        with run.stage("export_transcript") as io:
            transcript = export_transcript.run_stage(io)
        with run.stage("translation") as io:
            translation.run_stage(io)
        with run.stage("subtitle_generation") as io:
            subtitles = subtitle_generation.run_stage(io)
        with run.stage("mux") as io:
            film = mux.run_stage(io, media, subtitles)
    return transcript, film


def records(job_dir: Path) -> Iterator[Manifest]:
    """The manifests of a job's stages, in the pipeline's order; stages that share a directory share its file."""
    for path in sorted(job_dir.glob("*/manifest.json")):
        manifest = Manifest.load(path)
        yield manifest
        yield from manifest.substages.values()


def print_summary(job_dir: Path) -> None:
    print(f"\n{'stage':<26}{'result':<10}{'seconds':>8}  {'in':>2}  {'out':>3}  notes")
    total = 0.0
    for record in records(job_dir):
        seconds = record.duration_seconds or 0.0
        total += seconds
        notes = [warning.message for warning in record.warnings]
        if record.status == "skipped":
            notes.append(str((record.model_extra or {}).get("reason", "")))
        name = f"{record.stage_number:02d} {record.stage}"
        counts = f"{len(record.inputs):>2}  {len(record.outputs):>3}"
        print(f"{name:<26}{record.status:<10}{seconds:>8.2f}  {counts}  {'; '.join(notes)}".rstrip())
    print(f"{'':<36}{total:>8.2f}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.subtitles", description=__doc__)
    parser.add_argument("--media", type=Path, default=CLIP, help="the film (default: the clip that comes along)")
    parser.add_argument("--reference", type=Path, help="what is really said in it, for the word error rate")
    parser.add_argument("--job-dir", type=Path, default=Path("out/demo"), help="default: %(default)s")
    parser.add_argument("--asr", choices=BACKENDS, default="pocketsphinx", help="default: %(default)s")
    parser.add_argument("--model", default=WHISPER_MODEL, help="of faster-whisper: a name or a directory")
    parser.add_argument(
        "--fresh", action="store_true", help="delete the job directory first; else this is its next run"
    )
    arguments = parser.parse_args(argv)
    if not arguments.media.is_file():
        parser.error(f"there is no file {arguments.media}")
    if arguments.reference is None and arguments.media == CLIP:
        arguments.reference = REFERENCE
    if arguments.asr == "faster-whisper" and importlib.util.find_spec("faster_whisper") is None:
        parser.error("faster-whisper is not installed: pip install 'otel-stageio[faster-whisper]'")
    job_dir: Path = arguments.job_dir
    if arguments.fresh and job_dir.exists():
        if any(job_dir.iterdir()) and not (job_dir / ".stageio").is_dir():
            parser.error(f"{job_dir} is not a job directory: not deleted")
        shutil.rmtree(job_dir)
    return arguments


def command_line() -> str:
    """``otel-stageio``, or where it is: beside this Python, whose environment need not be the shell's."""
    return (
        "otel-stageio"
        if shutil.which("otel-stageio")
        else os.path.relpath(Path(sys.executable).parent / "otel-stageio")
    )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    job_dir: Path = arguments.job_dir
    cli = command_line()
    status = f"{cli} status {job_dir}"
    try:
        transcript, film = run_pipeline(arguments.media, job_dir, arguments.asr, arguments.model)
    except StageFailed as failure:
        print(f"\n{failure}\nwhat happened: {status}", file=sys.stderr)
        return 1

    print_summary(job_dir)
    if arguments.reference is not None:
        rate = word_error_rate(
            arguments.reference.read_text(encoding="utf-8"), transcript.read_text(encoding="utf-8").replace("♪", "")
        )
        print(f"\nword error rate: {rate:.3f} ({arguments.asr}, against {arguments.reference.name})")
    print(
        f"\nfilm with subtitles  {film}"
        f"\ntranscript           {transcript}"
        f"\nstage manifests      {job_dir}/*/manifest.json"
        f"\nlogs                 {job_dir}/logs/, {job_dir}/*/stage.log"
        f"\nthe run as a tree    {status}"
        f"\nthe run as a page    {cli} report {job_dir}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
