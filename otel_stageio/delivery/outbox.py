"""One job's outbox: its spool, and how far each journal has been accepted.

``.stageio/spool/.ack`` has the offsets; it is replaced as a whole after each accepted request, so a deliverer that is
killed between sending and noting repeats one request at most. A directory that somebody has removed stays removed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..events import iso
from ..layout import Job
from ..otlp import decode
from ..runtime import runtime
from ..sinks.files import lock_file
from .outcome import Outcome
from .settings import SIGNALS, Endpoint

#: As much of a journal as goes into one request: receivers take 4 MiB over gRPC, 20 MiB over HTTP, and protobuf is
#: smaller than the JSON it comes from.
BATCH_BYTES = 1024 * 1024
#: A line is under 1 MiB (see otel_stageio.fit); what is far longer was not written by us.
_LONGEST_LINE = 8 * 1024 * 1024


@dataclass(frozen=True)
class Journal:
    """One file of the spool. ``signal`` is ``spans``, ``logs`` or ``metrics``; ``name`` that of the file."""

    path: Path
    signal: str
    size: int
    modified: float

    @property
    def name(self) -> str:
        return self.path.name


@dataclass
class Batch:
    """Pending lines of a journal, from one offset up to ``end``.

    Attributes:
        damaged: what of them is no OTLP/JSON.
    """

    contents: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[bytes] = field(default_factory=list)
    end: int = 0


class Outbox:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.state: dict[str, Any] = {}
        self._unsaved = False
        self._identity: tuple[int, int] | None = None

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Be the only deliverer of this job. Yields False if another one is at it, or the job is gone."""
        with ExitStack() as stack:
            fd = -1
            mine = True
            try:
                fd = stack.enter_context(lock_file(self.job.delivery_lock))
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                # Where no lock is to be had (a read-only or full disk, some network file systems) go on without.
                mine = error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.ENOENT) or (
                    error.errno == errno.EACCES and fd < 0
                )
            if mine:
                self.load()
            yield mine

    def load(self) -> None:
        """Read how far everything has been accepted."""
        if self._unsaved:  # the disk refused the last note: what this process remembers is newer
            return
        try:
            content = json.loads(self.job.ack.read_bytes())
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
                        found.append(Journal(Path(entry.path), signal, about.st_size, about.st_mtime))
        except OSError:
            pass
        return sorted(found, key=lambda journal: (journal.modified, journal.name))

    def offset(self, journal: Journal) -> int:
        offset = self._part("offsets").get(journal.name, 0)
        return offset if isinstance(offset, int) and 0 <= offset <= journal.size else 0

    def pending(self) -> list[Journal]:
        """The journals that have more than was accepted."""
        return [journal for journal in self.journals() if journal.size > self.offset(journal)]

    def read(self, journal: Journal, offset: int) -> Batch | None:
        """The next complete lines, about 1 MiB of them; None if there are none. One being written is not complete."""
        try:
            fd = os.open(journal.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
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
        batch = Batch(end=offset + end)
        for line in data[:end].splitlines():
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

    def accept(self, journal: Journal, end: int, records: int) -> None:
        """Note that everything up to ``end`` has been dealt with, and ``records`` of it accepted."""
        self._part("offsets")[journal.name] = end
        accepted = self._part("accepted")
        accepted[journal.signal] = accepted.get(journal.signal, 0) + records
        self._part("trouble").pop(journal.signal, None)
        self.save()

    def refuse(self, journal: Journal, records: int, reason: str, content: dict[str, Any] | bytes | None) -> None:
        """Set aside what no receiver will take, with the reason. The journal keeps it as well."""
        refused = self._part("refused")
        refused[journal.signal] = refused.get(journal.signal, 0) + records
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
                os.write(fd, line)
            finally:
                os.close(fd)

    def trouble(self, signal: str, endpoint: Endpoint, outcome: Outcome) -> bool:
        """Note why nothing is accepted. True if that is news."""
        troubles = self._part("trouble")
        known = troubles.get(signal, {})
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

    def _part(self, name: str) -> dict[str, Any]:
        part = self.state.get(name)
        if not isinstance(part, dict):
            part = self.state[name] = {}
        return part

    def save(self) -> None:
        draft = self.job.spool / f".ack.{os.getpid()}"
        self._unsaved = True
        with suppress(OSError):
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, json.dumps(self.state).encode())
            finally:
                os.close(fd)
            os.replace(draft, self.job.ack)
            self._unsaved = False
