"""GPUs that are not there: a ``libnvidia-ml.so.1`` of our own, and the file that says what it answers.

    driver = Driver(tmp_path / "driver")
    driver.set(gpus=[{"utilization": 0.5, "processes": [("self", 2 << 30)]}, {"lost": GPU_IS_LOST}])
    run_python(script, **driver.env(libraries))  # libraries = build(directory); in tests: the fixture `libraries`

It can be set again while the program runs: each call of NVML reads the file anew.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND = 3, 4, 9, 13
GPU_IS_LOST, RESET_REQUIRED, UNKNOWN = 15, 16, 999

GIB = 1 << 30

#: One GPU where nothing else is said. A value of None is one that this GPU does not have.
GPU: dict[str, Any] = {
    "name": "NVIDIA H100 80GB HBM3",
    "memory_total": 80 * GIB,
    "memory_used": 1 * GIB,
    "utilization": 0.0,  # 0..1
    "power": 100.0,  # W
    "energy": 1000.0,  # J
    "temperature": 40,
    "throttled": 0,  # NVML's bits: 4 power cap, 0x20 thermal slowdown, …
    "ecc": 0,
    "processes": [],  # (pid or "self", bytes or None)
    "graphics": [],
    "mig": [],  # instances: as GPUs; "place": (GPU instance, compute instance)
    "lost": 0,  # an error code that every call about this device gives
    "xids": [],  # those since the program began: append to it
}
_NOT_OF_AN_INSTANCE = ("utilization", "power", "energy", "temperature", "throttled", "ecc")
_THOUSANDTHS = ("power", "energy")


def uuid(number: int, kind: str = "GPU") -> str:
    """The UUID of the device with this number, where none is given; of MIG instances numbers are 10, 11 on GPU 1, …"""
    return f"{kind}-{number:08x}-0000-4000-8000-{number:012x}"


def build(directory: Path, cc: str = "cc") -> Path:
    """Compiles the library; the directory to put in ``LD_LIBRARY_PATH``."""
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / "libnvidia-ml.so.1"
    options = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run([cc, *options, "-o", library, HERE / "stub.c"], check=True)
    return directory


class Driver:
    """What the stub answers.

    Args:
        path: the state file; ``<path>.calls`` has a line for each call.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def set(
        self,
        gpus: Sequence[Mapping[str, Any]] = (),
        *,
        driver: str = "570.86.15",
        init: int = 0,
        dead: int = 0,
        fail: Mapping[str, int] | None = None,
        unsupported: Iterable[str] = (),
    ) -> None:
        """Everything anew.

        Args:
            gpus: what differs from :data:`GPU`.
            init: the error code of ``nvmlInit``.
            dead: the error code of every other call.
            fail: the error codes of single calls, by their C names (``nvmlDeviceGetMemoryInfo_v2``).
            unsupported: the same with NOT_SUPPORTED.
        """
        lines = [f"driver {driver}", f"init {init}", f"dead {dead}"]
        failing = {**dict.fromkeys(unsupported, NOT_SUPPORTED), **(fail or {})}
        lines += [f"fail {name} {code}" for name, code in failing.items()]
        for number, given in enumerate(gpus):
            gpu = {"uuid": uuid(number), **GPU, **given}
            lines += [*_device(gpu), f"mig {int(bool(gpu['mig']))}"]
            for place, part in enumerate(gpu["mig"]):
                whole = {"uuid": uuid(10 * number + place, "MIG"), "place": (place + 1, 0), **GPU}
                instance = {**whole, **dict.fromkeys(_NOT_OF_AN_INSTANCE), **part}
                lines += [*_device(instance), f"parent {number}"]
                lines += [f"xid {number} {instance['place'][0]} {xid}" for xid in instance["xids"]]
            lines += [f"xid {number} -1 {xid}" for xid in gpu["xids"]]
        new = self.path.with_name(f"{self.path.name}.new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.path)

    def env(self, libraries: Path) -> dict[str, str]:
        """What a program's environment needs to find these GPUs."""
        before = os.environ.get("LD_LIBRARY_PATH")
        path = os.pathsep.join([str(libraries), before] if before else [str(libraries)])
        return {"LD_LIBRARY_PATH": path, "NVML_STUB": str(self.path)}

    def calls(self) -> Counter[str]:
        """How often each function was called so far, by all processes."""
        noted = self.path.with_name(f"{self.path.name}.calls")
        return Counter(line.split()[1] for line in noted.read_text().splitlines()) if noted.exists() else Counter()


def _device(device: Mapping[str, Any]) -> list[str]:
    lines = [f"device {device['uuid']}", f"name {device['name']}", f"lost {device['lost']}"]
    for key in ("memory_total", "memory_used", *_NOT_OF_AN_INSTANCE):
        value = device[key]
        if value is not None:
            scale = 100 if key == "utilization" else 1000 if key in _THOUSANDTHS else 1
            lines.append(f"{key} {round(value * scale)}")
    if device["processes"] is not None:
        lines.append("lists 1")
        for kind, processes in (("compute", device["processes"]), ("graphics", device["graphics"])):
            lines += [f"{kind} {pid} {'-' if size is None else size}" for pid, size in processes]
    if "place" in device:
        lines.append("place {} {}".format(*device["place"]))
    return lines
