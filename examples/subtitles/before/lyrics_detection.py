from __future__ import annotations

from pathlib import Path

from examples.subtitles.audio import cut, read_wav
from examples.subtitles.before.homemade import Homemade
from examples.subtitles.segments import document, segments_of
from examples.subtitles.stages.lyrics_detection import THRESHOLD, measure, music_between


def run_stage(job: Path) -> None:
    stage = Homemade("08_lyrics_detection", job)
    source = stage.load("07_alignment/segments_aligned.json")
    segments = segments_of(source)
    samples = read_wav(job / "01_demux" / "audio.wav")
    accompaniment = read_wav(job / "04_source_separation" / "accompaniment.wav")
    measured = []
    for segment in segments:
        values = measure(*(cut(sound, segment["start"], segment["end"]) for sound in (samples, accompaniment)))
        segment["is_lyrics"] = values["score"] >= THRESHOLD
        measured.append({"id": segment["id"], **values, "is_lyrics": segment["is_lyrics"]})
    passages = music_between(segments, samples, accompaniment)
    metadata = {"method": "acoustic", "threshold": THRESHOLD, "segments": measured, "music": passages}
    stage.log.info("%d segments are sung", sum(segment["is_lyrics"] for segment in segments))
    stage.save(metadata, "lyrics_metadata.json")
    stage.save(document(segments, language=source["language"]), "segments.json")
    stage.finish("success")
