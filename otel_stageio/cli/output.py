"""Where a command's document goes: a file, as a whole or not at all, or standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ..reading.job import CannotAnswer
from ..runtime import runtime


def to_stdout(parts: Iterable[bytes]) -> None:
    for part in parts:
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


def to_file(path: Path, parts: Iterable[bytes]) -> int:
    """Write a file in the place of the one before, which somebody may be reading; gives its size.

    Raises:
        CannotAnswer: if it cannot be written.
    """
    if not path.parent.is_dir():
        raise CannotAnswer(f"{path.parent} is no directory")
    beside = path.with_name(f".{os.getpid()}.{runtime.ids.span_id():x}.part")
    size = 0
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with open(fd, "wb") as file:
                for part in parts:
                    size += file.write(part)
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CannotAnswer(f"{path} cannot be written: {error.strerror}") from error
    return size
