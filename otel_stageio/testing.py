"""Fixtures for programs that use this library: fixed clock and ids, and the records that a test made.

In ``conftest.py``::

    pytest_plugins = ["otel_stageio.testing"]

    def test_my_stage(records):
        my_stage(records.job)
        assert records.manifest("asr")["status"] == "success"
        assert [span["name"] for span in records.spans("asr")] == ["transcribe", "asr"]
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .events import Event
from .layout import Job, directory_name, spooled_attempts
from .otlp import decode
from .runtime import Clock, Ids, runtime


class FixedClock(Clock):
    """A clock that stands still until it is told otherwise; wall and monotonic time move apart as you like.

    Args:
        start_ns: wall time, nanoseconds since 1970. The default is 2025-11-27 10:11:12 UTC.
        tick_ns: how far each reading moves it on.
    """

    of_host = False

    def __init__(self, start_ns: int = 1_764_238_272_000_000_000, tick_ns: int = 0) -> None:
        self.wall: int = start_ns
        self.monotonic: int = 1_000_000_000
        self.tick_ns = tick_ns

    def wall_ns(self) -> int:
        self.wall += self.tick_ns
        return self.wall

    def monotonic_ns(self) -> int:
        self.monotonic += self.tick_ns
        return self.monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += int(seconds * 1e9)
        self.monotonic += int(seconds * 1e9)

    def step(self, seconds: float) -> None:
        """Set the wall clock, as NTP or daylight saving would: no time passes."""
        self.wall += int(seconds * 1e9)


class SequentialIds(Ids):
    """1, 2, 3, …, so that a test can compare whole traces."""

    def __init__(self) -> None:
        super().__init__()
        self._traces = itertools.count(1)
        self._spans = itertools.count(1)

    def trace_id(self) -> int:
        return next(self._traces)

    def span_id(self) -> int:
        return next(self._spans)


@contextmanager
def fixed(clock: Clock | None = None, ids: Ids | None = None) -> Iterator[None]:
    """Run with this clock and these ids.

    Example:
        >>> with fixed(FixedClock(), SequentialIds()):
        ...     run_my_stage()
    """
    before = runtime.clock, runtime.ids
    runtime.clock, runtime.ids = clock or before[0], ids or before[1]
    try:
        yield
    finally:
        runtime.clock, runtime.ids = before


class Records:
    """What a test's stages wrote, read back from the job directory."""

    def __init__(self, job: Path) -> None:
        self.job = job
        self._job = Job(job)

    def manifest(self, stage: str) -> dict[str, Any]:
        """The stage's ``manifest.json``."""
        path = self.job / directory_name(stage) / "manifest.json"
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def log(self, stage: str) -> str:
        """The stage's ``stage.log``."""
        return (self.job / directory_name(stage) / "stage.log").read_text(encoding="utf-8")

    def pipeline_log(self) -> str:
        """The newest pipeline log."""
        return max((self.job / "logs").glob("99_pipeline_*.log")).read_text(encoding="utf-8")

    def run(self) -> dict[str, Any]:
        """``run.json``."""
        return json.loads(Path(self._job.run_record).read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def events(self, stage: str, attempt: int | None = None) -> list[Event]:
        """The stage's events, of its newest attempt by default."""
        return list(decode.events(decode.Lines(self._job.journal(stage, attempt or self._newest(stage)))))

    def spans(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The spans of one stage, or of the whole job with its root spans, in the order of ending."""
        pattern = "*.spans.jsonl" if stage is None else f"{stage}.*.spans.jsonl"
        found = [span for path in Path(self._job.spool).glob(pattern) for span in decode.spans(decode.Lines(path))]
        return sorted(found, key=lambda span: span["endTimeUnixNano"])

    def _newest(self, stage: str) -> int:
        return max(spooled_attempts(self._job).get(stage, [1]))


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """A job directory, and what is recorded in it."""
    return Records(tmp_path / "job")


@pytest.fixture
def strict() -> Iterator[None]:
    """Internal errors of the library are raised, not swallowed and counted."""
    before, runtime.strict = runtime.strict, True
    yield
    runtime.strict = before
