"""A log line's way to its files: formatted once, the same bytes to ``stage.log`` and the pipeline log."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from opentelemetry import trace

from .capture.text import one_record
from .otlp import encode
from .runtime import runtime
from .semconv import ENV_OTLP_LEVEL, LOGGER_NAME

if TYPE_CHECKING:
    from .recorder import Recorder

#: logging level -> OTLP severity number, by the thresholds of the logs data model
_SEVERITIES = ((50, 21), (40, 17), (30, 13), (20, 9), (10, 5), (0, 1))
_LONGEST_BODY = 100_000


def severity_of(level: int) -> int:
    """``logging``'s 10, 20, 30, 40, 50 -> OTLP's 5, 9, 13, 17, 21; what lies between goes down."""
    for threshold, severity in _SEVERITIES:
        if level >= threshold:
            return severity
    return 1


def level_number(word: object, default: int = logging.INFO) -> int | None:
    """A level as people give it: ``"debug"``, ``10``, ``"10"``. None for a word that is not one."""
    if isinstance(word, bool):
        return None
    if isinstance(word, int):
        return word
    text = str(word).strip().upper()
    if text.isdigit():
        return int(text)
    number = logging.getLevelName(text) if text else default
    return number if isinstance(number, int) else None


class LineWriter:
    """Writes the lines of one stage."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        level = level_number(os.environ.get(ENV_OTLP_LEVEL, "INFO"))
        self._otlp_level = logging.INFO if level is None else level
        self._second = -1
        self._stamp = ""

    def write(
        self,
        level: int,
        level_name: str,
        logger: str,
        text: str,
        *,
        created: float | None = None,
        console_level: int | None = None,
        pipeline: bool = True,
        spool: bool = True,
    ) -> None:
        """Write one record; ``text`` may have several lines.

        Args:
            level: logging's number; DEBUG stays in ``stage.log``.
            created: wall time in seconds since 1970.
            console_level: print it too if it is of this level or above; None is never.
            pipeline: whether the pipeline log gets it.
            spool: whether it is a log record of its own on the wire.
        """
        recorder = self._recorder
        moment = runtime.clock.wall_ns() / 1e9 if created is None else created
        second = int(moment)
        if second != self._second:
            self._stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = second
        text = recorder.capture.text(text)
        if not logger.isprintable():
            logger = recorder.capture.text(logger).replace("\n", " ")
        line = f"[{self._stamp}] [{logger}] [{level_name}] {one_record(text)}\n"
        raw = encode.to_bytes(line)
        recorder.stage_log.write(raw)
        if pipeline and level >= logging.INFO:
            recorder.pipeline_log.write(raw)
        if console_level is not None and level >= console_level:
            recorder.console.write(line)
        if spool and level >= self._otlp_level and not recorder.ended:
            self._spool(level, level_name, logger, text, int(moment * 1e9))

    def _spool(self, level: int, level_name: str, logger: str, text: str, time_ns: int) -> None:
        recorder = self._recorder
        if len(text) > _LONGEST_BODY:
            text = f"{text[:_LONGEST_BODY]}… [cut: {len(text)} characters in all]"
        ids = recorder.ids
        current = trace.get_current_span().get_span_context()
        if current.trace_id == recorder.trace_id and current.span_id != recorder.span_id:
            ids = encode.record_ids(current.trace_id, current.span_id, int(current.trace_flags) & 1)
        record = encode.log_record(
            time_ns,
            severity_of(level),
            level_name,
            recorder.capture.paths.text(text),
            f'{{"key":"{LOGGER_NAME}","value":{{"stringValue":{encode.quote(logger)}}}}}',
            ids,
        )
        recorder.spool_line(record, time_ns)
