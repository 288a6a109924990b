"""``docs/PERFORMANCE.md``: its tables and its picture are those of ``bench/results.json``.

``python -m bench --save`` and ``--growth --save`` measure, and write all three.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .table import duration

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results.json"
PAGE = ROOT / "docs" / "PERFORMANCE.md"
PICTURE = ROOT / "docs" / "images" / "growth.svg"


def save(about: dict[str, Any], measured: dict[str, list[dict[str, Any]]]) -> None:
    """Put what was measured in the place of what was measured before under the same names."""
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"results": [], "curves": []}
    for kind in ("results", "curves"):
        by_name = {entry["name"]: entry for entry in (*kept[kind], *measured[kind])}
        kept[kind] = list(by_name.values())
    kept["about"] = about
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
    PAGE.write_text(filled(PAGE.read_text("utf-8"), kept), "utf-8")
    if kept["curves"]:
        PICTURE.write_text(picture(kept["curves"]), "utf-8")


def filled(page: str, kept: dict[str, Any]) -> str:
    """The page with the tables of these results."""
    for name, text in (("results", _results(kept["results"])), ("growth", _curves(kept["curves"]))):
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        after = rest.partition(f"<!-- end of {name} -->")[2]
        page = f"{before}<!-- {name} -->\n{text}<!-- end of {name} -->{after}"
    return page


def _results(entries: list[dict[str, Any]]) -> str:
    rows = ["| What | takes | against | takes | ratio (middle half) | goal | |", "|---|---:|---|---:|---:|---:|---|"]
    for entry in entries:
        low, high = entry["ratio_middle_half"]
        goal = f"≤ {entry['aim']}" if entry["aim"] is not None else ""
        if entry["limit_seconds"] is not None:
            goal = f"≤ {duration(entry['limit_seconds'])}"
        rows.append(
            f"| {entry['measured']} | {duration(entry['seconds'])} | {entry['yardstick']} "
            f"| {duration(entry['yardstick_seconds'])} | {entry['ratio']:.2f} ({low:.2f} - {high:.2f}) | {goal} "
            f"| {'**missed**' if entry['verdict'] == 'missed' else entry['verdict']} |"
        )
    return "\n".join(rows) + "\n"


def _curves(entries: list[dict[str, Any]]) -> str:
    rows = ["| What one costs | among so many | growth |", "|---|---|---:|"]
    for entry in entries:
        points = {int(count): seconds for count, seconds in entry["points"].items()}
        costs = ", ".join(f"{count:,}: {duration(seconds)}" for count, seconds in points.items())
        rows.append(f"| {entry['measured']} | {costs} | × {points[max(points)] / points[min(points)]:.2f} |")
    return "\n".join(rows) + "\n"


# -- the picture -----------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 760, 360, 70, 20, 45, 230
_COLOURS = ("#1b7f79", "#c2571a", "#5b5bd6", "#a02c6b", "#3f7d20", "#8a6d00", "#2b6cb0")


def picture(entries: list[dict[str, Any]]) -> str:
    """What one costs by how many there are, both on logarithmic scales: a level line is linear growth in all."""
    curves = [(entry["name"], {int(count): cost for count, cost in entry["points"].items()}) for entry in entries]
    counts = [count for _, points in curves for count in points]
    costs = [cost for _, points in curves for cost in points.values()]
    x0, x1 = math.floor(math.log10(min(counts))), math.ceil(math.log10(max(counts)))
    y0, y1 = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))

    def across(count: float) -> float:
        return _LEFT + (math.log10(count) - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)

    def up(cost: float) -> float:
        return _HEIGHT - _BOTTOM - (math.log10(cost) - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><title>What one costs, by how many there are</title>'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
    ]
    for power in range(x0, x1 + 1):
        at = across(10.0**power)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{10**power:,}</text>')
    for power in range(y0, y1 + 1):
        at = up(10.0**power)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{duration(10.0**power)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">so many of them</text>')
    last = sorted((up(points[max(points)]), name) for name, points in curves)
    labels: dict[str, float] = {}
    for at, name in last:  # labels do not lie on each other
        labels[name] = max(at, max(labels.values(), default=-99.0) + 15)
    for (name, points), colour in zip(curves, _COLOURS, strict=False):
        line = " ".join(f"{across(count):.1f},{up(cost):.1f}" for count, cost in sorted(points.items()))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        dots = "".join(
            f'<circle cx="{across(count):.1f}" cy="{up(cost):.1f}" r="3" fill="{colour}"/>'
            for count, cost in points.items()
        )
        parts.append(f'{dots}<text x="{_WIDTH - _RIGHT + 12}" y="{labels[name] + 4:.1f}" fill="{colour}">{name}</text>')
    return "".join(parts) + "</svg>\n"
