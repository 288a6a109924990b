"""Which GPUs a stage started from here would see, or why none."""

from __future__ import annotations

import os
import threading

from ...reading.text import count, size
from ...resources.gpu import NO_DRIVER, NOT_INSTALLED, Gpus, open_gpus
from ...resources.visible import NO_SUCH_DEVICE, NONE_VISIBLE
from . import OK, WARNING, Check

_SECONDS = 5.0
_ADVICE = {
    NOT_INSTALLED: "pip install 'otel-stageio[gpu]'",
    NO_SUCH_DEVICE: "correct CUDA_VISIBLE_DEVICES",
}


def gpu() -> list[Check]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found: list[Gpus | str] = []
    # A driver that hangs must not take the doctor along.
    thread = threading.Thread(target=lambda: found.append(open_gpus(visible)), daemon=True)
    thread.start()
    thread.join(_SECONDS)
    if not found:
        return [Check("NVML", WARNING, f"the driver has not answered for {_SECONDS:.0f} s", "look at `nvidia-smi`")]
    (gpus,) = found
    if isinstance(gpus, str):
        fine = gpus in (NO_DRIVER, NONE_VISIBLE) or gpus.endswith("not supported yet")
        advice = "" if fine else _ADVICE.get(gpus, "look at `nvidia-smi`")
        return [Check("NVML", OK if fine else WARNING, f"{gpus}: no numbers of GPUs", advice)]
    drivers = sorted({device.driver for device in gpus.devices if device.driver})
    checks = [Check("NVML", OK, f"driver {', '.join(drivers) or 'unknown'}; {count(len(gpus.devices), 'device')} seen")]
    if gpus.confidence != "exact":
        checks.append(
            Check(
                "order", WARNING, "the GPUs differ, and CUDA counts them by speed", "set CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )
        )
    for device in gpus.devices:
        memory = f", {size(device.memory_bytes)}" if device.memory_bytes else ""
        checks.append(Check(f"GPU {device.index}", OK, f"{device.name}{memory}, {device.uuid}"))
    gpus.close()
    return checks
