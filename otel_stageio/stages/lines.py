"""A log line's way to its files: formatted once, the same bytes to ``stage.log`` and the pipeline log."""

from __future__ import annotations

import functools
import logging
import os
import time
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace

from ..capture.text import one_record
from ..levels import level_number, severity_of
from ..otlp import encode
from ..runtime import runtime
from ..semconv import ENV_OTLP_LEVEL, LOGGER_NAME

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from .recorder import Recorder

_LONGEST_BODY = 100_000


@functools.lru_cache(1_000)
def _logger_attribute(logger: str) -> str:
    return encode.attributes({LOGGER_NAME: logger})


class LineWriter:
    """Writes the lines of one stage."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        level = level_number(os.environ.get(ENV_OTLP_LEVEL, "INFO"))
        self._otlp_level = logging.INFO if level is None else level
        #: The second that the last line was said in, and its text; one value, as threads share it.
        self._stamp = (-1, "")
        #: The context in which the last line was said, and its ids: the next is most likely said there too.
        self._said_in: tuple[Context | None, str] = (None, "")

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
        stamp = self._stamp
        if stamp[0] != second:
            self._stamp = stamp = (second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second)))
        text = recorder.capture.text(text)
        if not logger.isprintable():
            logger = recorder.capture.text(logger).replace("\n", " ")
        if not level_name.isprintable():
            level_name = recorder.capture.text(level_name).replace("\n", " ")
        line = f"[{stamp[1]}] [{logger}] [{level_name}] {one_record(text)}\n"
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
        context = otel_context.get_current()
        said_in, ids = self._said_in
        if context is not said_in:
            ids = self._ids_in(context)
            self._said_in = (context, ids)
        severity = severity_of(level)
        extra = _logger_attribute(logger)
        body = recorder.capture.paths.text(text)
        recorder.spool_line(encode.log_record(time_ns, severity, level_name, body, extra, ids), time_ns)

    def _ids_in(self, context: Context) -> str:
        """The ids of what is said in this context: those of a span inside the stage, else the stage's own."""
        recorder = self._recorder
        current = trace.get_current_span(context).get_span_context()
        if current.trace_id != recorder.trace_id or current.span_id == recorder.span_id:
            return recorder.ids
        return encode.record_ids(current.trace_id, current.span_id, int(current.trace_flags) & 1)
