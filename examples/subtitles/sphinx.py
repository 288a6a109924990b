"""PocketSphinx, the small speech recogniser whose wheel carries its English model: nothing is downloaded."""

from __future__ import annotations

import re
from typing import Any

from pocketsphinx import Decoder

from .audio import Samples, cut, pcm16
from .segments import Word

FRAMES_PER_SECOND = 100
PADDING = 0.1  # seconds of sound taken in before and after a segment: the detector cuts soft consonants off


def load_decoder() -> Any:
    return Decoder(loglevel="FATAL")


def decode(decoder: Any, samples: Samples, start: float, end: float) -> list[Word]:
    """Run the decoder's active search (its language model, or an alignment) over one segment of ``samples``.

    Returns:
        The words with their times in the film; silences and noises are left out.
    """
    offset = max(0.0, start - PADDING)
    decoder.start_utt()
    decoder.process_raw(pcm16(cut(samples, offset, end + PADDING)), full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return []
    return [
        {
            "word": re.sub(r"\(\d+\)$", "", piece.word),  # "the(2)" is the second pronunciation of "the"
            "start": round(offset + piece.start_frame / FRAMES_PER_SECOND, 2),
            "end": round(offset + (piece.end_frame + 1) / FRAMES_PER_SECOND, 2),
            "probability": round(min(1.0, float(piece.prob)), 4),
        }
        for piece in decoder.seg()
        if piece.word[0] not in "<[+"
    ]
