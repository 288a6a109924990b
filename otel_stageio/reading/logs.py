"""The lines of a ``stage.log`` or a pipeline log as records, from the beginning or as they come.

Both have ``[2025-11-27 10:11:12] [stage.asr] [INFO] text``, as the original's have; a line of another form belongs to
the record before it. Nothing is ever in memory beyond a block of the file and one record.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..levels import level_number
from ..sinks.files import open_to_read

#: Of whom the lines are that no stage has said.
PIPELINE = "pipeline"

_STAMP = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_BLOCK = 256 * 1024
#: Characters that are kept of one record, and bytes of one line.
_LONGEST = 1024 * 1024


class Entry(NamedTuple):
    """One record of a log.

    Attributes:
        time: as it stands in the file: local time, to the second. Empty for a line before the first record.
        logger: ``stage.asr``; empty for a line before the first record, as is the level.
        text: may have several lines.
        stage: who has said it: a stage, or ``pipeline``.
    """

    time: str
    logger: str
    level: str
    text: str
    stage: str


@functools.lru_cache(256)
def severity(level: str) -> int:
    """``logging``'s number for a level as it stands in a log; 20 for a word that is none."""
    number = level_number(level[6:] if level.startswith("Level ") else level)
    return 20 if number is None else number


def entries(path: Path, stage: str) -> Iterator[Entry]:
    """The records of a log from its beginning; none if there is no such file, or it cannot be read.

    Args:
        stage: the one that the directory is named after, or ``pipeline``. A record of ``stage.<other>`` is the other's.
    """
    log = LogFile(path, stage)
    yield from log.read()
    yield from log.rest()
    log.close()


class LogFile:
    """A log that is read as it grows; it may come later, be cut short, or be replaced by another file.

    Args:
        since: what stands before the first record of this time or a later one is passed over. What stands after it is
            not looked at again: clocks are set back, at the end of summer too.

    Attributes:
        problem: why it cannot be read, as the end of a sentence.
        reached: after :meth:`rewind`, the time of the first record behind the place, ``""`` for the beginning.
    """

    def __init__(self, path: Path, stage: str, since: str = "") -> None:
        self.path = path
        self.stage = stage
        self.problem = ""
        self.reached = ""
        self._since = since
        self._begun = not since
        self._file: io.FileIO | None = None
        #: A line that is not whole yet, and how much of it was not kept.
        self._torn = b""
        self._dropped = 0
        #: Time, logger, level and stage of the last record.
        self._head = ("", "", "", stage)
        self._midway = False
        self._stages: dict[str, str] = {}

    def read(self) -> Iterator[Entry]:
        """What has come since the last time, up to the end that the file has at the first step. A line that is not
        whole waits for the next time; lines that come without a head are of the record before them.
        """
        return self._current(self._entries(self._lines()))

    def rest(self) -> Iterator[Entry]:
        """The line that was never finished."""
        return self._current(self._entries(self._unfinished()))

    def rewind(self, window: int) -> bool:
        """Go to so many bytes before the end. Returns whether that is the beginning."""
        self._torn, self._dropped = b"", 0
        self._head = ("", "", "", self.stage)
        self._begun = not self._since
        self._midway, self.reached = False, ""
        if self._file is None and not self._open():
            return True
        assert self._file is not None
        place = max(self._file.seek(0, os.SEEK_END) - window, 0)
        self._file.seek(place)
        if place:
            self._midway, self.reached = True, "~"  # until a record is found
        return not place

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    # -- the file ----------------------------------------------------------------------------------------------------

    def _open(self) -> bool:
        try:
            fd = open_to_read(self.path)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.problem = f"cannot be read: {error.strerror}"
            return False
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            self.problem = "is not a regular file"
            return False
        self.problem = ""
        self._file = io.FileIO(fd)
        return True

    def _replaced(self) -> bool:
        """Whether another file has the name by now. An open file keeps its number, so no other can have it."""
        assert self._file is not None
        try:
            return not os.path.samestat(os.stat(self.path, follow_symlinks=False), os.fstat(self._file.fileno()))
        except OSError:
            return False  # gone: another may come

    def _lines(self) -> Iterator[str]:
        if self._file is None and not self._open():
            return
        while self._file is not None:
            yield from self._blocks(self._file)
            if not self._replaced():
                return
            yield from self._blocks(self._file)  # its last words
            yield from self._unfinished()
            self.close()
            self._open()

    def _blocks(self, file: io.FileIO) -> Iterator[str]:
        end = os.fstat(file.fileno()).st_size
        place = file.tell()
        if end < place:  # cut short, to be written anew
            self._torn, self._dropped = b"", 0
            place = file.seek(0)
        while place < end:
            block = file.read(min(_BLOCK, end - place))
            if not block:
                return
            place += len(block)
            cut = block.rfind(b"\n")
            if cut < 0:
                room = max(_LONGEST - len(self._torn), 0)
                self._torn += block[:room]
                self._dropped += len(block) - min(room, len(block))
                continue
            whole = self._torn + block[:cut]
            self._torn = block[cut + 1 :]
            if self._dropped:
                first, _, whole = whole.partition(b"\n")
                yield self._text(first)
                if not whole:
                    continue
            yield from self._text(whole).split("\n")

    def _unfinished(self) -> Iterator[str]:
        torn, self._torn = self._torn, b""
        if torn:
            yield self._text(torn)

    def _text(self, raw: bytes) -> str:
        text = raw.replace(b"\r\n", b"\n").decode("utf-8", "replace")
        if self._dropped:
            text += f"… [cut: {self._dropped:,} bytes more]"
            self._dropped = 0
        return text

    # -- the records -------------------------------------------------------------------------------------------------

    def _entries(self, lines: Iterable[str]) -> Iterator[Entry]:
        """Written for speed: a report reads a million lines."""
        time, logger, level, stage = self._head
        stamp = f"[{time}"
        said: list[str] = []
        new = tuple.__new__  # what Entry() does, in half the time
        room = _LONGEST
        for line in lines:
            if line[:1] == "[":
                head = line.split("] [", 2)
                if len(head) == 3 and (head[0] == stamp or _STAMP.fullmatch(head[0])):
                    if said:
                        text = said[0] if len(said) == 1 else _joined(said, room)
                        yield new(Entry, (time, logger, level, text, stage))
                    stamp, logger, rest = head
                    time = stamp[1:]
                    stage = self._stages.get(logger) or self._stage_of(logger)
                    level, found, text = rest.partition("] ")
                    if not found:  # cut off, or trimmed by an editor
                        level = level.rstrip("]")
                    said = [text]
                    room = _LONGEST - len(text)
                    if self._midway:
                        self._midway, self.reached = False, time
                    continue
            if self._midway:
                continue
            if not time:
                yield Entry("", "", "", line, stage)
                continue
            room -= len(line) + 1
            if room > 0 or not said:
                said.append(line)
        if said:
            yield Entry(time, logger, level, said[0] if len(said) == 1 else _joined(said, room), stage)
        self._head = (time, logger, level, stage)

    def _stage_of(self, logger: str) -> str:
        stage, own = self.stage, f"stage.{self.stage}"
        if logger.startswith("stage.") and logger != own and not logger.startswith(f"{own}."):
            stage = logger[len("stage.") :] or stage
        if len(self._stages) < 1_000:
            self._stages[logger] = stage
        return stage

    def _current(self, found: Iterator[Entry]) -> Iterator[Entry]:
        return found if self._begun else itertools.dropwhile(self._is_early, found)

    def _is_early(self, entry: Entry) -> bool:
        self._begun = self._begun or entry.time >= self._since
        return not self._begun


def _joined(said: list[str], room: int) -> str:
    text = "\n".join(said)
    left = _LONGEST - room - len(text)
    return f"{text}\n… [cut: {left:,} characters more]" if room <= 0 and left > 1 else text
