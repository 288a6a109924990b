"""A job as the readers show it: plain data, the same for the terminal and for ``--json``."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..record.manifest import Manifest, Progress, Record
from ..semconv import GOOD_STATUSES
from .now import UsedNow
from .sent import DeliveryView
from .steps import Step
from .text import strict

#: Beyond the status words: nothing on disk says how it stands, or the run has not come to it.
UNKNOWN = "unknown"

#: A sign for each state, for those who do not see its colour.
GLYPHS = {
    "success": "✓", "failed": "✗", "crashed": "✗", "timeout": "✗", "lost": "✗", "running": "●", "skipped": "–",
    "cancelled": "■", "incomplete": "■", "pending": "·",
}  # fmt: skip


@dataclasses.dataclass
class StageView:
    """One stage of a job, as its newest attempt left it.

    Attributes:
        state: a status word, derived where the record is behind: ``crashed`` for one whose process is gone.
        run: number of the run that the attempt belongs to; None where there are no runs.
        seconds: how long it took, or has been running.
        message: why it is so, where it is not simply a success: error, cause or reason for skipping.
        host: where it is or was, by its own word.
        clock_ahead: by how many seconds the clock there is ahead of the file system's; noted from a second on.
        last_line: of the log, for a stage that is running or died.
        now: what it uses at the moment, for a stage that is running.
        problems: what is wrong with its files.
        silent_seconds: since it was heard of, for one that runs on another host, if that is too long.
        died: the record says ``running``, the process is gone, and nobody has closed it.
    """

    name: str
    number: int
    directory: str
    state: str
    attempt: int = 1
    run: int | None = None
    started_at: str | None = None
    ended_at: str | None = None
    seconds: float | None = None
    message: str = ""
    host: str = ""
    clock_ahead: float | None = None
    progress: Progress | None = None
    last_line: str = ""
    now: UsedNow | None = None
    inputs: int = 0
    outputs: int = 0
    warnings: int = 0
    errors: int = 0
    span_count: int = 0
    steps: list[Step] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    silent_seconds: float | None = None
    died: bool = False
    record: Manifest = dataclasses.field(default_factory=lambda: Manifest.model_validate({}))

    def document(self, *, record: bool) -> dict[str, Any]:
        content = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("record", "steps", "died", "progress", "now")
        }
        content["progress"] = self.progress.model_dump() if self.progress else None
        content["now"] = dataclasses.asdict(self.now) if self.now else None
        content["steps"] = [dataclasses.asdict(step) for step in self.steps]
        if record:
            content["record"] = self.record.model_dump(mode="python", exclude_unset=True)
        return strict(content)  # type: ignore[no-any-return]


@dataclasses.dataclass
class RunView:
    """One run of a job.

    Attributes:
        state: a status word; of a run without an owner, what its stages say by now.
        closed: whether its root span has been written.
        detached: a scheduler's script began it, and ends it.
    """

    number: int
    pipeline: str
    state: str
    run_id: str
    trace_id: str
    closed: bool
    implicit: bool
    started_at: str | None = None
    ended_at: str | None = None
    seconds: float | None = None
    pipeline_log: str = ""
    host: str = ""
    pid: int = 0
    detached: bool = False


@dataclasses.dataclass
class JobView:
    """A job directory.

    Attributes:
        path: as it was given.
        origin: ``otel_stageio``, or ``original`` for one that the original wrote.
        pending: stages that were announced and have not begun.
        problems: what is wrong with its files, beyond the stages' own.
        delivery: how far it was sent; None if it never was.
        clocks: a sentence, where the clocks of its hosts differ.
    """

    path: str
    name: str
    origin: str
    state: str
    run: RunView | None = None
    earlier: list[RunView] = dataclasses.field(default_factory=list)
    stages: list[StageView] = dataclasses.field(default_factory=list)
    pending: list[str] = dataclasses.field(default_factory=list)
    logs: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    delivery: DeliveryView | None = None
    clocks: str = ""

    def document(self, *, records: bool) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "job": self.path,
            "name": self.name,
            "origin": self.origin,
            "state": self.state,
            "run": dataclasses.asdict(self.run) if self.run else None,
            "earlier": [dataclasses.asdict(run) for run in self.earlier],
            "stages": [stage.document(record=records) for stage in self.stages],
            "pending": self.pending,
            "logs": self.logs,
            "problems": self.problems,
            "clocks": self.clocks,
            "delivery": strict(self.delivery.document()) if self.delivery else None,
        }


def reason_of(record: Record, state: str) -> str:
    """Why a stage is in this state, as its record has it; may have several lines."""
    extra = record.model_extra or {}
    error = record.errors[-1].message if record.errors else ""
    said = {key: value for key, value in extra.items() if key in ("reason", "error", "message") and value}
    if state == "skipped":
        return str(said.get("reason", ""))
    if state in GOOD_STATUSES or state == "running":
        return ""
    if state == "incomplete":
        return error or "ended without saying how"
    return str(error or said.get("error") or said.get("reason") or said.get("message") or record.cause or "")


def worst(states: list[str]) -> str:
    """A job's state from those of its stages; what nothing is known of says nothing."""
    known = [state for state in states if state != UNKNOWN]
    for word in ("running", "crashed", "lost", "failed", "timeout", "cancelled", "incomplete"):
        if word in known:
            return word
    if not known:
        return UNKNOWN
    return "success" if all(state in GOOD_STATUSES for state in known) else "failed"
