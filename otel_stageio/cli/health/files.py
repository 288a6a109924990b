"""The file system below a job: its kind, its room, and whether it does what a record relies on."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from ...layout import Job
from ...reading.text import count, duration, size
from ...runtime import runtime
from ...sinks.files import replace
from . import ERROR, OK, WARNING, Check
from .locks import locks

_NETWORK = (
    "nfs", "cifs", "smb", "afpfs", "9p", "lustre", "gpfs", "beegfs", "ceph", "gluster", "glusterfs", "fuse.sshfs",
    "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "davfs", "afs", "orangefs", "virtiofs",
)  # fmt: skip
_LITTLE_ROOM, _NO_ROOM = 1 << 30, 1 << 20
_FEW_INODES = 1000
_SKEW = 2.0  # seconds; some file systems keep no finer time


def files(job: str | None) -> tuple[str, list[Check]]:
    """(what was looked at, what was found): of a job, or of where the next one would be."""
    path = os.path.abspath(job or os.environ.get("OUTPUT_DIR") or ".")
    place = Path(path)
    while not place.is_dir() and place != place.parent:
        place = place.parent
    said = path if str(place) == path else f"{path} is not there yet; looked at {place}"
    found = [Check("directory", OK, said)]
    found += [_kind(place), *_room(place)]
    machinery = Path(Job(place).machinery)
    try:
        with _scratch(machinery if machinery.is_dir() and not machinery.is_symlink() else place) as scratch:
            found.append(Check("writable", OK, "yes"))
            found += [*locks(scratch), _rename(scratch), _fsync(scratch), _clock(scratch)]
    except OSError as error:
        why = error.strerror or type(error).__name__
        found.append(
            Check("writable", ERROR, f"no: {why}; a stage runs here without a record", "mend permissions or mount")
        )
    return path, found


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    scratch = tempfile.mkdtemp(prefix=".otel-stageio-doctor-", dir=place)
    try:
        yield Path(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _kind(place: Path) -> Check:
    real = os.path.realpath(place)
    mounts = {item.mountpoint: item for item in psutil.disk_partitions(all=True)}
    within = [point for point in mounts if os.path.commonpath([real, point]) == point]
    if not within:
        return Check("file system", OK, "its kind is not known")
    mount = mounts[max(within, key=len)]
    said = f"{mount.fstype}, mounted at {mount.mountpoint}"
    if mount.fstype.rstrip("34") in _NETWORK:
        return Check(
            "file system", WARNING, f"{said}: a network file system",
            "fine if all stages of a job run on one host; a stage that dies on another is called lost after 10 minutes",
        )  # fmt: skip
    return Check("file system", OK, said)


def _room(place: Path) -> list[Check]:
    about = os.statvfs(place)
    free, whole = about.f_bavail * about.f_frsize, about.f_blocks * about.f_frsize
    said = f"{size(free)} free of {size(whole)}"
    advice = "make room: `otel-stageio prune` frees what old records take"
    if free < _NO_ROOM:
        found = [Check("space", ERROR, said, advice)]
    elif free < _LITTLE_ROOM:
        found = [Check("space", WARNING, f"{said}; the records of one job may take 512 MiB", advice)]
    else:
        found = [Check("space", OK, said)]
    if about.f_files:  # some have as many as there is room for
        few = about.f_favail < _FEW_INODES
        said = f"{count(about.f_favail, 'further file')} can be made"
        found.append(Check("inodes", WARNING if few else OK, said, advice if few else ""))
    return found


def _rename(scratch: Path) -> Check:
    """As manifests are written: a reader sees the old content or the new."""
    path = scratch / "replaced"
    path.write_bytes(b"old")
    with open(path, "rb") as reader:
        replace(path, b"new", scratch)
        if (reader.read(), path.read_bytes()) == (b"old", b"new"):
            return Check("atomic rename", OK, "a file is replaced as a whole")
    return Check("atomic rename", ERROR, "a file that is replaced is not seen whole", "keep job directories elsewhere")


def _fsync(scratch: Path) -> Check:
    began = time.monotonic()
    try:
        with open(scratch / "synced", "wb") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Check("fsync", WARNING, f"refused: {error.strerror}", "OTEL_STAGEIO_DURABILITY=power means nothing here")
    return Check("fsync", OK, f"takes {duration(time.monotonic() - began)}")


def _clock(scratch: Path) -> Check:
    path = scratch / "clock"
    path.touch()
    ahead = path.stat().st_mtime - runtime.clock.wall_ns() / 1e9
    if abs(ahead) <= _SKEW:
        return Check("clock", OK, "this host and the file system agree")
    side = "ahead of" if ahead > 0 else "behind"
    return Check(
        "clock", WARNING, f"the file system's is {duration(abs(ahead))} {side} this host's",
        "set both by NTP: times in a trace come from the host, ages of files from the file system",
    )  # fmt: skip
