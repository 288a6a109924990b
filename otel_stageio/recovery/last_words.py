"""What a stage that died had said last, from the end of its ``stage.log``."""

from __future__ import annotations

import os
import re
import time
from typing import NamedTuple

from ..layout import StrPath
from ..runtime import runtime

MOST_LINES = 20
_BYTES = 64 * 1024
_HEAD = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\] \[([^\]]*)\] \[")


class LastWords(NamedTuple):
    """Attributes:
    lines: at most :data:`MOST_LINES`.
    time_ns: when the last of them was said, to the second; 0 if there are none.
    """

    lines: list[str]
    time_ns: int


def last_words(log: StrPath, stage: str, since_ns: int) -> LastWords:
    """The last lines of one attempt. The log may hold those of others before it, and of a stage beside it."""
    lines: list[str] = []
    latest = 0
    ours = False
    for line in _tail(log):
        head = _HEAD.match(line)
        if head is not None:
            said = _time_ns(head[1])
            logger = head[2]
            ours = said + 1_000_000_000 > since_ns and (not logger.startswith("stage.") or logger == f"stage.{stage}")
            if ours:
                latest = max(latest, said)
        if ours:
            lines.append(line)
    return LastWords(lines[-MOST_LINES:], min(latest, runtime.clock.wall_ns()))


def _tail(log: StrPath) -> list[str]:
    try:
        with open(log, "rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _BYTES)
            file.seek(start)
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return lines[1:] if start else lines  # the first may be half a line


def _time_ns(stamp: str) -> int:
    try:
        return int(time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S"))) * 1_000_000_000
    except (ValueError, OverflowError):
        return 0
