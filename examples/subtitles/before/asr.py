from __future__ import annotations

import time
import traceback
from pathlib import Path

from examples.subtitles.audio import read_wav
from examples.subtitles.before.homemade import Homemade
from examples.subtitles.segments import Segment, document
from examples.subtitles.sphinx import decode, load_decoder


def run_stage(job: Path) -> None:
    stage = Homemade("06_asr", job)
    stage.record["config"] = {"backend": "pocketsphinx", "language": "en"}
    speech = stage.load("05_pyannote_vad/speech_segments.json")["segments"]
    samples = read_wav(job / "01_demux" / "audio.wav")
    stage.record["inputs"].append("01_demux/audio.wav")
    try:
        began = time.time()
        decoder = load_decoder()
        stage.log.info("model loaded in %.1f s", time.time() - began)
        segments: list[Segment] = []
        for number, part in enumerate(speech):
            words = decode(decoder, samples, part["start"], part["end"])
            stage.log.info("segment %d of %d done", number + 1, len(speech))
            if words:
                text = " ".join(word["word"] for word in words)
                segments.append({"id": number, **part, "text": text, "words": words})
    except Exception:
        stage.log.error(traceback.format_exc())
        stage.finish("failed")
        raise
    stage.save(document(segments, language="en", backend="pocketsphinx"), "segments.json")
    stage.finish("success")
