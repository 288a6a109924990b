from __future__ import annotations

from pathlib import Path

from examples.subtitles.audio import RATE, read_wav
from examples.subtitles.before.homemade import Homemade
from examples.subtitles.stages.pyannote_vad import SHORTEST, speech


def run_stage(job: Path) -> None:
    stage = Homemade("05_pyannote_vad", job)
    samples = read_wav(job / "04_source_separation" / "vocals.wav")
    stage.record["inputs"].append("04_source_separation/vocals.wav")
    segments = [
        {"start": round(start, 2), "end": round(end, 2)} for start, end in speech(samples) if end - start >= SHORTEST
    ]
    stage.log.info("%d segments", len(segments))
    result = {"backend": "pocketsphinx", "duration": round(len(samples) / RATE, 2), "segments": segments}
    stage.save(result, "speech_segments.json")
    stage.finish("success")
