"""Exclusion between hosts, on file systems whose locks are refused or known to one host alone (many network ones).

A claim is a symbolic link that leads nowhere: making one is atomic, the server tells the second who tries, and it says
from the first moment whose it is. It is held for the few milliseconds in which a small file is read and replaced, and
removed. One that stays was left by a host that died, and gets an heir: a claim whose name follows from what the dead
one says, so that there can be one only, and which then takes its place. Nobody's clock is asked: a claim is dead when
so many looks in a row have found the very same.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..runtime import boot_id, host_name
from ..semconv import ENV_HOST_ID

#: Looks after which a claim that has not changed is a dead host's: some 5 s. Looks, not seconds: where the file server
#: hangs, or this host sleeps, nobody is found dead for it.
LOOKS = 250
#: Looks after which the work goes on without: a file system that behaves like that must not stop a stage.
MOST_LOOKS = 6 * LOOKS
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02
_REFUSALS = 3
#: Claims of this process that are over and that the file system would not remove: the next takes one as it is. Else
#: each stage would wait for its own where nothing can be removed.
_kept: set[str] = set()
_MOST_KEPT = 1_000
#: File systems of one machine, where a lock keeps everybody out. To make and remove a file costs more than the lock.
_LOCAL = {
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "overlay", "ramfs", "reiserfs", "tmpfs",
    "xfs", "zfs",
}  # fmt: skip


def is_needed(lock: int) -> bool:
    """Whether a lock on an open file may leave another host in.

    Args:
        lock: its descriptor.
    """
    if os.environ.get(ENV_HOST_ID):
        return True  # as for boot_id(): what the kernel knows is not to be relied on
    try:
        return _type_of(os.fstat(lock).st_dev) not in _LOCAL
    except OSError:
        return True


@functools.lru_cache(64)
def _type_of(device: int) -> str:
    """A mounted file system's type; empty where nothing says."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            if line.split(" ", 3)[2] == wanted:
                return line.partition(" - ")[2].partition(" ")[0]
    return ""


@contextmanager
def claimed(path: str, *, alone: bool) -> Iterator[None]:
    """Keep other hosts out for the length of a block. Where no claim is to be had (a full or read-only disk, no
    symbolic links) the work goes on without.

    Args:
        path: of the claim.
        alone: whether this process holds the lock that keeps out all others of this host; a claim of theirs is then
            one that a kill has left.
    """
    own = _take(path, alone)
    try:
        yield
    finally:
        try:
            if own and os.readlink(path) == own:
                os.unlink(path)
        except OSError:
            if len(_kept) < _MOST_KEPT:
                _kept.add(own)


def _take(path: str, alone: bool) -> str:
    """What our claim says; empty if there is none."""
    host = _short(f"{host_name()} {boot_id()}")
    own = f"{host}.{os.getpid()}.{os.urandom(8).hex()}"
    dead: list[tuple[str, str]] = []
    link, last, looks, pause, refused = path, "", 0, _FIRST_PAUSE, 0
    for _ in range(MOST_LOOKS):
        try:
            os.symlink(own, link)
            if link == path or _inherits(link, dead):
                return own
            link, dead = path, []
            continue
        except FileExistsError:
            pass
        except OSError:
            refused += 1  # not for good at once: some say "not permitted" where there is one, which may be gone by now
            if refused > _REFUSALS:
                return ""
        try:
            said = os.readlink(link)
        except FileNotFoundError:
            link, dead = path, []
            continue
        except OSError:  # no claim of ours
            return ""
        if said == own and link == path:  # it was made, and the answer lost on its way
            return own
        if link == path and said in _kept and said.startswith(f"{host}.{os.getpid()}."):
            with suppress(KeyError):  # another thread was faster
                _kept.remove(said)
                return said
        refused = 0
        heir = f"{path}.{_short(said)}"
        gone = os.path.lexists(heir) or (alone and said.startswith(f"{host}."))
        if not gone:
            looks = looks + 1 if said == last else 0
            last = said
        if gone or looks >= LOOKS:
            dead.append((link, said))
            link = heir
            continue
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _LONGEST_PAUSE)
        link, dead = path, []
    return ""


def _inherits(heir: str, dead: list[tuple[str, str]]) -> bool:
    """Put an heir in the place of the first of the dead. False if another one has done that: this one is then void."""
    (first, _), *others = dead
    try:
        if all(os.readlink(link) == said for link, said in dead):
            os.rename(heir, first)
            for link, _ in others:
                with suppress(OSError):
                    os.unlink(link)
            return True
    except OSError:
        pass
    with suppress(OSError):
        os.unlink(heir)
    return False


def _short(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
