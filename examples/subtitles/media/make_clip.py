"""Build the demo's clip, ``sense_and_sensibility.mp4``, from five sentences read by a human.

    python examples/subtitles/media/make_clip.py DIRECTORY_WITH_THE_WAVS [--out DIRECTORY]

The directory holds the five ``sense_and_sensibility_01_austen_64kb-*.wav`` of PocketSphinx's test data (a LibriVox
recording, public domain) and their ``transcription.txt``. The clip is committed, so only a change of the clip needs
this script. It makes

* the sound: a short opening tune (synthesised here, so that the film has something that is not speech), then the
  sentences with pauses of room tone between them, as 48 kHz stereo AAC: what a film has, so that *demux* has
  something to convert;
* the picture: the waveform scrolling over a slow gradient, small and cheap to encode;
* ``reference.txt``: what is said, one sentence a line.
"""

from __future__ import annotations

import argparse
import re
import wave
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

SPEECH_RATE = 16_000
FILM_RATE = 48_000
BLOCK = 1024  # samples of an AAC frame
FPS = 12
WIDTH, HEIGHT = 320, 180
TUNE_SECONDS = 2.4
PAUSE_SECONDS = 0.6
ROOM_TONE = 25.0  # of 32768: digital silence would be a gift to the voice detector that no real film makes

Samples = NDArray[np.float64]


def read_sentences(source: Path) -> list[Samples]:
    """The recorded sentences in order, as samples of 16-bit range."""
    sentences = []
    for path in sorted(source.glob("*.wav")):
        with wave.open(str(path)) as wav:
            if (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) != (SPEECH_RATE, 1, 2):
                raise SystemExit(f"{path.name}: not 16 kHz mono 16-bit")
            sentences.append(np.frombuffer(wav.readframes(wav.getnframes()), np.int16).astype(np.float64))
    if not sentences:
        raise SystemExit(f"no wav files in {source}")
    return sentences


def read_reference(source: Path) -> str:
    """The words of ``transcription.txt`` (Sphinx's form: ``<s> words </s> (file)``), one sentence a line."""
    lines = (source / "transcription.txt").read_text(encoding="utf-8").splitlines()
    return "".join(re.sub(r"</?s>|\([^)]*\)", "", line).strip() + "\n" for line in lines if line.strip())


def tune(rate: int) -> Samples:
    """A few plucked notes, each a decaying series of harmonics."""
    samples = np.zeros(int(TUNE_SECONDS * rate))
    for number, note in enumerate((261.63, 329.63, 392.00, 523.25, 392.00, 523.25)):
        start = int(number * 0.3 * rate)
        t = np.arange(len(samples) - start) / rate
        for harmonic in range(1, 6):
            samples[start:] += 2000 / harmonic * np.exp(-t * (2.0 + harmonic)) * np.sin(2 * np.pi * note * harmonic * t)
    fade = int(0.2 * rate)
    samples[-fade:] *= np.linspace(1, 0, fade)
    return samples


def soundtrack(sentences: list[Samples]) -> Samples:
    """Tune, pause, sentence, pause, … at 48 kHz."""
    noise = np.random.default_rng(1811)  # the novel's year: any fixed seed makes the clip reproducible
    parts = []
    for sentence in sentences:
        parts += [np.zeros(int(PAUSE_SECONDS * SPEECH_RATE)), sentence]
    parts.append(np.zeros(int(PAUSE_SECONDS * SPEECH_RATE)))
    speech = np.concatenate([np.zeros(int(TUNE_SECONDS * SPEECH_RATE)), *parts])
    speech += noise.normal(0, ROOM_TONE, len(speech))
    film = resample_poly(speech, FILM_RATE // SPEECH_RATE, 1)
    opening = tune(FILM_RATE)
    film[: len(opening)] += opening
    return np.clip(film, -32768, 32767)


def picture(sound: Samples, number: int) -> NDArray[np.uint8]:
    """Frame *number*: two seconds of waveform around the present moment, over a gradient that drifts."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    drift = number / FPS / 8
    frame = np.stack(
        [40 + 30 * np.sin(2 * np.pi * (x / WIDTH + drift)), 30 + 25 * y / HEIGHT, 70 + 40 * (1 - y / HEIGHT)], axis=-1
    )
    centre = int(number / FPS * FILM_RATE)
    edges = np.linspace(centre - FILM_RATE, centre + FILM_RATE, WIDTH + 1).astype(int)
    for column, (left, right) in enumerate(pairwise(edges)):
        piece = sound[max(left, 0) : max(right, 0)]
        level = float(np.abs(piece).max()) / 32768 if piece.size else 0.0
        half = max(1, int(level * HEIGHT * 0.8))
        frame[HEIGHT // 2 - half : HEIGHT // 2 + half, column] = (
            (235, 205, 120) if column <= WIDTH // 2 else (150, 130, 110)
        )
    return frame.clip(0, 255).astype(np.uint8)


def write_film(sound: Samples, path: Path) -> None:
    """Encode sound and picture; one thread and bit-exact muxing, so that the same input gives the same file."""
    seconds = len(sound) / FILM_RATE
    with av.open(str(path), "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as film:
        film.metadata["title"] = "Sense and Sensibility"
        film.metadata["comment"] = "LibriVox reading (public domain); see CREDITS.md"
        video: Any = film.add_stream("libx264", rate=FPS, options={"crf": "30", "preset": "veryslow", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = film.add_stream("aac", rate=FILM_RATE, layout="stereo", options={"flags": "+bitexact"})
        audio.bit_rate = 64_000

        pcm = np.repeat(sound.astype(np.int16), 2).reshape(1, -1)  # the same in both channels, interleaved
        written = 0
        for number in range(int(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(picture(sound, number), format="rgb24")
            film.mux(video.encode(frame))
            while written < len(sound) * (number + 1) / int(seconds * FPS):  # keep sound and picture side by side
                block = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(pcm[:, 2 * written : 2 * (written + BLOCK)]), format="s16", layout="stereo"
                )
                block.sample_rate, block.pts, block.time_base = FILM_RATE, written, Fraction(1, FILM_RATE)
                film.mux(audio.encode(block))
                written += BLOCK
        film.mux(video.encode(None))
        film.mux(audio.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="directory with the five wavs and transcription.txt")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    clip = arguments.out / "sense_and_sensibility.mp4"
    write_film(soundtrack(read_sentences(arguments.source)), clip)
    (arguments.out / "reference.txt").write_text(read_reference(arguments.source), encoding="utf-8")
    print(f"{clip.name}: {clip.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
