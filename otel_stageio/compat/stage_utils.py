"""The original's ``shared.stage_utils``."""

from __future__ import annotations

import logging

from ..levels import console_level
from ..stages.stage_io import StageIO
from ..stages.stage_manifest import StageManifest
from .logger import RedactingFormatter, fresh_logger
from .stage_order import STAGE_NUMBERS, get_stage_dir, get_stage_number

__all__ = ["STAGE_NUMBERS", "StageIO", "StageManifest", "get_stage_dir", "get_stage_logger", "get_stage_number"]


def get_stage_logger(
    stage_name: str, log_level: str | int = "DEBUG", stage_io: StageIO | None = None
) -> logging.Logger:
    """The dual logger of ``stage_io``; without one, a logger named ``stage_name`` that prints and still propagates.

    Args:
        log_level: what is printed. The log files of ``stage_io`` get everything.
    """
    if stage_io is not None:
        return stage_io._get_logger(log_level, stage_name)
    level, unknown = console_level(log_level)
    logger = fresh_logger(stage_name)
    logger.setLevel(level)
    logger.addHandler(RedactingFormatter.console(level))
    if unknown:
        logger.warning("unknown log level %r; using INFO", log_level)
    return logger
