"""What a file's content is, in a few bytes; and never the same bytes read twice.

A digest is a map from the name of the algorithm to its value, as in in-toto's digest sets:

- ``{"sha256": "<64 hex>"}`` of a file, ``{"dirHash1": "<64 hex>"}`` of a directory: SHA-256 over the sorted listing of
  its files and theirs, as Go's ``dirhash`` and in-toto have it.
- ``{"quick": "<64 hex>"}``: of the length and the first and last 4 KiB. It finds another film, and no changed frame.
- ``{"stat": "<inode> <size> <mtime> <ctime>"}``: nothing was read. Says only that nobody has touched the file since; of
  a directory it is the SHA-256 over the listing of these.
- ``{"not_computed": "<why>"}``, for a file beside ``stat``: it was to be read, and was not.

What was computed is kept in ``.stageio/digests`` by device, inode, size, mtime and ctime: a stage that reads a file
asks there what the stage that wrote it has computed. A rewrite of the same size with its mtime put back shows in the
ctime.
"""

from __future__ import annotations

import hashlib
import os
import stat
import string
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from .. import semconv as sc
from ..layout import Job
from ..sinks.files import AppendFile, open_to_read, replace

Digest = dict[str, str]

TIERS = ("sha256", "quick", "stat", "off")
BUDGET = 10.0

_SMALL, _BLOCK = 1 << 15, 1 << 20
_QUICK = 4096
_MOST_ENTRIES = 100_000
#: A file that was written to within so many nanoseconds before it was looked at may be written to again with the same
#: times: the kernel's clock for files ticks every 1 to 10 ms, that of some file systems every second or two.
_TICK, _COARSE_TICK = 20_000_000, 2_000_000_000
#: Bytes from which it is worth waiting a tick for a file to be settled.
_WORTH_A_TICK = 4 << 20
#: Bytes of the cache, about 200,000 files; of a larger one the newer half is kept.
_LARGEST_CACHE = 32 << 20


class Identity(NamedTuple):
    """Of a file as it is now, without reading it.

    Attributes:
        device: file systems number their files alike, and in memory the first file of each has the same number.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def text(self) -> str:
        """Without the device, which has another number after a restart."""
        return f"{self.inode} {self.size} {self.mtime_ns} {self.ctime_ns}"

    def settled(self, now_ns: int) -> bool:
        """Whether a later write must show in the times. It sets both: an mtime in the future was put there."""
        latest = max(self.ctime_ns, self.mtime_ns if self.mtime_ns <= now_ns else 0)
        coarse = self.ctime_ns % 1_000_000_000 == 0
        return now_ns - latest > (_COARSE_TICK if coarse else _TICK)


class Stopped(Exception):
    """There was no more time for it."""


def tier() -> str:
    """``OTEL_STAGEIO_DIGEST``."""
    word = os.environ.get(sc.ENV_DIGEST, "").strip().lower()
    return word if word in TIERS else TIERS[0]


def budget() -> float:
    """``OTEL_STAGEIO_DIGEST_BUDGET``: seconds that the end of a stage may wait for digests."""
    try:
        seconds = float(os.environ.get(sc.ENV_DIGEST_BUDGET, ""))
    except ValueError:
        return BUDGET
    return seconds if 0 <= seconds < 1e6 else BUDGET


def not_computed(path: str, why: str) -> Digest:
    """For what was not read: why, and of a file what can be said without reading."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return {"not_computed": why}
    # A directory does not change when a file in it is written to.
    return (
        {"not_computed": why}
        if stat.S_ISDIR(status.st_mode)
        else {"not_computed": why, "stat": Identity.of(status).text}
    )


def file_sha256(path: str | os.PathLike[str], stop: Callable[[], bool] | None = None, most: int = 0) -> str:
    """SHA-256 of a file's content, as 64 hex digits.

    Args:
        stop: asked now and then; True ends the work.
        most: bytes, give or take a block, after which the work ends: a log that grows as fast as it is read has no end.

    Raises:
        OSError: if it cannot be read.
        Stopped: if ``stop`` said so.
    """
    with open(path, "rb", buffering=0) as file:
        start = file.read(_SMALL)
        digest = hashlib.sha256(start)
        if len(start) == _SMALL:  # most files are smaller, and to make room for a block costs more than to read them
            buffer = bytearray(_BLOCK)
            view = memoryview(buffer)
            total = _SMALL
            while (count := file.readinto(buffer)) and not 0 < most < total:
                digest.update(view[:count])
                total += count
                if stop is not None and stop():
                    raise Stopped
    return digest.hexdigest()


class Digests:
    """The digests of one job's files.

    Attributes:
        closed: nobody asks any more; what is being read for it may stop.

    Example:
        >>> Digests(Job(job)).of(str(job / "06_asr" / "segments.json"))
        {'sha256': '…'}
    """

    def __init__(self, job: Job, kind: str | None = None) -> None:
        self.tier = tier() if kind is None else kind
        self._job = job
        self._cache: dict[str, str] = {}
        self._read = -1  # bytes of the cache on disk; -1 before the first look
        self._new: list[str] = []
        self.closed = False

    def known(self, identity: Identity, kind: str | None = None) -> Digest | None:
        """What has been computed of a file that looks like this."""
        kind = kind or self.tier
        if kind == "stat":
            return {"stat": identity.text}
        key = _key(kind, identity)
        value = self._cache.get(key)
        if value is None and self._catch_up():
            value = self._cache.get(key)
        return {kind: value} if value is not None else None

    def of(self, path: str, stop: Callable[[], bool] | None = None, *, kind: str | None = None) -> Digest:
        """A file's or directory's digest; read only if it is not known. ``{}`` for what is not there.

        Args:
            kind: ``sha256``, ``quick`` or ``stat``, instead of what the environment says.

        Raises:
            Stopped: if ``stop`` said so.
        """
        kind = kind or self.tier
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                return self._of_directory(path, kind, stop)
            if not stat.S_ISREG(status.st_mode):
                return {"not_computed": "it is no regular file"}
            return self._of_file(path, Identity.of(status), kind, stop)
        except (FileNotFoundError, NotADirectoryError):
            return not_computed(path, "it changed while it was read") if os.path.exists(path) else {}
        except (OSError, ValueError) as error:
            return not_computed(path, f"it could not be read: {getattr(error, 'strerror', None) or error}")

    def again(self, path: str, recorded: Digest) -> Digest:
        """The digest of what is there now, by the algorithm that a record has it by."""
        kinds = {"sha256": "sha256", "dirHash1": "sha256", "quick": "quick"}
        return self.of(path, kind=next((kinds[name] for name in kinds if name in recorded), "stat"))

    def save(self) -> None:
        """Let other processes know."""
        new, self._new = self._new, []
        if new:
            file = AppendFile(self._job.digests)
            file.write("".join(new).encode())
            file.close()

    def _of_file(self, path: str, before: Identity, kind: str, stop: Callable[[], bool] | None) -> Digest:
        found = self.known(before, kind)
        if found is not None:
            return found
        if stop is not None and stop():
            raise Stopped
        if before.size >= _WORTH_A_TICK and not before.settled(time.time_ns()):
            time.sleep(_TICK / 1e9)  # then it can be kept, and is not read again by the next stage
        looked_at = time.time_ns()
        value = _quick(path, before.size) if kind == "quick" else file_sha256(path, stop, before.size)
        after = Identity.of(os.stat(path))
        if after != before:
            return not_computed(path, "it was being written to while it was read")
        if after.settled(looked_at):
            key = _key(kind, after)
            self._cache[key] = value
            self._new.append(f"{key}\t{value}\n")
        return {kind: value}

    def _of_directory(self, top: str, kind: str, stop: Callable[[], bool] | None) -> Digest:
        """https://pkg.go.dev/golang.org/x/mod/sumdb/dirhash#Hash1, in hex. Links are followed, as who reads would."""
        listing: list[tuple[bytes, str]] = []
        places: list[tuple[str, tuple[tuple[int, int], ...]]] = [(top, ())]
        left = _MOST_ENTRIES + 1
        while places:
            place, above = places.pop()
            status = os.stat(place)
            above = (*above, (status.st_dev, status.st_ino))
            with os.scandir(place) as entries:
                for entry in entries:
                    left -= 1
                    if not left:
                        return {"not_computed": f"it has more than {_MOST_ENTRIES:,} files"}
                    if stop is not None and stop():
                        raise Stopped
                    found = _target(entry)
                    if found is not None and stat.S_ISDIR(found.st_mode):
                        if (found.st_dev, found.st_ino) not in above:
                            places.append((entry.path, above))
                            continue
                        found = None  # a link back up stands for itself
                    name = os.fsencode(os.path.relpath(entry.path, top))
                    listing.append((name, self._of_entry(entry, found, kind, stop)))
        text = b"".join(_line(name, value) for name, value in sorted(listing))
        return {"dirHash1" if kind == "sha256" else kind: hashlib.sha256(text).hexdigest()}

    def _of_entry(
        self, entry: os.DirEntry[str], status: os.stat_result | None, kind: str, stop: Callable[[], bool] | None
    ) -> str:
        if status is None:
            return hashlib.sha256(b"link " + os.fsencode(os.readlink(entry.path))).hexdigest()
        if not stat.S_ISREG(status.st_mode):
            return hashlib.sha256(b"no regular file").hexdigest()
        found = self._of_file(entry.path, Identity.of(status), kind, stop)
        if kind not in found:
            raise ValueError(found["not_computed"])
        return found[kind]

    def _catch_up(self) -> bool:
        """Take in what other processes have computed since the last look. What is torn is left out.

        Returns:
            Whether there was anything.
        """
        path = self._job.digests
        try:
            size = os.stat(path).st_size
            if size <= self._read:
                return False
            with open(open_to_read(path), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return False
                file.seek(max(self._read, size - _LARGEST_CACHE, 0))
                lines = file.read(_LARGEST_CACHE).decode("ascii", "replace").split("\n")
                self._read = file.tell() - len(lines.pop())  # the last may be half written yet
        except OSError:
            self._read = max(self._read, 0)
            return False
        for line in lines:
            key, _, value = line.partition("\t")
            if len(value) == 64 and not value.strip(string.hexdigits):
                self._cache[key] = value
        if size > _LARGEST_CACHE:
            self._trim()
        return True

    def _trim(self) -> None:
        kept = list(self._cache.items())[len(self._cache) // 2 :]
        content = "".join(f"{key}\t{value}\n" for key, value in kept).encode()
        with suppress(OSError):
            replace(self._job.digests, content, self._job.temporary)
        self._read = len(content)


def _key(kind: str, identity: Identity) -> str:
    return f"{kind} {identity.device} {identity.text}"


def _target(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of what an entry is, or points to; None for a link that leads nowhere."""
    try:
        return entry.stat()
    except OSError:
        if entry.is_symlink():
            return None
        raise


def _line(name: bytes, value: str) -> bytes:
    """As ``sha256sum`` writes it: a backslash before the line says that the name has a line end."""
    if b"\n" in name:
        return b"\\%s  %s\n" % (value.encode(), name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n"))
    return b"%s  %s\n" % (value.encode(), name)


def _quick(path: str, size: int) -> str:
    digest = hashlib.sha256(f"{size}\n".encode())
    with open(path, "rb", buffering=0) as file:
        digest.update(file.read(_QUICK))
        if size > _QUICK:
            file.seek(max(size - _QUICK, _QUICK))
            digest.update(file.read(_QUICK))
    return digest.hexdigest()


def digest_text(digest: Digest) -> str:
    """``sha256 1f2e3d4c…``, as a sentence has it."""
    for kind in ("sha256", "dirHash1", "quick"):
        if kind in digest:
            return f"{kind} {digest[kind][:8]}…"
    return "not read" if digest else "not there"
