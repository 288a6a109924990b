"""NVIDIA GPUs, as the driver's management library (NVML) shows them.

NVML is loaded when the first stage asks for GPUs. Nothing here raises: a driver that is absent is a reason in words,
one that dies in mid-run gives readings without numbers, and a call that it does not know is made once.
https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path

from ..runtime import runtime
from . import nvml
from .gpu_pids import Share, share
from .visible import NO_DEVICES, NO_SUCH_DEVICE, NONE_VISIBLE, sure_of_order
from .visible import visible as visible_devices

__all__ = ["Device", "Gpus", "Reading", "open_gpus"]

NO_DRIVER = "no driver"
NOT_INSTALLED = "nvidia-ml-py is not installed"
NO_ANSWER = "the driver does not answer: "
_KFD = Path("/sys/class/kfd")  # AMD's compute driver

_PATIENCE = 0.25  # seconds to wait for another thread's reading
_LIMIT = 2.0  # seconds after which the rest of a reading is left out
_GIVE_UP = 5  # readings in a row that a device did not answer: not asked again


@dataclass(frozen=True)
class Device:
    """What does not change.

    Attributes:
        uuid: ``GPU-…`` or ``MIG-…``: the key of everything.
        index: NVML's; of a MIG instance: its GPU's.
        driver: the driver's version.
        parent: of a MIG instance: its GPU's UUID.
    """

    uuid: str
    index: int
    name: str
    memory_bytes: int | None
    driver: str
    parent: str | None


@dataclass(frozen=True)
class Reading:
    """One device at one moment; None is what could not be read.

    Attributes:
        utilization: 0 to 1, the share of time in which some kernel ran.
        memory_used: bytes, of the device.
        power: W.
        energy: J, a counter since the driver was loaded.
        temperature: Celsius.
        throttled: why clocks are held down, in words; being idle is no reason.
        ecc_errors: uncorrected ones since the driver was loaded.
        process_memory: bytes that the process tree has on it; None if unknown or not asked.
        confidence: of that: ``exact``, ``inferred``, ``device``; empty if not asked.
        reason: why there is no process_memory, or nothing at all.
        xids: the driver's error numbers since the reading before.
    """

    device: Device
    utilization: float | None
    memory_used: int | None
    power: float | None
    energy: float | None
    temperature: float | None
    throttled: tuple[str, ...]
    ecc_errors: int | None
    process_memory: int | None = None
    confidence: str = ""
    reason: str = ""
    xids: tuple[int, ...] = ()

    @property
    def has_numbers(self) -> bool:
        """Whether anything of the device could be read."""
        numbers = (self.utilization, self.memory_used, self.power, self.energy, self.temperature, self.ecc_errors)
        return any(number is not None for number in numbers)


def open_gpus(visible: str | None, *, order: str | None = None) -> Gpus | str:
    """The devices that a program with this ``CUDA_VISIBLE_DEVICES`` sees; a reason in words where there are none.

    Args:
        order: that program's ``CUDA_DEVICE_ORDER``; that of this process by default.
    """
    if sys.platform == "darwin":
        return "Apple GPUs are not supported yet"
    if visible is not None and not visible.strip():
        return NONE_VISIBLE
    if not nvml.has_driver():
        return _amd() or NO_DRIVER
    try:
        nvml.library()
    except Exception:
        return _amd() or NOT_INSTALLED
    _driver.guard_forks()
    if not _driver.acquire(_PATIENCE):
        return NO_ANSWER + _driver.why
    try:
        return _open(visible, os.environ.get("CUDA_DEVICE_ORDER") if order is None else order)
    except Exception as error:
        if nvml.code(error) is None:
            runtime.internal_error("gpu")
        return NO_ANSWER + nvml.words(error)
    finally:
        _driver.release()


def _open(value: str | None, order: str | None) -> Gpus | str:
    try:
        nvml.start()
    except Exception as error:
        if nvml.code(error) in nvml.NO_DRIVER:
            return _amd() or NO_DRIVER
        raise
    try:
        gpus, trouble = nvml.units()
        if not gpus:
            nvml.stop()
            return NO_ANSWER + trouble if trouble else NO_DEVICES
        version = nvml.driver_version()
        found = visible_devices(
            value,
            [(gpu.uuid, [instance.uuid for instance in gpu.instances]) for gpu in gpus],
            instances={instance.uuid: instance.place for gpu in gpus for instance in gpu.instances},
        )
        if isinstance(found, str):
            nvml.stop()
            # A number may mean one of those that have been lost.
            return NO_ANSWER + trouble if trouble and found == NO_SUCH_DEVICE else found
        slots = []
        units = {unit.uuid: (gpu, unit) for gpu in gpus for unit in (gpu, *gpu.instances)}
        for uuid in found:
            gpu, unit = units[uuid]
            parent = None if unit is gpu else gpu.uuid
            slots.append(_Slot(Device(uuid, gpu.index, unit.name, nvml.total_memory(unit), version, parent), unit))
        names = [gpu.name for gpu in gpus]
        return Gpus(slots, "exact" if sure_of_order(value, names, order) else "inferred")
    except Exception:
        nvml.stop()
        raise


class Gpus:
    """The devices that a program sees.

    Attributes:
        confidence: ``exact``, or ``inferred`` where the program counts devices by speed and they are not all alike,
            so that these may be others than those it uses.
    """

    def __init__(self, slots: list[_Slot], confidence: str) -> None:
        self.devices = [slot.device for slot in slots]
        self.confidence = confidence
        self._slots = slots
        self._pid = os.getpid()
        self._stale = self._closed = False
        self._events = nvml.Events([slot.unit for slot in slots if slot.unit])

    def read(self, tree: frozenset[int] | set[int], *, processes: bool) -> list[Reading]:
        """Never raises.

        Args:
            tree: pids of the process tree.
            processes: ask also for the list of processes, which stops the driver's other callers for milliseconds.
        """
        if self._closed:
            return [_nothing(slot.device, "closed", processes) for slot in self._slots]
        if not _driver.acquire(_PATIENCE):
            return [_nothing(slot.device, NO_ANSWER + _driver.why, processes) for slot in self._slots]
        try:
            if self._stale or self._pid != os.getpid():
                self._renew()
            deadline = time.monotonic() + _LIMIT
            xids = self._events.read()
            return [self._read(slot, tree, processes, xids, deadline) for slot in self._slots]
        except Exception as error:
            if nvml.code(error) is None:
                runtime.internal_error("gpu")
            return [_nothing(slot.device, NO_ANSWER + nvml.words(error), processes) for slot in self._slots]
        finally:
            _driver.release()

    def close(self) -> None:
        """May be called several times. In a forked child it leaves the parent's handles alone."""
        if self._closed or not _driver.acquire(_PATIENCE):
            return
        try:
            self._closed = True
            if self._pid == os.getpid():
                self._events.close()
                nvml.stop()
        except Exception:
            pass
        finally:
            _driver.release()

    def _renew(self) -> None:
        """In a forked child, or after somebody has shut NVML down: handles of our own.

        A forked child does not shut down what it has inherited: those are its parent's connections to the driver.
        """
        self._pid = os.getpid()
        self._stale = False
        for slot in self._slots:
            slot.unit = None
        try:
            nvml.start()
            gpus, _ = nvml.units()
        except Exception as error:
            for slot in self._slots:
                slot.trouble = nvml.words(error)
            self._events = nvml.Events([])
            self._stale = True
            return
        units = {unit.uuid: unit for gpu in gpus for unit in (gpu, *gpu.instances)}
        for slot in self._slots:
            slot.unit = units.get(slot.device.uuid)
            slot.trouble = "" if slot.unit else "the device is gone"
        self._events = nvml.Events([slot.unit for slot in self._slots if slot.unit])

    def _read(
        self,
        slot: _Slot,
        tree: Set[int],
        processes: bool,
        every_xid: Mapping[str, tuple[int, ...]],
        deadline: float,
    ) -> Reading:
        xids = every_xid.get(slot.device.uuid, ())
        if slot.unit is None or slot.silent >= _GIVE_UP:
            return _nothing(slot.device, NO_ANSWER + slot.trouble, processes, xids)
        ask = nvml.Asking(slot.unit, slot.left_out, deadline)
        reading = Reading(
            slot.device,
            utilization=ask(nvml.utilization),
            memory_used=ask(nvml.memory, nvml.memory_with_reserved),
            power=ask(nvml.power),
            energy=ask(nvml.energy),
            temperature=ask(nvml.temperature),
            throttled=ask(nvml.throttled, nvml.throttled_before_535) or (),
            ecc_errors=ask(nvml.ecc_errors),
            xids=xids,
        )
        if processes:
            memory, confidence, reason = _share(ask, tree)
            reading = replace(reading, process_memory=memory, confidence=confidence, reason=reason)
        self._stale = self._stale or ask.uninitialized
        if ask.gone and not reading.has_numbers:
            slot.silent += 1
            slot.trouble = ask.gone
            return _nothing(slot.device, NO_ANSWER + ask.gone, processes, xids)
        slot.silent = 0
        return reading


class _Slot:
    """A device, how to reach it now, and what it is not asked any more."""

    def __init__(self, device: Device, unit: nvml.Unit) -> None:
        self.device = device
        self.unit: nvml.Unit | None = unit
        self.left_out: dict[str, str] = {}
        self.silent = 0
        self.trouble = ""


def _nothing(device: Device, reason: str, processes: bool, xids: tuple[int, ...] = ()) -> Reading:
    confidence = "device" if processes else ""
    return Reading(device, None, None, None, None, None, (), None, None, confidence, reason, xids)


def _share(ask: nvml.Asking, tree: Set[int]) -> Share:
    compute = ask(nvml.compute_processes, nvml.compute_processes_before_510)
    if compute is None:
        return Share(None, "device", f"the driver does not list processes: {ask.why}")
    graphics = ask(nvml.graphics_processes, nvml.graphics_processes_before_510) or {}
    # A process that does both is in both lists, with the same memory.
    return share({**graphics, **compute}, tree)


def _amd() -> str:
    shown = any(name in os.environ for name in ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"))
    return "AMD GPUs are not supported yet" if shown or _KFD.exists() else ""


# -- threads and forks -------------------------------------------------------------------------------------------------


class _Driver:
    """Who speaks with the driver: one thread at a time, and none while the process forks.

    A child must not inherit a lock of NVML's that nobody will ever release. A driver that hangs does not stop a fork:
    then the child leaves it alone.
    """

    def __init__(self) -> None:
        self.why = "an earlier call has not come back"
        self._lock = threading.Lock()
        self._hooked = self._standing = self._spoilt = False

    def acquire(self, seconds: float) -> bool:
        return not self._spoilt and self._lock.acquire(timeout=seconds)

    def release(self) -> None:
        self._lock.release()

    def guard_forks(self) -> None:
        if not self._hooked:
            self._hooked = True
            os.register_at_fork(before=self._wait, after_in_parent=self._go_on, after_in_child=self._begin)

    def _wait(self) -> None:
        self._standing = self._lock.acquire(timeout=_PATIENCE)

    def _go_on(self) -> None:
        if self._standing:
            self._lock.release()

    def _begin(self) -> None:
        if not self._standing:
            self._spoilt = True
            self.why = "the process was forked in the middle of a call"
        self._lock = threading.Lock()


_driver = _Driver()
