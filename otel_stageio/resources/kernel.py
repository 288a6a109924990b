"""Files of the kernel (``/proc``, ``/sys``): a few hundred bytes, read at every stage's beginning and end."""

from __future__ import annotations

import os

_ENOUGH = 64 * 1024
#: The kernel makes such a file a page at a time, and its lines are short: what is shorter than this is the whole.
#: https://docs.kernel.org/filesystems/seq_file.html
_MAY_GO_ON = 3 * 1024


def read(path: str | os.PathLike[str]) -> bytes:
    """The whole of a small file. `open()` takes four times as long: it asks about a terminal, a position, a buffer.

    Raises:
        OSError: if it is not there, or not ours to read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = part = os.read(fd, _ENOUGH)
        while len(part) >= _MAY_GO_ON:
            part = os.read(fd, _ENOUGH)
            content += part
        return content
    finally:
        os.close(fd)
