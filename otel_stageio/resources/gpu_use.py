"""A stage's use of its GPUs, from readings over time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .gpu import Device, Reading

_WEAKEST = ("exact", "inferred", "device")


class GpuUse:
    """Numbers of one stage from its readings. Pure: times are given.

    A reading stands for the time since the reading of that device before it, since NVML's utilization and power
    are averages over what has just passed. So the first reading weighs nothing in a mean or a sum over time, and a
    time whose reading lacks a number is left out of that number.
    """

    def __init__(self) -> None:
        self._devices: dict[str, _DeviceUse] = {}
        self._peak: int | None = None

    def add(self, now_ns: int, readings: list[Reading]) -> None:
        for reading in readings:
            key = reading.device.uuid
            if key not in self._devices:
                self._devices[key] = _DeviceUse(reading.device)
            self._devices[key].add(now_ns, reading)
        known = [reading.process_memory for reading in readings if reading.process_memory is not None]
        if known:
            self._peak = max(self._peak or 0, sum(known))

    def record(self) -> list[dict[str, Any]]:
        """One entry per device, in the order in which they were first seen; what is not known is left out."""
        return [use.record() for use in self._devices.values()]

    def peak(self) -> int | None:
        """The most bytes that the process tree had at one moment on all devices together; None if never known."""
        if not self._peak and any(use.unknown for use in self._devices.values()):
            return None  # nothing where it could be seen, and it could not always be seen
        return self._peak


class _DeviceUse:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.then_ns: int | None = None
        self.utilization = _OverTime()
        self.power = _OverTime()
        self.energy = _Counter()
        self.ecc_errors = _Counter()
        self.memory: int | None = None
        self.process_memory: int | None = None
        self.temperature: float | None = None
        self.throttled: dict[str, float] = {}
        self.xids: list[int] = []
        self.confidence = self.reason = self.trouble = ""

    @property
    def unknown(self) -> bool:
        """Whether the tree's memory was once asked for in vain."""
        return self.confidence == _WEAKEST[-1]

    def add(self, now_ns: int, reading: Reading) -> None:
        seconds = 0.0 if self.then_ns is None else max(0, now_ns - self.then_ns) / 1e9
        self.then_ns = now_ns
        self.utilization.add(seconds, reading.utilization)
        self.power.add(seconds, reading.power)
        self.energy.add(reading.energy)
        self.ecc_errors.add(reading.ecc_errors)
        self.memory = _most(self.memory, reading.memory_used)
        self.process_memory = _most(self.process_memory, reading.process_memory)
        self.temperature = _most(self.temperature, reading.temperature)
        for reason in reading.throttled:
            self.throttled[reason] = self.throttled.get(reason, 0.0) + seconds
        self.xids += [xid for xid in dict.fromkeys(reading.xids) if xid not in self.xids]
        if reading.reason and not reading.has_numbers:
            self.trouble = reading.reason
        elif reading.confidence and _rank(reading.confidence) >= _rank(self.confidence):
            self.confidence, self.reason = reading.confidence, reading.reason

    def record(self) -> dict[str, Any]:
        device, use, power = self.device, self.utilization, self.power
        found: dict[str, Any] = {
            "uuid": device.uuid,
            "name": device.name,
            "index": device.index,
            "driver": device.driver or None,
            "parent": device.parent,
            "memory_bytes": device.memory_bytes,
            "utilization_mean": _rounded(use.mean, 4),
            "utilization_max": _rounded(use.most, 4),
            "busy_seconds": _rounded(use.total, 3),
            "memory_peak_bytes": self.memory,
            "process_memory_peak_bytes": None if self.unknown and not self.process_memory else self.process_memory,
            "attribution": {"confidence": self.confidence, "reason": self.reason} if self.confidence else None,
            "power_max_watts": _rounded(power.most, 3),
            "power_mean_watts": _rounded(power.mean, 3),
            "temperature_max": self.temperature,
            "throttled_seconds": {key: _rounded(value, 3) for key, value in self.throttled.items()} or None,
            "ecc_errors": None if self.ecc_errors.total is None else int(self.ecc_errors.total),
            "xids": self.xids or None,
            "trouble": self.trouble or None,
            **self._energy(),
        }
        return {key: value for key, value in found.items() if value is not None}

    def _energy(self) -> dict[str, Any]:
        if self.energy.total is not None:
            found = {"energy_joules": _rounded(self.energy.total, 3), "energy_from": "counter"}
            return {**found, "energy_resets": self.energy.resets} if self.energy.resets else found
        if self.power.total is not None:
            return {"energy_joules": _rounded(self.power.total, 3), "energy_from": "power"}
        return {}


class _OverTime:
    """A number that holds for a while: its integral, its mean and its maximum."""

    def __init__(self) -> None:
        self.total: float | None = None
        self.most: float | None = None
        self._seconds = 0.0

    def add(self, seconds: float, value: float | None) -> None:
        if value is None:
            return
        self.most = _most(self.most, value)
        if seconds:
            self.total = (self.total or 0.0) + value * seconds
            self._seconds += seconds

    @property
    def mean(self) -> float | None:
        return self.most if self.total is None else self.total / self._seconds


class _Counter:
    """A number that only grows, unless it starts again from nothing: then what it counted unseen is lost."""

    def __init__(self) -> None:
        self.total: float | None = None
        self.resets = 0
        self._last: float | None = None

    def add(self, value: float | None) -> None:
        if value is None:
            return
        if self._last is not None:
            self.total = self.total or 0
            if value < self._last:
                self.resets += 1
            else:
                self.total += value - self._last
        self._last = value


def _most(first: Any, second: Any) -> Any:
    """The greater of two numbers, of which one may not be known."""
    known: Iterable[Any] = [value for value in (first, second) if value is not None]
    return max(known, default=None)


def _rank(confidence: str) -> int:
    return _WEAKEST.index(confidence) if confidence in _WEAKEST else -1


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
