"""The process-wide seam: clock, ids, and the rule that telemetry never breaks its caller.

Everything that is random or depends on time goes through :data:`runtime`, so :mod:`otel_stageio.testing` can fix it
and a test can compare whole structures.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from .semconv import ENV_HOST_ID

P = ParamSpec("P")
R = TypeVar("R")


class Clock:
    """Wall time says *when*, monotonic time says *how long*: a clock step must not make a stage last -5 hours.

    Attributes:
        of_host: whether it is this host's, and worth comparing with that of the file system.
    """

    of_host = True

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class Ids:
    """Random trace and span ids, never zero (W3C Trace Context forbids it).

    A generator of its own: ``random.seed(0)`` in a training script must not make two stages' ids the same.
    """

    def __init__(self) -> None:
        self._random = random.Random(os.urandom(32))
        os.register_at_fork(after_in_child=self._random.seed)  # a child must not repeat its parent's ids

    def trace_id(self) -> int:
        return self._random.getrandbits(128) or 1

    def span_id(self) -> int:
        return self._random.getrandbits(64) or 1


class Runtime:
    def __init__(self) -> None:
        self.clock = Clock()
        self.ids = Ids()
        #: In our own tests an internal error is raised, not swallowed (DESIGN §4.1).
        self.strict = False
        #: Internal errors that were swallowed, by the function they happened in.
        self.internal_errors: dict[str, int] = {}
        self._said = False

    def internal_error(self, where: str) -> None:
        """Count the exception being handled; say so once on stderr; raise it again when strict."""
        self.internal_errors[where] = self.internal_errors.get(where, 0) + 1
        if self.strict:
            raise
        if not self._said:
            self._said = True
            error = sys.exc_info()[1]
            # stderr may be closed at interpreter exit, and nothing here may raise.
            try:
                sys.stderr.write(f"otel_stageio: internal error in {where}: {error!r} (the stage goes on; counted)\n")
            except Exception:
                pass


runtime = Runtime()


def never_raises(default: Callable[[], Any] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a boundary between stage code and telemetry: what goes wrong inside is counted, never raised.

    Caller's mistakes (``TypeError``, ``ValueError`` about arguments) are checked *outside* the guarded function.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except Exception:
                runtime.internal_error(function.__qualname__)
                return default() if default is not None else None  # type: ignore[return-value]

        return guarded

    return decorate


_boot_id: str | None = None


def boot_id() -> str:
    """The kernel's boot id where there is one: a lock or a pid means something within one boot of one kernel only."""
    global _boot_id
    if os.environ.get(ENV_HOST_ID):
        return ""  # whoever names the host says that what the kernel knows of itself is not to be relied on
    if _boot_id is None:
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                _boot_id = file.read().strip()
        except OSError:
            _boot_id = ""
    return _boot_id


def host_name() -> str:
    return os.environ.get(ENV_HOST_ID) or os.uname().nodename
