"""What a stage used over time, from the metrics on disk: the curves of a report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from .. import semconv as sc
from ..layout import Job
from ..otlp import decode
from .disk import journal

#: Metric -> what its points are added up over, apart from the device.
_SUMMED = {sc.PROCESS_CPU_UTILIZATION.name: sc.CPU_MODE}
WANTED = {
    metric.name: metric
    for metric in (
        sc.PROCESS_CPU_UTILIZATION,
        sc.PROCESS_MEMORY_USAGE,
        sc.HW_GPU_UTILIZATION,
        sc.HW_GPU_MEMORY_USAGE,
        sc.GPU_PROCESS_MEMORY_USAGE,
        sc.HW_POWER,
    )
}


class Key(NamedTuple):
    """``device`` is a GPU's UUID, or empty; ``device_name`` its name."""

    metric: str
    device: str
    device_name: str


def read_usage(job: Job, stage: str, attempt: int) -> dict[Key, list[tuple[int, float]]]:
    """Series of (time in nanoseconds, value in the metric's unit), each in the order of time."""
    found: dict[Key, dict[int, float]] = {}
    path = journal(job, stage, attempt, "metrics")
    if path is None or not os.path.isfile(path):
        return {}
    for request in decode.Lines(path):
        for key, time_ns, value in points(request):
            series = found.setdefault(key, {})
            if key.metric in _SUMMED:
                value += series.get(time_ns, 0.0)
            series[time_ns] = value
    return {key: sorted(series.items()) for key, series in found.items()}


def points(request: dict[str, Any]) -> Iterator[tuple[Key, int, float]]:
    """The points in one line of a metrics file, of the metrics in :data:`WANTED`: key, time in nanoseconds, value."""
    for metric in _metrics(request):
        name = metric.get("name")
        if name not in WANTED:
            continue
        for kind in ("gauge", "sum"):
            data = metric.get(kind)
            for point in data.get("dataPoints", ()) if isinstance(data, dict) else ():
                try:
                    attributes = decode.mapping(point.get("attributes", []))
                    value = float(point["asDouble"] if "asDouble" in point else point["asInt"])
                    device = str(attributes.get(sc.HW_ID, ""))
                    yield Key(name, device, str(attributes.get(sc.HW_NAME, ""))), int(point["timeUnixNano"]), value
                except (AttributeError, KeyError, TypeError, ValueError):
                    continue


def _metrics(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    try:
        for resource in request.get("resourceMetrics", ()):
            for scope in resource.get("scopeMetrics", ()):
                for metric in scope.get("metrics", ()):
                    if isinstance(metric, dict):
                        yield metric
    except (AttributeError, TypeError):
        return


def thinned(series: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most ``most`` points, the lowest and the highest of each stretch of time among them: no peak goes."""
    if len(series) <= most:
        return series
    size = -(-len(series) // max(most // 2, 1))
    kept: list[tuple[int, float]] = []
    for at in range(0, len(series), size):
        stretch = series[at : at + size]
        low, high = min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])
        kept += sorted({low, high})
    return kept
