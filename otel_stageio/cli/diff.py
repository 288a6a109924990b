"""``otel-stageio diff``: what differs between two jobs, or two runs of one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from rich.text import Text

from ..layout import Job
from ..reading.attempts import Attempt, attempts_of
from ..reading.difference import CAUSES, Change, differences, other_versions, versions_of
from ..reading.job import CannotAnswer, read_job, run_of
from ..reading.text import as_text, clock, count, duration, moment, one_line, plain, size
from ..reading.view import JobView, RunView
from .show_stage import find_stage
from .terminal import Row, Terminal

#: Characters of a value that are shown.
_LONGEST = 100
_DIGEST = 12


class Side(NamedTuple):
    """A job as it stood at the end of one of its runs.

    Attributes:
        run: None for one of which no runs are recorded.
        stages: of each stage the newest attempt so far.
    """

    path: str
    view: JobView
    run: RunView | None
    stages: dict[str, Attempt]

    def document(self) -> dict[str, Any]:
        run = self.run
        state = run.state if run is not None else self.view.state
        return {"job": self.path, "run": run.number if run is not None else None, "state": state}


class StageDifference(NamedTuple):
    stage: str
    before: Attempt | None
    after: Attempt | None
    changes: list[Change]


class Comparison(NamedTuple):
    """Attributes:
    stages: those that differ, in the order in which they began.
    compared: how many stages there are in all.
    """

    before: Side
    after: Side
    stages: list[StageDifference]
    compared: int

    @property
    def differs(self) -> bool:
        return bool(self.stages)

    @property
    def first(self) -> tuple[str, list[Change]] | None:
        """The earliest stage that was given something else, and what."""
        for stage in self.stages:
            causes = [change for change in stage.changes if change.kind in CAUSES]
            if causes:
                return stage.stage, causes
        return None


def compare(before: str, after: str | None, stage: str | None) -> Comparison:
    """
    Args:
        before, after: job directories, ``job@2`` for run 2. Without ``after``: a run against the one before it.

    Raises:
        CannotAnswer: with a sentence for the user.
    """
    path, number = _parsed(before)
    view = read_job(path, steps=False)
    if after is None:
        new = _run(view, number)
        old = max((run for run in view.earlier if run.number < new.number), key=lambda run: run.number, default=None)
        if old is None:
            raise CannotAnswer(f"{path} has no run before run {new.number}; give a second job to compare it with")
        sides = _side(path, view, old), _side(path, view, new)
    else:
        other_path, other_number = _parsed(after)
        other = read_job(other_path, steps=False)
        sides = (
            _side(path, view, None if number is None else _run(view, number)),
            _side(other_path, other, None if other_number is None else _run(other, other_number)),
        )
    names = _names(*sides) if stage is None else [_name(stage, *sides)]
    found = [_stage(name, *sides) for name in names]
    return Comparison(*sides, [item for item in found if item.changes], len(names))


def _parsed(word: str) -> tuple[str, int | None]:
    path, _, number = word.rpartition("@")
    if path and number.isdecimal() and not Path(word).exists():
        return path, int(number)
    return word, None


def _run(view: JobView, number: int | None) -> RunView:
    run = run_of(view, number) if view.run is not None else None
    if run is None:
        raise CannotAnswer(f"nothing is recorded of the runs of {view.path}; give a second job to compare it with")
    return run


def _side(path: str, view: JobView, run: RunView | None) -> Side:
    """
    Args:
        run: what came after it does not count; None for the job as it stands.
    """
    stages: dict[str, Attempt] = {}
    for stage in view.stages:
        attempts = [attempt for attempt in attempts_of(view, stage) if run is None or (attempt.run or 0) <= run.number]
        if attempts:
            # The name is for the directory that it belongs to; the original's 10_mux stands beside it.
            name = stage.name if stage.name not in stages else f"{stage.name} ({stage.directory})"
            stages[name] = attempts[-1]
    return Side(path, view, run or view.run, stages)


def _name(asked: str, before: Side, after: Side) -> str:
    for side in (after, before):
        try:
            name = find_stage(side.view, asked).name
        except CannotAnswer:
            continue
        if name in before.stages or name in after.stages:
            return name
    return find_stage(after.view, asked).name


def _names(before: Side, after: Side) -> list[str]:
    """In the order of beginning: as it was in the second, else in the first."""

    def begun(name: str) -> float:
        attempt = after.stages.get(name) or before.stages[name]
        when = moment(attempt.record.timestamp)
        return when.timestamp() if when is not None else math.inf

    return sorted(dict.fromkeys([*before.stages, *after.stages]), key=begun)


def _stage(name: str, before: Side, after: Side) -> StageDifference:
    old, new = before.stages.get(name), after.stages.get(name)
    if old is None or new is None:
        states = old.state if old is not None else None, new.state if new is not None else None
        changes = [Change("status", "status", *states)] if old is not None or new is not None else []
        return StageDifference(name, old, new, changes)
    found = differences(old.record, new.record, root_before=before.path, root_after=after.path)
    found = [change for change in found if change.kind != "status"]
    versions = other_versions(
        versions_of(Job(before.path), old.stage, old.number), versions_of(Job(after.path), new.stage, new.number)
    )
    status = [Change("status", "status", old.state, new.state)] if old.state != new.state else []
    causes = [change for change in found if change.kind in CAUSES]
    effects = [change for change in found if change.kind not in CAUSES]
    return StageDifference(name, old, new, [*causes, *versions, *status, *effects])


# -- how it looks ------------------------------------------------------------------------------------------------------


def document_of(found: Comparison) -> dict[str, Any]:
    """For ``--json``."""
    first = found.first
    return {
        "before": found.before.document(),
        "after": found.after.document(),
        "differs": found.differs,
        "compared": found.compared,
        "first": {"stage": first[0], **first[1][0]._asdict()} if first is not None else None,
        "stages": [
            {
                "stage": item.stage,
                "before": _attempt(item.before),
                "after": _attempt(item.after),
                "changes": [change._asdict() for change in item.changes],
            }
            for item in found.stages
        ],
    }


def _attempt(attempt: Attempt | None) -> dict[str, Any] | None:
    if attempt is None:
        return None
    return {"attempt": attempt.number, "run": attempt.run, "state": attempt.state}


def show_difference(found: Comparison, terminal: Terminal) -> None:
    arrow = "→" if terminal.unicode else "->"
    terminal.columns([_side_row("before", found.before, terminal), _side_row("after", found.after, terminal)], indent=0)
    terminal.line()
    first = found.first
    if not found.differs:
        terminal.line(f"no difference in {count(found.compared, 'stage')}")
    elif first is None:
        terminal.line("what the stages were given is the same: configuration, inputs and versions")
    else:
        stage, causes = first
        more = f", and {count(len(causes) - 1, 'other')}" if len(causes) > 1 else ""
        said = Text.assemble("first difference: ", (one_line(stage), "bold"), ": ", _sentence(causes[0], arrow), more)
        terminal.wrapped(said)
    for item in found.stages:
        terminal.heading(one_line(item.stage))
        if item.before is None or item.after is None:
            there, word = (item.after, "after") if item.before is None else (item.before, "before")
            terminal.line("  only ", word, ": ", terminal.state(there.state if there is not None else ""))
            continue
        rows: list[Row] = []
        kind = ""
        for change in item.changes:
            named = Text(change.kind if change.kind != kind else "", "dim")
            kind = change.kind
            rows.append([named, "" if kind in ("status", "duration") else one_line(change.key), _values(change, arrow)])
        terminal.columns(rows)


def _side_row(word: str, side: Side, terminal: Terminal) -> Row:
    run = side.run
    state = run.state if run is not None else side.view.state
    number = f"run {run.number}" if run is not None else ""
    when = clock(run.started_at) if run is not None else ""
    return [Text(word, "dim"), number, terminal.state(state), when, plain(side.path)]


def _sentence(change: Change, arrow: str) -> Text:
    said = Text(one_line(change.key))
    if change.kind != "config":
        said = Text.assemble(f"{change.kind} ", said)
    return Text.assemble(said, " ", _values(change, arrow))


def _values(change: Change, arrow: str) -> Text:
    before, after = _value(change, change.before), _value(change, change.after)
    if change.before is None and change.after is not None:
        return Text.assemble(("added", "green"), f", {after}")
    if change.after is None and change.before is not None:
        return Text.assemble(("removed", "red"), f", {before}")
    text = Text(f"{before} {arrow} {after}")
    if change.kind == "duration" and change.before > 0:
        text.append(f"  ({_factor(change.after / change.before)})", "dim")
    return text


def _factor(ratio: float) -> str:
    return (
        f"{ratio:.1f} times as long"
        if ratio >= 1.95
        else f"{abs(ratio - 1):.0%} {'longer' if ratio > 1 else 'shorter'}"
    )


def _value(change: Change, value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if change.kind in ("input", "output") or change.key.endswith("_bytes"):
            return size(int(value)) if math.isfinite(value) else str(value)
        if change.kind == "duration" or change.key.endswith("_seconds"):
            return duration(value)
    if change.kind in ("input", "output") and isinstance(value, str) and ":" in value:
        name, _, digest = value.partition(":")
        return plain(f"{name}:{digest[:_DIGEST]}")
    text = plain(as_text(value)).replace("\n", "\\n")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... [{len(text):,} characters in all]"
