"""What PyTorch says of its memory, where the program has loaded it and uses CUDA: read, never imported or changed."""

from __future__ import annotations

import sys
from typing import Any


def framework_peaks() -> dict[str, dict[str, int]] | None:
    """Per device UUID the most bytes that tensors took (``allocated``) and that PyTorch took for them (``reserved``).

    Peaks since the program began or since it reset them itself. A device whose UUID this PyTorch does not tell
    is under ``cuda:<number>``. None where PyTorch is not loaded or has not begun to use CUDA.
    """
    torch: Any = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return None
        peaks = {}
        for number in range(torch.cuda.device_count()):
            reserved = int(torch.cuda.max_memory_reserved(number))
            if reserved:
                allocated = int(torch.cuda.max_memory_allocated(number))
                peaks[_uuid(torch, number)] = {"allocated": allocated, "reserved": reserved}
        return peaks or None
    except Exception:  # another program's library, in whatever state it is
        return None


def _uuid(torch: Any, number: int) -> str:
    properties = torch.cuda.get_device_properties(number)
    uuid = str(getattr(properties, "uuid", "") or "")
    if not uuid:
        return f"cuda:{number}"
    if uuid.startswith(("GPU-", "MIG-")):
        return uuid
    return f"MIG-{uuid}" if " MIG " in f"{properties.name} " else f"GPU-{uuid}"
