"""Every attempt at a stage, each with the run that it belongs to."""

from __future__ import annotations

from typing import NamedTuple

from ..record.manifest import Record
from .text import seconds_between
from .view import JobView, StageView


class Attempt(NamedTuple):
    """Attributes:
    run: its number; None where nothing is recorded of runs.
    state: a status word, derived where the record is behind.
    """

    stage: str
    number: int
    run: int | None
    state: str
    seconds: float | None
    record: Record


def attempts_of(view: JobView, stage: StageView) -> list[Attempt]:
    """Oldest first; the last is the stage as it stands."""
    runs = {run.run_id: run.number for run in (view.run, *view.earlier) if run is not None}
    former = [
        Attempt(
            stage.name,
            record.attempt,
            runs.get(record.trace.run_id or ""),
            record.status,
            record.duration_seconds
            if record.duration_seconds is not None
            else seconds_between(record.timestamp, record.completed_at),
            record,
        )
        for record in stage.record.attempts
    ]
    return [*former, Attempt(stage.name, stage.attempt, stage.run, stage.state, stage.seconds, stage.record)]
