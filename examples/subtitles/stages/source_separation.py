"""04 source_separation: the voice apart from the music.

In: ``audio.wav`` of demux. Out: ``vocals.wav`` and ``accompaniment.wav``, which add up to the input.

This is signal processing, not a neural model such as Demucs: *harmonic-percussive separation* by median filters
(Fitzgerald 2010) over long windows. A held note is a ridge along time in the spectrogram, while speech changes its
pitch and spectrum within the 256 ms of a window and so spreads over frequency; a soft mask parts the two. It takes a
plain tune well away. It does not take a singer from an orchestra, drums stay with the voice, and long vowels lose
some of their body to the "accompaniment": good enough to find where somebody speaks, so the detector reads
``vocals.wav``, while the ASR, which does a little worse on the separated voice, reads the untouched sound.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import median_filter

from examples.subtitles.audio import RATE, Samples, istft, read_wav, rms, stft, write_wav
from otel_stageio import StageIO

WINDOW = 4096
HOP = 1024
KERNEL = 17  # frames (1.1 s) and frequency bins (66 Hz) of the two medians
MARGIN = 2.0  # how much more of a ridge than of speech a point must be to count as music
BLOCK_SECONDS = 60.0
OVERLAP_SECONDS = 2.0


def run_stage(io: StageIO) -> None:
    log = io.get_stage_logger()
    audio = io.track_input(io.get_input_path("audio.wav", from_stage="demux"), "audio")
    io.set_config({"method": "hpss", "window": WINDOW, "hop": HOP, "kernel": KERNEL, "margin": MARGIN})
    if io.up_to_date(code=__file__):
        return
    mixture = read_wav(audio)

    vocals = np.zeros_like(mixture)
    blocks = list(block_bounds(len(mixture)))
    for number, (start, end, lead) in enumerate(blocks, 1):
        with io.span("separate", block=number, seconds=round((end - start) / RATE, 2)):
            vocals[start:end] = separate(mixture[start - lead : end])[lead:]
        io.progress(done=number, total=len(blocks), unit="blocks")

    accompaniment = mixture - vocals
    log.info("voice %.4f, accompaniment %.4f (RMS)", rms(vocals), rms(accompaniment))
    if rms(vocals) < 0.1 * rms(accompaniment):
        io.add_warning("hardly any voice was found: the film may be all music, or the method fails on it")
    # ``type=`` in the metadata is an override that the original's callers rely on.
    io.track_output(write_wav(io.get_output_path("vocals.wav"), vocals), "audio", type="vocals")
    io.track_output(write_wav(io.get_output_path("accompaniment.wav"), accompaniment), "audio", type="accompaniment")


def block_bounds(length: int) -> list[tuple[int, int, int]]:
    """Start, end and lead-in of each block: a film's spectrogram need not fit into memory at once.

    The lead-in repeats the end of the block before, so that the medians have their context.
    """
    size, overlap = int(BLOCK_SECONDS * RATE), int(OVERLAP_SECONDS * RATE)
    return [(start, min(start + size, length), min(start, overlap)) for start in range(0, length, size)]


def separate(mixture: Samples) -> Samples:
    """The mixture without what is held like a note."""
    if len(mixture) < WINDOW:
        return mixture
    spectrum = stft(mixture, WINDOW, HOP)
    magnitude = np.abs(spectrum)
    held = median_filter(magnitude, (1, KERNEL)) ** 2
    changing = (MARGIN * median_filter(magnitude, (KERNEL, 1))) ** 2
    music = held / (held + changing + 1e-12)
    return istft(spectrum * (1 - music), WINDOW, HOP, len(mixture))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job-dir", type=Path, required=True)
    arguments = parser.parse_args(argv)
    with StageIO("source_separation", output_base=arguments.job_dir) as io:
        run_stage(io)
    return 0


if __name__ == "__main__":
    sys.exit(main())
