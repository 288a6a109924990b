"""On which host a stage is or was, and since when nothing has been heard of it there."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from ..layout import Job
from ..recovery.life import file_clock_ns, files_of

#: Seconds after which a host is called silent: a stage says something twice a minute, and a network file system may
#: take one more to show it. From :data:`otel_stageio.recovery.life.LOST_AFTER` on its stages are lost.
SILENT_AFTER = 120.0


class FileClock:
    """What time it is to whoever keeps the files: two hosts' clocks may differ by more than a silence.

    Asked once, in the first job that is in question, and for a whole tree.
    """

    def __init__(self) -> None:
        self._ahead: int | None = None

    def silence(self, job: Job, stage: str, attempt: int) -> float:
        """Seconds since a stage wrote to one of its files."""
        if self._ahead is None:
            self._ahead = file_clock_ns(job) - time.monotonic_ns()
        latest = 0
        for path in files_of(job, stage, attempt):
            with suppress(OSError):
                latest = max(latest, os.stat(path).st_mtime_ns)
        return max(self._ahead + time.monotonic_ns() - latest, 0) / 1e9


def too_long(silence: float) -> float | None:
    """A silence, if it is longer than that of a stage which is well."""
    return silence if silence > SILENT_AFTER else None


class Stand(NamedTuple):
    """How a stage of a job stands.

    Attributes:
        host: where it is or was; empty for one that ended well.
        silent: for one that runs on another host, seconds since it was heard of, if that is too long.
        died: nobody has closed it.
    """

    stage: str
    state: str
    host: str = ""
    silent: float | None = None
    died: bool = False


@dataclasses.dataclass
class HostView:
    """Attributes:
    stages: how many are in each state: what runs there, and what did not end well.
    silent_seconds: since anything was heard of what runs there, if that is too long.
    """

    name: str
    stages: dict[str, int]
    silent_seconds: float | None = None


def hosts_of(stands: Iterable[Stand]) -> list[HostView]:
    """Who has gone silent comes first, then where something was lost, then who runs most."""
    counts: dict[str, Counter[str]] = {}
    heard: dict[str, float] = {}
    for stand in stands:
        if not stand.host:
            continue
        counts.setdefault(stand.host, Counter())[stand.state] += 1
        if stand.state == "running":
            heard[stand.host] = min(stand.silent or 0.0, heard.get(stand.host, float("inf")))
    found = [HostView(host, dict(states), heard.get(host) or None) for host, states in counts.items()]
    return sorted(found, key=_rank)


def _rank(host: HostView) -> tuple[float, int, int, str]:
    lost = host.stages.get("lost", 0) + host.stages.get("crashed", 0)
    return -(host.silent_seconds or 0.0), -lost, -host.stages.get("running", 0), host.name


def several(hosts: Iterable[str]) -> bool:
    """Whether it has to be said which host is meant."""
    return len({host for host in hosts if host}) > 1
