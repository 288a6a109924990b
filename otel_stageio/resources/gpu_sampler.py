"""One stage's looks at its GPUs. Loaded with the first look, so that a stage that is soon over does not pay for it."""

from __future__ import annotations

import threading
from typing import Any

from ..runtime import runtime
from .gpu import NO_ANSWER, Gpus, Reading, open_gpus
from .gpu_use import GpuUse

#: A driver takes milliseconds, and a lock that a program's own calls wait for, to say which processes it serves.
PROCESS_LIST_NS = 10_000_000_000
UNSURE = "inferred: CUDA numbers GPUs by speed unless CUDA_DEVICE_ORDER=PCI_BUS_ID, so these may be others"


class GpuSampler:
    """Args:
    visible, order: ``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER`` of the program that is the stage.
    """

    def __init__(self, visible: str | None, order: str) -> None:
        self._visible, self._order = visible, order
        self._driver = threading.Lock()  # held while a driver answers: nothing but the next question waits for it
        self._gpus: Gpus | str = ""
        self._tries = 3  # a driver may be busy with an earlier call
        self._next_list = 0
        self._use = GpuUse()

    @property
    def found(self) -> bool:
        """Whether there are any."""
        return isinstance(self._gpus, Gpus)

    def ask(self, pids: frozenset[int], *, last: bool) -> list[Reading]:
        """Ask the driver, which may take its time.

        Args:
            last: the stage is over; nothing is asked after that.
        """
        with self._driver:
            if not isinstance(self._gpus, Gpus) and self._tries:
                self._gpus = open_gpus(self._visible, order=self._order)
                self._tries = self._tries - 1 if str(self._gpus).startswith(NO_ANSWER) else 0
            if not isinstance(self._gpus, Gpus):
                return []
            now = runtime.clock.monotonic_ns()
            processes = last or now >= self._next_list
            if processes:
                self._next_list = now + PROCESS_LIST_NS
            readings = self._gpus.read(pids, processes=processes)
            if last:
                self._gpus.close()
            return readings

    def add(self, readings: list[Reading]) -> None:
        """Take in what it said. Not while :meth:`usage` is asked."""
        self._use.add(runtime.clock.monotonic_ns(), readings)

    def usage(self) -> dict[str, Any]:
        """For the manifest's ``resources``: bytes, seconds, joules."""
        if isinstance(self._gpus, str):
            return {"gpu": f"not available ({self._gpus})"} if self._gpus else {}
        devices = self._use.record()
        found: dict[str, Any] = {"gpus": devices}
        if self._gpus.confidence != "exact":
            found["gpu_order"] = UNSURE
        for name, key in (("gpu_memory_peak_bytes", "memory_peak_bytes"), ("gpu_energy_joules", "energy_joules"),
                          ("gpu_busy_seconds", "busy_seconds")):  # fmt: skip
            numbers = [device[key] for device in devices if key in device]
            if numbers:
                found[name] = sum(numbers)
        peak = self._use.peak()
        if peak is not None:
            found["gpu_process_memory_peak_bytes"] = peak
        return found
