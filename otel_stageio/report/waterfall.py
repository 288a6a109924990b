"""The waterfall as rows of a page: places are percentages of the run, so that the page may have any width."""

from __future__ import annotations

import dataclasses
import math

from ..reading.text import duration
from ..reading.trace import Bar, Trace

#: Inner spans that a stage shows; the trace has all.
MOST = 25
#: Rows up to which everything is unfolded from the start.
_UNFOLDED = 80
_TICKS = 6
#: Of no width a bar would not be drawn.
_THINNEST = 0.0001


@dataclasses.dataclass
class Row:
    """Attributes:
    x, width: in percent of the run.
    depth: 0 for a stage.
    """

    bar: Bar
    depth: int
    x: str
    width: str


@dataclasses.dataclass
class Group:
    """A stage attempt: its own row and those of what is inside."""

    stage: Row
    inside: list[Row]
    left_out: int
    unfolded: bool


@dataclasses.dataclass
class Tick:
    x: str
    label: str
    last: bool


@dataclasses.dataclass
class Idle:
    x: str
    width: str
    seconds: float


@dataclasses.dataclass
class Waterfall:
    trace: Trace
    groups: list[Group]
    ticks: list[Tick]
    gaps: list[Idle]
    idle_seconds: float


def waterfall_of(trace: Trace) -> Waterfall:
    root = trace.root
    start, whole = root.start_ns, max(root.end_ns - root.start_ns, 1)

    def percent(ns: int) -> float:
        return min(max(100 * (ns - start) / whole, 0.0), 100.0)  # a span may have been timed by another clock

    def place(first_ns: int, last_ns: int) -> tuple[str, str]:
        x = min(percent(first_ns), 100 - _THINNEST)
        return f"{x:.4f}", f"{max(percent(last_ns) - x, _THINNEST):.4f}"

    def row(bar: Bar, depth: int) -> Row:
        return Row(bar, depth, *place(bar.start_ns, bar.end_ns))

    rows = sum(1 for _ in root.walk())
    groups = []
    for stage in trace.stages:
        inside = [row(bar, depth) for depth, bar in stage.walk() if bar is not stage]
        left_out = sum(bar.left_out for _, bar in stage.walk())
        unfolded = rows <= _UNFOLDED or stage.state not in ("success", "skipped")
        groups.append(Group(row(stage, 0), inside, left_out, unfolded))
    gaps = [Idle(*place(gap.start_ns, gap.end_ns), gap.seconds) for gap in trace.gaps]
    return Waterfall(trace, groups, _ticks(whole), gaps, sum(gap.seconds for gap in trace.gaps))


def _ticks(whole_ns: int) -> list[Tick]:
    """Round times, some six of them."""
    seconds = whole_ns / 1e9
    step = _round_step(seconds / _TICKS)
    found = []
    for number in range(int(seconds / step) + 1):
        share = number * step / seconds
        found.append(Tick(f"{100 * share:.4f}", duration(number * step) if number else "0", share > 0.93))
    return found


def _round_step(seconds: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, 30 and so on that is not smaller; minutes and hours from there on."""
    for step in (60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200):
        if seconds > 30 and seconds <= step:
            return float(step)
    if seconds > 43200:
        return 86400.0 * math.ceil(seconds / 86400)
    power = 10.0 ** math.floor(math.log10(max(seconds, 1e-9)))
    for factor in (1, 2, 3, 5, 10):
        if seconds <= factor * power:
            return factor * power
    return 10 * power
