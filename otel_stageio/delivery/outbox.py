"""One job's outbox: its spool, and how far each journal has been accepted.

``.stageio/spool/.ack`` has the offsets; it is replaced as a whole after each accepted request, so a deliverer that is
killed between sending and noting repeats one request at most. An offset counts for the content it was noted for: a job
that is deleted and made again begins anew, one that is copied or moved does not. A directory that somebody has removed
stays removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..events import iso
from ..layout import Job
from ..otlp import decode
from ..runtime import runtime
from ..sinks.files import lock_file, open_to_read, read_file, replace
from .outcome import Outcome
from .settings import SIGNALS, Endpoint

#: As much of a journal as goes into one request: receivers take 4 MiB over gRPC, 20 MiB over HTTP, and protobuf is
#: smaller than the JSON it comes from.
BATCH_BYTES = 1024 * 1024
#: A line is under 1 MiB (see otel_stageio.stages.fit); what is far longer was not written by us.
_LONGEST_LINE = 8 * 1024 * 1024
#: As much of a first line as tells one journal from another: what describes the process, and the first record's time.
_BEGINNING = 16 * 1024


@dataclass(frozen=True)
class Journal:
    """One file of the spool. ``signal`` is ``spans``, ``logs`` or ``metrics``; ``name`` that of the file.

    ``beginning`` is a digest of its first line: of the content, so that a copy is the same journal.
    """

    path: Path
    signal: str
    size: int
    modified: float
    beginning: str

    @property
    def name(self) -> str:
        return self.path.name


@dataclass
class Batch:
    """Pending lines of a journal, from one offset up to ``end``.

    Attributes:
        damaged: what of them is no OTLP/JSON.
        lines: how many they are.
    """

    contents: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[bytes] = field(default_factory=list)
    end: int = 0
    lines: int = 1


class Outbox:
    """Attributes:
    unnoted: why the last note could not be written, in words; what is in it is then known to this object alone.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.state: dict[str, Any] = {}
        self.unnoted = ""
        self._beginnings: dict[str, tuple[tuple[int, int, int], str]] = {}

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Be the only deliverer of this job. Yields False if another one is at it, or the job is gone."""
        with ExitStack() as stack:
            mine = True
            try:
                fcntl.flock(self._open_lock(stack), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                # Where no lock is to be had (a read-only or full disk, some network file systems) go on without.
                mine = not isinstance(error, BlockingIOError) and os.path.isdir(self.job.spool)
            if mine:
                self.load()
            yield mine

    def _open_lock(self, stack: ExitStack) -> int:
        try:
            return stack.enter_context(lock_file(self.job.delivery_lock))
        except OSError:  # not ours to write: who may read it can still see, and keep, the lock that others respect
            fd = open_to_read(self.job.delivery_lock)
            stack.callback(os.close, fd)
            return fd

    def load(self) -> None:
        """Read how far everything has been accepted."""
        if self.unnoted:  # the disk refused the last note: what this process remembers is newer
            return
        try:
            content = json.loads(read_file(self.job.ack))
        except (OSError, ValueError, RecursionError):
            content = None
        self.state = content if isinstance(content, dict) else {}

    def journals(self) -> list[Journal]:
        """Every journal, the oldest first."""
        found = []
        try:
            with os.scandir(self.job.spool) as entries:
                for entry in entries:
                    signal = entry.name[:-6].rpartition(".")[2] if entry.name.endswith(".jsonl") else ""
                    if signal in SIGNALS and entry.is_file(follow_symlinks=False):
                        about = entry.stat(follow_symlinks=False)
                        beginning = self._beginning(entry.path, about)
                        found.append(Journal(Path(entry.path), signal, about.st_size, about.st_mtime, beginning))
        except OSError:
            pass
        return sorted(found, key=lambda journal: (journal.modified, journal.name))

    def _beginning(self, path: str, about: os.stat_result) -> str:
        """Read again only when the file is another, or has grown."""
        mark = about.st_ino, about.st_size, about.st_mtime_ns
        known = self._beginnings.get(path)
        if known is None or known[0] != mark:
            known = self._beginnings[path] = mark, _digest(Path(path))
        return known[1]

    def offset(self, journal: Journal) -> int:
        """How far it was accepted. A note without a beginning is one of a former version, and counts."""
        offset = self._part("offsets").get(journal.name, 0)
        if self._part("beginnings").get(journal.name, journal.beginning) != journal.beginning:
            return 0
        return offset if type(offset) is int and 0 <= offset <= journal.size else 0

    def still_there(self, journal: Journal) -> bool:
        """Whether the path has that journal still. If not, nothing that was known of the job counts any more."""
        if _digest(journal.path) == journal.beginning:
            return True
        self.unnoted = ""
        self.load()
        return False

    def pending(self) -> list[Journal]:
        """The journals that have more than was accepted."""
        return [journal for journal in self.journals() if journal.size > self.offset(journal)]

    def read(self, journal: Journal, offset: int, most: int | None = None) -> Batch | None:
        """The next complete lines, about 1 MiB of them; None if there are none. One being written is not complete.

        Args:
            most: so many lines at most.
        """
        try:
            file = _open(journal.path)
        except OSError:
            return None
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or _digest_of(file) != journal.beginning:
                return None  # another file by now; the next round knows it
            file.seek(offset)
            data = file.read(BATCH_BYTES)
            end = data.rfind(b"\n") + 1
            if not end:
                data += file.readline(_LONGEST_LINE)
                if not data.endswith(b"\n"):
                    if len(data) < _LONGEST_LINE:
                        return None
                    return self._skip(file, data, offset)
                end = len(data)
        lines = data[:end].split(b"\n")[:-1][:most]
        batch = Batch(end=offset + sum(map(len, lines)) + len(lines), lines=len(lines))
        for line in lines:
            if line.strip():
                content, whole = decode.parse(line)
                if content is not None:
                    batch.contents.append(content)
                if not whole:
                    batch.damaged.append(line)
        return batch

    def _skip(self, file: Any, data: bytes, offset: int) -> Batch | None:
        """Past a line that is too long to be one."""
        end = offset + len(data)
        while part := file.readline(BATCH_BYTES):
            end += len(part)
            if part.endswith(b"\n"):
                return Batch(damaged=[data], end=end)
        return None

    # -- what was done with it ---------------------------------------------------------------------------------------

    def accept(self, journal: Journal, end: int, records: int, said: str = "") -> None:
        """Note that everything up to ``end`` has been dealt with, and ``records`` of it accepted.

        Args:
            said: what the receiver remarked about records that it took all the same.
        """
        self._part("offsets")[journal.name] = end
        self._part("beginnings")[journal.name] = journal.beginning
        self._count("accepted", journal.signal, records)
        self._part("trouble").pop(journal.signal, None)
        if said:
            self._part("remarks")[journal.signal] = said
        self.save()

    def refuse(self, journal: Journal, records: int, reason: str, content: dict[str, Any] | bytes | None) -> None:
        """Set aside what no receiver will take, with the reason. The journal keeps it as well."""
        self._count("refused", journal.signal, records)
        entry: dict[str, Any] = {
            "refused_at": iso(runtime.clock.wall_ns()),
            "reason": reason,
            "journal": journal.name,
            "records": records,
        }
        if isinstance(content, bytes):
            entry["line"] = content[: 64 * 1024].decode("utf-8", "replace")
        elif content is not None:
            entry["request"] = content
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self.job.refused, flags, 0o644)
            try:
                before = os.fstat(fd).st_size
                if os.write(fd, line) != len(line):  # a full disk takes part of it; nobody else writes here meanwhile
                    os.ftruncate(fd, before)
            finally:
                os.close(fd)

    def trouble(self, signal: str, endpoint: Endpoint, outcome: Outcome) -> bool:
        """Note why nothing is accepted. True if that is news."""
        troubles = self._part("trouble")
        known = troubles.get(signal)
        known = known if isinstance(known, dict) else {}
        what: dict[str, Any] = {"kind": outcome.kind.value, "place": endpoint.place, "reason": outcome.reason}
        if {**what, "since": known.get("since")} == known:
            return False
        news: bool = known.get("kind") != what["kind"] or known.get("place") != what["place"]
        since = iso(runtime.clock.wall_ns()) if news else known.get("since")
        troubles[signal] = {**what, "since": since}
        self.save()
        return news

    def rewind(self, journals: list[Journal]) -> None:
        """Everything of these is pending again."""
        for journal in journals:
            self._part("offsets").pop(journal.name, None)
        self.save()

    def forget(self, names: list[str]) -> None:
        """These journals are gone, and will not come back."""
        parts = [part for part in (self.state.get("offsets"), self.state.get("beginnings")) if isinstance(part, dict)]
        known = [(part, name) for part in parts for name in names if name in part]
        for part, name in known:
            del part[name]
        if known:
            self.save()

    def _part(self, name: str) -> dict[str, Any]:
        part = self.state.get(name)
        if not isinstance(part, dict):
            part = self.state[name] = {}
        return part

    def _count(self, name: str, signal: str, records: int) -> None:
        part = self._part(name)
        known = part.get(signal)
        part[signal] = (known if type(known) is int else 0) + records

    def save(self) -> None:
        if not os.path.isdir(self.job.spool):  # deleted: there is nothing to note, and nothing to bring back
            return
        try:
            replace(self.job.ack, json.dumps(self.state).encode(), self.job.temporary)
        except OSError as error:
            self.unnoted = error.strerror or type(error).__name__
        else:
            self.unnoted = ""


def _open(path: Path) -> BinaryIO:
    return open(open_to_read(path), "rb")


def _digest(path: Path) -> str:
    """Of a journal's first line; empty if there is none."""
    try:
        with _open(path) as file:
            return _digest_of(file)
    except OSError:
        return ""


def _digest_of(file: BinaryIO) -> str:
    line = file.readline(_BEGINNING)
    return hashlib.sha256(line).hexdigest()[:16] if line else ""
