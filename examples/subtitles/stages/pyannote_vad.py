"""05 pyannote_vad: where somebody speaks.

In: ``vocals.wav`` of source_separation. Out: ``speech_segments.json``.

Pyannote's model needs an account and a download, so its place is taken by PocketSphinx's endpointer: WebRTC's voice
detector (energies of six frequency bands against adaptive thresholds) and a window that must agree before speech
begins or ends. It is quick and takes anything voice-like for a voice, which is why it listens to the separated voice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pocketsphinx import Endpointer

from examples.subtitles.audio import RATE, Samples, pcm16, read_wav
from otel_stageio import StageIO

MODE = 2  # of 0 (lets everything through) to 3 (strict)
WINDOW = 0.3  # seconds that must agree …
RATIO = 0.9  # … to this share
SHORTEST = 0.25  # seconds: less is a click, not a word


def run_stage(io: StageIO) -> None:
    log = io.get_stage_logger()
    vocals = io.track_input(io.get_input_path("vocals.wav", from_stage="source_separation"), "audio")
    io.set_config({"backend": "pocketsphinx", "mode": MODE, "window": WINDOW, "ratio": RATIO, "shortest": SHORTEST})
    if io.up_to_date(code=__file__):
        return
    samples = read_wav(vocals)
    duration = len(samples) / RATE

    segments = []
    with io.span("detect") as span:
        for start, end in speech(samples):
            if end - start < SHORTEST:
                log.debug("%.2f s at %.2f s is too short to be speech", end - start, start)
                continue
            segments.append({"start": round(start, 2), "end": round(end, 2)})
            io.progress(done=round(end, 1), total=round(duration, 1), unit="s")
        span.set_attribute("demo.speech.segments", len(segments))

    spoken = sum(segment["end"] - segment["start"] for segment in segments)
    log.info("%d segments, %.1f s of speech in %.1f s", len(segments), spoken, duration)
    if not segments:
        io.add_warning("no speech was found")
    result = {"backend": "pocketsphinx", "duration": round(duration, 2), "segments": segments}
    io.track_output(io.save_json(result, "speech_segments.json"), "speech_segments")


def speech(samples: Samples) -> Iterator[tuple[float, float]]:
    """Start and end, in seconds, of each stretch of speech."""
    endpointer = Endpointer(window=WINDOW, ratio=RATIO, vad_mode=MODE, sample_rate=RATE)
    sound = pcm16(samples)
    size = endpointer.frame_bytes
    speaking = False
    for position in range(0, len(sound), size):
        frame = sound[position : position + size]
        if position + size < len(sound):
            endpointer.process(frame)
        elif speaking:
            endpointer.end_stream(frame)
        if speaking and not endpointer.in_speech:
            yield endpointer.speech_start, endpointer.speech_end
        speaking = endpointer.in_speech


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job-dir", type=Path, required=True)
    arguments = parser.parse_args(argv)
    with StageIO("pyannote_vad", output_base=arguments.job_dir) as io:
        run_stage(io)
    return 0


if __name__ == "__main__":
    sys.exit(main())
