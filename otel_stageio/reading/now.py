"""What a running stage uses at the moment: the newest points of its metrics on disk."""

from __future__ import annotations

import dataclasses
import os
from typing import NamedTuple

from .. import semconv as sc
from ..layout import Job
from ..otlp import decode
from ..runtime import runtime
from ..units import percent, size
from .disk import journal
from .text import count
from .usage_series import Key, points

#: A line has half a minute of points.
_TAIL = 256 * 1024
#: Seconds after which it is said how old the points are.
_OLD = 10


@dataclasses.dataclass
class UsedNow:
    """Attributes:
    cpu: share of all processors, 0 to 1.
    gpus: how many GPUs ``gpu`` is the mean of, and ``gpu_memory_bytes`` the sum.
    seconds_ago: how old it is; a stage writes it down with each heartbeat, at most half a minute apart.
    """

    cpu: float | None = None
    memory_bytes: int | None = None
    gpus: int = 0
    gpu: float | None = None
    gpu_memory_bytes: int | None = None
    seconds_ago: float = 0.0

    def __str__(self) -> str:
        """``CPU 48 %, 312.0 MiB; GPU 91 %, 3.1 GiB (24 s ago)``."""
        gpu = "GPU" if self.gpus == 1 else count(self.gpus, "GPU")
        parts = [_said("CPU", self.cpu, self.memory_bytes), _said(gpu, self.gpu, self.gpu_memory_bytes)]
        old = f" ({round(self.seconds_ago)} s ago)" if self.seconds_ago >= _OLD else ""
        return "; ".join(filter(None, parts)) + old


class _Point(NamedTuple):
    time_ns: int
    value: float


def used_now(job: Job, stage: str, attempt: int) -> UsedNow | None:
    """None where nothing was measured yet."""
    path = journal(job, stage, attempt, "metrics")
    newest: dict[Key, _Point] = {}
    try:
        if path is None or not os.path.isfile(path):
            return None
        for request in decode.Lines(path, max(0, os.stat(path).st_size - _TAIL)):
            for key, time_ns, value in points(request):
                known = newest.get(key)
                if known is not None and known.time_ns == time_ns and key.metric == sc.PROCESS_CPU_UTILIZATION.name:
                    value += known.value  # user and system
                newest[key] = _Point(time_ns, value)
    except OSError:
        return None
    if not newest:
        return None

    def values(metric: sc.Metric) -> list[float]:
        return [point.value for key, point in newest.items() if key.metric == metric.name]

    cpu, memory = values(sc.PROCESS_CPU_UTILIZATION), values(sc.PROCESS_MEMORY_USAGE)
    busy, taken = values(sc.HW_GPU_UTILIZATION), values(sc.HW_GPU_MEMORY_USAGE)
    age = (runtime.clock.wall_ns() - max(point.time_ns for point in newest.values())) / 1e9
    return UsedNow(
        cpu[0] if cpu else None,
        int(memory[0]) if memory else None,
        max(len(busy), len(taken)),
        sum(busy) / len(busy) if busy else None,
        int(sum(taken)) if taken else None,
        max(age, 0.0),
    )


def _said(what: str, part: float | None, taken: int | None) -> str:
    said = [percent(part)] if part is not None else []
    if taken is not None:
        said.append(size(taken))
    return f"{what} {', '.join(said)}" if said else ""
