"""The curves below the waterfall: what was used when, on the same axis of time."""

from __future__ import annotations

from typing import Any

from .. import semconv as sc
from ..layout import Job
from ..reading.text import plain, size
from ..reading.trace import Trace
from ..reading.usage_series import WANTED, Key, read_usage, thinned

#: Points of one chart; a screen has no more.
_MOST = 2_000
_GIB = 1 << 30

#: Metric -> (title, unit on the axis, what the value is divided by).
_CHARTS = {
    sc.PROCESS_CPU_UTILIZATION.name: ("Processor", "%", 0.01),
    sc.PROCESS_MEMORY_USAGE.name: ("Memory", "GiB", _GIB),
    sc.HW_GPU_UTILIZATION.name: ("GPU", "%", 0.01),
    sc.HW_GPU_MEMORY_USAGE.name: ("GPU memory, all of the device", "GiB", _GIB),
    sc.GPU_PROCESS_MEMORY_USAGE.name: ("GPU memory of the stage", "GiB", _GIB),
    sc.HW_POWER.name: ("GPU power", "W", 1),
}


def curves_of(job: Job, trace: Trace) -> dict[str, Any] | None:
    """What the script draws: charts of series of seconds since the start and values; None if there are none."""
    start = trace.root.start_ns
    charts: dict[Key, list[dict[str, Any]]] = {}
    for stage in trace.stages:
        for key, points in read_usage(job, stage.stage, stage.attempt).items():
            charts.setdefault(key, []).append({"stage": stage, "points": points})
    if not charts:
        return None
    ordered = sorted(charts, key=lambda key: (list(WANTED).index(key.metric), key.device))
    several = len({key.device for key in ordered if key.device}) > 1
    found = []
    for key in ordered:
        title, unit, divisor = _CHARTS[key.metric]
        if several and key.device:
            title = f"{title}, {key.device_name} {key.device[:12]}"
        share = max(_MOST // len(charts[key]), 20)
        highest = max(value for series in charts[key] for _, value in series["points"])
        series = []
        for one in charts[key]:
            stage, points = one["stage"], thinned(one["points"], share)
            attempt = f" #{stage.attempt}" if stage.attempt > 1 else ""
            series.append(
                {
                    "name": plain(stage.name) + attempt,
                    "x": [round((time_ns - start) / 1e9, 3) for time_ns, _ in points],
                    "y": [_rounded(value / divisor) for _, value in points],
                }
            )
        peak = size(int(highest)) if unit == "GiB" else f"{highest / divisor:,.0f} {unit}"
        found.append({"title": plain(title), "unit": unit, "peak": peak, "series": series})
    return {"seconds": (trace.root.end_ns - start) / 1e9, "charts": found}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
