"""What the kernel counts for a control group: kills for lack of memory and, of a stage's own group, what it used.

cgroup v2: ``memory.events`` (it counts for the groups below as well); v1: ``memory.oom_control``.
https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .kernel import read

_ROOT = "/sys/fs/cgroup"
_SELF = "/proc/self/cgroup"


class OomKills(NamedTuple):
    """Attributes:
    path: the file that has the counter.
    killed: processes of the group that the kernel has killed for memory so far.
    """

    path: str
    killed: int

    def rose(self) -> bool:
        """Whether there have been more since."""
        count = _count(self.path)
        return count is not None and count > self.killed


def oom_kills() -> OomKills | None:
    """The counter of this process's control group; None where there is none to be read."""
    for path in _files():
        count = _count(path)
        if count is not None:
            return OomKills(path, count)
    return None


def _files() -> Iterator[str]:
    try:
        for line in os.fsdecode(read(_SELF)).splitlines():
            number, controllers, group = line.split(":", 2)
            if number == "0":
                yield f"{_ROOT}{group.rstrip('/')}/memory.events"
            elif controllers == "memory":
                yield f"{_ROOT}/memory{group.rstrip('/')}/memory.oom_control"
    except (OSError, ValueError):
        return
    # In a container the path may be one of the host's; what is mounted there is the container's own group.
    yield f"{_ROOT}/memory.events"
    yield f"{_ROOT}/memory/memory.oom_control"


def _count(path: str) -> int | None:
    try:
        for line in read(path).splitlines():
            name, _, count = line.partition(b" ")
            if name == b"oom_kill":
                return int(count)
    except (OSError, ValueError):
        pass
    return None


class Group:
    """A control group (v2) that a process has to itself, with what it starts: a container, a unit of systemd, a job of
    a batch system. What the kernel counts for it misses nobody, and says why a stage was slow: it was throttled.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._begin = self._cpu()

    @classmethod
    def of(cls, pid: int, root: str | Path = _ROOT, proc: str | Path = "/proc") -> Group | None:
        """The group of a process; None unless all processes in it are that one, or come from it."""
        try:
            lines = os.fsdecode(read(f"{proc}/{pid}/cgroup")).splitlines()
            path = next(line.split(":", 2)[2] for line in lines if line.startswith("0::"))
            directory = os.path.join(root, path.lstrip("/"))
            members = {int(word) for word in read(f"{directory}/cgroup.procs").split()}
        except (OSError, ValueError, StopIteration):
            return None
        if pid not in members or not all(_comes_from(member, pid, proc) for member in members):
            return None
        return cls(directory)

    def used(self) -> dict[str, Any]:
        """``cpu_seconds`` and ``throttled_seconds`` since then; ``memory_peak_bytes`` (with the page cache that is
        charged to it) and ``memory_limit_bytes`` as far as the kernel says.
        """
        found: dict[str, Any] = {}
        now = self._cpu()
        for key, name in (("cpu_seconds", "usage_usec"), ("throttled_seconds", "throttled_usec")):
            if name in now:
                found[key] = round((now[name] - self._begin.get(name, 0)) / 1e6, 6)
        for key, file in (("memory_peak_bytes", "memory.peak"), ("memory_limit_bytes", "memory.max")):
            try:
                found[key] = int(read(f"{self._directory}/{file}"))
            except (OSError, ValueError):  # "max": no limit
                pass
        return found

    def _cpu(self) -> dict[str, int]:
        try:
            lines = read(f"{self._directory}/cpu.stat").decode().splitlines()
            return {name: int(number) for name, _, number in (line.partition(" ") for line in lines)}
        except (OSError, ValueError):
            return {}


def _comes_from(pid: int, ancestor: int, proc: str | Path) -> bool:
    for _ in range(100):
        if pid == ancestor:
            return True
        try:
            pid = int(read(f"{proc}/{pid}/stat").rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return True  # it has ended meanwhile
        if pid <= 1:
            return False
    return False
