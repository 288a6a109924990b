"""What one stage uses, looked at once a second while it runs: its processes, its control group, its GPUs.

:mod:`otel_stageio.stages.pulse` calls :meth:`Sampler.look`; the numbers go to the manifest with each heartbeat and at
the end, the series to ``metrics.jsonl``. What looking costs is measured too, and said beside the numbers.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .. import semconv as sc
from ..otlp.metrics import Series
from ..runtime import runtime
from . import cgroup
from .own import PeakMemory
from .tree import Look, Tree, Used

if TYPE_CHECKING:
    from .gpu_sampler import GpuSampler

_SECOND = 1_000_000_000
#: After ten minutes what comes is mostly more of the same: it is looked at so many times less often.
LESS_OFTEN, LONG_AFTER_NS = 5, 600 * _SECOND
#: What the last look at a GPU may take from the stage's end, in seconds.
LAST_LOOK = 0.03


def interval() -> float:
    """Seconds between two looks, as the environment says; 0 is never. It is not looked oftener than once a second."""
    with suppress(ValueError):
        seconds = float(os.environ.get(sc.ENV_SAMPLE_INTERVAL, ""))
        if 0 <= seconds < 1e6:
            return seconds
    return 1.0


class Sampler:
    """Args:
    root: process id of the program that is the stage; by default this process.
    environment: the program's, in which ``CUDA_VISIBLE_DEVICES`` says which GPUs it sees.
    seconds: between two looks; see :func:`interval`.
    """

    def __init__(
        self, root: int | None = None, environment: Mapping[str, str] | None = None, seconds: float = 1.0
    ) -> None:
        self._tree = Tree(root)
        self._group = cgroup.Group.of(self._tree.root)
        given = os.environ if environment is None else environment
        self._visible, self._order = given.get("CUDA_VISIBLE_DEVICES"), given.get("CUDA_DEVICE_ORDER", "")
        self._own = root is None
        self._lock = threading.Lock()
        self._began = self._at = runtime.clock.monotonic_ns()
        self._interval = round(seconds * _SECOND)
        self._next = self._began + self._interval
        self._gpus_due = False
        self._looks = 0
        self._cost = 0.0
        self._memory = PeakMemory(own=self._own)
        self._threads = self._processes = 0
        self._last: Look | None = None
        self._gpus: GpuSampler | None = None
        self._series = Series(runtime.clock.wall_ns())
        self._before = Used()

    # -- looking -----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Look at the processes, if it is time, whether or not the beat is in step with the stage."""
        now = runtime.clock.monotonic_ns()
        if now < self._next - _SECOND // 4:
            return
        with self._lock, self._measured():
            long = now - self._began >= LONG_AFTER_NS
            self._next = now + self._interval * (LESS_OFTEN if long else 1)
            self._look_at_processes(now)
            self._gpus_due = True

    def look_at_gpus(self) -> None:
        """The same for the GPUs. A driver may take its time, so everything else is done before."""
        if self._gpus_due:
            self._gpus_due = False
            if self._gpus is None:
                from .gpu_sampler import GpuSampler

                self._gpus = GpuSampler(self._visible, self._order)
            self._ask(self._gpus, last=False)

    def _ask(self, gpus: GpuSampler, *, last: bool) -> None:
        with self._measured():
            pids = self._last.pids if self._last is not None else frozenset({self._tree.root})
            readings = gpus.ask(pids, last=last)
            with self._lock:
                gpus.add(readings)
                self._series.gpus(runtime.clock.wall_ns(), readings)

    @contextmanager
    def _measured(self) -> Iterator[None]:
        began = time.thread_time()
        try:
            yield
        finally:
            self._cost += time.thread_time() - began

    def _look_at_processes(self, now: int, *, last: bool = False) -> None:
        look = self._tree.look()
        if look is None:
            return
        seconds = (now - self._at) / _SECOND
        self._at, self._last = now, look
        self._memory.add(look.memory)
        self._threads = max(self._threads, look.threads)
        self._processes = max(self._processes, len(look.pids))
        if last and not self._looks:
            return  # a series of one point says no more than the manifest and the span
        self._looks += 1
        since, self._before = look.used.since(self._before), look.used
        self._series.process(runtime.clock.wall_ns(), look, since, seconds)

    # -- the end -----------------------------------------------------------------------------------------------------

    def ended(self, used: Used, peak: int | None) -> None:
        """The program that is the stage was waited for: what the kernel says of it to the microsecond.

        Args:
            peak: most resident bytes of any one of its processes, where that is known.
        """
        with self._lock:
            self._tree.ended(used)
            if peak is not None:
                self._memory.add(peak)

    def finish(self) -> None:
        """The last look. A driver that is slow, or stuck, is not waited for."""
        with self._lock:
            self._look_at_processes(runtime.clock.monotonic_ns(), last=True)
        if self._gpus is not None and self._gpus.found:
            ask = threading.Thread(
                target=self._last_answer, args=(self._gpus,), name="otel_stageio last look", daemon=True
            )
            with suppress(RuntimeError):  # no more threads to be had
                ask.start()
                ask.join(LAST_LOOK)

    def _last_answer(self, gpus: GpuSampler) -> None:
        with suppress(Exception):  # nobody would see it
            self._ask(gpus, last=True)

    # -- what came of it ---------------------------------------------------------------------------------------------

    def usage(self) -> dict[str, Any]:
        """For the manifest's ``resources``: bytes, seconds, joules. What was never seen is not there."""
        with self._lock:
            return self._usage()

    def _usage(self) -> dict[str, Any]:
        used = self._tree.used
        seconds = (self._at - self._began) / _SECOND
        found: dict[str, Any] = {"cpu_seconds": round(used.cpu, 6)}
        if self._memory.bytes:
            found["peak_memory_bytes"] = self._memory.bytes
        if self._last is not None:
            found["cpu_cores_mean"] = round(used.cpu / seconds, 3) if seconds > 0 else 0.0
            found["threads_max"], found["processes_max"] = self._threads, self._processes
        if used.read is not None and used.written is not None:
            found["disk_read_bytes"], found["disk_written_bytes"] = used.read, used.written
        if self._group is not None:
            found["cgroup"] = self._group.used()
        if self._gpus is not None:
            found.update(self._gpus.usage())
        found["sampler"] = {"looks": self._looks, "cpu_seconds": round(self._cost, 6)}
        return found

    def points(self) -> str:
        """Encoded metrics since the last call; empty if there are none."""
        with self._lock:
            return self._series.take()
