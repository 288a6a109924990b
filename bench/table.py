"""Results as a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .growth import Curve
from .measure import Result

_HEADINGS = ("what", "takes", "against", "takes", "ratio", "middle half", "aim", "")


def duration(seconds: float) -> str:
    return (
        f"{seconds * 1e6:.1f} µs"
        if seconds < 1e-3
        else f"{seconds * 1e3:.1f} ms"
        if seconds < 1
        else f"{seconds:.2f} s"
    )


def aim(result: Result) -> str:
    if result.aim is not None:
        return f"<= {result.aim}"
    return f"<= {duration(result.limit)}" if result.limit is not None else ""


def _cells(result: Result) -> tuple[str, ...]:
    low, high = result.spread
    return (
        result.measured,
        duration(statistics.median(result.ours)),
        result.yardstick,
        duration(statistics.median(result.theirs)),
        f"{result.ratio:.2f}",
        f"{low:.2f} - {high:.2f}",
        aim(result),
        result.verdict,
    )


def table(results: Sequence[Result]) -> str:
    return _aligned([_HEADINGS, *map(_cells, results)], left=(0, 2, 7))


def grown(curves: Sequence[Curve]) -> str:
    """For each curve what one costs among so many, and what that is among the most over what it is among the fewest."""
    rows = []
    for curve in curves:
        points = ", ".join(f"{count:,}: {duration(seconds)}" for count, seconds in curve.points.items())
        rows.append((curve.measured, points, f"x {curve.growth:.2f}"))
    return _aligned([("what one costs", "among so many", "growth"), *rows], left=(0, 1))


def _aligned(rows: Sequence[tuple[str, ...]], left: Sequence[int]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        aligned = (
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(aligned).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths).rstrip())
    return "\n".join(lines)
