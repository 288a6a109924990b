"""The standard library's logging, into the record of a stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ..runtime import runtime

if TYPE_CHECKING:
    from ..stages.recorder import Recorder

_traceback_of = logging.Formatter().formatException
_stack_of = logging.Formatter().formatStack


def message_of(record: logging.LogRecord) -> str:
    """The record's text with its traceback. Arguments that do not fit the format are shown, not raised."""
    try:
        text = record.getMessage()
    except Exception:
        try:
            text = f"{record.msg} {record.args!r}"
        except Exception:
            text = f"[a log message of {record.name} that cannot be printed]"
    if record.exc_info and not record.exc_text:
        try:
            record.exc_text = _traceback_of(record.exc_info)
        except Exception:
            record.exc_text = "[a traceback that cannot be printed]"
    if record.exc_text:
        text = f"{text}\n{record.exc_text}"
    if record.stack_info:
        text = f"{text}\n{_stack_of(record.stack_info)}"
    return text


class LocklessHandler(logging.Handler):
    """A handler without logging's own lock: what it calls has locks of its own.

    With both, a thread that logs would take logging's first and the stage's second, and one whose event makes the SDK
    log (a span with too many attributes) the other way round; and each would wait for the other for ever.
    """

    def createLock(self) -> None:
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """As logging's own, which since Python 3.13 takes the lock without asking whether there is one."""
        passed: Any = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)


class StageHandler(LocklessHandler):
    """The handler of a ``stage.<name>`` logger. ``console_level`` decides what is printed, and nothing else."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(logging.NOTSET)
        self.recorder = recorder
        self.console_level: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write(record.levelno, record.levelname, record.name, message_of(record), record.created)
        except Exception:
            runtime.internal_error("StageHandler.emit")

    def write(self, level: int, level_name: str, logger: str, text: str, created: float | None = None) -> None:
        try:
            self.recorder.lines.write(
                level, level_name, logger, text, created=created, console_level=self.console_level
            )
        except Exception:
            runtime.internal_error("StageHandler.write")


_LOGGING = vars(logging)


def _is_watched() -> bool:
    """Whether something stands in the place of logging's own function that gives a record to the handlers, as Sentry's
    and New Relic's do. A wrapper may pretend to be what it wraps, but for its type.
    """
    found = logging.Logger.callHandlers
    return type(found) is not FunctionType or found.__globals__ is not _LOGGING


class StageLogger(logging.Logger):
    """A stage's own logger, so that two jobs with the same stage in one process do not share one.

    The registry's logger of the same name, which modules get from ``logging.getLogger("stage.asr")``, follows the stage
    that asked last.
    """

    def __init__(self, name: str, handler: StageHandler) -> None:
        super().__init__(name, logging.DEBUG)
        self._handler = handler
        registered = logging.getLogger(name)
        for other in list(registered.handlers):
            registered.removeHandler(other)
            if not isinstance(other, StageHandler):  # a stage closes its own files
                other.close()
        for logger in (self, registered):
            logger.propagate = False
            logger.setLevel(logging.DEBUG)
            logger.addHandler(handler)

    def _log(
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: Any = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
    ) -> None:
        # Where nobody but us reads it, a record (who called, from which thread and file) is a third of a line's cost.
        named = args and len(args) == 1 and isinstance(args[0], Mapping)  # "%(done)d"
        if type(msg) is str and not (named or exc_info or extra or stack_info) and self._is_ours_alone(level):
            try:
                text = msg % args if args else msg
            except Exception:
                pass  # it is shown as it is: see message_of
            else:
                self._handler.write(level, logging.getLevelName(level), self.name, text)
                return
        super()._log(level, msg, args, exc_info, extra, stack_info, stacklevel + 1)

    def _is_ours_alone(self, level: int) -> bool:
        """Whether our handler is the only one, with no filter, and nobody else wants to see or make each record."""
        ours = self._handler
        return (
            self.handlers == [ours]
            and not (self.filters or ours.filters or self.propagate or self.disabled)
            and level >= ours.level
            and logging.getLogRecordFactory() is logging.LogRecord
            and not _is_watched()
        )

    def isEnabledFor(self, level: int) -> bool:
        # Not in the registry, so nothing would reset the base class's cache of levels.
        return level >= self.level and level > self.manager.disable and not self.disabled
