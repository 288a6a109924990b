"""The most memory that a stage had."""

from __future__ import annotations

import resource
import sys
from typing import Any


class PeakMemory:
    """The most resident memory that was seen.

    The kernel keeps the most that a process, and the largest of those it has waited for, ever had. That can be from
    before the stage, so it counts only once it has grown; then it knows of what came and went between two looks.

    Args:
        own: whether this is about this process, and not about another program.
    """

    def __init__(self, *, own: bool) -> None:
        self.bytes = 0
        self._own = own
        self._before = _kernels_peaks()

    def add(self, resident: int) -> None:
        """Take in what is resident now, or was known to be."""
        self.bytes = max(self.bytes, resident)
        if self._own:
            grown = [now for now, before in zip(_kernels_peaks(), self._before, strict=True) if now > before]
            self.bytes = max(self.bytes, *grown, 0)


def _kernels_peaks() -> tuple[int, int]:
    """Bytes: of this process, and of the largest that it has waited for."""
    return peak_memory(), maxrss(resource.getrusage(resource.RUSAGE_CHILDREN))


def peak_memory() -> int:
    """The most resident bytes that this process ever had."""
    return maxrss(resource.getrusage(resource.RUSAGE_SELF))


def maxrss(usage: Any) -> int:
    """In bytes; it is in KiB, on macOS in bytes."""
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
