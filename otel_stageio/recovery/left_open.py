"""What the processes of a job have begun and not finished, as ``.stageio/open`` has it. Writes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from ..layout import Job
from ..sinks.files import is_free, is_locked
from ..sinks.open_spans import LINE


class Left(NamedTuple):
    """What a process has in ``.stageio/open``."""

    stage: str
    attempt: int
    path: str

    @property
    def alive(self) -> bool:
        return is_locked(self.path)

    @property
    def gone(self) -> bool:
        """Whether its process is dead for certain, if it ran on this host; without locks nothing says so."""
        return is_free(self.path) is True

    def spans(self) -> list[dict[str, Any]]:
        """The spans in it, as OTLP/JSON; some may have ended."""
        found = []
        try:
            with open(self.path, "rb") as file:
                while line := file.read(LINE):
                    with suppress(ValueError):
                        span = json.loads(line.partition(b"\n")[0])  # the rest is left of a longer one
                        if isinstance(span, dict) and span.get("spanId"):
                            found.append(span)
        except OSError:
            pass
        return found

    def remove(self) -> None:
        with suppress(OSError):
            os.unlink(self.path)


def left_open(job: Job, stage: str | None = None, attempt: int | None = None) -> Iterator[Left]:
    """What processes have not finished, of one attempt or of the whole job."""
    try:
        names = sorted(os.listdir(job.open))
    except OSError:
        return
    for name in names:
        owner, _, pid = name.rpartition(".")
        own_stage, _, number = owner.rpartition(".")
        if not (own_stage and number.isdigit() and pid.isdigit()):
            continue
        if (stage is None or own_stage == stage) and (attempt is None or int(number) == attempt):
            yield Left(own_stage, int(number), f"{job.open}/{name}")
