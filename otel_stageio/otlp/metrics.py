"""What a stage uses over time, as OTLP metrics: names, units and attributes of the semantic conventions.

https://opentelemetry.io/docs/specs/semconv/system/process-metrics/ and https://opentelemetry.io/docs/specs/semconv/hardware/gpu/
Points are collected and written as one line, so that what stands around them is not written once a second. The metrics
SDK has no part in it: its readers export every minute, and drop what has not been exported at the end.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import semconv as sc
from . import encode

if TYPE_CHECKING:
    from ..resources.gpu import Reading
    from ..resources.tree import Look, Used


class Series:
    """The points of one stage attempt since they were last taken.

    Args:
        start_ns: when the counters began to count.
    """

    def __init__(self, start_ns: int) -> None:
        self._start = f'"startTimeUnixNano":"{start_ns}",'
        self._points: dict[sc.Metric, list[str]] = {}
        self._attributes: dict[tuple[tuple[str, str], ...], str] = {}

    def take(self) -> str:
        """The inside of a ``metrics`` array, and begin anew; empty if nothing was added."""
        points, self._points = self._points, {}
        return ",".join(_metric(metric, items) for metric, items in points.items())

    def process(self, time_ns: int, look: Look, since: Used, seconds: float) -> None:
        """A tree of processes.

        Args:
            since: what it used since the look before, ``seconds`` ago.
        """
        used = look.used
        for mode, total, lately in (("user", used.user, since.user), ("system", used.system, since.system)):
            self._add(sc.PROCESS_CPU_TIME, time_ns, float(total), **{sc.CPU_MODE: mode})
            if seconds > 0:
                share = lately / seconds / _PROCESSORS
                self._add(sc.PROCESS_CPU_UTILIZATION, time_ns, share, **{sc.CPU_MODE: mode})
        self._add(sc.PROCESS_MEMORY_USAGE, time_ns, look.memory)
        self._add(sc.PROCESS_THREAD_COUNT, time_ns, look.threads)
        for direction, number in (("read", used.read), ("write", used.written)):
            if number is not None:
                self._add(sc.PROCESS_DISK_IO, time_ns, number, **{sc.DISK_IO_DIRECTION: direction})

    def gpus(self, time_ns: int, readings: list[Reading]) -> None:
        for reading in readings:
            device = reading.device
            one = {
                sc.HW_ID: device.uuid,
                sc.HW_NAME: device.name,
                sc.HW_VENDOR: "NVIDIA",
                sc.HW_DRIVER_VERSION: device.driver,
            }
            kind = {**one, sc.HW_TYPE: "gpu"}
            share = None
            if reading.memory_used is not None and device.memory_bytes:
                share = reading.memory_used / device.memory_bytes
            for metric, value, attributes in (
                (sc.HW_GPU_UTILIZATION, reading.utilization, one),
                (sc.HW_GPU_MEMORY_USAGE, reading.memory_used, one),
                (sc.HW_GPU_MEMORY_LIMIT, device.memory_bytes, one),
                (sc.HW_GPU_MEMORY_UTILIZATION, share, one),
                (sc.GPU_PROCESS_MEMORY_USAGE, reading.process_memory, one),
                (sc.HW_ENERGY, reading.energy, kind),
                (sc.HW_POWER, reading.power, kind),
                (sc.HW_TEMPERATURE, reading.temperature, kind),
            ):
                if value is not None:
                    self._add(metric, time_ns, value, **attributes)

    def _add(self, metric: sc.Metric, time_ns: int, value: float, **attributes: str) -> None:
        number = f'"asInt":"{value}"' if type(value) is int else f'"asDouble":{value!r}'
        key = tuple(attributes.items())
        known = self._attributes.get(key)
        if known is None:
            known = self._attributes[key] = encode.attributes(attributes)
        start = "" if metric.kind == "gauge" else self._start
        point = f'{{{start}"timeUnixNano":"{time_ns}",{number},"attributes":[{known}]}}'
        self._points.setdefault(metric, []).append(point)


def _metric(metric: sc.Metric, points: list[str]) -> str:
    inside = f'"dataPoints":[{",".join(points)}]'
    if metric.kind == "gauge":
        data = f'"gauge":{{{inside}}}'
    else:  # 2 is AGGREGATION_TEMPORALITY_CUMULATIVE
        monotonic = ',"isMonotonic":true' if metric.kind == "counter" else ""
        data = f'"sum":{{"aggregationTemporality":2{monotonic},{inside}}}'
    return f'{{"name":{encode.quote(metric.name)},"unit":{encode.quote(metric.unit)},{data}}}'


def _processors() -> int:
    """Those that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


_PROCESSORS = _processors()
