"""``otel-stageio status``: how a job stands, as a tree."""

from __future__ import annotations

from rich.text import Text

from .steps import Step
from .terminal import Terminal
from .text import clock, count, duration, one_line, plain
from .view import JobView, RunView, StageView

_MOST_STEPS = 8
_LONGEST_NAME = 28
#: A child process is one step below its stage, the spans of its program two.
_DEEPEST = 2


def show_status(job: JobView, terminal: Terminal) -> None:
    header(job, terminal)
    tree = _Tree(terminal, job)
    rows: list[StageView | str] = [*job.stages, *job.pending]
    if not rows:
        terminal.line("  ", ("no stage has begun", "dim"))
    for number, row in enumerate(rows, 1):
        if isinstance(row, StageView):
            tree.stage(row, last=number == len(rows))
        else:
            tree.pending(row, last=number == len(rows))
    earlier(job, terminal)
    trouble(job, terminal)


def header(job: JobView, terminal: Terminal) -> None:
    """Who, how, when, and where to look in Jaeger."""
    run = job.run
    name = one_line(run.pipeline if run else job.name)
    seconds = run.seconds if run else None
    how = {"running": " for ", "success": " in "}.get(job.state, " after ")
    terminal.line(
        terminal.glyph(job.state), " ", (name, "bold"), "  ", terminal.state(job.state),
        f"{how}{duration(seconds)}" if seconds is not None else "",
    )  # fmt: skip
    rows: list[list[Text | str]] = [["job", plain(job.path)]]
    if run is not None:
        kind = ", opened by its stages" if run.implicit else f", process {run.pid} on {one_line(run.host)}"
        alive = kind if run.state == "running" or run.implicit else ""
        rows.append(["run", f"{run.number}{alive}"])
        rows.append(["time", _times(run)])
        rows.append(["trace", one_line(run.trace_id)])
    elif job.origin == "original":
        rows.append(["made by", "the original; it is only read"])
    terminal.columns([[Text(str(row[0]), "dim"), row[1]] for row in rows])


def _times(run: RunView) -> str:
    begun = clock(run.started_at)
    if not run.ended_at:
        return begun
    ended = clock(run.ended_at)
    return f"{begun} to {ended[11:] if ended[:10] == begun[:10] else ended}"


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
    terminal.heading("Not right here")
    terminal.columns([[Text("!", "bold yellow"), plain(problem)] for problem in problems])


class _Tree:
    def __init__(self, terminal: Terminal, job: JobView) -> None:
        self._terminal = terminal
        self._run = job.run.number if job.run else None
        self._running = job.state == "running"
        guides = ("├── ", "└── ", "│   ") if terminal.unicode else ("|-- ", "`-- ", "|   ")
        self._branch, self._end, self._trunk = guides
        names = [len(plain(stage.name)) for stage in job.stages] + [len(plain(name)) for name in job.pending]
        self._name = min(max(names, default=0), _LONGEST_NAME)
        self._state = max([len(stage.state) for stage in job.stages], default=0)
        self._seconds = max([len(duration(stage.seconds)) for stage in job.stages], default=0)

    def stage(self, stage: StageView, *, last: bool) -> None:
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
        style = "" if stage.state in ("skipped", "success") else "red"
        inline = bool(message) and len(head) + 2 + len(message) <= terminal.width
        if inline:
            head.append("  ").append(message, "dim" if not style else style)
        terminal.line(terminal.fit(head, terminal.width))
        below = "    " if last else self._trunk
        if message and not inline:
            self._below(below, Text(message, style), stage)
        if stage.state == "running":
            self._progress(stage, below)
        self._steps(stage.steps, below)

    def pending(self, name: str, *, last: bool) -> None:
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
        return Text(", ").join(Text(*part) for part in parts)

    def _column(self, text: Text, width: int) -> Text:
        cut = self._terminal.fit(text, width)
        return Text.assemble(cut, " " * (width - len(cut)))

    def _below(self, guide: str, text: Text, stage: StageView) -> None:
        trunk = self._trunk if stage.steps or stage.state == "running" else "    "
        self._terminal.line(
            self._terminal.fit(Text.assemble((guide + trunk, "dim"), text), self._terminal.width)
        )  # fmt: skip

    def _progress(self, stage: StageView, guide: str) -> None:
        terminal = self._terminal
        trunk = self._trunk if stage.steps else "    "
        if stage.done is not None:
            unit = f" {one_line(stage.unit)}" if stage.unit else ""
            line = Text.assemble((guide + trunk, "dim"))
            if stage.total:
                share = stage.done / stage.total
                line.append_text(terminal.bar(share))
                line.append(f" {share:.0%}  {_number(stage.done)} of {_number(stage.total)}{unit}")
            else:
                line.append(f"{_number(stage.done)}{unit} done")
            terminal.line(terminal.fit(line, terminal.width))
        if stage.last_line:
            line = Text.assemble((guide + trunk, "dim"), (one_line(stage.last_line), "dim"))
            terminal.line(terminal.fit(line, terminal.width))

    def _steps(self, steps: list[Step], guide: str, depth: int = 1) -> None:
        terminal = self._terminal
        shown = steps if len(steps) <= _MOST_STEPS else steps[: _MOST_STEPS - 1]
        labels = [self._label(step) for step in shown]
        width = min(max((len(label) for label in labels), default=0), 40)
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


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
