"""A stage's logger is one of logging's: who hangs something of theirs into it gets whole records."""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_stageio import StageIO


@pytest.fixture
def io(tmp_path: Path) -> Iterator[StageIO]:
    with StageIO("asr", tmp_path / "job") as io:
        yield io


def log_of(io: StageIO) -> list[str]:
    """What the stage's log says, without the time."""
    return [line.split("] ", 1)[1] for line in io.stage_log.read_text(encoding="utf-8").splitlines()]


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_a_handler_that_is_added_gets_records_that_know_their_caller(io: StageIO) -> None:
    log, kept = io.get_stage_logger(), Kept()
    log.addHandler(kept)
    log.info("chunk %d", 7, extra={"film": "example"})
    [record] = kept.records
    assert (record.getMessage(), record.funcName, record.filename) == (
        "chunk 7",
        "test_a_handler_that_is_added_gets_records_that_know_their_caller",
        Path(__file__).name,
    )
    assert record.film == "example"  # type: ignore[attr-defined]
    assert log_of(io) == ["[stage.asr] [INFO] chunk 7"]


def test_a_filter_of_the_logger_or_its_handler_decides(io: StageIO) -> None:
    log = io.get_stage_logger()
    log.addFilter(lambda record: "noise" not in record.getMessage())
    log.info("noise")
    log.handlers[0].addFilter(lambda record: "chatter" not in record.getMessage())
    log.info("chatter")
    log.info("kept")
    assert log_of(io) == ["[stage.asr] [INFO] kept"]


def test_a_program_that_makes_its_own_records_makes_ours(io: StageIO) -> None:
    usual = logging.getLogRecordFactory()

    def shouting(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = usual(*args, **kwargs)
        record.msg = str(record.msg).upper()
        return record

    logging.setLogRecordFactory(shouting)
    try:
        io.get_stage_logger().info("loud")
    finally:
        logging.setLogRecordFactory(usual)
    assert log_of(io) == ["[stage.asr] [INFO] LOUD"]


def test_who_watches_all_loggers_of_the_process_sees_a_stage_too(io: StageIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Sentry does."""
    seen = []
    usual = logging.Logger.callHandlers

    def watched(self: logging.Logger, record: logging.LogRecord) -> None:
        seen.append(record.getMessage())
        usual(self, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", watched)
    io.get_stage_logger().error("out of %s", "memory")
    assert seen == ["out of memory"]
    assert log_of(io) == ["[stage.asr] [ERROR] out of memory"]


def test_a_wrapper_that_pretends_to_be_what_it_wraps_is_seen_through(
    io: StageIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of wrapt do, which New Relic puts around the same function."""
    seen = []

    class Wrapper:
        def __init__(self, wrapped: Any) -> None:
            self._wrapped = wrapped

        def __getattr__(self, name: str) -> Any:
            return getattr(self._wrapped, name)

        def __get__(self, logger: logging.Logger, owner: type | None = None) -> Any:
            if logger is None:
                return self
            return lambda record: (seen.append(record.getMessage()), self._wrapped(logger, record))

    monkeypatch.setattr(logging.Logger, "callHandlers", Wrapper(logging.Logger.callHandlers))
    io.get_stage_logger().error("out of %s", "memory")
    assert seen == ["out of memory"]
    assert log_of(io) == ["[stage.asr] [ERROR] out of memory"]


def test_a_record_that_cannot_be_shown_does_not_reach_the_program(io: StageIO, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        def __bool__(self) -> bool:
            raise RuntimeError("a record of somebody who plays tricks")

    monkeypatch.setattr("otel_stageio.runtime.runtime.strict", False)
    handler = io.get_stage_logger().handlers[0]
    record = logging.makeLogRecord({"msg": "odd", "exc_text": Odd(), "levelno": 20, "levelname": "INFO"})
    handler.handle(record)
    io.get_stage_logger().info("the next")
    assert log_of(io) == ["[stage.asr] [INFO] the next"]


def test_a_level_of_ones_own_a_parent_and_a_switch_are_as_in_logging(io: StageIO) -> None:
    log, kept = io.get_stage_logger(), Kept()
    log._log(25, "a notice", None)  # type: ignore[arg-type]  # as recipes for further levels call it
    log.parent, log.propagate = logging.Logger("above"), True
    log.parent.addHandler(kept)
    log.info("told above as well")
    log.disabled = True
    log._log(logging.INFO, "not at all", ())
    assert [record.getMessage() for record in kept.records] == ["told above as well"]
    assert log_of(io) == ["[stage.asr] [Level 25] a notice", "[stage.asr] [INFO] told above as well"]


def test_logging_as_a_whole_can_be_silenced(io: StageIO) -> None:
    logging.disable(logging.WARNING)
    try:
        io.get_stage_logger().warning("not now")
        io.get_stage_logger().error("this")
    finally:
        logging.disable(logging.NOTSET)
    assert log_of(io) == ["[stage.asr] [ERROR] this"]


class Translated(str):
    """As gettext's lazy strings are: what is shown is another text."""

    def __str__(self) -> str:
        return "translated %s"


class Word(str, enum.Enum):
    HELLO = "hello %s"


@given(
    message=st.sampled_from(
        [
            "plain",
            "100 %",
            "%s",
            "%d of %d",
            "%(done)d of %(total)d",
            "%s and %s",
            "%q",
            b"bytes",
            7,
            Translated("%d"),
            Word.HELLO,
        ]
    ),
    args=st.lists(st.one_of(st.integers(), st.text(max_size=5), st.just({"done": 1, "total": 2}), st.just({}))),
)
def test_a_line_says_what_logging_itself_would_say(
    message: Any, args: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    io = StageIO("asr", tmp_path_factory.mktemp("job"))
    log, kept = io.get_stage_logger(), Kept()
    log.info(message, *args)
    alone = log_of(io)
    log.addHandler(kept)  # from now on it is logging that makes the text
    log.info(message, *args)
    assert log_of(io) == alone * 2
    io.finalize()
