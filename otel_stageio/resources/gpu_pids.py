"""Whose memory on a GPU is it? The driver names processes by their pids: of the host, or of the container.

Which of them depends on the driver's version and on the call, so a pid is looked for in both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

_ELSEWHERE = "pids of another namespace"
_UNSAID = "the driver does not say how much memory a process has"


class Share(NamedTuple):
    """Attributes:
    memory: bytes that the process tree has on the device; None if that is not known.
    confidence: "exact"; "inferred" (the only process there, or known by its pid in an inner namespace); or "device"
        (only the memory of the device as a whole is known).
    reason: why it is not known.
    """

    memory: int | None
    confidence: str
    reason: str = ""


def share(
    processes: dict[int, int | None],
    tree: Iterable[int],
    *,
    inner_pids: Callable[[int], list[int]] | None = None,
    exists: Callable[[int], bool] | None = None,
) -> Share:
    """What of a device's memory belongs to a process tree.

    Args:
        processes: pid, as the driver names it, to bytes; None where the driver does not say.
        tree: pids as we see them.
        inner_pids: the pids that one of ours has in inner namespaces.
        exists: whether there is a process with that pid among those that we can see.
    """
    if not processes:
        return Share(0, "exact")
    tree = set(tree)
    ours = tree & processes.keys()
    confidence = "exact"
    if not ours:
        inner = {other for pid in tree for other in (inner_pids or _inner_pids)(pid)}
        ours = inner & processes.keys()
        confidence = "inferred"
    if not ours:
        strange = [pid for pid in processes if not (exists or _exists)(pid)]
        if not strange:
            return Share(0, "exact")  # they are others', which we can see
        if len(processes) > 1:
            return Share(None, "device", f"{_ELSEWHERE}, {len(processes)} processes on the device")
        ours = set(strange)
    sizes = [processes[pid] for pid in ours]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return Share(None, "device", _UNSAID)
    return Share(sum(known), confidence)


def _inner_pids(pid: int) -> list[int]:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[2:]]  # the first is the one that we know
    except (OSError, ValueError):
        pass
    return []


def _exists(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)  # signal 0 only asks; /proc may hide other users' processes (hidepid)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
