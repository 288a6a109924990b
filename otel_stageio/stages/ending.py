"""How a stage ended, told from the exception that left it."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from .. import semconv as sc
from .lifecycle import Terminated
from .voice import text_of, type_name


class Ending(NamedTuple):
    """``record``: whether the exception is an error to record, or merely the way in which the stage was stopped."""

    status: str
    error_type: str
    message: str
    record: bool
    attributes: dict[str, Any]


def ending_of(error: BaseException) -> Ending:
    """Ctrl-C, SIGTERM and a cancelled task are ``cancelled``; anything else is ``failed``."""
    name = type_name(error)
    if isinstance(error, Terminated):
        return Ending("cancelled", "SIGTERM", "terminated by SIGTERM", False, {sc.SIGNAL: "SIGTERM"})
    if isinstance(error, KeyboardInterrupt):
        return Ending("cancelled", name, "interrupted (Ctrl-C)", False, {sc.SIGNAL: "SIGINT"})
    if isinstance(error, (GeneratorExit, *_cancellations())):
        return Ending("cancelled", name, "cancelled", False, {})
    if isinstance(error, SystemExit):
        code = int(error.code) if isinstance(error.code, int) else 1
        message = error.code if isinstance(error.code, str) else f"exit code {code}"
        return Ending("failed", name, message, isinstance(error.code, str), {sc.PROCESS_EXIT_CODE: code})
    return Ending("failed", name, f"{name}: {text_of(error)}", True, {})


def is_success(error: BaseException) -> bool:
    """``sys.exit()`` and ``sys.exit(0)``."""
    return isinstance(error, SystemExit) and (error.code is None or (isinstance(error.code, int) and not error.code))


def _cancellations() -> tuple[type[BaseException], ...]:
    """CancelledError of what is loaded: asyncio takes 30 ms to import, and who has not loaded it cannot raise it."""
    found = []
    for module in ("asyncio", "concurrent.futures"):
        kind = getattr(sys.modules.get(module), "CancelledError", None)
        if kind is not None:
            found.append(kind)
    return tuple(found)
