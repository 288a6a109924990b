"""06 hallucination_removal: take out what the ASR made up. A sub-stage: it shares the directory ``06_asr``.

In: ``segments.json`` of asr. Out: ``segments_clean.json``, and ``removed_segments.json`` with the reason for each.

Speech recognisers invent text over music, silence and noise, and loop. The rules are those that are used on Whisper's
output, and need nothing but the segments themselves.
"""

from __future__ import annotations

import zlib
from typing import TypedDict

from examples.subtitles.segments import Segment, document, segments_of
from examples.subtitles.wer import words_of
from otel_stageio import StageIO

MAX_COMPRESSION_RATIO = 2.4  # Whisper's own limit: text that packs better than this goes round in circles
MAX_WORDS_PER_SECOND = 7.0  # an auctioneer
MIN_SECONDS = 0.15  # no word is shorter
SPARSE_SECONDS, MIN_WORDS_PER_SECOND = 5.0, 0.3  # one word in a long stretch: music or noise
MAX_PHRASE_REPEATS = 3  # the same one to four words over and over inside a segment
MIN_AVG_LOGPROB, MAX_NO_SPEECH = -1.0, 0.6  # Whisper's own limits, which count together only
# What models trained on web video say over music, when it is all that a segment has.
INVENTIONS = {
    "thank you", "thanks", "thank you for watching", "thanks for watching", "please subscribe", "bye", "bye bye",
    "subtitles by the amara org community", "you", "yeah", "okay", "oh", "uh", "um", "hmm",
}  # fmt: skip


class Removed(TypedDict):
    segment: Segment
    reason: str


def run_stage(io: StageIO) -> None:
    log = io.get_stage_logger()
    io.track_input(io.get_input_path("segments.json", from_stage="asr"), "transcript")
    if io.up_to_date(code=__file__):
        return
    source = io.load_json("segments.json", from_stage="asr")
    with io.span("judge") as span:
        kept, removed = clean(segments_of(source))
        span.set_attribute("demo.segments.removed", len(removed))
    for entry in removed:
        log.info("removed the segment at %.2f s: %s", entry["segment"]["start"], entry["reason"])
    log.info("%d segments kept, %d removed", len(kept), len(removed))
    io.track_output(io.save_json(document(kept, language=source["language"]), "segments_clean.json"), "transcript")
    io.track_output(io.save_json(removed, "removed_segments.json"), "report")


def clean(segments: list[Segment]) -> tuple[list[Segment], list[Removed]]:
    """Split the segments into what was said and what was made up."""
    kept: list[Segment] = []
    removed: list[Removed] = []
    before: Segment | None = None
    for segment in segments:
        reason = implausible(segment) or (repeats(before, segment) if before else None)
        if reason:
            removed.append({"segment": segment, "reason": reason})
        else:
            kept.append(segment)
            before = segment
    return kept, removed


def implausible(segment: Segment) -> str | None:
    """Why nobody can have said this, or None."""
    words = words_of(segment["text"])
    seconds = segment["end"] - segment["start"]
    if not words:
        return "no words"
    if seconds < MIN_SECONDS:
        return "too short"
    if len(words) > 1 and len(words) / seconds > MAX_WORDS_PER_SECOND:
        return "too fast"
    if seconds > SPARSE_SECONDS and len(words) / seconds < MIN_WORDS_PER_SECOND:
        return "hardly a word in a long stretch"
    if compression_ratio(segment["text"]) > MAX_COMPRESSION_RATIO:
        return "compression ratio"
    if longest_loop(words) > MAX_PHRASE_REPEATS:
        return "loop"
    if segment.get("avg_logprob", 0.0) < MIN_AVG_LOGPROB and segment.get("no_speech_prob", 0.0) > MAX_NO_SPEECH:
        return "unlikely, and probably no speech"
    if " ".join(words) in INVENTIONS and (seconds > 1.0 * len(words) or segment.get("no_speech_prob", 0.0) > 0.3):
        return "a stock phrase, said over nothing"
    return None


def repeats(before: Segment, segment: Segment) -> str | None:
    """A whole sentence said twice running is the recogniser's stutter; a short answer ("no." "no.") is not."""
    words = words_of(segment["text"])
    return "repeats the segment before" if len(words) >= 4 and words == words_of(before["text"]) else None


def compression_ratio(text: str) -> float:
    """How well the text packs, by Whisper's formula."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def longest_loop(words: list[str], longest: int = 4) -> int:
    """How often a phrase of one to four words follows itself, at most (1: never)."""
    most = 1
    for size in range(1, longest + 1):
        run = 1
        for start in range(size, len(words) - size + 1, size):
            run = run + 1 if words[start : start + size] == words[start - size : start] else 1
            most = max(most, run)
    return most
