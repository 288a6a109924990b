from __future__ import annotations

from pathlib import Path

from examples.subtitles.audio import read_wav
from examples.subtitles.before.homemade import Homemade
from examples.subtitles.segments import document, segments_of
from examples.subtitles.sphinx import load_decoder
from examples.subtitles.stages.alignment import align


def run_stage(job: Path) -> None:
    stage = Homemade("07_alignment", job)
    source = stage.load("06_asr/segments_clean.json")
    segments = segments_of(source)
    samples = read_wav(job / "01_demux" / "audio.wav")
    stage.record["inputs"].append("01_demux/audio.wav")
    decoder = load_decoder()
    for segment in segments:
        words = align(decoder, samples, segment)
        segment["aligned"] = words is not None
        if words:
            segment["words"], segment["start"], segment["end"] = words, words[0]["start"], words[-1]["end"]
        else:
            stage.warn(f"segment {segment['id']} could not be aligned")
    stage.log.info("%d of %d segments aligned", sum(segment["aligned"] for segment in segments), len(segments))
    stage.save(document(segments, language=source["language"]), "segments_aligned.json")
    stage.finish("success")
