"""A line of the pipeline log that no stage says: of the pipeline itself, or of the delivery."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..capture.text import one_record
from ..otlp import encode
from ..runtime import runtime
from .files import AppendFile

if TYPE_CHECKING:
    from ..capture import Capture
    from ..layout import Job


def line(capture: Capture, name: str, level: str, text: str) -> str:
    """``[2025-11-27 10:11:12] [pipeline] [INFO] text`` and a line end; what is secret in the text is masked."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(runtime.clock.wall_ns() // 1_000_000_000))
    return f"[{stamp}] [{name}] [{level}] {one_record(capture.text(text))}\n"


def append(job: Job, log: str, written: str) -> None:
    """Write one line to a pipeline log. One that cannot be written is left out.

    Args:
        log: relative to the job.
    """
    file = AppendFile(job.root / log)
    file.write(encode.to_bytes(written))
    file.close()
