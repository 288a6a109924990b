"""Results as a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .measure import Result

_HEADINGS = ("what", "takes", "against", "takes", "ratio", "middle half", "aim", "")


def _time(seconds: list[float]) -> str:
    value = statistics.median(seconds)
    return f"{value * 1e6:.1f} µs" if value < 1e-3 else f"{value * 1e3:.1f} ms"


def _cells(result: Result) -> tuple[str, ...]:
    low, high = result.spread
    return (
        result.measured,
        _time(result.ours),
        result.yardstick,
        _time(result.theirs),
        f"{result.ratio:.2f}",
        f"{low:.2f} - {high:.2f}",
        f"<= {result.aim}" if result.aim is not None else f"<= {result.limit} s" if result.limit is not None else "",
        result.verdict,
    )


def table(results: Sequence[Result]) -> str:
    rows = [_HEADINGS, *map(_cells, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        aligned = (
            cell.ljust(width) if number in (0, 2, 7) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(aligned).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths).rstrip())
    return "\n".join(lines)
