"""The root logger's records, into the stage that is speaking, while a stage asks for them."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterable

from ..ambient import ambient
from ..runtime import runtime
from .log_handler import LocklessHandler, message_of

_lock = threading.Lock()
_active: RootCapture | None = None


class RootCapture:
    """One for the process, counted: it is put in with the first stage that captures and taken out with the last.

    ``logging.basicConfig()`` belongs before the first block: it does nothing while the root logger has a handler.
    """

    def __init__(self) -> None:
        root = logging.getLogger()
        self._users = 0
        self._level = root.level
        self._handler = _RootHandler()
        self._quiet = _AsBefore(root.level)
        self._quieted = list(root.handlers)
        root.addHandler(self._handler)
        if root.level > logging.INFO or root.level == logging.NOTSET:
            # Handlers that were there go on showing what they showed before the level was lowered for us.
            for handler in self._quieted:
                handler.addFilter(self._quiet)
            root.setLevel(logging.INFO)
        before = warnings.showwarning
        logging.captureWarnings(True)
        self._warnings = warnings.showwarning is not before

    @staticmethod
    def begin() -> RootCapture:
        global _active
        with _lock:
            if _active is None:
                _active = RootCapture()
            _active._users += 1
            return _active

    def end(self) -> None:
        global _active
        with _lock:
            self._users -= 1
            if self._users == 0 and _active is self:
                _active = None
                self._remove()

    def _remove(self) -> None:
        root = logging.getLogger()
        root.removeHandler(self._handler)
        for handler in self._quieted:
            handler.removeFilter(self._quiet)
        if root.level == logging.INFO and self._level != logging.INFO:
            root.setLevel(self._level)
        if self._warnings:
            logging.captureWarnings(False)


class _AsBefore(logging.Filter):
    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        logger: logging.Logger | None = logging.getLogger(record.name)
        root = logging.getLogger()
        while logger is not None and logger is not root:
            if logger.level:  # it decides for itself, as before
                return True
            logger = logger.parent
        return record.levelno >= self._level


class _RootHandler(LocklessHandler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            recorder = ambient()
            if recorder is not None:
                recorder.lines.write(
                    record.levelno,
                    record.levelname,
                    record.name,
                    message_of(record),
                    created=record.created,
                    pipeline=False,
                )
        except Exception:
            runtime.internal_error("RootCapture.emit")
        last_resort = logging.lastResort
        if last_resort is not None and record.levelno >= last_resort.level and not self._others(record):
            last_resort.handle(record)

    def _others(self, record: logging.LogRecord) -> bool:
        """Whether anybody else shows this record: if not, Python would have printed it to stderr."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if _shown_by(handler for handler in logger.handlers if handler is not self):
                return True
            logger = logger.parent if logger.propagate else None
        return False


def _shown_by(handlers: Iterable[logging.Handler]) -> bool:
    return any(not isinstance(handler, logging.NullHandler) for handler in handlers)
