"""Levels: as people give them, as logging counts them, as OTLP counts them."""

from __future__ import annotations

import logging
import os

#: logging level -> OTLP severity number, by the thresholds of the logs data model
_SEVERITIES = ((50, 21), (40, 17), (30, 13), (20, 9), (10, 5), (0, 1))
_EXACT = dict(_SEVERITIES)


def severity_of(level: int) -> int:
    """``logging``'s 10, 20, 30, 40, 50 -> OTLP's 5, 9, 13, 17, 21; what lies between goes down."""
    exact = _EXACT.get(level)
    if exact is not None:
        return exact
    for threshold, severity in _SEVERITIES:
        if level >= threshold:
            return severity
    return 1


def level_number(word: object, default: int = logging.INFO) -> int | None:
    """A level as people give it: ``"debug"``, ``10``, ``"10"``. None for a word that is not one."""
    if isinstance(word, bool):
        return None
    if isinstance(word, int):
        return word
    try:
        text = str(word).strip().upper()
        if text.isdecimal():
            return int(text)
    except Exception:  # not even a text, or more digits than Python reads
        return None
    number = logging.getLevelName(text) if text else default
    return number if isinstance(number, int) else None


def console_level(word: object) -> tuple[int, bool]:
    """What is printed, and whether ``word`` was no level at all.

    ``LOG_LEVEL`` and ``DEBUG_MODE``, which the original's orchestrator sets, count where the caller asked for no more
    than the default.
    """
    number = level_number(word)
    unknown = number is None
    if number is None or number == logging.INFO:
        if os.environ.get("DEBUG_MODE", "").strip().lower() in ("1", "true", "yes", "on"):
            number = logging.DEBUG
        else:
            number = level_number(os.environ.get("LOG_LEVEL", "INFO"))
    return (logging.INFO if number is None else number), unknown
