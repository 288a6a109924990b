"""What the speech stages hand on: segments of text with times, in the form that Whisper's tools use."""

from __future__ import annotations

from typing import Any, TypedDict


class Word(TypedDict):
    word: str
    start: float
    end: float
    probability: float


class _Timed(TypedDict):
    id: int
    start: float
    end: float
    text: str
    words: list[Word]


class Segment(_Timed, total=False):
    """One stretch of speech. Times are seconds from the start of the film."""

    avg_logprob: float  # Whisper only, as are the next two
    no_speech_prob: float
    compression_ratio: float
    aligned: bool  # the word times come from forced alignment
    is_lyrics: bool  # sung, not spoken


def segments_of(document: dict[str, Any]) -> list[Segment]:
    """The segments of a ``segments.json``."""
    segments: list[Segment] = document["segments"]
    return segments


def document(segments: list[Segment], **about: Any) -> dict[str, Any]:
    """A ``segments.json``: the segments, and how they were made."""
    return {**about, "segments": segments}
