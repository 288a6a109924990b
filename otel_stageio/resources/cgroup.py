"""Kills for lack of memory, as the kernel counts them for the control group of this process.

cgroup v2: ``memory.events`` (it counts for the groups below as well); v1: ``memory.oom_control``.
https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/sys/fs/cgroup")
_SELF = Path("/proc/self/cgroup")


class OomKills(NamedTuple):
    """Attributes:
    path: the file that has the counter.
    killed: processes of the group that the kernel has killed for memory so far.
    """

    path: str
    killed: int

    def rose(self) -> bool:
        """Whether there have been more since."""
        count = _count(Path(self.path))
        return count is not None and count > self.killed


def oom_kills() -> OomKills | None:
    """The counter of this process's control group; None where there is none to be read."""
    for path in _files():
        count = _count(path)
        if count is not None:
            return OomKills(str(path), count)
    return None


def _files() -> list[Path]:
    found = []
    try:
        for line in _SELF.read_text().splitlines():
            number, controllers, group = line.split(":", 2)
            if number == "0":
                found.append(_ROOT / group.lstrip("/") / "memory.events")
            elif controllers == "memory":
                found.append(_ROOT / "memory" / group.lstrip("/") / "memory.oom_control")
    except (OSError, ValueError):
        return []
    # In a container the path may be one of the host's; what is mounted there is the container's own group.
    return [*found, _ROOT / "memory.events", _ROOT / "memory" / "memory.oom_control"]


def _count(path: Path) -> int | None:
    try:
        for line in path.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    except (OSError, ValueError):
        pass
    return None
