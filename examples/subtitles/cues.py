"""Subtitle cues: which words stand on the screen together, how they are broken into lines, and for how long.

The measures are those that broadcasters and streaming services agree on, more or less: two lines of 42 characters, at
least a second, at most seven, and time enough to read.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

import srt

from .segments import Segment, Word

LINE = 42  # characters
LINES = 2
SHORTEST, LONGEST = 1.0, 7.0  # seconds
READING_SPEED = 17.0  # characters a second
GAP = 0.08  # seconds between cues (two frames), so that the eye sees the change


def cues_of(segments: list[Segment], names: Collection[str] = ()) -> list[srt.Subtitle]:
    """The cues of a transcript in order, numbered from 1.

    Args:
        names: words that get a capital letter; a speech recogniser mostly writes none.
    """
    capitals = {name.lower(): name for name in names}
    timed: list[tuple[float, float, str]] = []
    for segment in segments:
        for number, group in enumerate(split(segment["words"])):
            text = written(group, capitals, first=number == 0)
            text = f"♪ {text} ♪" if segment.get("is_lyrics") else text
            timed.append((group[0]["start"], group[-1]["end"], "\n".join(lines_of(text))))
    cues = []
    for number, (start, end, text) in enumerate(timed, 1):
        after = timed[number][0] if number < len(timed) else float("inf")
        end = cue_end(start, end, text, after)
        cues.append(srt.Subtitle(number, timedelta(seconds=start), timedelta(seconds=end), text))
    return cues


def split(words: list[Word]) -> list[list[Word]]:
    """Words in groups that each fit a cue, parted where the speaker pauses and, all else equal, in the middle."""
    if not words:
        return []
    text = " ".join(word["word"] for word in words)
    fits = len(lines_of(text)) <= LINES and words[-1]["end"] - words[0]["start"] <= LONGEST
    if fits or len(words) == 1:
        return [words]

    def merit(at: int) -> float:
        pause = words[at]["start"] - words[at - 1]["end"]
        return pause - abs(at / len(words) - 0.5)

    best = max(range(1, len(words)), key=merit)
    return split(words[:best]) + split(words[best:])


def lines_of(text: str) -> list[str]:
    """The text on one line, or on two as even as can be, or on more if it does not fit."""
    if len(text) <= LINE:
        return [text]
    words = text.split(" ")
    halves = [(" ".join(words[:at]), " ".join(words[at:])) for at in range(1, len(words))]
    even = min(halves, key=lambda pair: abs(len(pair[0]) - len(pair[1])), default=(text,))
    if all(len(line) <= LINE for line in even):
        return list(even)
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= LINE:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def cue_end(start: float, end: float, text: str, after: float) -> float:
    """Until the last word is said, or longer if that is too short to read; but never into the next cue."""
    wanted = max(end, start + max(SHORTEST, len(text) / READING_SPEED))
    return round(max(start + GAP, min(wanted, start + LONGEST, after - GAP)), 3)


def written(words: list[Word], capitals: dict[str, str], *, first: bool) -> str:
    """The words as a sentence begins or goes on, with the capitals of names and of "I"."""
    spelled = []
    for word in words:
        text = word["word"]
        stem = text.split("'")[0]
        if text == text.lower():
            text = "I" + text[1:] if stem == "i" else capitals.get(stem, stem) + text[len(stem) :]
        spelled.append(text)
    if first and spelled:
        spelled[0] = spelled[0][:1].upper() + spelled[0][1:]
    return " ".join(spelled)
