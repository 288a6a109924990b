"""Calls of NVML through ``nvidia-ml-py``, one by one: what to do about each error code is decided here.

``pynvml`` is imported by :func:`library` when the first GPU is asked for, and by nothing else.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

_T = TypeVar("_T")

# Error codes, which are part of the driver's ABI (nvml.h).
_UNINITIALIZED = 1
_DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND, _FUNCTION_NOT_FOUND = 9, 12, 13
NO_DRIVER = (_DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND)
#: Invalid argument, not supported, no permission, function not found, version mismatch, deprecated: so it will stay.
_NEVER = (2, 3, 4, _FUNCTION_NOT_FOUND, 25, 26)
#: GPU is lost, requires restart, driver not loaded: the rest of the reading would say the same.
_GONE = (_UNINITIALIZED, _DRIVER_NOT_LOADED, 15, 16)
_TOO_LONG = "it took too long"
_NO_MORE = 2  # other errors in one reading after which it is over

_XID = 0x8  # nvmlEventTypeXidCriticalError
_EVENTS_AT_ONCE = 64
_NO_INSTANCE = 0xFFFFFFFF

#: Why clocks are held down. Bit 0 is idleness, which is no complaint.
_REASONS = (
    (0x2, "clocks_setting"),
    (0x4, "power_cap"),
    (0x8, "hw_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "thermal_slowdown"),
    (0x40, "hw_thermal_slowdown"),
    (0x80, "power_brake"),
    (0x100, "display_clock_setting"),
)


def has_driver() -> bool:
    """Whether there is a driver's library at all. Asked first: most stages run without, and the bindings take 50 ms."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def library() -> Any:
    import pynvml

    return pynvml


def code(error: BaseException) -> int | None:
    """NVML's error code; None for another exception."""
    value = getattr(error, "value", None)
    return value if isinstance(value, int) else None


def words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def start() -> None:
    """NVML counts how often: each :func:`stop` undoes one."""
    library().nvmlInit()


def stop() -> None:
    try:
        library().nvmlShutdown()
    except Exception:
        pass


# -- devices -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """A GPU, or a MIG instance of one, with its handle.

    Attributes:
        index: of the GPU.
        place: GPU instance and compute instance.
        board: the handle of the GPU, on which events are registered.
    """

    uuid: str
    name: str
    index: int
    handle: Any
    board: Any
    place: tuple[int, int] = (_NO_INSTANCE, _NO_INSTANCE)
    instances: list[Unit] = field(default_factory=list)


def units() -> tuple[list[Unit], str]:
    """Every GPU that answers, and why one does not."""
    nvml = library()
    found, trouble = [], ""
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            gpu = Unit(_text(nvml.nvmlDeviceGetUUID(handle)), _name(handle, "GPU"), index, handle, handle)
        except Exception as error:
            trouble = words(error)
            continue
        gpu.instances.extend(_instances(gpu))
        found.append(gpu)
    return found, trouble


def _instances(gpu: Unit) -> Iterable[Unit]:
    nvml = library()
    try:
        if nvml.nvmlDeviceGetMigMode(gpu.handle)[0] != 1:
            return
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(gpu.handle)
    except Exception:
        return
    for number in range(count):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, number)
            place = (nvml.nvmlDeviceGetGpuInstanceId(handle), nvml.nvmlDeviceGetComputeInstanceId(handle))
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        except Exception:  # a number need not be taken
            continue
        yield Unit(uuid, _name(handle, gpu.name), gpu.index, handle, gpu.handle, place)


def driver_version() -> str:
    try:
        return _text(library().nvmlSystemGetDriverVersion())
    except Exception:
        return ""


def total_memory(unit: Unit) -> int | None:
    try:
        return int(library().nvmlDeviceGetMemoryInfo(unit.handle).total)
    except Exception:
        return None


def _name(handle: Any, otherwise: str) -> str:
    try:
        return _text(library().nvmlDeviceGetName(handle))
    except Exception:
        return otherwise


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


# -- numbers of a device -----------------------------------------------------------------------------------------------


class Asking:
    """The calls of one reading of one device.

    Args:
        left_out: the calls that this device does not know, with the reason; added to.
        deadline: on the monotonic clock: when to ask no more.

    Attributes:
        gone: why the rest was not asked.
    """

    def __init__(self, unit: Unit, left_out: dict[str, str], deadline: float) -> None:
        self.unit = unit
        self.gone = ""
        self.uninitialized = False
        self.why = ""
        self._left_out = left_out
        self._deadline = deadline
        self._failed = 0

    def __call__(self, *calls: Callable[[Any, Any], _T]) -> _T | None:
        """What the first of these calls says that the device knows; None if it fails."""
        for call in calls:
            name = call.__name__
            if name in self._left_out:
                self.why = self._left_out[name]
                continue
            if not self.gone and time.monotonic() > self._deadline:
                self.gone = _TOO_LONG
            if self.gone:
                self.why = self.gone
                return None
            try:
                return call(library(), self.unit.handle)
            except Exception as error:
                self.why = words(error)
                if code(error) in _NEVER or isinstance(error, AttributeError):  # an old pynvml lacks a function
                    self._left_out[name] = self.why
                    continue
                self._failed += 1
                self.uninitialized = code(error) == _UNINITIALIZED
                if code(error) in _GONE or self._failed >= _NO_MORE:
                    self.gone = self.why
                return None
        return None


def utilization(nvml: Any, handle: Any) -> float:
    return min(1.0, int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100)


def memory(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).used)


def memory_with_reserved(nvml: Any, handle: Any) -> int:
    """The older call, which counts what the driver keeps for itself as used."""
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)


def power(nvml: Any, handle: Any) -> float:
    return int(nvml.nvmlDeviceGetPowerUsage(handle)) / 1000


def energy(nvml: Any, handle: Any) -> float:
    return int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000


def temperature(nvml: Any, handle: Any) -> float:
    return float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))


def throttled(nvml: Any, handle: Any) -> tuple[str, ...]:
    return _reasons(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))


def throttled_before_535(nvml: Any, handle: Any) -> tuple[str, ...]:
    return _reasons(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))


def ecc_errors(nvml: Any, handle: Any) -> int:
    uncorrected, volatile = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
    return int(nvml.nvmlDeviceGetTotalEccErrors(handle, uncorrected, volatile))


def compute_processes(nvml: Any, handle: Any) -> dict[int, int | None]:
    # By its version: pynvml's call without one hides the driver's error code behind an exception of its own.
    return _sizes(nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle))


def compute_processes_before_510(nvml: Any, handle: Any) -> dict[int, int | None]:
    return _sizes(nvml.nvmlDeviceGetComputeRunningProcesses_v2(handle))


def graphics_processes(nvml: Any, handle: Any) -> dict[int, int | None]:
    return _sizes(nvml.nvmlDeviceGetGraphicsRunningProcesses_v3(handle))


def graphics_processes_before_510(nvml: Any, handle: Any) -> dict[int, int | None]:
    return _sizes(nvml.nvmlDeviceGetGraphicsRunningProcesses_v2(handle))


def _sizes(processes: Iterable[Any]) -> dict[int, int | None]:
    return {process.pid: process.usedGpuMemory for process in processes}


def _reasons(bits: int) -> tuple[str, ...]:
    return tuple(word for bit, word in _REASONS if bits & bit)


# -- events ------------------------------------------------------------------------------------------------------------


class Events:
    """Xids, the driver's error numbers, of some devices; none where the driver does not tell."""

    def __init__(self, of: list[Unit]) -> None:
        self._units = of
        self._set: Any = None
        nvml = library()
        for board in {_address(unit.board): unit.board for unit in of}.values():
            try:
                if self._set is None:
                    self._set = nvml.nvmlEventSetCreate()
                nvml.nvmlDeviceRegisterEvents(board, _XID, self._set)
            except Exception:
                continue

    def read(self) -> dict[str, tuple[int, ...]]:
        """Those since last time, by UUID. Waits for none."""
        found: dict[str, tuple[int, ...]] = {}
        if self._set is None:
            return found
        for _ in range(_EVENTS_AT_ONCE):
            try:
                event = library().nvmlEventSetWait_v2(self._set, 0)
            except Exception as error:
                if code(error) in _NEVER:
                    self._set = None
                break  # as a rule: no more for now
            if event.eventType & _XID:
                for unit in self._hit(event):
                    found[unit.uuid] = (*found.get(unit.uuid, ()), int(event.eventData))
        return found

    def _hit(self, event: Any) -> list[Unit]:
        on_board = [unit for unit in self._units if _address(unit.board) == _address(event.device)]
        instance = [unit for unit in on_board if unit.place[0] == event.gpuInstanceId != _NO_INSTANCE]
        return instance or on_board

    def close(self) -> None:
        if self._set is not None:
            library().nvmlEventSetFree(self._set)
            self._set = None


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
