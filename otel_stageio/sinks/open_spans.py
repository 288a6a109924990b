"""The spans that are open in one process, on disk, so that a kill loses none of them.

A span reaches the spool when it ends. Until then a line of ``.stageio/open/<stage>.<attempt>.<pid>`` has it: a fixed
number of bytes, written over in place, so that a stage of a million spans keeps a file of a few lines. A line is free
once its span has ended and is then taken by the next; whoever reads the file leaves out what the spool has as ended.

The file goes when its process is through with the stage: what lies in ``.stageio/open`` is alive, or has died. And it
holds a little room on the disk, which is given back when there is no other left for the stage's end.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ..otlp import encode
from .files import open_to_write

if TYPE_CHECKING:
    from ..layout import Job

#: Bytes of a line. A span that does not fit can be kept without its attributes.
LINE = 1024
#: Blank lines, to be overwritten or given back.
_ROOM = (b" " * (LINE - 1) + b"\n") * 8
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class OpenSpans:
    """Safe for several threads: every step that matters is one operation of the interpreter."""

    def __init__(self, job: Job, stage: str, attempt: int) -> None:
        self._job, self._stage, self._attempt = job, stage, attempt
        self._fd = -1
        self.path: str | None = None
        self._reset()

    def _reset(self) -> None:
        self._free: list[int] = []
        self._next = itertools.count()
        self._places: dict[int, int] = {}

    def open(self) -> None:
        """Be there, with no span yet: this process has begun the stage. A file system that refuses is no error."""
        self.path = path = self._job.open_spans(self._stage, self._attempt, os.getpid())
        with suppress(OSError):
            self._fd = open_to_write(path, _FLAGS)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(self._fd, _ROOM, 0)

    def began(self, span_id: int, encoded: str) -> bool:
        """Keep a span that has begun, as :func:`encode.begun` has it. False if it is too long for a line."""
        if self._fd < 0:
            if self.path is not None:
                return True  # it was refused, or the stage is over
            self.open()
        line = encode.to_bytes(encoded + "\n")
        if len(line) > LINE:
            return False
        try:
            place = self._free.pop()
        except IndexError:
            place = next(self._next)
        self._places[span_id] = place
        try:
            os.pwrite(self._fd, line, place * LINE)
        except OSError:
            pass
        return True

    def ended(self, span_id: int, *, recorded: bool) -> None:
        """Give a span's line to the next.

        Args:
            recorded: whether the spool has it; if not, nobody may take it for one that was cut off.
        """
        place = self._places.pop(span_id, None)
        if place is None:
            return
        if not recorded:
            with suppress(OSError):
                os.pwrite(self._fd, b" ", place * LINE)
        self._free.append(place)

    def abandon(self) -> None:
        """In a forked child: the open spans are the parent's. The child's own get a file of its own."""
        self._close()
        self.path = None
        self._reset()

    def make_room(self) -> bool:
        """Give back the room that the file holds, for the stage's last word on a disk that is full."""
        try:
            os.ftruncate(self._fd, 0)
        except OSError:
            return False
        return True

    def done(self, *, remove: bool) -> None:
        """This process is through with the stage.

        Args:
            remove: False if something is still to be written, by the next recovery.
        """
        if remove and self.path is not None:
            with suppress(OSError):
                os.unlink(self.path)
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)
