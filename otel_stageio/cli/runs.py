"""``otel-stageio runs``: the runs of a job, the newest first."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from rich.text import Text

from ..reading.attempts import attempts_of
from ..reading.job import CannotAnswer
from ..reading.text import clock, count, one_line
from ..reading.view import JobView, RunView
from ..semconv import GOOD_STATUSES
from .status import headline
from .terminal import Terminal


def runs_of(view: JobView) -> list[RunView]:
    """
    Raises:
        CannotAnswer: if nothing is recorded of its runs.
    """
    if view.run is None:
        why = view.problems[0] if view.problems else "it has no .stageio/run.json"
        raise CannotAnswer(f"nothing is recorded of the runs of {view.path}: {why}")
    return sorted([view.run, *view.earlier], key=lambda run: run.number, reverse=True)


def document_of(view: JobView) -> dict[str, Any]:
    """For ``--json``."""
    runs = [{**dataclasses.asdict(run), "stages": _stages(view, run)} for run in runs_of(view)]
    return {"job": view.path, "runs": runs}


def _stages(view: JobView, run: RunView) -> list[dict[str, Any]]:
    return [
        {"stage": stage.name, "attempt": attempt.number, "state": attempt.state, "seconds": attempt.seconds}
        for stage in view.stages
        for attempt in attempts_of(view, stage)
        if attempt.run == run.number
    ]


def show_runs(view: JobView, terminal: Terminal) -> None:
    for number, run in enumerate(runs_of(view)):
        if number:
            terminal.line()
        headline(f"run {run.number}", run.state, run.seconds, terminal)
        rows: list[tuple[str, Text | str]] = [
            ("started", clock(run.started_at)),
            ("stages", _counted(_stages(view, run), terminal)),
        ]
        rows += [("trace", one_line(run.trace_id)), ("host", one_line(run.host))]
        if run.implicit:
            rows.append(("owner", "none, opened by its stages"))
        terminal.columns([[Text(key, "dim"), text] for key, text in rows])


def _counted(stages: list[dict[str, Any]], terminal: Terminal) -> Text:
    """``9 success, 2 skipped, 1 failed: asr``; those that did not end well by name."""
    parts = []
    for state, number in Counter(stage["state"] for stage in stages).most_common():
        part = Text.assemble(f"{number} ", terminal.state(state))
        if state not in GOOD_STATUSES:
            names = [one_line(stage["stage"]) for stage in stages if stage["state"] == state]
            more = f", {count(len(names) - 3, 'other')}" if len(names) > 3 else ""
            part.append(f": {', '.join(names[:3])}{more}")
        parts.append(part)
    return Text("; ").join(parts) if parts else Text("none has begun", "dim")
