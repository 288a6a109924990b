"""Digests of large files, computed while the stage works: one daemon thread a process, and only if there is something.

hashlib lets go of the interpreter while it works. The thread stands still across a fork, as the pulse does.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from ..runtime import runtime

if TYPE_CHECKING:
    from .digest import Digests

#: Smaller files are read when the stage ends.
WORTH_IT = 8 << 20

#: Seconds that a fork waits.
_PATIENCE = 1.0

_changed = threading.Condition()
_waiting: deque[tuple[Digests, str]] = deque()
_under_way: tuple[Digests, str] | None = None
_thread: threading.Thread | None = None
_halt = False
_hooked = False


def read_ahead(digests: Digests, path: str) -> None:
    """Have a file's digest computed some time."""
    with _changed:
        _waiting.append((digests, path))
    _start()


def wait_for(digests: Digests, deadline: float) -> None:
    """Until the file under way has been read, if it is one of these, or until the deadline (monotonic seconds).

    What has not been begun by now is not begun.
    """
    with _changed:
        for item in [item for item in _waiting if item[0] is digests]:
            _waiting.remove(item)
        _changed.wait_for(
            lambda: _under_way is None or _under_way[0] is not digests, max(deadline - time.monotonic(), 0)
        )


def _start() -> None:
    global _thread, _hooked, _halt
    with _changed:
        if _thread is not None:
            return
        if not _hooked:
            _hooked = True
            os.register_at_fork(before=_stop, after_in_parent=_resume, after_in_child=_forget)
        _halt = False
        thread = threading.Thread(target=_run, name="otel_stageio digests", daemon=True)
        with suppress(RuntimeError):  # no more threads to be had, or the interpreter is ending
            thread.start()
            _thread = thread


def _stop() -> None:
    global _halt
    thread = _thread
    if thread is not None and thread is not threading.current_thread():
        _halt = True
        thread.join(_PATIENCE)  # a block is read in less, unless from a disk that does not answer


def _resume() -> None:
    if _waiting:
        _start()


def _forget() -> None:
    global _changed, _thread, _under_way, _halt
    _changed, _thread, _under_way, _halt = threading.Condition(), None, None, False
    _waiting.clear()


def _run() -> None:
    global _thread, _under_way
    from .digest import Stopped

    while True:
        with _changed:
            if _halt or not _waiting:
                _thread = None
                return
            _under_way = digests, path = _waiting.popleft()
        stopped = False
        try:
            digests.of(path, lambda: _halt or digests.closed)  # noqa: B023
            digests.save()
        except Stopped:
            stopped = True
        except Exception:
            with suppress(Exception):  # strict mode raises again, in a thread where nobody would see it
                runtime.internal_error("read_ahead")
        with _changed:
            _under_way = None
            if stopped and not digests.closed:
                _waiting.appendleft((digests, path))
            _changed.notify_all()
