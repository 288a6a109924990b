"""Not enough memory: recognised by what was said, and told in one sentence with how much had been used.

The texts are those of torch, CTranslate2 (faster-whisper), cuBLAS and cuDNN, TensorFlow, ONNX Runtime, JAX; of Python,
numpy and the C library for the host's memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .. import semconv as sc
from ..units import size

_GPU = (
    r"(?:CUDA|HIP|MPS)[^\n]{0,40}out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
    r"|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|OutOfMemoryError: CUDA"
    r"|Failed to allocate memory for requested buffer of size|RESOURCE_EXHAUSTED: Out of memory"
)
_HOST = (
    r"\bMemoryError\b|std::bad_alloc|DefaultCPUAllocator: (?:can't|not enough)|Cannot allocate memory"
    r"|Unable to allocate [\d.]+ [KMGT]i?B|\bOut of memory\b: Kill"
)
#: What a text must have in it, so that a log line costs a search and no regular expression.
_HINTS = ("memory", "alloc")
_WANTED = r"(?:allocate|requested buffer of size)\s+([\d.]+)\s*([KMGT]i?B|bytes)?"


class Lack(NamedTuple):
    """``of`` is ``GPU`` or ``host``; ``wanted`` how much more was asked for, as it was said."""

    of: str
    wanted: str


def lack_of_memory(text: str) -> Lack | None:
    """What a text says of memory that was not there.

    Example:
        >>> lack_of_memory("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
        Lack(of='GPU', wanted='2.00 GiB')
    """
    lower = text.lower()
    if not any(hint in lower for hint in _HINTS):
        return None
    kind = "GPU" if _search(_GPU, text) else "host" if _search(_HOST, text) else ""
    if not kind:
        return None
    wanted = _search(_WANTED, text)
    return Lack(kind, f"{wanted[1]} {wanted[2] or 'bytes'}" if wanted else "")


def _search(pattern: str, text: str) -> re.Match[str] | None:
    """Compiled when it is first needed, and kept by ``re``: most stages never lack memory."""
    return re.search(pattern, text, re.IGNORECASE)


def story(texts: Iterable[str], used: Mapping[str, Any]) -> str:
    """One sentence, if one of the texts tells of it; else nothing.

    Args:
        used: attributes of the stage's end: peaks, and what was measured of each GPU.
    """
    found = next(filter(None, map(lack_of_memory, texts)), None)
    if found is None:
        return ""
    lacked = "out of GPU memory" if found.of == "GPU" else "out of memory"
    wanted = f" ({found.wanted} more was wanted)" if found.wanted else ""
    return f"{lacked}{wanted}{peaks(used)}"


def peaks(used: Mapping[str, Any]) -> str:
    """``; at most 3.1 GiB of memory and, on NVIDIA A100, 38.2 of 40.0 GiB were seen in use``, as far as it is known."""
    seen = []
    host = used.get(sc.MEMORY_PEAK)
    if host:
        seen.append(f"{size(host)} of memory")
    for device in used.get(sc.LOCAL_MEASURED, {}).get("gpus", ()):
        if "memory_peak_bytes" in device:
            whole = f" of {size(device['memory_bytes'])}" if device.get("memory_bytes") else ""
            seen.append(f"{size(device['memory_peak_bytes'])}{whole} on {device.get('name', 'the GPU')}")
    return f"; at most {' and '.join(seen)} were seen in use" if seen else ""
