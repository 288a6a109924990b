"""All logs of a job as one, in the order of time, from the beginning or as they grow.

Logs know the time to the second. Within one, the pipeline log tells who was first: it repeats what stages say, from
INFO up, in the order in which it was said.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import logging
import operator
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ..layout import Job, owner_of
from .disk import entries as directory_entries
from .job import stage_directories
from .logs import PIPELINE, Entry, LogFile, severity

#: Bytes from the end of each log that are looked at first for the last records.
_WINDOW = 64 * 1024
#: Records that are put in order at once, where they are all of one second.
_MOST = 20_000


class _Piece(NamedTuple):
    """What one log has of a second."""

    time: str
    entries: list[Entry]
    of_pipeline: bool


_TIME = operator.itemgetter(0)


class JobLogs:
    """The stage logs, and of the pipeline logs what is in no stage log.

    Args:
        directory: only the log of this stage directory.
        since: leave out what was said before the first record of this time (``2025-11-27 10:11:12``).
        without: names of pipeline logs to leave out.
    """

    def __init__(self, job: Job, *, directory: str = "", since: str = "", without: Collection[str] = ()) -> None:
        self._job = job
        self._directory = directory
        self._since = since
        self._without = without
        self._files: dict[Path, LogFile] = {}
        #: What stages have said in this second, and the pipeline log has not repeated.
        self._said: collections.Counter[tuple[str, str]] = collections.Counter()
        self._second = ""

    @property
    def problems(self) -> list[str]:
        return [f"{file.path}: {file.problem}" for file in self._files.values() if file.problem]

    def read(self) -> Iterator[Entry]:
        """Everything; called again, what has come since. Files that were not there before are taken in."""
        self._look()
        return self._merged([file.read() for file in self._files.values()])

    def rest(self) -> Iterator[Entry]:
        """The lines that nobody has finished."""
        return self._merged([file.rest() for file in self._files.values()])

    def last(self, number: int, wanted: Callable[[Entry], bool]) -> list[Entry]:
        """The last records that are wanted; :meth:`read` goes on behind them. Not more is read than it takes."""
        self._look()
        window = _WINDOW if number else 0
        while True:
            rewound = [file.rewind(window) for file in self._files.values()]
            self._said.clear()
            self._second = ""
            found = collections.deque(filter(wanted, self.read()), number)
            # Whatever lies before the window is older than what was found.
            reached = max((file.reached for file in self._files.values()), default="")
            if all(rewound) or not number or (len(found) == number and found[0].time > reached):
                return list(found)
            window *= 16

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _look(self) -> None:
        # The pipeline logs come first: what is in them is in a stage's log by then, which is read after them.
        if not self._directory:
            for entry in directory_entries(self._job.logs):
                name = entry.name
                if name.startswith("99_pipeline_") and name.endswith(".log") and name not in self._without:
                    self._add(Path(entry.path), PIPELINE)
        for directory in stage_directories(self._job):
            if self._directory in ("", directory.name):
                self._add(directory / "stage.log", owner_of(directory.name))

    def _add(self, path: Path, stage: str) -> None:
        if path not in self._files:
            self._files[path] = LogFile(path, stage, self._since)

    def _merged(self, streams: list[Iterator[Entry]]) -> Iterator[Entry]:
        files = self._files.values()
        pieces = [_pieces(stream, file.stage == PIPELINE) for stream, file in zip(streams, files, strict=True)]
        second: list[_Piece] = []
        size = 0
        for piece in heapq.merge(*pieces, key=_TIME):
            if second and (piece.time != second[0].time or size >= _MOST):
                yield from self._in_order(second)
                second, size = [], 0
            second.append(piece)
            size += len(piece.entries)
        if second:
            yield from self._in_order(second)

    def _in_order(self, second: list[_Piece]) -> Iterator[Entry]:
        if second[0].time > self._second:
            self._second = second[0].time
            self._said.clear()
        logs = [piece.entries for piece in second if not piece.of_pipeline]
        places: dict[tuple[str, str], collections.deque[tuple[int, int]]] = collections.defaultdict(collections.deque)
        if not self._directory and second[0].time:
            for number, log in enumerate(logs):
                for at, entry in enumerate(log):
                    places[entry.level, entry.text].append((number, at))
        shown = [0] * len(logs)
        for entry in itertools.chain.from_iterable(piece.entries for piece in second if piece.of_pipeline):
            what = (entry.level, entry.text)
            if places.get(what):
                number, at = places[what].popleft()
                log, end = logs[number], at + 1
                while end < len(log) and severity(log[end].level) < logging.INFO:  # repeated nowhere
                    end += 1
                yield from log[shown[number] : end]
                shown[number] = max(shown[number], end)
            elif self._said[what] > 0:
                self._said[what] -= 1
            elif not entry.logger.startswith("stage."):
                yield entry
        for log, already in zip(logs, shown, strict=True):
            yield from log[already:]
        self._said.update({what: len(left) for what, left in places.items() if left})


def _pieces(stream: Iterator[Entry], of_pipeline: bool) -> Iterator[_Piece]:
    for time, group in itertools.groupby(stream, _TIME):
        while entries := list(itertools.islice(group, _MOST)):
            yield _Piece(time, entries, of_pipeline)
