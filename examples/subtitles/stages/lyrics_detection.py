"""08 lyrics_detection: which segments are sung.

In: ``segments_aligned.json`` of alignment, ``audio.wav`` of demux, ``accompaniment.wav`` of source_separation. Out:
``segments.json`` with ``is_lyrics`` on each segment, and ``lyrics_metadata.json``: the measurements, and where there is
music without words.

Four measurements, each 0 … 1 and higher for song than for speech, and their mean against a threshold: how steady the
pitch is, how much of the time there is a pitch at all, how strong the beat is, and how much of the sound is
accompaniment. Simple acoustics with honest limits: chanting looks sung, rap looks spoken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.subtitles.audio import RATE, Samples, cut, read_wav, rms, stft
from examples.subtitles.segments import Segment, document, segments_of
from otel_stageio import StageIO

THRESHOLD = 0.5
DOUBTFUL = 0.1  # this near the threshold it is a guess
FRAME, HOP = 640, 160  # 40 ms every 10 ms
LOWEST, HIGHEST = 80, 500  # Hz, of a voice's pitch
STEADY = 0.35  # semitones in 80 ms
PITCH_STEP = 8  # frames: 80 ms
LOUD = 0.005  # RMS below which a gap is silence, not music


def run_stage(io: StageIO) -> None:
    log = io.get_stage_logger()
    audio = io.track_input(io.get_input_path("audio.wav", from_stage="demux"), "audio")
    music = io.track_input(io.get_input_path("accompaniment.wav", from_stage="source_separation"), "audio")
    io.track_input(io.get_input_path("segments_aligned.json", from_stage="alignment"), "transcript")
    io.set_config({"threshold": THRESHOLD, "pitch_range": [LOWEST, HIGHEST]})
    if io.up_to_date(code=__file__):
        return
    source = io.load_json("segments_aligned.json", from_stage="alignment")
    segments = segments_of(source)
    samples, accompaniment = read_wav(audio), read_wav(music)

    measured = []
    for number, segment in enumerate(segments, 1):
        with io.span("measure", segment=segment["id"]) as span:
            values = measure(*(cut(sound, segment["start"], segment["end"]) for sound in (samples, accompaniment)))
            span.set_attribute("demo.lyrics.score", values["score"])
        segment["is_lyrics"] = values["score"] >= THRESHOLD
        if abs(values["score"] - THRESHOLD) < DOUBTFUL:
            io.add_warning(f"segment {segment['id']}: sung or spoken is a guess ({values['score']:.2f})")
        measured.append({"id": segment["id"], **values, "is_lyrics": segment["is_lyrics"]})
        io.progress(done=number, total=len(segments), unit="segments")

    with io.span("music_without_words"):
        passages = music_between(segments, samples, accompaniment)
    sung = sum(bool(segment["is_lyrics"]) for segment in segments)
    log.info("%d of %d segments are sung; passages of music: %d", sung, len(segments), len(passages))
    metadata = {"method": "acoustic", "threshold": THRESHOLD, "segments": measured, "music": passages}
    io.track_output(io.save_json(metadata, "lyrics_metadata.json"), "metadata")
    io.track_output(io.save_json(document(segments, language=source["language"]), "segments.json"), "transcript")


def measure(samples: Samples, accompaniment: Samples) -> dict[str, float]:
    """The four measurements of a stretch of sound, and their mean."""
    steadiness, voicing = pitch_measures(samples)
    total = rms(samples) ** 2
    values = {
        "pitch_steadiness": steadiness,
        "voicing": voicing,
        "beat": beat_strength(samples),
        "accompaniment": min(1.0, rms(accompaniment) ** 2 / total) if total else 0.0,
    }
    return {name: round(value, 3) for name, value in {**values, "score": sum(values.values()) / len(values)}.items()}


def music_between(segments: list[Segment], samples: Samples, accompaniment: Samples) -> list[dict[str, Any]]:
    """The gaps of a second and more between segments that sound like music."""
    edges = [0.0, *(time for segment in segments for time in (segment["start"], segment["end"])), len(samples) / RATE]
    passages = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        gap = cut(samples, start, end)
        if end - start >= 1 and rms(gap) > LOUD:
            values = measure(gap, cut(accompaniment, start, end))
            if values["score"] >= THRESHOLD:
                passages.append({"start": round(start, 2), "end": round(end, 2), "score": values["score"]})
    return passages


def pitch_measures(samples: Samples) -> tuple[float, float]:
    """The share of pitched frames whose pitch stays, and the share of frames that have a pitch."""
    pitch = 12 * np.log2(pitch_track(samples))  # in semitones; frames without a pitch are NaN
    if pitch.size <= PITCH_STEP:
        return 0.0, 0.0
    moves = np.abs(pitch[PITCH_STEP:] - pitch[:-PITCH_STEP])
    moves = moves[~np.isnan(moves)]
    return (float((moves < STEADY).mean()) if moves.size >= 10 else 0.0), float((~np.isnan(pitch)).mean())


def pitch_track(samples: Samples) -> Samples:
    """The pitch in Hz every 10 ms, by autocorrelation (Boersma 1993); NaN where there is none."""
    if len(samples) < FRAME:
        return np.array([])
    window = np.hanning(FRAME)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
    frames = (frames - frames.mean(axis=1, keepdims=True)) * window
    size = 2 * FRAME
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, size)) ** 2)[:, :FRAME]
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2)[:FRAME]
    correlation /= np.maximum(correlation[:, :1], 1e-12)
    correlation /= np.maximum(of_window / of_window[0], 0.05)  # undo the window's own falling off
    shortest, longest = RATE // HIGHEST, RATE // LOWEST
    best = shortest + correlation[:, shortest:longest].argmax(axis=1)
    rows = np.arange(len(frames))
    left, peak, right = (correlation[rows, best + step] for step in (-1, 0, 1))
    bend = left - 2 * peak + right
    lag = best + np.where(bend < -1e-9, 0.5 * (left - right) / np.where(bend < -1e-9, bend, -1.0), 0.0)
    loudness = np.sqrt((frames**2).mean(axis=1))
    pitched = (peak > 0.6) & (loudness > 0.1 * np.percentile(loudness, 95))
    return np.where(pitched, RATE / np.clip(lag, shortest - 1, longest + 1), np.nan)


def beat_strength(samples: Samples) -> float:
    """How well the rises of the spectrum repeat after 0.25 to 1 s: the strongest autocorrelation there."""
    if len(samples) < RATE:
        return 0.0
    spectrum = stft(samples, 512, HOP)
    rises = np.maximum(np.diff(np.log1p(4 * np.abs(spectrum)), axis=1), 0).sum(axis=0)
    rises -= rises.mean()
    correlation = np.correlate(rises, rises, "full")[len(rises) - 1 :]
    return float(max(0.0, correlation[25:100].max() / correlation[0])) if correlation[0] > 0 else 0.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job-dir", type=Path, required=True)
    arguments = parser.parse_args(argv)
    with StageIO("lyrics_detection", output_base=arguments.job_dir) as io:
        run_stage(io)
    return 0


if __name__ == "__main__":
    sys.exit(main())
