"""Once a second, for every stage that is open in this process: log lines go to the spool, a heartbeat when due, a look
at what the stage uses. And twice a minute a sign of life of every pipeline.

One daemon thread a process, from the first stage or pipeline to the last. It stands still across a fork: a child must
not inherit a lock in mid-step, and since 3.12 Python warns of a fork beside other threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from ..ambient import open_pipelines, open_recorders
from ..runtime import runtime

INTERVAL = 1.0
#: With no stage and no pipeline open for so many beats the thread ends; stages often follow each other closely.
IDLE_BEATS = 5
#: Of so many beats a pipeline takes one.
OWNER_BEATS = 30

_lock = threading.Lock()
_thread: threading.Thread | None = None
_stop = threading.Event()
_at_driver = threading.Event()
_PATIENCE = 0.02
_hooked = False


def start() -> None:
    """Beat from now on."""
    global _thread, _stop, _hooked
    with _lock:
        if _thread is not None:
            return
        if not _hooked:
            _hooked = True
            os.register_at_fork(before=stop, after_in_parent=_resume, after_in_child=_forget)
        _at_driver.clear()
        _stop = threading.Event()  # a former thread may still be at a driver, and is to end then
        thread = threading.Thread(target=_run, args=(_stop,), name="otel_stageio pulse", daemon=True)
        with suppress(RuntimeError):  # no more threads to be had, or the interpreter is ending
            thread.start()
            _thread = thread


def stop() -> None:
    """Stand still; a beat under way is waited for, but not a driver that takes its time, or never answers."""
    global _thread
    with _lock:
        thread, _thread = _thread, None
        if thread is not None:
            _stop.set()
            if thread is not threading.current_thread():
                while thread.is_alive() and not _at_driver.is_set():
                    thread.join(_PATIENCE)


def _resume() -> None:
    if open_recorders or open_pipelines:
        start()


def _forget() -> None:
    """In a forked child: another thread may have begun in the very moment of the fork."""
    global _lock, _thread, _at_driver
    _lock, _thread, _at_driver = threading.Lock(), None, threading.Event()


def _run(stopped: threading.Event) -> None:
    idle = beats = 0
    while not stopped.wait(INTERVAL):
        idle = 0 if open_recorders or open_pipelines else idle + 1
        if idle > IDLE_BEATS and _retired():
            return
        beats += 1
        if beats % OWNER_BEATS == 0:
            for pipeline in list(open_pipelines.values()):
                _do(pipeline._beat)
        for recorder in list(open_recorders):
            _do(recorder.beat)
        _at_driver.set()
        for recorder in list(open_recorders):
            if not stopped.is_set():
                _do(recorder.look_at_gpus)
        if not stopped.is_set():
            _at_driver.clear()


def _do(what: Callable[[], None]) -> None:
    try:
        what()
    except Exception:
        with suppress(Exception):  # strict mode raises again, in a thread where nobody would see it
            runtime.internal_error("pulse")


def _retired() -> bool:
    global _thread
    with _lock:
        if open_recorders or open_pipelines:
            return False
        _thread = None
        return True
