"""Files that several processes write: appended to with one ``write`` a record, or replaced as a whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator

from ..layout import StrPath
from ..runtime import runtime
from .claim import claimed
from .claim import is_needed as claim_is_needed

#: No group or world write, no following of a planted symlink, and no waiting for who reads a planted pipe: job
#: directories may lie in shared places.
_APPEND = os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_to_write(path: StrPath, flags: int) -> int:
    """A descriptor of a file that is made if it is missing, with its directory.

    Raises:
        OSError: as the file system says.
    """
    try:
        return os.open(path, flags, 0o644)
    except FileNotFoundError as missing:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except FileExistsError:  # the directory is a link that leads nowhere: it is not the file that exists
            raise missing from None
        return os.open(path, flags, 0o644)


class AppendFile:
    """Appends whole records; a record is one ``write`` with ``O_APPEND``, which the kernel does not interleave.

    Args:
        lockable: open it for reading too: over NFS a shared lock is to be had only so.

    Attributes:
        failed: records that could not be written (full disk, read-only, vanished directory).
        size: bytes that this object has written.
    """

    def __init__(
        self, path: StrPath, *, exclusive: bool = False, durable: bool = False, lockable: bool = False
    ) -> None:
        self.path = path
        self._flags = _APPEND | (os.O_RDWR if lockable else os.O_WRONLY)
        self.failed = 0
        self.size = 0
        self._durable = durable
        self._fd = -1
        self._closed = False
        self._torn = False
        try:
            self._open(os.O_EXCL if exclusive else 0)
        except FileExistsError:
            raise
        except OSError:
            pass  # counted at each write, which tries again

    @property
    def fd(self) -> int:
        return self._fd

    def _open(self, flags: int = 0) -> None:
        self._fd = open_to_write(self.path, self._flags | flags)
        self._torn = _ends_torn(self.path, self._fd)

    def write(self, record: bytes) -> bool:
        """Append one record. True if it is on disk (in the page cache; with ``durable``, on the medium)."""
        try:
            if self._fd < 0:
                self._open()
            if self._torn:  # close the half line that somebody left, so that this record stands alone
                record = b"\n" + record
            written = os.write(self._fd, record)
            self.size += written
            if written != len(record):  # a full disk takes part of a record
                self._torn = True
                raise OSError(f"short write: {written} of {len(record)}")
            self._torn = False
            if self._durable:
                os.fsync(self._fd)
            return True
        except OSError:
            self.failed += 1
            return False
        finally:
            if self._closed and self._fd >= 0:  # a late record: written, but no descriptor is kept for it
                self._release()

    def close(self) -> None:
        self._closed = True
        self._release()

    def abandon(self) -> None:
        """In a forked child: let go of the shared descriptor; a later write opens a new one."""
        self._release()

    def _release(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1


def _ends_torn(path: StrPath, fd: int) -> bool:
    """Whether the file ends in half a line that nobody is about to complete."""
    try:
        if not os.fstat(fd).st_size:  # most are new
            return False
        with open(path, "rb") as file:
            for _ in range(100):
                size = os.fstat(fd).st_size
                if not size:
                    return False
                file.seek(size - 1)
                if file.read(1) in (b"\n", b""):
                    return False
                # A reader can see another process's write half done. An empty write waits for the file's own lock:
                # who was in the middle has finished after it, and the file has grown.
                os.write(fd, b"")
                if os.fstat(fd).st_size == size:
                    return True
    except OSError:
        pass
    return False


def replace(path: StrPath, content: bytes, temporary: StrPath, *, durable: bool = False) -> None:
    """Replace a file as a whole: a reader sees the old content or the new, never a part.

    Args:
        temporary: directory for the half-written file; on the same file system, and not where people look.

    Raises:
        OSError: as the file system says; the old content is then still there.
    """
    directory, name = os.path.split(path)
    draft = f"{temporary}/{os.path.basename(directory)}.{name}.{os.getpid()}.{runtime.ids.span_id():x}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = open_to_write(draft, flags)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.replace(draft, path)
        except FileNotFoundError:  # somebody has removed the directory
            os.makedirs(directory, exist_ok=True)
            os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


#: Descriptors of lock files that are open for a while. A fork waits until what is open is also in here.
_held: set[int] = set()
_opening = threading.Lock()
_hooked = False


@contextlib.contextmanager
def lock_file(path: StrPath) -> Iterator[int]:
    """A file to lock, open for the length of a block. Yields its descriptor.

    A child that another thread forks meanwhile has the descriptor too, and with it the lock for as long as it lives: it
    lets go at once, so that the lock is this process's alone.

    Raises:
        OSError: if the file cannot be opened.
    """
    fd = _hold(path)
    try:
        yield fd
    finally:
        _give_up(fd)


def _hold(path: StrPath) -> int:
    global _hooked
    if not _hooked:
        _hooked = True
        os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_let_go)
    with _opening:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        _held.add(fd)
    return fd


def _give_up(fd: int) -> None:
    with _opening:
        if fd in _held:  # not in a forked child
            _held.discard(fd)
            let_go(fd)


def _wait() -> None:
    _opening.acquire()


def _go_on() -> None:
    _opening.release()


def _let_go() -> None:
    global _opening
    _opening = threading.Lock()
    for fd in _held:
        with contextlib.suppress(OSError):
            os.close(fd)
    _held.clear()


class locked:
    """Be the only one, for the moment that it takes to read a file and replace it: among the processes of this host by
    a lock on ``path`` (created if need be), among hosts by a claim beside it where locks may be refused or not shared.

    Where neither is to be had the work goes on without: one writer is the common case.
    """

    def __init__(self, path: StrPath) -> None:
        self._path = path
        self._fd = -1
        self._claim: contextlib.AbstractContextManager[None] | None = None

    def __enter__(self) -> None:
        try:
            real = self._lock()
            if not real or claim_is_needed(self._fd):
                claim = claimed(f"{self._path}.claim", alone=real)
                claim.__enter__()
                self._claim = claim
        except BaseException:  # Ctrl-C while somebody else has it, say
            self.__exit__()
            raise

    def _lock(self) -> bool:
        """False where there is no lock to be had."""
        try:
            try:
                self._fd = _hold(self._path)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(self._path), exist_ok=True)
                self._fd = _hold(self._path)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            return True
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        try:
            if self._claim is not None:
                self._claim.__exit__(None, None, None)
        finally:
            if self._fd >= 0:
                _give_up(self._fd)


_PART = 64 * 1024


def read_file(path: StrPath) -> bytes:
    """The whole of a file. `open()` asks about a terminal and a position first, and takes four times as long.

    Raises:
        OSError: if it is not there, or not ours to read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size  # not everywhere what is in it, and that may grow
        parts = []
        while part := os.read(fd, max(size, _PART) + 1):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def open_to_read(path: StrPath) -> int:
    """A descriptor. No planted symlink is followed, and no planted pipe waited for.

    Raises:
        OSError: if there is no such file, or it is not ours to read.
    """
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def open_to_lock(path: StrPath) -> int:
    """As :func:`open_to_read`, and for writing too where that is ours: over NFS an exclusive lock is to be had only so.

    Raises:
        OSError: if there is no such file, or it is not ours to read.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return open_to_read(path)


def let_go(fd: int) -> None:
    """Close a descriptor that was open to ask something. It is closed even where the disk refuses (see close(2))."""
    with contextlib.suppress(OSError):
        os.close(fd)


def seize(fd: int) -> bool | None:
    """Try to lock a file as nobody can while somebody alive holds a lock on it. None: there are no locks to be had."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except (OSError, ValueError):  # ValueError: the file could not be opened
        return None


def is_free(path: StrPath) -> bool | None:
    """Whether nobody, of those whose locks are seen here, holds a lock on ``path``; None if that cannot be told."""
    try:
        fd = open_to_lock(path)
    except FileNotFoundError:
        return True
    except OSError:
        return None
    try:
        return seize(fd)
    finally:
        let_go(fd)


def is_locked(path: StrPath) -> bool:
    """Whether somebody alive holds a lock on ``path``, and that is seen here. A missing file is not locked."""
    return is_free(path) is False
