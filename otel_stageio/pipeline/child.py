"""A child process whose output is read line by line while it runs, without a thread."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..resources.cgroup import oom_kills
from ..resources.own import maxrss, peak_memory
from ..resources.tree import Used, elsewhere, used_by

#: How long a process group may take to end after SIGTERM before it gets SIGKILL.
GRACE_SECONDS = 10.0
#: After the program has ended, how long to go on reading from descendants that keep its output open.
LINGER_SECONDS = 0.5
_LONGEST_LINE = 256 * 1024
#: Seconds between two looks at a program that has closed its output, or is to end.
_LOOK_AGAIN = 0.01

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as a shell says it


class Child:
    """One program.

    Args:
        argv: program and arguments.
        on_line: called with ``("stdout" | "stderr", line)``, the line without its end. A line that a program draws over
            with carriage returns (a progress bar) counts as its last state.
        own_group: make it the head of a process group of its own, so that a timeout ends everything it started.
        stdin: as for :class:`subprocess.Popen`.
        on_data: called with the raw bytes as they come, for a wrapper that passes output through.
        on_beat: called at least ten times a second while the program runs.

    Raises:
        OSError: if the program cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        on_line: Callable[[str, str], None],
        *,
        env: dict[str, str],
        cwd: str | os.PathLike[str] | None = None,
        own_group: bool = True,
        stdin: int | None = subprocess.DEVNULL,
        on_data: Callable[[str, bytes], None] | None = None,
        on_beat: Callable[[], None] | None = None,
    ) -> None:
        self.timed_out = False
        self.oom_killed = False
        #: Once it has ended: what the kernel counted for it and all that it waited for.
        self.used = Used()
        #: And the most resident bytes of one of them; None where that is not known.
        self.memory_peak: int | None = None
        self._on_line = on_line
        self._on_data = on_data
        self._on_beat = on_beat
        self._own_group = own_group
        self._oom_kills = oom_kills()
        self._process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=own_group,
            bufsize=0,
        )
        self.pid = self._process.pid
        self._memory_before = peak_memory()
        elsewhere.running.add(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Read until the program has ended. Returns its exit code, negative for a signal, as ``subprocess`` does.

        An exception in this process (Ctrl-C, SIGTERM) ends the program's whole group and is raised again.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            self._read(deadline)
        except BaseException as error:
            self._end(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()
            raise
        # Not only if it was killed itself: a shell says 137, and a program may outlive its worker and fail for it.
        if self._process.returncode and self._oom_kills is not None:
            self.oom_killed = self._oom_kills.rose()
        return self._process.returncode

    def _read(self, deadline: float | None) -> None:
        with selectors.DefaultSelector() as selector:
            for name in ("stdout", "stderr"):
                pipe = getattr(self._process, name)
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, (name, bytearray()))
            exited_at: float | None = None
            while selector.get_map():
                self._pump(selector, 0.1 if exited_at is None else 0.05)
                if self._on_beat is not None:
                    self._on_beat()
                now = time.monotonic()
                if exited_at is None and self._poll() is not None:
                    exited_at = now
                if exited_at is not None and now - exited_at > LINGER_SECONDS:
                    break
                if deadline is not None and now > deadline and exited_at is None:
                    self.timed_out = True
                    self._end(signal.SIGTERM, selector)
                    exited_at = time.monotonic()
            for key in list(selector.get_map().values()):
                self._flush(key.data[0], key.data[1])
                key.fileobj.close()  # type: ignore[union-attr]
        while self._poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                self.timed_out = True
                self._end(signal.SIGTERM)
                return
            if self._on_beat is not None:
                self._on_beat()
            time.sleep(_LOOK_AGAIN)

    def _poll(self) -> int | None:
        """The exit code, once it has ended. Waited for here, since ``subprocess`` forgets what the program used."""
        if self._process.returncode is None and self._has_ended():
            with elsewhere.lock:
                used = used_by(self.pid)  # it has ended, and has not been waited for: all of it
                try:
                    pid, status, usage = os.wait4(self.pid, os.WNOHANG)
                except ChildProcessError:
                    self._process.poll()
                else:
                    if pid:
                        self._process.returncode = os.waitstatus_to_exitcode(status)
                        self._ended(used, usage)
        return self._process.returncode

    def _has_ended(self) -> bool:
        """Cheaply, since it is asked for each piece of output. Where it cannot be asked, waiting will say."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except (AttributeError, ChildProcessError):  # macOS before Python 3.13 has no waitid
            return True

    def _ended(self, used: Used | None, usage: Any) -> None:
        disk = (used.read, used.written) if used is not None else (None, None)
        self.used = Used(usage.ru_utime, usage.ru_stime, *disk)
        # A new program inherits the peak of the process that started it.
        if maxrss(usage) > self._memory_before:
            self.memory_peak = maxrss(usage)
        elsewhere.ended(self.pid, self.used)

    def _pump(self, selector: selectors.BaseSelector, seconds: float) -> None:
        for key, _ in selector.select(seconds):
            name, pending = key.data
            pipe: Any = key.fileobj
            try:
                data = os.read(pipe.fileno(), 65536)
            except BlockingIOError:
                continue
            if not data:
                selector.unregister(pipe)
                self._flush(name, pending)
                pipe.close()
                continue
            if self._on_data is not None:
                self._on_data(name, data)
            pending += data
            *lines, rest = bytes(pending).split(b"\n")
            pending[:] = rest
            for line in lines:
                self._line(name, line)
            if len(pending) > _LONGEST_LINE:
                if b"\r" in pending:
                    del pending[: pending.rindex(b"\r")]
                if len(pending) > _LONGEST_LINE:
                    self._flush(name, pending)

    def _flush(self, name: str, pending: bytearray) -> None:
        if pending:
            self._line(name, bytes(pending))
            pending.clear()

    def _line(self, name: str, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace").rstrip("\r")
        self._on_line(name, text.rpartition("\r")[2])

    def _end(self, first: signal.Signals, selector: selectors.BaseSelector | None = None) -> None:
        """Signal the group, give it time, then kill what is left of it."""
        self.send(first)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._poll() is None and time.monotonic() < deadline:
            if selector is not None and selector.get_map():
                self._pump(selector, 0.05)  # its last words
            else:
                time.sleep(_LOOK_AGAIN)
        self.send(signal.SIGKILL)
        while self._poll() is None:
            time.sleep(_LOOK_AGAIN)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program, and to its group if it has its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._own_group:
                os.killpg(self.pid, number)  # the group may outlive its head
            elif self._poll() is None:
                self._process.send_signal(number)


def signal_name(returncode: int) -> str:
    """``-9`` -> ``SIGKILL``."""
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
