"""Which lines of a stage's log a report holds: how it began, how it ended, and warnings and errors between, as far as
there is room. A log of a gigabyte is not read line by line for that: what lies between is only searched.
"""

from __future__ import annotations

import dataclasses
import itertools
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from ..reading.text import plain

#: Lines from the beginning, from the end, and warnings and errors between.
FIRST, LAST, BETWEEN = 100, 400, 300
#: Bytes that are read for the first and for the last lines.
_WINDOW = 160 * 1024
#: Characters that are kept of one record.
_LONGEST = 1_500

_HEAD = re.compile(rb"^\[(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)\] \[([^\]\n]{0,200})\] \[([A-Z]{1,12})\] ?", re.M)
#: The original's own loggers, and most home-made ones: ``2025-11-27 10:11:12,345 - asr - INFO - text``.
_OTHER_HEAD = re.compile(
    rb"^\[?(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)[.,\d]*\]?(?: - |  ?)\[?([\w.\- ]{1,80}?)\]?(?: - |  ?)\[?"
    rb"(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)\]?(?: - |:? )",
    re.M,
)
_SEVERE = re.compile(rb"^\[[^\]\n]{19}\] \[[^\]\n]{0,200}\] \[(?:WARNING|ERROR|CRITICAL)\]", re.M)

_LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL"}


@dataclasses.dataclass(slots=True)
class Line:
    """One record. ``level`` is one of logging's names; ``left_out`` records were left out before it."""

    time: str
    logger: str
    level: str
    text: str
    left_out: int = 0


@dataclasses.dataclass
class Excerpt:
    """Attributes:
    total: records in the part of the log that was looked at (this attempt's).
    size: bytes of the whole file.
    earlier: whether the file has records of earlier attempts too.
    """

    lines: list[Line]
    total: int
    size: int
    earlier: bool

    @property
    def left_out(self) -> int:
        return self.total - len(self.lines)


def read_excerpt(path: Path, stage: str, since: str = "") -> Excerpt | None:
    """None if there is no log.

    Args:
        stage: lines of other stages, which may share the directory, are left out.
        since: when the attempt began, as the log writes it (``2025-11-27 10:11:12``); what is older is of others.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if not size:
                return Excerpt([], 0, 0, False)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as log:
                return _of(stage, _excerpt(log, size, since))
    except (OSError, ValueError):  # ValueError: no file of a kind that can be mapped
        return None


def _of(stage: str, found: Excerpt) -> Excerpt:
    others = [line for line in found.lines if line.logger.startswith("stage.") and line.logger != f"stage.{stage}"]
    if others:
        foreign = set(map(id, others))
        found.lines = [line for line in found.lines if id(line) not in foreign]
        found.total -= len(others)
    return found


def _excerpt(log: mmap.mmap, size: int, since: str) -> Excerpt:
    start = _start(log, since) if since else 0
    head = _HEAD if _HEAD.search(log, start, min(size, start + _WINDOW)) else _OTHER_HEAD
    if size - start <= 2 * _WINDOW:
        lines = list(_records(log[start:size], head))
        if len(lines) <= FIRST + LAST + BETWEEN:
            return Excerpt(lines, len(lines), size, start > 0)
        total = len(lines)
        first, middle, last = lines[:FIRST], lines[FIRST:-LAST], lines[-LAST:]
        kept = [line for line in middle if line.level not in ("DEBUG", "INFO")][-BETWEEN:]
        numbered = {id(line): number for number, line in enumerate(lines)}
        chosen = [*first, *kept, *last]
        for before, line in itertools.pairwise(chosen):
            line.left_out = numbered[id(line)] - numbered[id(before)] - 1
        return Excerpt(chosen, total, size, start > 0)
    return _of_long(log, start, size, head)


def _of_long(log: mmap.mmap, start: int, size: int, head: re.Pattern[bytes]) -> Excerpt:
    first_end = log.rfind(b"\n", start, start + _WINDOW) + 1 or start + _WINDOW
    last_start = log.find(b"\n", size - _WINDOW) + 1 or size - _WINDOW
    first_ends = [match.start() for match in _limited(head, log, start, first_end, FIRST + 1)]
    if len(first_ends) > FIRST:
        first_end = first_ends[FIRST]
    first = list(_records(log[start:first_end], head))
    heads = [match.start() for match in head.finditer(log, last_start, size)]
    if heads:
        last_start = heads[-LAST] if len(heads) > LAST else heads[0]
    last = list(_records(log[last_start:size], head))[-LAST:]
    between: list[Line] = []
    reached = first_end
    severe = [match.start() for match in _SEVERE.finditer(log, first_end, last_start)][-BETWEEN:]
    for place in severe:
        following = head.search(log, log.find(b"\n", place, last_start) + 1 or last_start, last_start)
        end = min(following.start() if following else last_start, place + 16_384)
        found = list(_records(log[place:end], head))[:1]
        if found:
            found[0].left_out = _heads(log, reached, place)
            between += found
        reached = end
    if last:
        last[0].left_out = _heads(log, reached, last_start)
    chosen = [*first, *between, *last]
    skipped = sum(line.left_out for line in chosen)
    return Excerpt(chosen, len(chosen) + skipped, size, start > 0)


def _limited(head: re.Pattern[bytes], log: mmap.mmap, start: int, end: int, most: int) -> Iterator[re.Match[bytes]]:
    for number, match in enumerate(head.finditer(log, start, end), 1):
        yield match
        if number == most:
            return


def _heads(log: mmap.mmap, start: int, end: int) -> int:
    """How many records begin there; a record's further lines never begin with a bracket."""
    block, number, at = 1 << 20, 0, start
    while at < end:
        until = min(at + block, end)
        number += log[max(at - 1, start) : until].count(b"\n[")
        at = until
    return number + (log[start : start + 1] == b"[" and end > start)


def _start(log: mmap.mmap, since: str) -> int:
    """The first record that is not older; found by halves, since a log grows in the order of time."""
    wanted = f"[{since}]".encode()
    low, high = 0, len(log)
    while high - low > 4096:
        middle = (low + high) // 2
        match = _HEAD.search(log, middle, min(middle + _WINDOW, len(log)))
        if match is None:
            high = middle
        elif match.group(0)[:21] < wanted:
            low = match.end()
        else:
            high = middle
    for match in _HEAD.finditer(log, log.rfind(b"\n", 0, low) + 1):
        if match.group(0)[:21] >= wanted:
            return match.start()
        if match.start() > high + _WINDOW:
            break
    return 0


def _records(raw: bytes, head: re.Pattern[bytes]) -> Iterator[Line]:
    """Every record in a piece of a log; what stands before the first of them is one without a head."""
    matches = list(head.finditer(raw))
    before = raw[: matches[0].start()] if matches else raw
    if before.strip():
        for text in before.splitlines()[:FIRST]:
            yield Line("", "", "INFO", _text(text))
    for number, match in enumerate(matches):
        end = matches[number + 1].start() if number + 1 < len(matches) else len(raw)
        level = match[4].decode("ascii")
        yield Line(
            match[2].decode("ascii"),
            plain(match[3].decode("utf-8", "replace")),
            _LEVELS.get(level, level),
            _text(raw[match.end() : end]),
        )


def _text(raw: bytes) -> str:
    text = plain(raw[: 4 * _LONGEST].decode("utf-8", "replace").rstrip("\n"))
    if len(text) > _LONGEST:
        return f"{text[:_LONGEST]}… [cut: {len(raw):,} bytes in all]"
    return text
