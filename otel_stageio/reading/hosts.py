"""On which host a stage is or was, and since when nothing has been heard of it there."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .. import semconv as sc
from ..layout import Job
from ..life import file_clock_ns
from ..runtime import boot_id, host_name
from ..sinks.files import open_to_read

#: Seconds after which a host is called silent: a stage says something twice a minute, and a network file system may
#: take one more to show it. From :data:`otel_stageio.life.LOST_AFTER` on its stages are lost.
SILENT_AFTER = 120.0
#: The beginning of a journal, with what it says of where it was written.
HEAD = 64 * 1024
_SAID = {
    name: re.compile(rb'"key":"' + re.escape(name.encode()) + rb'","value":\{"stringValue":("(?:[^"\\]|\\.)*")\}')
    for name in (sc.LOCAL_HOST, sc.LOCAL_BOOT_ID)
}


class Birth(NamedTuple):
    """What a stage's first words say of where it is. ``host`` is empty where nothing says."""

    host: str = ""
    boot_id: str = ""
    locked: bool = True

    @property
    def here(self) -> bool:
        """Whether this machine's kernel can tell if it is alive; as :func:`otel_stageio.life.death` sees it."""
        same = self.boot_id == boot_id() if self.boot_id and boot_id() else self.host == host_name()
        return same and self.locked

    @property
    def elsewhere(self) -> bool:
        return self.host not in ("", host_name())

    @property
    def word(self) -> str:
        """For one that has died: ``lost`` where only its silence speaks for that."""
        restarted = self.host == host_name() and self.boot_id and boot_id() and self.boot_id != boot_id()
        return "crashed" if self.here or restarted else "lost"


def birth_of(path: Path) -> Birth:
    """What a journal's beginning says."""
    try:
        fd = open_to_read(path)
    except OSError:
        return Birth()
    try:
        return birth_in(os.pread(fd, HEAD, 0))
    except OSError:
        return Birth()
    finally:
        os.close(fd)


def birth_in(head: bytes) -> Birth:
    found = {name: said.search(head) for name, said in _SAID.items()}
    host, boot = (_text(match[1]) if match else "" for match in found.values())
    return Birth(host, boot, sc.LOCAL_LOCKED.encode() not in head)


def _text(quoted: bytes) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return ""


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
        files = job.journal(stage, attempt), job.journal(stage, attempt, "spans"), job.stage_dir(stage) / "stage.log"
        for path in files:
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
