"""The original's ``shared.logger``.

``setup_logger`` and ``PipelineLogger`` keep a log file of their own; a path that is announced is a path that is
written. The dual loggers are those of :class:`otel_stageio.StageIO`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from ..capture.log_handler import message_of
from ..capture.redaction import Redactor
from ..capture.text import clean, one_record
from ..layout import Job, directory_name, safe_name
from ..levels import console_level
from ..sinks.console import Console
from ..stages import lifecycle
from ..stages.stage_io import StageIO

#: A second number table, which the original has for log files only; unknown names are 99.
STAGE_ORDER: dict[str, int] = {
    "orchestrator": 0,
    "demux": 1,
    "tmdb": 2,
    "pre_ner": 3,
    "silero_vad": 4,
    "pyannote_vad": 5,
    "asr": 6,
    "song_bias_injection": 7,
    "lyrics_detection": 8,
    "bias_correction": 9,
    "bias_injection": 9,
    "diarization": 10,
    "glossary_builder": 11,
    "second_pass_translation": 12,
    "post_ner": 13,
    "subtitle_gen": 14,
    "mux": 15,
    "finalize": 16,
}
STAGE_ORDER.update({name.replace("_", "-"): number for name, number in STAGE_ORDER.items()})

_DEFAULT_DIRECTORY = "/app/logs"


def get_stage_log_filename(stage_name: str, timestamp: str | None = None) -> str:
    """``NN_<stage>_<YYYYMMDD_HHMMSS>.log``."""
    return f"{STAGE_ORDER.get(stage_name, 99):02d}_{stage_name}_{timestamp or time.strftime('%Y%m%d_%H%M%S')}.log"


class RedactingFormatter(logging.Formatter):
    """``[YYYY-MM-DD HH:MM:SS] [name] [LEVEL] text``, or the same as JSON; clean, and without credentials."""

    def __init__(self, kind: str = "text") -> None:
        super().__init__(datefmt="%Y-%m-%d %H:%M:%S")
        self._json = kind == "json"
        self._redactor = Redactor()

    def format(self, record: logging.LogRecord) -> str:
        text = self._redactor.text(clean(message_of(record)))
        stamp = self.formatTime(record, self.datefmt)
        if self._json:
            fields = {"asctime": stamp, "name": record.name, "levelname": record.levelname, "message": text}
            return json.dumps(fields)
        return one_record(f"[{stamp}] [{record.name}] [{record.levelname}] {text}")

    @classmethod
    def console(cls, level: int, kind: str = "text") -> logging.Handler:
        handler = _ConsoleHandler(level)
        handler.setFormatter(cls(kind))
        return handler

    @classmethod
    def file(cls, path: Path, level: int = logging.DEBUG, kind: str = "text") -> logging.Handler | None:
        """A handler for a file; None where it cannot be written, which is no reason to stop a stage."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(path, mode="a", encoding="utf-8", errors="backslashreplace")
        except OSError:
            return None
        handler.setLevel(level)
        handler.setFormatter(cls(kind))
        return handler


class _ConsoleHandler(logging.Handler):
    """Prints; whatever the console cannot show is escaped."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        # Unmarked: a parent process that reads this has it from nowhere else.
        self._console = Console(marked=False)

    def emit(self, record: logging.LogRecord) -> None:
        self._console.write(self.format(record) + "\n")


def fresh_logger(name: str) -> logging.Logger:
    """The logger of that name without the handlers it had, and those closed."""
    logger = logging.getLogger(name)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    return logger


def setup_logger(
    name: str,
    log_level: str | int = "INFO",
    log_format: str = "json",
    log_to_console: bool = True,
    log_to_file: bool = True,
    log_dir: str = _DEFAULT_DIRECTORY,
) -> logging.Logger:
    """A logger with a console handler and a file of its own in ``log_dir``, today's last if there is one."""
    prefix = f"{STAGE_ORDER.get(name, 99):02d}_{name}_{time.strftime('%Y%m%d')}_"
    directory = Path(log_dir)
    known = sorted(directory.glob(f"{prefix}*.log")) if directory.is_dir() else []
    path = known[-1] if known else directory / get_stage_log_filename(name)
    return _logger(name, log_level, log_format, log_to_console, path if log_to_file else None)


def _logger(name: str, log_level: str | int, log_format: str, console: bool, path: Path | None) -> logging.Logger:
    level, unknown = console_level(log_level)
    logger = fresh_logger(name)
    logger.setLevel(level)
    if console:
        logger.addHandler(RedactingFormatter.console(logging.NOTSET, log_format))
    handler = RedactingFormatter.file(path, kind=log_format) if path is not None else None
    if handler is not None:
        logger.addHandler(handler)
    elif path is not None and str(path.parent) != _DEFAULT_DIRECTORY:
        logger.warning("no log file: %s cannot be written", path)
    if unknown:
        logger.warning("unknown log level %r; using INFO", log_level)
    return logger


class PipelineLogger:
    """A logger as a class: ``logger`` is a plain :class:`logging.Logger`, the methods take what its methods take.

    Args:
        log_file: the file that is written. Without one, the original's default directory, if that can be written.
    """

    def __init__(
        self,
        module_name: str,
        log_file: str | os.PathLike[str] | None = None,
        log_level: str | int = "INFO",
        log_format: str = "text",
    ) -> None:
        self.module_name = module_name
        if log_file is None:
            there = Path(_DEFAULT_DIRECTORY).is_dir()  # in the original's container; elsewhere nobody looks for it
            self.logger = setup_logger(module_name, log_level, log_format, log_to_file=there)
        else:
            self.logger = _logger(module_name, log_level, log_format, True, Path(log_file))

    def debug(self, msg: object, *args: Any, **kwargs: Any) -> None:
        self.logger.debug(msg, *args, **kwargs)

    def info(self, msg: object, *args: Any, **kwargs: Any) -> None:
        self.logger.info(msg, *args, **kwargs)

    def warning(self, msg: object, *args: Any, **kwargs: Any) -> None:
        self.logger.warning(msg, *args, **kwargs)

    def error(self, msg: object, *args: Any, **kwargs: Any) -> None:
        self.logger.error(msg, *args, **kwargs)

    def critical(self, msg: object, *args: Any, **kwargs: Any) -> None:
        self.logger.critical(msg, *args, **kwargs)


def setup_dual_logger(
    stage_name: str,
    stage_log_file: str | os.PathLike[str],
    main_log_dir: str | os.PathLike[str],
    log_level: str | int = "INFO",
) -> logging.Logger:
    """The logger of a stage: everything to its log, INFO and above to the pipeline log.

    If the stage is open in this process it is its logger. Otherwise the stage is opened: a stage that only logs is
    recorded all the same. Paths that are not a stage's own are written as asked, without a record.
    """
    job = Job(Path(main_log_dir).parent)
    stage = safe_name(stage_name)
    asked = Path(os.path.abspath(stage_log_file))
    if str(asked) == f"{job.stage_dir(stage)}/stage.log" and Path(main_log_dir).name == "logs":
        return _stage_of(stage, job)._get_logger(log_level)
    logger = fresh_logger(f"stage.{stage_name}")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    known = sorted(Path(main_log_dir).glob("99_pipeline_*.log"))
    main = known[-1] if known else Path(main_log_dir) / f"99_pipeline_{time.strftime('%Y%m%d_%H%M%S')}.log"
    level, _ = console_level(log_level)
    for handler in (RedactingFormatter.file(asked), RedactingFormatter.file(main, logging.INFO)):
        if handler is not None:
            logger.addHandler(handler)
    logger.addHandler(RedactingFormatter.console(level))
    return logger


def get_stage_logger(
    stage_name: str, stage_dir: str | os.PathLike[str] | None = None, log_level: str | int = "INFO"
) -> logging.Logger:
    """:func:`setup_dual_logger` for a stage's directory; by default that of ``OUTPUT_DIR``."""
    if stage_dir is None:
        stage_dir = Path(os.environ.get("OUTPUT_DIR", "out")) / directory_name(safe_name(stage_name))
    directory = Path(stage_dir)
    return setup_dual_logger(stage_name, directory / "stage.log", directory.parent / "logs", log_level)


def _stage_of(stage: str, job: Job) -> StageIO:
    """The open stage, or one that is opened for its logger and that ``StageIO()`` takes over when it comes."""
    for io in lifecycle.open_stages:
        if io.stage_name == stage and io._job.key == job.key:
            return io
    io = StageIO(stage, job.base)
    lifecycle.logger_only[job.key, stage] = io
    return io
