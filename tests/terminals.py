"""Programs on a terminal as people see them: a real pseudo-terminal of fixed size, and what stands on its screen.

terminal = Terminal(argv, rows=24, columns=80, cwd=tmp_path, env=environment())
terminal.wait_for("12 of 41")
assert terminal.screen() == golden("name", …)
assert terminal.end() == 0
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

from conftest import needs
from helpers import LIMIT

GOLDEN = Path(__file__).parent / "golden"
#: What no terminal shows.
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class Terminal:
    """Attributes: ``raw``, every byte that the program has written to it."""

    def __init__(self, argv: list[str], *, rows: int, columns: int, cwd: Path, env: dict[str, str]) -> None:
        pyte = needs("pyte")
        self._screen: Any = pyte.Screen(columns, rows)
        self._stream: Any = pyte.ByteStream(self._screen)
        self.raw = b""
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=env, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)

    def wait_for(self, *texts: str) -> None:
        """Until all of these stand on the screen."""
        deadline = time.monotonic() + LIMIT
        while not all(text in "".join(self._screen.display) for text in texts):  # also where it goes on in the next row
            assert self._read(deadline - time.monotonic()), f"{texts} never came:\n{self.screen()}"

    def screen(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip() + "\n"

    @property
    def cursor_is_seen(self) -> bool:
        return not self._screen.cursor.hidden

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.write(self._fd, b"\x03")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Until the program is over. Returns its exit code."""
        deadline = time.monotonic() + LIMIT
        while self._read(deadline - time.monotonic()):
            pass
        return self._process.wait(LIMIT)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(LIMIT)
        os.close(self._fd)

    def _read(self, seconds: float) -> bool:
        """False at the end of what it has to say, and where it says nothing more in time."""
        if not select.select([self._fd], [], [], max(seconds, 0))[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # how Linux says that nobody has the terminal open any more
                raise
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)


def same_as_golden(name: str, text: str) -> None:
    """Compare with what is kept in ``tests/golden``. With ``STAGEIO_GOLDEN=write`` it is written there instead."""
    path = GOLDEN / name
    if os.environ.get("STAGEIO_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
