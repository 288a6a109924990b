"""Signals that come while a stage ends are answered when it has ended.

Ctrl-C and SIGTERM are exceptions, raised between any two instructions: in the middle of the end they would leave half
of it, and the SDK ends a span for good before anybody has written it.
"""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

try:
    #: What `signal` wraps with enums, which until Python 3.13 raise and catch an exception for each handler that is no
    #: number: nine times a stage.
    plain_signal: Any = importlib.import_module("_signal")
except ImportError:
    plain_signal = signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_holding = False


@contextmanager
def held_signals() -> Iterator[None]:
    """Hold back the first signal that a program would answer in Python; a second one is urgent, and answered at once.

    Blocking them in the kernel is not enough: another thread would take them, and they are answered in this one.
    """
    global _holding
    if _holding or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    answers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        if came:
            answers[number](number, frame)
        came.append(number)

    try:
        _holding = True
        for number in _SIGNALS:
            answer = plain_signal.getsignal(number)
            if callable(answer):  # else the process dies of it, or does not care
                answers[number] = answer
                plain_signal.signal(number, hold)
        yield
    finally:
        for held, answer in answers.items():
            if plain_signal.getsignal(held) is hold:
                plain_signal.signal(held, answer)
        _holding = False
        if came:
            signal.raise_signal(came[0])
