"""Whether a stage is alive, and if it is not, what can be said of its death.

A stage holds a lock on its journal, and the kernel lets go of it when the last of its processes is gone. Under the
same kernel that is all one needs to know. Elsewhere (another host, a file system without locks) a free lock means
nothing: there a stage counts as lost once it has been silent for long, and no sooner; its heartbeat is twice a minute.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import semconv as sc
from ..resources.cgroup import OomKills, oom_kills
from ..runtime import boot_id, host_name, runtime
from ..sinks.files import is_free, let_go, open_to_read, open_to_write
from ..sinks.files import seize as seize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..layout import Job, StrPath

#: Seconds of silence after which a stage that cannot be asked counts as lost.
LOST_AFTER = 600.0


#: The beginning of a journal, with what it says of where it was written.
HEAD = 64 * 1024
_SAID = {
    name: re.compile(rb'"key":"' + re.escape(name.encode()) + rb'","value":\{"stringValue":("(?:[^"\\]|\\.)*")\}')
    for name in (sc.LOCAL_HOST, sc.LOCAL_BOOT_ID)
}


@dataclass(frozen=True)
class Death:
    """Attributes:
    status: ``crashed``, or ``lost`` where only silence speaks for it.
    cause: a sentence.
    attributes: what else is known, for the ``ended`` event.
    """

    status: str
    cause: str
    attributes: Mapping[str, Any]


def birth(locked: bool) -> dict[str, Any]:
    """What the ``started`` event says so that :func:`death` can be told one day.

    Args:
        locked: whether the journal is locked; some network file systems have no locks.
    """
    kills = oom_kills()
    return {
        sc.LOCAL_HOST: host_name(),
        sc.LOCAL_BOOT_ID: boot_id(),
        **({} if locked else {sc.LOCAL_LOCKED: False}),
        **({sc.LOCAL_OOM_KILLS: [kills.path, kills.killed]} if kills is not None else {}),
    }


class Birth(NamedTuple):
    """What a stage's first words say of where it is. ``host`` is empty where nothing says."""

    host: str = ""
    boot_id: str = ""
    locked: bool = True

    @property
    def here(self) -> bool:
        """Whether this machine's kernel can tell if it is alive; as :func:`death` sees it."""
        same = self.boot_id == boot_id() if self.boot_id and boot_id() else self.host == host_name()
        return same and self.locked

    @property
    def elsewhere(self) -> bool:
        return self.host not in ("", host_name())


def birth_of(path: StrPath) -> Birth:
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
        let_go(fd)


def birth_in(head: bytes) -> Birth:
    found = {name: said.search(head) for name, said in _SAID.items()}
    host, boot = (_text(match[1]) if match else "" for match in found.values())
    return Birth(host, boot, sc.LOCAL_LOCKED.encode() not in head)


def _text(quoted: bytes) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return ""


def clock_ahead(fd: int, before_ns: int, after_ns: int) -> dict[str, float]:
    """By how many seconds this host's clock is ahead of the file system's (negative: behind), where that is a second or
    more: for the ``started`` event.

    Args:
        fd: a file that was made between ``before_ns`` and ``after_ns`` by this host's clock, and is empty yet.
    """
    try:
        made = os.fstat(fd).st_mtime_ns
    except OSError:
        return {}
    # Some file systems know whole seconds only, and some of those every other.
    by_then = made + (2_000_000_000 if made % 1_000_000_000 == 0 else 0)
    ahead = (max(before_ns - by_then, 0) - max(made - after_ns, 0)) / 1e9
    return {sc.LOCAL_CLOCK_AHEAD: round(ahead, 3)} if abs(ahead) >= 1 else {}


def is_here(born: Mapping[str, Any]) -> bool:
    """Whether a stage was begun under this very kernel."""
    host, boot = born.get(sc.LOCAL_HOST), born.get(sc.LOCAL_BOOT_ID)
    return bool(boot == boot_id() if boot and boot_id() else host == host_name())


def files_of(job: Job, stage: str, attempt: int) -> list[str]:
    """What a stage writes to."""
    return [job.journal(stage, attempt), job.journal(stage, attempt, "spans"), f"{job.stage_dir(stage)}/stage.log"]


def lives_elsewhere(job: Job, stage: str, attempt: int, lost_after: float) -> bool:
    """Whether a stage of another host has spoken so lately that nobody here has to judge it.

    Many hosts look at the same jobs: who only wants to know must not hold the lock that its own host has to have, nor
    make a file to ask for the time. A clock that is wrong by minutes only sends it on to :func:`death`.
    """
    if not birth_of(job.journal(stage, attempt)).elsewhere:
        return False
    latest = _last_written_ns(files_of(job, stage, attempt))
    return 0 <= (runtime.clock.wall_ns() - latest) / 1e9 < lost_after / 2


def death(
    job: Job, files: Sequence[str], born: Mapping[str, Any], last_ns: int, seized: bool | None, lost_after: float
) -> Death | None:
    """How a stage without an end has died; None if it may be alive.

    Args:
        files: what the stage writes to.
        born: attributes of its ``started`` event.
        last_ns: when it last said something, by its own clock.
        seized: what :func:`seize` answered for its journal.
        lost_after: seconds of silence that make it lost.
    """
    if seized is False:
        return None
    host, boot = born.get(sc.LOCAL_HOST), born.get(sc.LOCAL_BOOT_ID)
    if is_here(born) and seized and born.get(sc.LOCAL_LOCKED, True):
        return _crashed(born)
    # A name is no proof that it is this machine. If it were another one with the same name, it would have gone on
    # speaking after this one came up.
    if host == host_name() and boot and boot_id() and boot != boot_id() and last_ns < _up_since_ns():
        return Death("crashed", "the machine went down: it has been started anew since", {})
    silence = _silence(job, files)
    if silence is not None and silence >= lost_after:
        where = "" if host == host_name() else f" on {host}"
        return Death("lost", f"nothing was heard of it{where} for {_minutes(silence)}", {})
    return None


def owner_death(job: Job, run: Mapping[str, Any], lost_after: float = LOST_AFTER) -> Death | None:
    """How the process that owns a run has died; None if it may be alive. It is heard of as a stage is: by the lock that
    it holds, and on other hosts by the time of that file, which it touches twice a minute.

    One lock for all: while any owner of the job lives, none is judged.
    """
    if run.get("detached"):  # it is for a scheduler's script to end, or for the job's next run
        return None
    owner = run.get("owner") or {}
    born = {sc.LOCAL_HOST: owner.get("host"), sc.LOCAL_BOOT_ID: owner.get("boot_id")}
    files = [job.owner_lock, f"{job.key}/{run.get('pipeline_log', '')}", job.spool]
    return death(job, files, born, run.get("started_ns", 0), is_free(job.owner_lock), lost_after)


def _crashed(born: Mapping[str, Any]) -> Death:
    kills = born.get(sc.LOCAL_OOM_KILLS)
    if isinstance(kills, list) and len(kills) == 2 and OomKills(str(kills[0]), int(kills[1])).rose():
        cause = "out of memory, it seems: the kernel killed a process of its control group for memory while it ran"
        return Death("crashed", cause, {sc.OOM: True})
    return Death("crashed", "its process is gone and left no word: killed, or crashed in native code", {})


def _up_since_ns() -> int:
    try:
        return runtime.clock.wall_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):  # macOS has neither this clock nor boot ids
        return 0


def is_silent(job: Job, files: Sequence[str], lost_after: float) -> bool:
    """Whether nothing was written to any of the files for so long that whoever writes them is lost."""
    silence = _silence(job, files)
    return silence is not None and silence >= lost_after


def _silence(job: Job, files: Sequence[str]) -> float | None:
    """Seconds since one of the files was written to; None if none of them is there.

    By the clock of whoever keeps the files: the other host's clock and this one's may differ by more than the silence.
    """
    latest = _last_written_ns(files)
    return (file_clock_ns(job) - latest) / 1e9 if latest else None


def _last_written_ns(files: Sequence[str]) -> int:
    """When the latest of them was written to; 0 if none of them is there."""
    latest = 0
    for path in files:
        with suppress(OSError):
            latest = max(latest, os.stat(path).st_mtime_ns)
    return latest


def file_clock_ns(job: Job) -> int:
    """What time it is to whoever keeps a job's files."""
    probe = f"{job.temporary}/clock.{os.getpid()}.{runtime.ids.span_id():x}"
    try:
        fd = open_to_write(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)
            os.unlink(probe)
    except OSError:  # not ours to write: then nobody will write an end either, and this clock has to do
        return runtime.clock.wall_ns()


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
