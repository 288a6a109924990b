"""``otel-stageio status``: how a job stands, as a tree."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from ..reading.hosts import several
from ..reading.sent import DeliveryView, words
from ..reading.steps import Step
from ..reading.text import clock, count, duration, from_to, one_line, plain, size
from ..reading.view import UNKNOWN, JobView, StageView
from ..record.manifest import Progress
from ..semconv import GOOD_STATUSES
from ..units import amount, percent, seconds_left, share
from .terminal import Terminal

_MOST_STEPS = 8
_LONGEST_NAME = 28
_LONGEST_STATE = 20
#: A child process is one step below its stage, the spans of its program two.
_DEEPEST = 2


def show_status(job: JobView, terminal: Terminal) -> None:
    header(job, terminal)
    tree = Tree(terminal, job)
    if not tree.rows:
        terminal.line("  ", ("no stage has begun", "dim"))
    for row in tree.rows:
        tree.row(row)
    earlier(job, terminal)
    trouble(job, terminal)


def header(job: JobView, terminal: Terminal) -> None:
    """Who, how, when, and where to look in Jaeger."""
    run = job.run
    headline(run.pipeline if run else job.name, job.state, run.seconds if run else None, terminal)
    rows: list[list[Text | str]] = [["job", plain(job.path)]]
    if run is not None:
        kind = f", process {run.pid} on {one_line(run.host)}"
        if run.implicit or run.detached:
            kind = ", opened by its stages" if run.implicit else ", a scheduler's: until `otel-stageio end`"
        alive = kind if run.state == "running" or run.implicit else ""
        rows.append(["run", f"{run.number}{alive}"])
        rows.append(["time", from_to(run.started_at, run.ended_at)])
        rows.append(["trace", one_line(run.trace_id)])
    elif job.origin == "original":
        rows.append(["made by", "the original; it is only read"])
    if job.delivery is not None:
        sent = _sent(job.delivery, running=job.state == "running")
        rows += [["sent" if not number else "", line] for number, line in enumerate(sent)]
    if job.clocks:
        rows.append(["clocks", Text(job.clocks, "yellow")])
    terminal.columns([[Text(str(row[0]), "dim"), row[1]] for row in rows])


def _sent(delivery: DeliveryView, *, running: bool) -> list[Text]:
    """What arrived, what did not, why not."""
    said = [words(delivery.accepted) or "nothing yet"]
    if words(delivery.refused):
        said.append(f"{words(delivery.refused)} refused, see .stageio/refused.jsonl")
    if delivery.pending_bytes and not running:
        said.append(f"{size(delivery.pending_bytes)} pending, see otel-stageio push")
    lines = [Text("; ".join(said), "" if len(said) == 1 or running else "yellow")]
    for reason in dict.fromkeys(f"{item.endpoint}: {item.reason}" for item in delivery.trouble):
        since = min(item.since for item in delivery.trouble if reason == f"{item.endpoint}: {item.reason}")
        lines.append(Text.assemble((one_line(reason), "red"), (f", since {clock(since)}" if since else "", "dim")))
    for remark in dict.fromkeys(delivery.remarks.values()):
        lines.append(Text(f"the receiver remarks: {one_line(remark)}", "yellow"))
    return lines


def headline(name: str, state: str, seconds: float | None, terminal: Terminal) -> None:
    """``✗ subtitles  failed after 12 min 03 s``."""
    how = {"running": " for ", "success": " in "}.get(state, " after ")
    end = Text.assemble("  ", terminal.state(state), f"{how}{duration(seconds)}" if seconds is not None else "")
    start = Text.assemble(terminal.glyph(state), " ", (one_line(name), "bold"))
    terminal.line(terminal.fit(start, max(terminal.width - cell_len(end.plain), 20)), end)


def earlier(job: JobView, terminal: Terminal) -> None:
    if not job.earlier:
        return
    terminal.heading("Earlier runs")
    terminal.columns(
        [
            [terminal.glyph(run.state), str(run.number), terminal.state(run.state), duration(run.seconds),
             clock(run.started_at), one_line(run.trace_id)]
            for run in reversed(job.earlier)
        ],
        right="13",
    )  # fmt: skip


def trouble(job: JobView, terminal: Terminal) -> None:
    """What is wrong with the job's files."""
    problems = [*job.problems, *(problem for stage in job.stages for problem in stage.problems)]
    if not problems:
        return
    terminal.heading("Problems with the record")
    terminal.columns([[Text("!", "bold yellow"), plain(problem)] for problem in problems])


class Tree:
    """Attributes: ``rows`` are the stages, and the names of those that have not begun."""

    def __init__(self, terminal: Terminal, job: JobView) -> None:
        self.rows: list[StageView | str] = [*job.stages, *job.pending]
        self._terminal = terminal
        self._run = job.run.number if job.run else None
        self._running = job.state == "running"
        self._hosts = several([*(stage.host for stage in job.stages), job.run.host if job.run else ""])
        guides = ("├── ", "└── ", "│   ") if terminal.unicode else ("|-- ", "`-- ", "|   ")
        self._branch, self._end, self._trunk = guides
        names = [*(stage.name for stage in job.stages), *job.pending]
        self._name = min(max((cell_len(one_line(name)) for name in names), default=0), _LONGEST_NAME)
        self._state = min(max((cell_len(stage.state) for stage in job.stages), default=0), _LONGEST_STATE)
        self._seconds = max([len(duration(stage.seconds)) for stage in job.stages], default=0)

    def row(self, row: StageView | str) -> None:
        last = row is self.rows[-1]
        if isinstance(row, StageView):
            self._stage(row, last=last)
        else:
            self._pending(row, last=last)

    def _stage(self, stage: StageView, *, last: bool) -> None:
        terminal = self._terminal
        head = Text.assemble(
            (self._end if last else self._branch, "dim"),
            terminal.glyph(stage.state),
            f" {stage.number:>2} ",
            self._column(Text(one_line(stage.name), "bold"), self._name),
            "  ",
            self._column(terminal.state(stage.state), self._state),
            f"  {duration(stage.seconds):>{self._seconds}}",
        )
        remarks = self._remarks(stage)
        if remarks:
            head.append("  ").append(remarks)
        message = one_line(stage.message)
        style = "dim" if stage.state in ("skipped", "success", UNKNOWN) else "red"
        below = self._below(stage)
        if message and cell_len(head.plain) + 2 + cell_len(message) <= terminal.width:
            head.append("  ").append(message, style)
        elif message:
            below.insert(0, Text(message, style))
        terminal.line(terminal.fit(head, terminal.width))
        guide = "    " if last else self._trunk
        for text in below:
            line = Text.assemble((guide + (self._trunk if stage.steps else "    "), "dim"), text)
            terminal.line(terminal.fit(line, terminal.width))
        self._steps(stage.steps, guide)

    def _below(self, stage: StageView) -> list[Text]:
        """How far it is or was, what it uses, and what it said last, where that says something."""
        if stage.state in GOOD_STATUSES:
            return []
        below = []
        progress = stage.progress
        if progress is not None and progress.done is not None:
            part = share(progress.done, progress.total)
            said = [self._terminal.bar(part)] if part is not None else []
            said.append(Text(said_of(progress)))
            left = seconds_left(progress.done, progress.total, stage.seconds) if stage.state == "running" else None
            if left is not None:
                said.append(Text(f"{duration(left)} left"))
            below.append(Text("  ").join(said))
        if stage.now is not None and str(stage.now):
            below.append(Text(str(stage.now), "dim"))
        if stage.last_line:
            below.append(Text(one_line(stage.last_line), "dim"))
        return below

    def _pending(self, name: str, *, last: bool) -> None:
        label = "to come" if self._running else "not reached"
        self._terminal.line(
            (self._end if last else self._branch, "dim"), self._terminal.glyph("pending"), "    ",
            self._column(Text(one_line(name), "dim"), self._name), "  ", (label, "dim"),
        )  # fmt: skip

    def _remarks(self, stage: StageView) -> Text:
        parts: list[tuple[str, str]] = []
        if stage.warnings:
            parts.append((count(stage.warnings, "warning"), "yellow"))
        if stage.errors and stage.state == "success":
            parts.append((count(stage.errors, "error"), "red"))
        if stage.run is not None and stage.run != self._run:
            parts.append((f"in run {stage.run}", "dim"))
        elif stage.attempt > 1:
            parts.append((f"attempt {stage.attempt}", "dim"))
        if self._hosts and stage.host:
            parts.append((f"on {one_line(stage.host)}", "dim"))
        if stage.silent_seconds:
            parts.append((f"silent for {duration(stage.silent_seconds)}", "red"))
        return Text(", ").join(Text(*part) for part in parts)

    def _column(self, text: Text, width: int) -> Text:
        cut = self._terminal.fit(text, width)
        return Text.assemble(cut, " " * (width - cell_len(cut.plain)))

    def _steps(self, steps: list[Step], guide: str, depth: int = 1) -> None:
        terminal = self._terminal
        shown = steps if len(steps) <= _MOST_STEPS else steps[: _MOST_STEPS - 1]
        labels = [self._label(step) for step in shown]
        width = min(max((cell_len(label.plain) for label in labels), default=0), 40)
        for number, (step, label) in enumerate(zip(shown, labels, strict=True), 1):
            last = number == len(shown) and len(shown) == len(steps)
            line = Text.assemble(
                (guide + (self._end if last else self._branch), "dim"),
                self._column(label, width),
                f"  {duration(step.seconds):>{self._seconds}}",
            )
            if step.kind == "process":
                code = "ended without a code" if step.exit_code is None else f"exit {step.exit_code}"
                line.append(f"  process, {code}", "dim" if step.exit_code == 0 else "red")
            elif step.failed:
                line.append(f"  {step.failed} failed" if step.count > 1 else "  failed", "red")
            terminal.line(terminal.fit(line, terminal.width))
            if depth < _DEEPEST:
                self._steps(step.steps, guide + ("    " if last else self._trunk), depth + 1)
        left = steps[len(shown) :]
        if left:
            seconds = duration(sum(step.seconds for step in left))
            more = f"{count(len(left), 'further name')}, {seconds} together"
            terminal.line((guide + self._end, "dim"), (more, "dim"))

    def _label(self, step: Step) -> Text:
        label = Text(one_line(step.name) or "(no name)")
        return label.append(f" {self._terminal.times}{step.count}", "dim") if step.count > 1 else label


def said_of(progress: Progress) -> str:
    """``29 %  12 of 41 chunks``."""
    done = progress.done or 0
    part = share(done, progress.total)
    said = amount(done, progress.total, one_line(progress.unit))
    return f"{said} done" if part is None else f"{percent(part)}  {said}"
