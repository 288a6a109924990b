"""Timing that survives a busy machine: the contenders take turns, and only ratios within one turn are compared."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: One repetition: it prepares what it needs, and returns the seconds that one operation took.
Contender = Callable[[], float]


@dataclass(frozen=True)
class Scale:
    """How much to do. ``calls`` are operations in a repetition of a cheap one."""

    repetitions: int
    calls: int
    stages: int
    files: int
    processes: int


FULL = Scale(repetitions=61, calls=500, stages=10, files=10_000, processes=21)
QUICK = Scale(repetitions=5, calls=50, stages=2, files=200, processes=2)


@dataclass(frozen=True)
class Result:
    """One line of the table: seconds per operation of both sides, repetition by repetition.

    ``aim`` is for the ratio, ``limit`` for our own seconds.
    """

    name: str
    measured: str
    yardstick: str
    ours: list[float]
    theirs: list[float]
    aim: float | None = None
    limit: float | None = None

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The middle half of the ratios."""
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high

    @property
    def verdict(self) -> str:
        if self.aim is None and self.limit is None:
            return ""
        met = (self.aim is None or self.ratio <= self.aim) and (
            self.limit is None or statistics.median(self.ours) <= self.limit
        )
        return "met" if met else "missed"

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "measured": self.measured,
            "yardstick": self.yardstick,
            "seconds": statistics.median(self.ours),
            "yardstick_seconds": statistics.median(self.theirs),
            "ratio": self.ratio,
            "ratio_middle_half": list(self.spread),
            "aim": self.aim,
            "limit_seconds": self.limit,
            "verdict": self.verdict,
            "repetitions": len(self.ours),
        }


def each(operation: Callable[[int], object], calls: int) -> float:
    """Seconds that one call of ``operation`` took, of so many in a row."""
    numbers = range(calls)
    started = time.perf_counter()
    for number in numbers:
        operation(number)
    return (time.perf_counter() - started) / calls


def take_turns(contenders: Mapping[str, Contender], repetitions: int) -> dict[str, list[float]]:
    """Every contender once a round, in an order that turns round with each round; the first round does not count."""
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repetitions + 1):
        for name in names if number % 2 else reversed(names):
            gc.collect()  # nobody pays for the garbage of the one before
            value = contenders[name]()
            if number:
                seconds[name].append(value)
    return seconds
