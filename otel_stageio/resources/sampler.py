"""What one stage uses, looked at once a second while it runs: its processes, its control group, its GPUs.

:mod:`otel_stageio.pulse` calls :meth:`Sampler.look`; the numbers go to the manifest with each heartbeat and at the end,
the series to ``metrics.jsonl``. What looking costs is measured too, and said beside the numbers.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from .. import semconv as sc
from ..otlp.metrics import Series
from ..runtime import runtime
from . import cgroup
from .gpu import NO_ANSWER, Gpus, framework_peaks, open_gpus
from .gpu_use import GpuUse
from .own import PeakMemory
from .tree import Look, Tree, Used

_SECOND = 1_000_000_000
#: After ten minutes what comes is mostly more of the same: it is looked at so many times less often.
LESS_OFTEN, LONG_AFTER_NS = 5, 600 * _SECOND
#: A driver takes milliseconds, and a lock that a program's own calls wait for, to say which processes it serves.
PROCESS_LIST_NS = 10 * _SECOND
#: What the last look at a GPU may take from the stage's end, in seconds.
LAST_LOOK = 0.03
UNSURE = "inferred: CUDA numbers GPUs by speed unless CUDA_DEVICE_ORDER=PCI_BUS_ID, so these may be others"


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
    """

    def __init__(self, root: int | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._tree = Tree(root)
        self._group = cgroup.Group.of(self._tree.root)
        given = os.environ if environment is None else environment
        self._visible, self._order = given.get("CUDA_VISIBLE_DEVICES"), given.get("CUDA_DEVICE_ORDER", "")
        self._own = root is None
        self._lock, self._driver = threading.Lock(), threading.Lock()
        self._began = self._at = runtime.clock.monotonic_ns()
        self._interval = round(interval() * _SECOND)
        self._next = self._began + self._interval
        self._next_list = 0
        self._tries = 3  # a driver may be busy with an earlier call
        self._gpus_due = False
        self._looks = 0
        self._cost = 0.0
        self._memory = PeakMemory(own=self._own)
        self._threads = self._processes = 0
        self._last: Look | None = None
        self._gpus: Gpus | str | None = None
        self._gpu_use = GpuUse()
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
            self._ask_driver(last=False)

    def _ask_driver(self, *, last: bool) -> None:
        with self._driver, self._measured():  # held while a driver answers, and nothing else waits for it
            if self._gpus is None or (isinstance(self._gpus, str) and self._tries):
                self._gpus = open_gpus(self._visible, order=self._order)
                self._tries = self._tries - 1 if str(self._gpus).startswith(NO_ANSWER) else 0
            if not isinstance(self._gpus, Gpus):
                return
            now = runtime.clock.monotonic_ns()
            processes = last or now >= self._next_list
            if processes:
                self._next_list = now + PROCESS_LIST_NS
            pids = self._last.pids if self._last is not None else frozenset({self._tree.root})
            readings = self._gpus.read(pids, processes=processes)
            with self._lock:
                self._gpu_use.add(runtime.clock.monotonic_ns(), readings)
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
        if isinstance(self._gpus, Gpus):
            ask = threading.Thread(target=self._last_answer, name="otel_stageio last look", daemon=True)
            with suppress(RuntimeError):  # no more threads to be had
                ask.start()
                ask.join(LAST_LOOK)

    def _last_answer(self) -> None:
        with suppress(Exception):  # nobody would see it
            self._ask_driver(last=True)
            if isinstance(self._gpus, Gpus):
                self._gpus.close()

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
        found.update(self._of_gpus())
        found["sampler"] = {"looks": self._looks, "cpu_seconds": round(self._cost, 6)}
        return found

    def _of_gpus(self) -> dict[str, Any]:
        if self._gpus is None:
            return {}
        if isinstance(self._gpus, str):
            return {"gpu": f"not available ({self._gpus})"}
        devices = self._gpu_use.record()
        found: dict[str, Any] = {"gpus": devices}
        if self._gpus.confidence != "exact":
            found["gpu_order"] = UNSURE
        for name, key in (("gpu_memory_peak_bytes", "memory_peak_bytes"), ("gpu_energy_joules", "energy_joules"),
                          ("gpu_busy_seconds", "busy_seconds")):  # fmt: skip
            numbers = [device[key] for device in devices if key in device]
            if numbers:
                found[name] = sum(numbers)
        peak = self._gpu_use.peak()
        if peak is not None:
            found["gpu_process_memory_peak_bytes"] = peak
        return found

    def points(self) -> str:
        """Encoded metrics since the last call; empty if there are none."""
        with self._lock:
            return self._series.take()


def torch_peaks() -> dict[str, Any]:
    """What torch itself says of its memory, in the process in which it runs; {} where it is not loaded."""
    peaks = framework_peaks()
    return {"torch": peaks} if peaks else {}
