"""The standard library's logging, into the record of a stage."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..runtime import runtime

if TYPE_CHECKING:
    from ..recorder import Recorder

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


class StageHandler(logging.Handler):
    """The handler of a ``stage.<name>`` logger. ``console_level`` decides what is printed, and nothing else."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(logging.NOTSET)
        self.recorder = recorder
        self.console_level: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.recorder.lines.write(
                record.levelno,
                record.levelname,
                record.name,
                message_of(record),
                created=record.created,
                console_level=self.console_level,
            )
        except Exception:
            runtime.internal_error("StageHandler.emit")
