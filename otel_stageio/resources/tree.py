"""What a process and everything below it use, as the kernel counts it.

Only that tree is walked, through ``/proc/<pid>/task/*/children``: a look at all processes of a busy host once a second
costs more than is allowed to. Where there is no such file (macOS, some kernels) psutil looks at all, rarely.

What a process has used is added to its parent's count when the parent waits for it, so children that live for a moment
between two looks are counted. One that nobody waits for is counted up to the last look.
"""

from __future__ import annotations

import os
import re
import resource
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .kernel import read

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_DISK = re.compile(rb"\nread_bytes: (\d+)\nwrite_bytes: (\d+)")
#: Each thread has its children in a file of its own: of a process with more threads than this they are looked for less
#: often, every so many looks.
_MANY_THREADS, _SELDOM = 32, 5


class Used(NamedTuple):
    """What has been used so far. Seconds, and bytes that went to or came from a disk (None where nobody may know)."""

    user: float = 0.0
    system: float = 0.0
    read: int | None = 0
    written: int | None = 0

    @property
    def cpu(self) -> float:
        return self.user + self.system

    def plus(self, other: Used) -> Used:
        return Used(
            self.user + other.user,
            self.system + other.system,
            None if self.read is None or other.read is None else self.read + other.read,
            None if self.written is None or other.written is None else self.written + other.written,
        )

    def since(self, former: Used) -> Used:
        """The difference; never less than nothing."""
        return Used(
            max(self.user - former.user, 0.0),
            max(self.system - former.system, 0.0),
            None if self.read is None or former.read is None else max(self.read - former.read, 0),
            None if self.written is None or former.written is None else max(self.written - former.written, 0),
        )

    def at_least(self, former: Used) -> Used:
        """A count does not fall: what it falls by was used by somebody for whom nobody has waited."""
        return Used(
            max(self.user, former.user),
            max(self.system, former.system),
            former.read if self.read is None or (former.read or 0) > self.read else self.read,
            former.written if self.written is None or (former.written or 0) > self.written else self.written,
        )


class Look(NamedTuple):
    """A tree at one moment.

    Attributes:
        used: since the tree began to be looked at.
        memory: resident bytes, summed up; pages that several processes share count for each.
        pids: of all processes that were found.
    """

    used: Used
    memory: int
    threads: int
    pids: frozenset[int]


class Elsewhere:
    """Programs below this process that are stages of their own, and are no part of what this process's stage uses."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In a forked child: they are the parent's."""
        #: Held from waiting for one until it is noted, or a look in between would take it for this process's own.
        self.lock = threading.Lock()
        self.running: set[int] = set()
        #: By those that were waited for, which the kernel has added to this process's count.
        self.used = Used()

    def ended(self, pid: int, used: Used) -> None:
        self.running.discard(pid)
        self.used = self.used.plus(used)


elsewhere = Elsewhere()


class Tree:
    """A process and its descendants.

    Args:
        root: by default this process, of which counts what it uses from now on. Another one counts from its beginning.
    """

    def __init__(self, root: int | None = None) -> None:
        self.root = os.getpid() if root is None else root
        self._own = root is None
        self._children: dict[int, tuple[int, list[int]]] = {}
        self._looks = 0
        self._most = Used()
        self._begin = Used()
        if self._own:
            with elsewhere.lock:
                pids = self._pids()
                # One that is alone is asked for its times anyway; how large it is, nobody wants to know yet.
                alone = _LINUX and pids == [self.root]
                used = _own_times(Used(0.0, 0.0, *_disk(self.root))) if alone else self._sum(pids)[0]
                self._begin = used.since(elsewhere.used)

    def look(self) -> Look | None:
        """The tree as it is now; None if its root is gone."""
        with elsewhere.lock:
            found, memory, threads, alive = self._sum(self._pids())
            if self._own:
                found = found.since(elsewhere.used)
        if not alive:
            return None
        self._most = found.since(self._begin).at_least(self._most)
        return Look(self._most, memory, threads, frozenset(alive))

    @property
    def used(self) -> Used:
        """By the last look."""
        return self._most

    def ended(self, used: Used) -> None:
        """The root was waited for, and that is what the kernel says that it and its own used."""
        self._most = used.at_least(self._most)
        self.root = -1  # its number may be another's soon

    # -- which -------------------------------------------------------------------------------------------------------

    def _pids(self) -> list[int]:
        without = elsewhere.running if self._own else ()
        self._looks += 1
        if not _HAS_CHILDREN_FILE:
            return self._pids_by_psutil(without)
        found, waiting = [], [self.root]
        known, self._children = self._children, {}
        while waiting:
            pid = waiting.pop()
            if pid in without:
                continue
            found.append(pid)
            waiting += self._children_of(pid, known.get(pid))
        return found

    def _children_of(self, pid: int, known: tuple[int, list[int]] | None) -> list[int]:
        if known is not None and known[0] > _MANY_THREADS and self._looks % _SELDOM:
            self._children[pid] = known
            return known[1]
        if self._own and pid == self.root and not _has_children():
            self._children[pid] = (0, [])
            return []
        children: list[int] = []
        threads: list[str] = []
        with suppress(OSError):  # it has ended
            threads = os.listdir(f"/proc/{pid}/task")
        for thread in threads:
            with suppress(OSError, ValueError):
                children += map(int, read(f"/proc/{pid}/task/{thread}/children").split())
        self._children[pid] = (len(threads), children)
        return children

    def _pids_by_psutil(self, without: Iterable[int]) -> list[int]:
        if self._looks % _SELDOM == 1 or not self._children:
            import psutil

            below: list[int] = []
            with suppress(psutil.Error):
                below = [child.pid for child in psutil.Process(self.root).children(recursive=True)]
            self._children = {self.root: (0, below)}
        return [self.root, *(pid for pid in self._children[self.root][1] if pid not in without)]

    # -- how much ----------------------------------------------------------------------------------------------------

    def _sum(self, pids: list[int]) -> tuple[Used, int, int, list[int]]:
        total, memory, threads, alive = Used(), 0, 0, []
        for pid in pids:
            about = _process(pid)
            if about is None:
                continue
            used, resident, number = about
            if self._own and pid == self.root:
                used = _own_times(used)
            total = total.plus(used)
            memory += resident
            threads += number
            alive.append(pid)
        return total, memory, threads, alive


_LINUX = os.uname().sysname == "Linux"
_HAS_CHILDREN_FILE = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()


def _has_children() -> bool:
    """Whether this process has any. One question, where each of its threads would have to be asked for its own."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except (AttributeError, OSError):
        pass
    return True


def _own_times(counted: Used) -> Used:
    """To the microsecond, of this process and those that it has waited for."""
    if _LINUX:
        own, below = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return counted._replace(user=own.ru_utime + below.ru_utime, system=own.ru_stime + below.ru_stime)
    times = os.times()
    return counted._replace(user=times.user + times.children_user, system=times.system + times.children_system)


def _process(pid: int) -> tuple[Used, int, int] | None:
    """(used, resident bytes, threads) of a process and those it has waited for; None if there is none."""
    if not _LINUX:
        return _process_by_psutil(pid)
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        user, system = int(fields[11]) + int(fields[13]), int(fields[12]) + int(fields[14])
        memory, threads = int(fields[21]) * _PAGE, int(fields[17])
    except (OSError, ValueError, IndexError):
        return None
    return Used(user * _TICK, system * _TICK, *_disk(pid)), memory, threads


def _disk(pid: int) -> tuple[int | None, int | None]:
    """Bytes (read, written) by a process and those it has waited for; another user's process keeps them to itself."""
    try:
        found = _DISK.search(read(f"/proc/{pid}/io"))
    except OSError:
        return None, None
    return (int(found[1]), int(found[2])) if found else (None, None)


def used_by(pid: int) -> Used | None:
    """By one process and those it has waited for; also if it has ended and has not been waited for itself."""
    about = _process(pid)
    return about[0] if about is not None else None


def _process_by_psutil(pid: int) -> tuple[Used, int, int] | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times: Any = process.cpu_times()
            return Used(times.user, times.system, None, None), process.memory_info().rss, process.num_threads()
    except psutil.Error:
        return None
