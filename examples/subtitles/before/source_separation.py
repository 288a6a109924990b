from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from examples.subtitles.audio import read_wav, write_wav
from examples.subtitles.before.homemade import Homemade
from examples.subtitles.stages.source_separation import block_bounds, separate


def run_stage(job: Path) -> None:
    stage = Homemade("04_source_separation", job)
    mixture = read_wav(job / "01_demux" / "audio.wav")
    stage.record["inputs"].append("01_demux/audio.wav")
    vocals = np.zeros_like(mixture)
    for number, (start, end, lead) in enumerate(block_bounds(len(mixture)), 1):
        began = time.time()
        vocals[start:end] = separate(mixture[start - lead : end])[lead:]
        stage.log.info("block %d took %.2f s", number, time.time() - began)
    write_wav(stage.directory / "vocals.wav", vocals)
    write_wav(stage.directory / "accompaniment.wav", mixture - vocals)
    stage.record["outputs"] += ["vocals.wav", "accompaniment.wav"]
    stage.finish("success")
