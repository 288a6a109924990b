"""The console: stage lines on standard output, as the original printed them.

A program that a pipeline started prints each line with a mark that its parent knows (``relay:<nonce>``); the parent
shows it as it is and does not record it a second time, because the child has written it to the logs itself.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from ..semconv import ENV_CONSOLE

MARK = "\x1e"
_RELAY = "relay:"
#: Back to the beginning of the line, and away with it.
_ERASE = "\r\x1b[K"
_RED, _GREEN, _YELLOW, _DIM = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[2m"
_PLAIN = "\x1b[0m"
_LEVELS = {"DEBUG": _DIM, "WARNING": _YELLOW, "ERROR": _RED, "CRITICAL": _RED}
_SOFTER = frozenset({"skipped", "cancelled", "incomplete"})
_HEAD = re.compile(r"(\[[^\]]*\] \[[^\]]*\]) \[([A-Z]+)\]")

#: What stands on the last line of the terminal, to be drawn over. One for the process, as there is one terminal.
_drawn = ""


class Console:
    def __init__(self, *, marked: bool = True) -> None:
        word = os.environ.get(ENV_CONSOLE, "auto").strip()
        self.off = word.lower() == "off"
        self._auto = word.lower() == "auto"
        #: The stream that was asked last whether it shows colours, and its answer.
        self._asked: tuple[Any, bool] = (None, False)
        self._mark = f"{MARK}{word[len(_RELAY) :]} " if marked and word.startswith(_RELAY) else ""

    def write(self, text: str, result: str = "") -> None:
        """Write one record, which ends in a newline. A closed, full or ASCII console is no reason to fail.

        Args:
            result: the status word in it, which is coloured.
        """
        stream = sys.stdout
        if self.off or stream is None:
            return
        if self._mark:
            text = "".join(self._mark + line for line in text.splitlines(keepends=True))
        elif self._colours(stream):
            text = _coloured(text, result)
        _put(stream, f"{_ERASE}{text}{_drawn}" if _drawn else text)

    # -- the line that is drawn over -----------------------------------------------------------------------------------

    def room(self) -> int:
        """Cells of a line that may be drawn over; 0 if it must not be, as somebody else might print in the midst of it.

        So only on a terminal, in the foreground, and where no other thread could print: the main thread draws while it
        waits for a program, and it is the one that shows what that program prints.
        """
        stream = sys.stdout
        if self.off or not self._is_terminal(stream) or not _alone():
            return 0
        try:
            fd = stream.fileno()
            return os.get_terminal_size(fd).columns - 1 if os.tcgetpgrp(fd) == os.getpgrp() else 0
        except (OSError, ValueError):
            return 0

    @property
    def on_terminal(self) -> bool:
        """Whether it is a terminal, of any kind."""
        return _is_a_tty(sys.stdout)

    @property
    def unicode(self) -> bool:
        """Whether more than ASCII can be shown."""
        return (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")

    def paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours(sys.stdout) else text

    def draw(self, line: str) -> None:
        """Draw a line over the one before; further records appear above it. Nothing is drawn for the empty one."""
        global _drawn
        if sys.stdout is not None and line != _drawn:
            _drawn = line
            _put(sys.stdout, _ERASE + line)

    def _is_terminal(self, stream: Any) -> bool:
        return self._auto and os.environ.get("TERM", "dumb") not in ("", "dumb") and _is_a_tty(stream)

    def _colours(self, stream: Any) -> bool:
        asked, answer = self._asked
        if asked is not stream:
            answer = self._is_terminal(stream) and not os.environ.get("NO_COLOR")
            self._asked = (stream, answer)
        return answer


def _put(stream: Any, text: str) -> None:
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):
        pass


def _is_a_tty(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # none at all, or closed
        return False


def _alone() -> bool:
    """Whether this is the main thread, and the others are ours, or grpc's while it sends: none of them prints."""
    main = threading.main_thread()
    return threading.current_thread() is main and all(
        thread is main or thread.name.startswith("otel_stageio") or "channel_spin" in thread.name
        for thread in threading.enumerate()
    )


def _coloured(text: str, result: str) -> str:
    head = _HEAD.match(text)
    if head is None:
        return text
    about, level = head.groups()
    colour = _LEVELS.get(level, "")
    rest = text[head.end() :]
    if result:
        how = _GREEN if result == "success" else _YELLOW if result in _SOFTER else _RED
        rest = rest.replace(f": {result} ", f": {how}{result}{_PLAIN} ", 1)
    return f"{_DIM}{about}{_PLAIN} {colour}[{level}]{_PLAIN if colour else ''}{rest}"


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
