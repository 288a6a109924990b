"""How far a stage of a pipeline is, on the pipeline's console: a bar on a terminal, a line now and then elsewhere.

A bar is drawn only while the pipeline waits for a program, whose output it shows itself; what the program's own stage
says of its progress is read from its journal. A stage in the pipeline's own process may print what it likes at any
moment, and often does by halves of lines: it has lines where it is no terminal, and none where it is.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .. import semconv as sc
from ..capture.text import clean
from ..otlp import decode
from ..runtime import never_raises, runtime
from ..sinks.console import Console
from ..units import amount, duration, percent, seconds_left, share

_SECOND = 1_000_000_000
#: Nanoseconds between two looks at a journal, and two pictures of a bar.
_LOOK = _SECOND
#: A line is due after so long, or at each quarter of the work if the last was not just now.
_LINE, _JUST_NOW = 30 * _SECOND, 5 * _SECOND
_TAIL = 256 * 1024
_PROGRESS = f'"{sc.EVENT_PROGRESS}"'.encode()
_LONGEST_NAME, _LONGEST_BAR, _SHORTEST_BAR = 32, 24, 6
_CYAN, _DIM = "\x1b[36m", "\x1b[2m"


class Progress(NamedTuple):
    done: float
    total: float | None
    unit: str

    @classmethod
    def of(cls, done: Any, total: Any, unit: Any) -> Progress | None:
        """None if ``done`` is no number."""
        if not isinstance(done, (int, float)):
            return None
        whole = total if isinstance(total, (int, float)) else None
        return cls(done, whole, clean(str(unit or "")).replace("\n", " "))

    def words(self, elapsed_ns: int) -> list[str]:
        """``12 of 41 chunks``, ``29 %``, ``1 min 12 s left``; as much of it as is known."""
        said = [amount(*self)]
        part = share(self.done, self.total)
        if part is not None:
            said.append(percent(part))
        left = seconds_left(self.done, self.total, elapsed_ns / 1e9)
        return said if left is None else [*said, f"{duration(left)} left"]


class Meter:
    """Of one stage.

    Args:
        say: prints a line as the pipeline.
        journal: where a program says how far it is; without one, :meth:`tell` hears of it.
    """

    def __init__(self, stage: str, console: Console, say: Callable[[str], None], journal: str | None = None) -> None:
        self._stage = stage
        self._console = console
        self._say = say
        self._journal = _Journal(journal) if journal is not None else None
        self._began = self._line_ns = self._look_ns = runtime.clock.monotonic_ns()
        self._quarter = 0
        self._progress: Progress | None = None
        self._said: Progress | None = None

    @never_raises()
    def beat(self) -> None:
        """While a program runs: look how far it is, if it is time."""
        now = runtime.clock.monotonic_ns()
        if self._journal is None or now - self._look_ns < _LOOK:
            return
        self._look_ns = now
        self._progress = self._journal.newest() or self._progress
        if self._progress is None:
            return
        room = self._console.room()
        if room:
            self._console.draw(self._bar(self._progress, now - self._began, room))
        else:
            self._console.draw("")
            self._line(self._progress, now)

    @never_raises()
    def tell(self, record: Mapping[str, Any]) -> None:
        """How far a stage in this process is, from its record; as often as you like."""
        now = runtime.clock.monotonic_ns()
        if now - self._line_ns < _JUST_NOW or self._console.on_terminal:
            return
        said = record.get("progress") or {}
        progress = Progress.of(said.get("done"), said.get("total"), said.get("unit"))
        if progress is not None:
            self._line(progress, now)

    @never_raises()
    def close(self) -> None:
        self._console.draw("")

    def _line(self, progress: Progress, now: int) -> None:
        part = share(progress.done, progress.total)
        quarter = int(part * 4) if part is not None else 0
        since = now - self._line_ns
        due = since >= _LINE or (quarter > self._quarter and since >= _JUST_NOW)
        if not due or progress == self._said or quarter == 4:  # the end is said by another line
            return
        self._said, self._line_ns, self._quarter = progress, now, quarter
        self._say(f"{self._stage}: {', '.join(progress.words(now - self._began))}")

    def _bar(self, progress: Progress, elapsed_ns: int, room: int) -> str:
        """``asr  ━━━━━━────  12 of 41 chunks  29 %  1 min 12 s left``, as much of it as there is room for."""
        name = _cut(self._stage, min(_LONGEST_NAME, room))
        words = progress.words(elapsed_ns)
        part = share(progress.done, progress.total)
        least = 0 if part is None else 2 + _SHORTEST_BAR
        while len(words) > 1 and _cells("  ".join([name, *words])) + least > room:
            words.pop()
        said = "  ".join([name, *words])
        cells = min(room - _cells(said) - 2, _LONGEST_BAR)
        if part is None or cells < _SHORTEST_BAR:
            return _cut(said, room)
        full = int(part * cells)
        done, left = ("━", "─") if self._console.unicode else ("#", ".")
        bar = self._console.paint(done * full, _CYAN) + self._console.paint(left * (cells - full), _DIM)
        return "  ".join([name, bar, *words])


class _Journal:
    """What is new in a stage's journal, each time it is asked."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._read = 0

    def newest(self) -> Progress | None:
        """The last that it says of progress, if it says something new."""
        try:
            with open(self._path, "rb") as file:
                end = file.seek(0, os.SEEK_END)
                self._read = file.seek(max(self._read, end - _TAIL))
                data = file.read(_TAIL)
        except OSError:
            return None
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in reversed(whole.splitlines()):
            request = decode.parse(line)[0] if _PROGRESS in line else None
            found = _in(request) if request is not None else None
            if found is not None:
                return found
        return None


def _in(request: dict[str, Any]) -> Progress | None:
    found = None
    for _, record in decode.records_of(request):
        event = decode.event_of(record)
        if event is not None and event.name == sc.EVENT_PROGRESS:
            keys = (sc.PROGRESS_DONE, sc.PROGRESS_TOTAL, sc.PROGRESS_UNIT)
            found = Progress.of(*(event.attributes.get(key) for key in keys)) or found
    return found


def _cells(text: str) -> int:
    """How wide it is on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, room: int) -> str:
    while _cells(text) > room:
        text = text[:-1]
    return text
