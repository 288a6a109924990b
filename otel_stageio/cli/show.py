"""``otel-stageio show JOB``: everything recorded of a job, on one screen as far as it goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.text import Text

from ..reading.honesty import honesty
from ..reading.text import as_text, clock, count, duration, one_line, plain, size
from ..reading.view import JobView, StageView
from ..record.manifest import Artifact
from .status import earlier, header, trouble
from .terminal import Row, Terminal

#: As many entries of a list are shown; ``--full`` shows them all.
MOST = 12


def show_job(job: JobView, terminal: Terminal, *, full: bool) -> None:
    header(job, terminal)
    _stages(job, terminal)
    _reasons(job, terminal)
    _outputs(job, terminal, full)
    _logs(job, terminal, full)
    _honesty(job, terminal)
    earlier(job, terminal)
    trouble(job, terminal)


def _stages(job: JobView, terminal: Terminal) -> None:
    if not job.stages and not job.pending:
        return
    terminal.heading("Stages")
    rows: list[Row] = []
    for stage in job.stages:
        rows.append(
            [
                terminal.glyph(stage.state),
                str(stage.number),
                Text(one_line(stage.name), "bold"),
                terminal.state(stage.state),
                duration(stage.seconds),
                _some(stage.inputs),
                _some(stage.outputs),
                Text(_some(stage.warnings), "yellow"),
                Text(_some(stage.errors), "red"),
                _some(stage.span_count),
                _which(stage, job),
            ]
        )
    rows += [[terminal.glyph("pending"), "", one_line(name), Text("pending", "dim")] for name in job.pending]
    terminal.columns(
        rows, header=["", "", "stage", "state", "time", "in", "out", "warn", "err", "spans", ""], right="1456789"
    )


def _which(stage: StageView, job: JobView) -> Text:
    parts = [f"attempt {stage.attempt}"] if stage.attempt > 1 else []
    if stage.run is not None and job.run is not None and stage.run != job.run.number:
        parts.append(f"in run {stage.run}")
    return Text(", ".join(parts), "dim")


def _reasons(job: JobView, terminal: Terminal) -> None:
    """Why those that are no success are none."""
    rows: list[Row] = [
        [terminal.glyph(stage.state), one_line(stage.name), one_line(stage.message)]
        for stage in job.stages
        if stage.message
    ]
    if rows:
        terminal.heading("Why")
        terminal.columns(rows)


def _some(number: int) -> str:
    return f"{number:,}" if number else ""


def _outputs(job: JobView, terminal: Terminal, full: bool) -> None:
    found = [(stage.name, entry) for stage in job.stages for entry in stage.record.outputs]
    if not found:
        return
    terminal.heading("Outputs")
    rows: list[Row] = [[one_line(name), *artifact_row(entry, job)] for name, entry in (found if full else found[:MOST])]
    terminal.columns(rows, header=["stage", "type", "size", "path"], right="2")
    more(terminal, len(found) - len(rows), "output")


def artifact_row(entry: Artifact, job: JobView) -> list[Text | str]:
    """Type, size, and path (relative to the job if it lies in it) with what else is known of it."""
    known = dict(entry.model_extra or {})
    if entry.metadata:
        known["metadata"] = entry.metadata
    path = Text(plain(_within(entry.path, job.path)).replace("\n", "\\n"))
    if entry.retained is not None:
        path.append("  kept" if entry.retained else "  not kept", "dim")
    if entry.reason:
        path.append(f"  {one_line(entry.reason)}", "dim")
    for key, value in known.items():
        path.append(f"  {one_line(key)}={value_text(value)}", "dim")
    missing = entry.exists is False
    if missing:
        path.append("  was not there at the end", "red")
    return [one_line(entry.type), "" if missing else size(entry.size_bytes), path]


def _within(path: str, job: str) -> str:
    for root in (os.path.abspath(job), os.path.normpath(job)):
        if path.startswith(root + os.sep):
            return path[len(root) + 1 :]
    return path


def value_text(value: Any) -> str:
    """A value of the record on one line."""
    return plain(as_text(value)).replace("\n", "\\n")


def more(terminal: Terminal, left: int, noun: str) -> None:
    if left > 0:
        terminal.line("  ", (f"and {count(left, f'further {noun}')}; --full shows all", "dim"))


def _logs(job: JobView, terminal: Terminal, full: bool) -> None:
    root = Path(job.path)
    logs = list(reversed(job.logs)) if full else list(reversed(job.logs))[:3]
    paths = logs + [f"{stage.directory}/stage.log" for stage in job.stages if stage.directory]
    rows: list[Row] = []
    for path in dict.fromkeys(paths):
        try:
            rows.append([size((root / path).stat().st_size), plain(path)])
        except OSError:
            continue
    if rows:
        terminal.heading("Logs")
        terminal.columns(rows, right="0")
        more(terminal, len(job.logs) - len(logs), "log")


def _honesty(job: JobView, terminal: Terminal) -> None:
    rows: list[Row] = [[one_line(stage.name), said] for stage in job.stages for said in honest_lines(stage)]
    if rows:
        terminal.heading("Lost, masked and changed")
        terminal.columns(rows)


def honest_lines(stage: StageView) -> list[Text]:
    return [Text(said, "red" if severe else "") for said, severe in honesty(stage.record)]


def when(stamp: str | None) -> Text:
    return Text(clock(stamp), "dim")
