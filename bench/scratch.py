"""Where the benchmarks work: in memory if the system has a tmpfs, since a disk is too noisy to compare on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from otel_stageio.layout import Job

_numbers = count(1)


@contextmanager
def scratch() -> Iterator[Path]:
    memory = Path("/dev/shm")
    home = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="stageio-bench-", dir=home) as directory:
        yield Path(directory)


def new_job(where: Path, stage: str = "asr") -> Path:
    """A job whose directories exist already: creating them is the file system's cost, not ours."""
    job = Job(where / f"job{next(_numbers)}")
    for directory in (job.stage_dir(stage), job.logs, job.spool):
        os.makedirs(directory)
    return job.base


def fresh(count: int) -> list[int]:
    """Numbers that no other directory has in its name."""
    return [next(_numbers) for _ in range(count)]
