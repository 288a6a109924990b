"""01 demux: take the sound out of the film, as 16 kHz mono wav, with PyAV (FFmpeg's libraries).

In: the film. Out: ``audio.wav``, and ``media.json``: what the file says about itself.
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
from av.audio.resampler import AudioResampler

from examples.subtitles.audio import RATE
from otel_stageio import StageIO


def run_stage(io: StageIO, media: Path) -> None:
    log = io.get_stage_logger()
    io.track_input(media, "media")
    io.set_config({"sample_rate": RATE, "channels": 1, "pyav": av.__version__})

    with io.span("probe"):
        about = probe(media)
    io.track_output(io.save_json(about, "media.json"), "metadata")
    log.info("%.1f s, streams: %s", about["duration"], ", ".join(f"{s['type']} {s['codec']}" for s in about["streams"]))
    if not about["title"]:
        io.add_warning("the file carries no title; its name will be used to look the film up")

    audio = io.track_output(io.get_output_path("audio.wav"), "audio")
    with io.span("decode_audio") as span:
        seconds = decode_audio(io, media, audio, about["duration"])
        span.set_attribute("demo.audio.seconds", round(seconds, 3))
    if abs(seconds - about["duration"]) > 1:
        io.add_warning(f"the sound lasts {seconds:.1f} s, the film {about['duration']:.1f} s")


def probe(media: Path) -> dict[str, Any]:
    """Title, duration and streams as the container states them."""
    with av.open(str(media)) as film:
        return {
            "title": film.metadata.get("title", ""),
            "name": media.stem.replace("_", " "),
            "duration": (film.duration or 0) / 1_000_000,  # the container counts in microseconds
            "streams": [{"type": stream.type, "codec": stream.codec_context.name} for stream in film.streams],
        }


def decode_audio(io: StageIO, media: Path, audio: Path, duration: float) -> float:
    """Decode and resample the first audio stream, block by block: a film need not fit into memory.

    Returns:
        The seconds written.

    Raises:
        ValueError: if the film has no sound.
    """
    resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(str(media)) as film, wave.open(str(audio), "wb") as wav:
        if not film.streams.audio:
            raise ValueError(f"{media.name} has no audio stream")
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(RATE)
        for frame in film.decode(audio=0):
            for block in resampler.resample(frame):
                wav.writeframes(block.to_ndarray().tobytes())
            io.progress(done=round(frame.time or 0.0, 1), total=round(duration, 1), unit="s")
        for block in resampler.resample(None):  # what the resampler still holds
            wav.writeframes(block.to_ndarray().tobytes())
        return float(wav.getnframes()) / RATE


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job-dir", type=Path, required=True)
    parser.add_argument("--media", type=Path, required=True)
    arguments = parser.parse_args(argv)
    with StageIO("demux", output_base=arguments.job_dir) as io:
        run_stage(io, arguments.media)
    return 0


if __name__ == "__main__":
    sys.exit(main())
