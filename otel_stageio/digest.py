"""What a file's content is, in a few bytes; and never the same bytes read twice.

A digest is a map from the name of the algorithm to its value, as in in-toto's digest sets:

- ``{"sha256": "<64 hex>"}`` of a file, ``{"dirHash1": "<64 hex>"}`` of a directory: SHA-256 over the sorted listing of
  its files and theirs, as Go's ``dirhash`` and in-toto have it.
- ``{"quick": "<64 hex>"}``: of the length and the first and last 4 KiB. It finds another film, and no changed frame.
- ``{"stat": "<inode> <size> <mtime> <ctime>"}``: nothing was read. Says only that nobody has touched the file since.
- ``{"not_computed": "<why>"}`` beside ``stat``: it was to be read, and was not.

What was computed is kept in ``.stageio/digests`` by inode, size, mtime and ctime: a stage that reads a file asks there
what the stage that wrote it has computed. A rewrite of the same size with its mtime put back shows in the ctime.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import semconv as sc
from .layout import Job
from .sinks.files import AppendFile, replace

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
#: Entries that the cache keeps.
_MOST_CACHED = 200_000


class Identity(NamedTuple):
    """Of a file as it is now, without reading it."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def text(self) -> str:
        return f"{self.inode} {self.size} {self.mtime_ns} {self.ctime_ns}"

    def settled(self, now_ns: int) -> bool:
        """Whether a later write must show in the times."""
        latest = max(self.mtime_ns, self.ctime_ns)
        coarse = self.mtime_ns % 1_000_000_000 == 0
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
    """For what was not read: why, and what can be said without reading."""
    try:
        return {"not_computed": why, "stat": Identity.of(os.stat(path)).text}
    except (OSError, ValueError):
        return {"not_computed": why}


def file_sha256(path: str | os.PathLike[str], stop: Callable[[], bool] | None = None) -> str:
    """SHA-256 of a file's content, as 64 hex digits.

    Args:
        stop: asked now and then; True ends the work.

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
            while count := file.readinto(buffer):
                digest.update(view[:count])
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
        self._cache: dict[str, str] | None = None
        self._new: list[str] = []
        self.closed = False

    def known(self, identity: Identity, kind: str | None = None) -> Digest | None:
        """What has been computed of a file that looks like this."""
        kind = kind or self.tier
        if kind == "stat":
            return {"stat": identity.text}
        value = self._loaded().get(_key(kind, identity))
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
            return {}
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
        if before.size >= _WORTH_A_TICK and not before.settled(time.time_ns()):
            time.sleep(_TICK / 1e9)  # then it can be kept, and is not read again by the next stage
        looked_at = time.time_ns()
        value = _quick(path, before.size) if kind == "quick" else file_sha256(path, stop)
        after = Identity.of(os.stat(path))
        if after != before:
            return not_computed(path, "it was being written to while it was read")
        if after.settled(looked_at):
            key = _key(kind, after)
            self._loaded()[key] = value
            self._new.append(f"{key}\t{value}\n")
        return {kind: value}

    def _of_directory(self, top: str, kind: str, stop: Callable[[], bool] | None) -> Digest:
        """https://pkg.go.dev/golang.org/x/mod/sumdb/dirhash#Hash1, in hex; a link stands for where it points to."""
        if kind == "stat":
            return {"stat": Identity.of(os.stat(top)).text}
        listing: list[tuple[str, str]] = []
        places = [top]
        while places:
            with os.scandir(places.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        places.append(entry.path)
                        continue
                    name = os.path.relpath(entry.path, top).replace("\n", "\\n")
                    listing.append((name, self._of_entry(entry, kind, stop)))
                    if len(listing) > _MOST_ENTRIES:
                        return {"not_computed": f"it has more than {_MOST_ENTRIES:,} files"}
        text = "".join(f"{value}  {name}\n" for name, value in sorted(listing))
        whole = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return {"dirHash1" if kind == "sha256" else "quick": whole}

    def _of_entry(self, entry: os.DirEntry[str], kind: str, stop: Callable[[], bool] | None) -> str:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return hashlib.sha256(b"link " + os.fsencode(os.readlink(entry.path))).hexdigest()  # noqa: PTH115
        if not stat.S_ISREG(status.st_mode):
            return hashlib.sha256(b"no regular file").hexdigest()
        found = self._of_file(entry.path, Identity.of(status), kind, stop)
        if kind not in found:
            raise ValueError(found["not_computed"])
        return found[kind]

    def _loaded(self) -> dict[str, str]:
        if self._cache is None:
            self._cache = _load(self._job)
        return self._cache


def _key(kind: str, identity: Identity) -> str:
    return f"{kind} {identity.text}"


def _load(job: Job) -> dict[str, str]:
    """The cache on disk. What is torn is left out: it is computed again."""
    cache: dict[str, str] = {}
    try:
        text = job.digests.read_text("ascii", "replace")
    except OSError:
        return cache
    for line in text.splitlines():
        key, _, value = line.partition("\t")
        if len(value) == 64:
            cache[key] = value
    if len(cache) > _MOST_CACHED:
        cache = dict(list(cache.items())[-_MOST_CACHED // 2 :])
        content = "".join(f"{key}\t{value}\n" for key, value in cache.items())
        try:
            replace(job.digests, content.encode(), job.temporary)
        except OSError:
            pass
    return cache


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


def existing(path: str | os.PathLike[str]) -> Path | None:
    """The path, if there is a file."""
    try:
        found = Path(path)
        return found if found.is_file() else None
    except (OSError, TypeError, ValueError):
        return None
