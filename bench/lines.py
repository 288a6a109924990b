"""A log line, against the standard library's own handlers on the same sinks, with the same format, against the SDK's
logging handler, which only queues it, and against what the kernel takes for the bytes alone.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path

from otel_stageio import StageIO

from .measure import Result, Scale, each, take_turns
from .scratch import new_job
from .sdk import sdk_logging

TEXT = "decoded chunk %d of 500 in %.2f s"
FORMAT = logging.Formatter("[%(asctime)s] [%(name)s] [%(levelname)s] %(message)s", "%Y-%m-%d %H:%M:%S")


@contextmanager
def _stdlib(name: str, *handlers: logging.Handler) -> Iterator[logging.Logger]:
    logger = logging.getLogger(f"bench.{name}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in handlers:
        handler.setFormatter(FORMAT)
        logger.addHandler(handler)
    try:
        yield logger
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _of_level(handler: logging.Handler, level: int) -> logging.Handler:
    handler.setLevel(level)
    return handler


def _repeat(log: Callable[..., None], calls: int) -> Callable[[], float]:
    return lambda: each(lambda number: log(TEXT, number, 0.25), calls)


def _bare(job: Path, calls: int) -> Callable[[], float]:
    """The same bytes into the two logs, one `write` each, and nothing else."""
    record = f"[2025-11-27 10:11:12] [stage.asr] [INFO] {TEXT % (250, 0.25)}\n".encode()
    logs = [os.open(job / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for name in ("bare-1.log", "bare-2.log")]
    return lambda: each(lambda _: [os.write(fd, record) for fd in logs], calls)


def lines(where: Path, scale: Scale) -> Iterator[Result]:
    with ExitStack() as stack:
        null = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(null))
        job = new_job(where)
        three = stack.enter_context(
            _stdlib(
                "three",
                logging.FileHandler(job / "stdlib-stage.log", encoding="utf-8"),
                _of_level(logging.FileHandler(job / "stdlib-pipeline.log", encoding="utf-8"), logging.INFO),
                _of_level(logging.StreamHandler(sys.stdout), logging.INFO),
            )
        )
        one = stack.enter_context(_stdlib("one", logging.FileHandler(job / "stdlib-one.log", encoding="utf-8")))
        sdk = stack.enter_context(_stdlib("sdk", stack.enter_context(sdk_logging())))
        io = stack.enter_context(StageIO("asr", job))
        log = io.get_stage_logger()

        def inside_span() -> float:
            with io.span("transcribe"):
                return each(lambda number: log.info(TEXT, number, 0.25), scale.calls)

        seconds = take_turns(
            {
                "info": _repeat(log.info, scale.calls),
                "info_in_span": inside_span,
                "three": _repeat(three.info, scale.calls),
                "debug": _repeat(log.debug, scale.calls),
                "one": _repeat(one.debug, scale.calls),
                "sdk": _repeat(sdk.info, scale.calls),
                "bare": _bare(job, scale.calls),
            },
            scale.repetitions,
        )
    handlers = "three stdlib handlers, no spool"
    info = "log.info: two logs, console, spool"
    yield Result("info", info, handlers, seconds["info"], seconds["three"], 0.65)
    yield Result("info-in-span", "the same inside io.span", handlers, seconds["info_in_span"], seconds["three"], 0.65)
    yield Result("info-sdk", info, "the SDK's handler: a queue", seconds["info"], seconds["sdk"], 0.35)
    yield Result("info-bare", info, "two bare os.write()", seconds["info"], seconds["bare"])
    yield Result("debug", "log.debug: stage.log", "one stdlib FileHandler", seconds["debug"], seconds["one"])
