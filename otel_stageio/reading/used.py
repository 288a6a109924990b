"""What a stage used, in a few lines."""

from __future__ import annotations

from typing import Any

from .text import count, duration, one_line, size


def split(resources: dict[str, Any]) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """What was measured, as (of what, how much), and what the stage itself has said of its resources."""
    rest = dict(resources)
    lines = [
        ("memory", _memory(rest)),
        ("processor", _processor(rest)),
        ("disk", _disk(rest)),
        ("group", _group(rest)),
        *[("GPU", line) for line in _gpus(rest)],
        ("media", _media(rest)),
    ]
    if isinstance(rest.get("sampler"), dict):
        del rest["sampler"]
    return [(name, line) for name, line in lines if line], rest


def _number(given: dict[str, Any], key: str) -> float | None:
    """Taken out; None if it is something else, which stays."""
    value = given.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e18:
        return None
    del given[key]
    return value


def _bytes(number: float) -> str:
    return size(int(number))


def _memory(rest: dict[str, Any]) -> str:
    peak, threads, processes = (_number(rest, key) for key in ("peak_memory_bytes", "threads_max", "processes_max"))
    parts = [f"{_bytes(peak)} at most" if peak is not None else ""]
    parts += [count(int(number), word) for number, word in ((processes, "process"), (threads, "thread")) if number]
    return ", ".join(filter(None, parts))


def _processor(rest: dict[str, Any]) -> str:
    seconds, cores = _number(rest, "cpu_seconds"), _number(rest, "cpu_cores_mean")
    if seconds is None:
        return ""
    return duration(seconds) + (f", {cores:.2f} cores on average" if cores is not None else "")


def _disk(rest: dict[str, Any]) -> str:
    read, written = _number(rest, "disk_read_bytes"), _number(rest, "disk_written_bytes")
    parts = [f"{_bytes(read)} read" if read is not None else "", f"{_bytes(written)} written" if written else ""]
    return ", ".join(filter(None, parts)) if read or written else ""


def _group(rest: dict[str, Any]) -> str:
    given = rest.get("cgroup")
    if not isinstance(given, dict):
        return ""
    given = dict(rest.pop("cgroup"))
    throttled, limit, peak = (
        _number(given, key) for key in ("throttled_seconds", "memory_limit_bytes", "memory_peak_bytes")
    )
    parts = [f"held back for {duration(throttled)} by its processor limit" if throttled else ""]
    if peak is not None:
        parts.append(f"{_bytes(peak)}{f' of {_bytes(limit)}' if limit is not None else ''} with the page cache")
    return ", ".join(filter(None, parts))


def _gpus(rest: dict[str, Any]) -> list[str]:
    devices = rest.get("gpus")
    if not isinstance(devices, list) or not all(isinstance(device, dict) and "uuid" in device for device in devices):
        said = rest.get("gpu")
        return [one_line(rest.pop("gpu"))] if isinstance(said, str) and said.startswith("not available") else []
    for key in ("gpus", "gpu_memory_peak_bytes", "gpu_process_memory_peak_bytes", "gpu_energy_joules",
                "gpu_busy_seconds"):  # fmt: skip
        rest.pop(key, None)
    return [_gpu(dict(device)) for device in devices]


def _gpu(device: dict[str, Any]) -> str:
    name = one_line(str(device.get("name") or device.get("uuid") or "GPU"))
    busy, mean = _number(device, "busy_seconds"), _number(device, "utilization_mean")
    peak, whole = _number(device, "memory_peak_bytes"), _number(device, "memory_bytes")
    own, energy = _number(device, "process_memory_peak_bytes"), _number(device, "energy_joules")
    about = device.get("attribution")
    about = about if isinstance(about, dict) else {}
    parts = []
    if mean is not None:
        parts.append(f"{mean:.0%} busy" + (f" ({duration(busy)})" if busy is not None else ""))
    if peak is not None:
        parts.append(f"{_bytes(peak)}{f' of {_bytes(whole)}' if whole is not None else ''} in use at most")
    if own is not None:
        guess = "" if about.get("confidence") == "exact" else ", as far as can be told"
        parts.append(f"{_bytes(own)} of it this stage's{guess}")
    elif about.get("reason"):
        parts.append(f"whose is not known: {one_line(str(about['reason']))}")
    if energy is not None:
        parts.append(f"{energy:,.0f} J")
    throttled = device.get("throttled_seconds")
    if isinstance(throttled, dict):
        held = [f"{one_line(str(why)).replace('_', ' ')} {duration(seconds)}" for why, seconds in throttled.items()
                if isinstance(seconds, (int, float)) and 0 <= seconds < 1e18]  # fmt: skip
        parts.append(f"slowed down: {', '.join(held)}" if held else "")
    if isinstance(device.get("xids"), list):
        parts.append(f"Xid {', '.join(map(str, device['xids']))}")
    if device.get("trouble"):
        parts.append(one_line(str(device["trouble"])))
    return f"{name}: {', '.join(filter(None, parts))}"


def _media(rest: dict[str, Any]) -> str:
    factor = _number(rest, "realtime_factor")
    return f"{factor:.2f} of its length" if factor is not None else ""
