"""``otel-stageio show JOB STAGE``: everything in one stage's record."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from ..reading import used
from ..reading.job import CannotAnswer
from ..reading.steps import Step
from ..reading.text import clock, count, duration, from_to, one_line, plain
from ..reading.view import JobView, StageView, reason_of
from ..record.manifest import Artifact, Record
from .show import MOST, artifact_row, honest_lines, more, value_text, when
from .status import headline, said_of
from .terminal import Row, Terminal

#: Of a traceback, as many of the innermost lines are shown; ``--full`` shows it all.
_INNERMOST = 5


def find_stage(job: JobView, asked: str) -> StageView:
    """By name, directory or number.

    Raises:
        CannotAnswer: naming the stages that there are.
    """
    for key in ("name", "directory"):
        for stage in job.stages:
            if getattr(stage, key) == asked and (key == "name" or asked.endswith(f"_{stage.name}")):
                return stage
    same = [stage for stage in job.stages if asked.isdecimal() and stage.number == int(asked)]
    same += [stage for stage in job.stages if asked == stage.directory]
    named = [stage for stage in same if stage.directory.endswith(f"_{stage.name}")]
    if len(same) == 1 or len(named) == 1:
        return (named or same)[0]
    there = ", ".join(stage.name for stage in job.stages) or "none"
    if asked in job.pending:
        raise CannotAnswer(f"the stage {asked} has not begun; there are: {there}")
    if same:
        raise CannotAnswer(f"{asked} is more than one stage: {', '.join(stage.name for stage in same)}")
    raise CannotAnswer(f"{job.path} has no stage {asked}; there are: {there}")


def show_stage(job: JobView, stage: StageView, terminal: Terminal, *, full: bool) -> None:
    record = stage.record
    _head(job, stage, terminal)
    _mapping(terminal, "Configuration", record.config)
    _artifacts(job, terminal, "Inputs", record.inputs, full)
    _artifacts(job, terminal, "Outputs", record.outputs, full)
    _artifacts(job, terminal, "Intermediate files", record.intermediate_files, full)
    measured, said = used.split(record.resources)
    if measured:
        terminal.heading("Used")
        terminal.columns([[Text(name, "dim"), line] for name, line in measured])
    _mapping(terminal, "Resources", said)
    _steps(terminal, stage)
    _warnings(terminal, record, full)
    _errors(terminal, record, full)
    _mapping(terminal, "Also recorded", {**(record.model_extra or {}), **(record.extra or {})})
    missing = honest_lines(stage)
    if missing:
        terminal.heading("Lost, masked and changed")
        terminal.columns([[line] for line in missing])
    _attempts(terminal, record)
    if stage.problems:
        terminal.heading("Problems with the record")
        terminal.columns([[Text("!", "bold yellow"), plain(problem)] for problem in stage.problems])


def _head(job: JobView, stage: StageView, terminal: Terminal) -> None:
    record = stage.record
    headline(stage.name, stage.state, stage.seconds, terminal)
    where = f"{job.path.rstrip('/')}/{stage.directory}" if stage.directory else job.path
    rows: list[tuple[str, str]] = []
    if stage.message:
        rows.append(("why", plain(stage.message)))
    if record.cause and record.cause not in stage.message:
        rows.append(("cause", plain(record.cause)))
    if stage.progress is not None and stage.progress.done is not None:
        rows.append(("done", said_of(stage.progress)))
    rows.append(("in", plain(where)))
    run = f"run {stage.run}, " if stage.run is not None else ""
    rows.append(("attempt", f"{run}attempt {stage.attempt} at this stage"))
    if stage.started_at:
        rows.append(("time", from_to(stage.started_at, stage.ended_at)))
    if record.trace.trace_id:
        rows.append(("trace", one_line(record.trace.trace_id)))
    if record.trace.span_id:
        rows.append(("span", one_line(record.trace.span_id)))
    if stage.last_line:
        rows.append(("log", one_line(stage.last_line)))
    terminal.columns([[Text(key, "dim"), text] for key, text in rows])


def _mapping(terminal: Terminal, title: str, values: dict[str, Any]) -> None:
    if values:
        terminal.heading(title)
        terminal.columns([[Text(one_line(key), "dim"), value_text(value)] for key, value in values.items()])


def _artifacts(job: JobView, terminal: Terminal, title: str, entries: list[Artifact], full: bool) -> None:
    if entries:
        terminal.heading(title)
        shown = entries if full else entries[:MOST]
        terminal.columns([artifact_row(entry, job) for entry in shown], header=["type", "size", "path"], right="1")
        more(terminal, len(entries) - len(shown), "entry")


def _steps(terminal: Terminal, stage: StageView) -> None:
    rows: list[Row] = []

    def add(steps: list[Step], depth: int) -> None:
        for step in steps:
            remark = Text(f"{step.failed} failed" if step.failed else "", "red")
            if step.kind == "process":
                remark = Text(f"process, exit {step.exit_code}", "dim" if step.exit_code == 0 else "red")
            times = f"{terminal.times}{step.count:,}" if step.count > 1 else ""
            rows.append(["  " * depth + one_line(step.name), times, duration(step.seconds), remark])
            add(step.steps, depth + 1)

    add(stage.steps, 0)
    if rows:
        terminal.heading(f"Made of {count(stage.span_count, 'span')}")
        terminal.columns(rows, right="12")


def _warnings(terminal: Terminal, record: Record, full: bool) -> None:
    if record.warnings:
        terminal.heading("Warnings")
        shown = record.warnings if full else record.warnings[-MOST:]
        terminal.columns([[when(note.timestamp), plain(note.message)] for note in shown])
        more(terminal, len(record.warnings) - len(shown), "warning")


def _errors(terminal: Terminal, record: Record, full: bool) -> None:
    if not record.errors:
        return
    terminal.heading("Errors")
    shown = record.errors if full else record.errors[-MOST:]
    for problem in shown:
        terminal.columns([[when(problem.timestamp), Text(plain(problem.message), "red")]])
        rows = []
        if problem.exception_type and problem.exception_type not in problem.message:
            rows.append(["type", plain(problem.exception_type)])
        if problem.exception_detail and problem.exception_detail not in problem.message:
            rows.append(["detail", plain(problem.exception_detail)])
        if problem.cause:
            rows.append(["from", plain(problem.cause)])
        terminal.columns([[Text(key, "dim"), text] for key, text in rows], indent=4)
        if problem.traceback:
            for line in _folded(plain(problem.traceback), full):
                terminal.wrapped(line, indent=4)
    more(terminal, len(record.errors) - len(shown), "error")


def _folded(traceback: str, full: bool) -> list[Text]:
    lines = traceback.rstrip().split("\n")
    left = len(lines) - _INNERMOST
    if full or left <= 1:
        return [Text(line) for line in lines]
    first = Text(f"{count(left, 'line')} of traceback above; --full shows all", "dim")
    return [first, *(Text(line) for line in lines[-_INNERMOST:])]


def _attempts(terminal: Terminal, record: Any) -> None:
    if not record.attempts:
        return
    terminal.heading("Former attempts")
    rows: list[Row] = []
    for former in reversed(record.attempts):
        why = one_line(reason_of(former, former.status))
        rows.append(
            [terminal.glyph(former.status), str(former.attempt), terminal.state(former.status),
             duration(former.duration_seconds), clock(former.timestamp), why]
        )  # fmt: skip
    terminal.columns(rows, right="13")
