"""Whether a lock keeps a second process out, and goes when its holder does: tried, with a second process."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from ...runtime import host_name
from . import ERROR, OK, WARNING, Check

#: Holds both kinds of lock until its standard input is closed, and then just goes, as a killed stage does.
_HOLDER = """
import fcntl, os, sys
held = []
for kind in ("flock", "lockf"):
    fd = os.open(os.path.join(sys.argv[1], kind), os.O_RDWR | os.O_CREAT, 0o600)
    held.append(fd)
    try:
        getattr(fcntl, kind)(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print(kind, flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
sys.stdin.read()
os._exit(0)
"""
_SECONDS = 10.0
_WITHOUT = (
    "use a file system with locks for job directories: without them a stage that dies is called lost, and only after "
    "10 minutes of silence"
)


def locks(place: Path) -> list[Check]:
    """Try ``flock`` and POSIX byte locks in a directory that is ours."""
    holder = subprocess.Popen(
        [sys.executable, "-I", "-c", _HOLDER, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    limit = threading.Timer(_SECONDS, holder.kill)  # a lock daemon that is gone lets one wait for ever
    limit.start()
    try:
        assert holder.stdout is not None
        said = [holder.stdout.readline().strip() for _ in ("flock", "lockf")]
        if not all(said):
            return [Check("locks", WARNING, f"asking for one takes longer than {_SECONDS:.0f} s", _WITHOUT)]
        while_held = [_try(place / "flock", fcntl.flock), _try(place / "lockf", fcntl.lockf)]
        holder.communicate()
    finally:
        limit.cancel()
        holder.kill()
        holder.communicate()
    after = [_try(place / "flock", fcntl.flock), _try(place / "lockf", fcntl.lockf)]
    return [
        _judged("locks", said[0] == "flock", said[0], while_held[0], after[0]),
        _judged("byte locks", said[1] == "lockf", said[1], while_held[1], after[1]),
    ]


def _try(path: Path, lock: Callable[[int, int], object]) -> str:
    """``free``, ``held``, or why there are none."""
    try:
        with open(path, "r+b") as file:
            lock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return "free"
    except BlockingIOError:
        return "held"
    except PermissionError:  # as some systems answer for byte locks
        return "held"
    except OSError as error:
        return error.strerror or type(error).__name__


def _judged(name: str, taken: bool, said: str, while_held: str, after: str) -> Check:
    matters = name == "locks"  # ours are flocks; byte locks are what flock is made of on NFS, and what SQLite uses
    if not taken:
        state, advice = (WARNING, _WITHOUT) if matters else (OK, "")
        return Check(name, state, f"not to be had here: {said}", advice)
    if while_held == "free":
        return Check(
            name, ERROR if matters else WARNING, "two processes held the same one at once",
            "keep job directories elsewhere: records of stages that run at the same time may be mixed up",
        )  # fmt: skip
    if (while_held, after) == ("held", "free"):
        return Check(name, OK, f"work between processes of {host_name()}, and go with the process that holds them")
    return Check(name, WARNING, f"behave oddly: {while_held} while held, {after} afterwards", _WITHOUT)
