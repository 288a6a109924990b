"""Signals that come while a stage ends are answered when it has ended.

Ctrl-C and SIGTERM are exceptions, raised between any two instructions: in the middle of the end they would leave half
of it, and the SDK ends a span for good before anybody has written it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

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
            answer = signal.getsignal(number)
            if callable(answer):  # else the process dies of it, or does not care
                answers[number] = answer
                signal.signal(number, hold)
        yield
    finally:
        for held, answer in answers.items():
            if signal.getsignal(held) is hold:
                signal.signal(held, answer)
        _holding = False
        if came:
            signal.raise_signal(came[0])
