"""``otel-stageio trace``: a run as a waterfall in the terminal."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len
from rich.text import Text

from ..events import iso
from ..reading.job import CannotAnswer, run_of
from ..reading.text import clock, count, duration, one_line
from ..reading.trace import Bar, Gap, Trace, read_trace
from ..reading.view import JobView
from .status import headline
from .terminal import Terminal

#: Rows of inner spans under one parent; ``--full`` shows all that were kept.
_MOST = 8
_LONGEST_LABEL = 32
_NARROWEST = 16
#: Without a terminal there is no width to fill.
_USUAL = 100


def trace_of(view: JobView, run: int | None, *, full: bool) -> Trace:
    """
    Raises:
        CannotAnswer: if there is no such run, or nothing of it has begun.
    """
    trace = read_trace(view, run_of(view, run), most=10_000 if full else 200)
    if trace is None:
        raise CannotAnswer(f"no stage of {view.path} has begun")
    return trace


def document_of(view: JobView, trace: Trace) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "job": view.path,
        "run": trace.run,
        "trace_id": trace.trace_id,
        "clocks": trace.clocks,
        "root": trace.root.document(),
        "gaps": [
            {"start_ns": gap.start_ns, "end_ns": gap.end_ns, "seconds": gap.seconds} for gap in trace.gaps
        ],
    }  # fmt: skip


def show_trace(trace: Trace, terminal: Terminal, *, full: bool) -> None:
    root = trace.root
    headline(root.name, root.state, root.seconds, terminal)
    about = [f"run {trace.run}" if trace.run is not None else "", f"trace {trace.trace_id}" if trace.trace_id else ""]
    about.append(f"from {clock(iso(root.start_ns))}")
    terminal.line("  ", (one_line(", ".join(filter(None, about))), "dim"))
    if trace.clocks:
        terminal.line("  ", (trace.clocks, "yellow"))
    _Waterfall(trace, terminal, full=full).draw()


class _Row:
    def __init__(self, label: Text, bar: Bar | Gap | None, note: str = "") -> None:
        self.label, self.bar, self.note = label, bar, note


class _Waterfall:
    def __init__(self, trace: Trace, terminal: Terminal, *, full: bool) -> None:
        self._trace, self._terminal, self._full = trace, terminal, full
        self._start = trace.root.start_ns
        self._span = max(trace.root.end_ns - trace.root.start_ns, 1)
        width = terminal.width if terminal.width < 1000 else _USUAL
        rows = list(self._rows())
        self._label = min(max((cell_len(row.label.plain) for row in rows), default=0), _LONGEST_LABEL, width // 2)
        self._time = max((len(_time(row)) for row in rows), default=0)
        self._cells = max(width - self._label - self._time - 6, _NARROWEST)
        self._list = rows

    def _rows(self) -> list[_Row]:
        rows: list[_Row] = []
        gaps = list(self._trace.gaps)
        for stage in self._trace.stages:
            while gaps and gaps[0].end_ns <= stage.start_ns:
                rows.append(_Row(Text("no stage ran", "dim italic"), gaps.pop(0)))
            self._add(rows, stage, 0)
        rows += [_Row(Text("no stage ran", "dim italic"), gap) for gap in gaps]
        return rows

    def _add(self, rows: list[_Row], bar: Bar, depth: int) -> None:
        label = Text("  " * depth)
        if bar.kind == "stage":
            label.append_text(self._terminal.glyph(bar.state)).append(" ")
            attempt = f" #{bar.attempt}" if bar.attempt > 1 else ""
            label.append((one_line(bar.name) or "(no name)") + attempt, "bold")
        else:
            label.append(one_line(bar.name) or "(no name)", "red" if bar.state == "failed" else "")
        rows.append(_Row(label, bar))
        shown = bar.children
        if not self._full and len(shown) > _MOST:
            longest = sorted(shown, key=lambda child: child.start_ns - child.end_ns)[:_MOST]
            shown = [child for child in shown if child in longest]
        for child in shown:
            self._add(rows, child, depth + 1)
        left = len(bar.children) - len(shown) + bar.left_out
        if left:
            rows.append(_Row(Text("  " * (depth + 1) + f"{count(left, 'shorter span')}", "dim"), None))

    def draw(self) -> None:
        terminal = self._terminal
        terminal.line()
        terminal.line(" " * (self._label + self._time + 6), (self._axis(), "dim"))
        for row in self._list:
            label = terminal.fit(row.label, self._label)
            pad = " " * (self._label - cell_len(label.plain))
            time = _time(row)
            terminal.line("  ", label, pad, "  ", (f"{time:>{self._time}}", "dim"), "  ", self._bar(row.bar))
        terminal.line()
        self._legend()

    def _legend(self) -> None:
        root = self._trace.root
        idle = sum(gap.seconds for gap in self._trace.gaps)
        solid, light = ("█", "░") if self._terminal.unicode else ("#", "=")
        said = [f"{solid} what the end waited for", f"{light} beside it"]
        if idle:
            share = 100 * idle / max(root.seconds, 1e-9)
            said.append(f"{self._terminal.gap} no stage ran: {duration(idle)}, {share:.0f} %")
        self._terminal.line("  ", ("   ".join(said), "dim"))

    def _axis(self) -> str:
        """``0   4.5 s   9.1 s``: a time wherever there is room for one."""
        steps = max(self._cells // 12, 1)
        line = ""
        for step in range(steps + 1):
            at = round(step * self._cells / steps)
            label = duration(step * self._span / steps / 1e9) if step else "0"
            place = min(at, self._cells - len(label))
            if place >= len(line) + (1 if line else 0):
                line = line.ljust(place) + label
        return line

    def _bar(self, bar: Bar | Gap | None) -> Text:
        if bar is None:
            return Text()
        first = (bar.start_ns - self._start) * self._cells // self._span
        last = -(-(bar.end_ns - self._start) * self._cells // self._span)
        first = min(max(first, 0), self._cells - 1)
        cells = max(min(last, self._cells) - first, 1)
        if isinstance(bar, Gap):
            return Text(" " * first + self._terminal.gap * cells, "dim")
        style = self._terminal.style(bar.state)
        solid, light = ("█", "░") if self._terminal.unicode else ("#", "=")
        return Text.assemble(" " * first, ((solid if bar.critical else light) * cells, style))


def _time(row: _Row) -> str:
    return duration(row.bar.seconds) if row.bar is not None else ""
