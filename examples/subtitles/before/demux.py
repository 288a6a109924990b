from __future__ import annotations

import time
from pathlib import Path

from examples.subtitles.before.homemade import Homemade
from examples.subtitles.stages.demux import decode_audio, probe


def run_stage(job: Path, media: Path) -> None:
    stage = Homemade("01_demux", job)
    stage.record["inputs"].append(str(media))
    about = probe(media)
    stage.save(about, "media.json")
    if not about["title"]:
        stage.warn("the file carries no title")
    began = time.time()
    audio = stage.directory / "audio.wav"
    seconds = decode_audio(stage, media, audio, about["duration"])
    stage.record["outputs"].append("audio.wav")
    stage.log.info("decoded %.1f s of sound in %.1f s", seconds, time.time() - began)
    stage.finish("success")
