"""The console: stage lines on standard output, as the original printed them.

A program that a pipeline started prints each line with a mark that its parent knows (``relay:<nonce>``); the parent
shows it as it is and does not record it a second time, because the child has written it to the logs itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import BinaryIO

from ..semconv import ENV_CONSOLE

MARK = "\x1e"
_RELAY = "relay:"


class Console:
    def __init__(self, *, marked: bool = True) -> None:
        word = os.environ.get(ENV_CONSOLE, "auto").strip()
        self.off = word.lower() == "off"
        self._mark = f"{MARK}{word[len(_RELAY) :]} " if marked and word.startswith(_RELAY) else ""

    def write(self, text: str) -> None:
        """Write one record, which ends in a newline. A closed, full or ASCII console is no reason to fail."""
        if self.off:
            return
        stream = sys.stdout
        if stream is None:
            return
        if self._mark:
            text = "".join(self._mark + line for line in text.splitlines(keepends=True))
        try:
            try:
                stream.write(text)
            except UnicodeEncodeError:
                encoding = getattr(stream, "encoding", None) or "ascii"
                stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except (OSError, ValueError):
            pass


def relay(nonce: str) -> str:
    """The value of ``OTEL_STAGEIO_CONSOLE`` for a child whose output this process reads."""
    return _RELAY + nonce


def relayed(line: str, nonce: str) -> str | None:
    """The text of a marked line, or None for the program's own output."""
    mark = f"{MARK}{nonce} "
    return line[len(mark) :] if line.startswith(mark) else None


class Passthrough:
    """Passes a program's output on as it comes, byte for byte, without the marks that its own console lines carry."""

    def __init__(self, stdout: BinaryIO, stderr: BinaryIO) -> None:
        self._streams = {"stdout": stdout, "stderr": stderr}

    def writer(self, nonce: str) -> Callable[[str, bytes], None]:
        mark = f"{MARK}{nonce} ".encode()
        held = {"stdout": b"", "stderr": b""}

        def write(name: str, data: bytes) -> None:
            data = (held[name] + data).replace(mark, b"")
            # A mark may be cut in two by the end of the pipe's buffer.
            tail = data.rfind(MARK.encode(), max(0, len(data) - len(mark)))
            keep = tail if tail >= 0 and mark.startswith(data[tail:]) else len(data)
            held[name] = data[keep:]
            try:
                self._streams[name].write(data[:keep])
                self._streams[name].flush()
            except (OSError, ValueError):
                pass  # the reader has gone; the program goes on, and its log is whole

        return write
