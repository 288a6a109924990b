"""``otel-stageio logs``: what a job's stages say, in the order of time, once or for as long as the run lasts."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterable

from rich.cells import cell_len
from rich.style import Style

from ..layout import NUMBERS, Job, directory_name
from ..reading.job import CannotAnswer, read_job
from ..reading.job_logs import JobLogs
from ..reading.logs import PIPELINE, Entry, severity
from ..reading.text import one_line, plain
from ..reading.view import JobView
from .show_stage import find_stage
from .terminal import Terminal, complain

#: Seconds between two looks at the files, and at whether the run is over.
_LOOK, _ASK = 0.2, 1.0
_LONGEST_STAGE = 22
_DAY = len("2025-11-27")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which records.

    Attributes:
    stage: only what this one says.
    directory: where its log is.
    since: when the run, or the stage's newest attempt, began, as the logs write it; empty for all there is.
    """

    level: int
    pattern: re.Pattern[str] | None
    stage: str = ""
    directory: str = ""
    since: str = ""

    def takes(self, entry: Entry) -> bool:
        return (
            severity(entry.level) >= self.level
            and (not self.stage or entry.stage == self.stage)
            and (self.pattern is None or self.pattern.search(entry.text) is not None)
        )


def show_logs(
    path: str,
    stage: str | None,
    *,
    level: int,
    pattern: re.Pattern[str] | None,
    tail: int | None,
    follow: bool,
    every_run: bool,
    as_json: bool,
) -> None:
    """
    Raises:
        CannotAnswer: with a sentence for the user.
    """
    view = read_job(path, steps=False)
    wanted = _wanted(view, stage, Wanted(level, pattern), follow=follow, every_run=every_run)
    newest = view.run.pipeline_log if view.run else ""
    without = set() if every_run else {os.path.basename(run.pipeline_log) for run in view.earlier}
    logs = JobLogs(
        Job(path),
        directory=wanted.directory,
        since=wanted.since,
        without=without - {os.path.basename(newest)},
    )
    terminal = Terminal()
    show = _write_json if as_json else _Printer(terminal, view).write
    entries = logs.read() if tail is None else iter(logs.last(tail, wanted.takes))
    with contextlib.closing(logs):
        show(filter(wanted.takes, entries))
        if follow:
            _follow(path, logs, wanted, show)
        show(filter(wanted.takes, logs.rest()))
        for problem in logs.problems:
            complain(problem)


def _wanted(view: JobView, asked: str | None, wanted: Wanted, *, follow: bool, every_run: bool) -> Wanted:
    run = view.run
    since = _as_logged(run.started_at) if run is not None and not every_run else ""
    if asked is None:
        return dataclasses.replace(wanted, since=since)
    if asked == PIPELINE and all(stage.name != PIPELINE for stage in view.stages):
        return dataclasses.replace(wanted, stage=PIPELINE, since=since)
    try:
        stage = find_stage(view, asked)
    except CannotAnswer:
        # One that shares a directory may have left nothing but lines there; another may be about to begin.
        directory = directory_name(asked) if asked in NUMBERS else ""
        there = directory and (Job(view.path).root / directory / "stage.log").exists()
        if there or (follow and (directory or asked in view.pending)):
            return dataclasses.replace(wanted, stage=asked, directory=directory or directory_name(asked), since=since)
        raise
    if not stage.directory:
        raise CannotAnswer(f"the stage {stage.name} has left no log") from None
    return dataclasses.replace(
        wanted, stage=stage.name, directory=stage.directory, since=_as_logged(stage.started_at) if since else ""
    )


def _as_logged(stamp: str | None) -> str:
    """A time of the record, as the same process wrote it into the logs: in its zone, not in the reader's."""
    text = (stamp or "")[:19].replace("T", " ")
    return text if len(text) == 19 else ""


# -- for as long as the run lasts --------------------------------------------------------------------------------------


def _follow(path: str, logs: JobLogs, wanted: Wanted, show: Callable[[Iterable[Entry]], None]) -> None:
    """Show what comes until the run is over."""
    wait = _Waiting()
    asked = time.monotonic()
    over = _is_over(path)
    while True:
        new = list(filter(wanted.takes, logs.read()))
        show(new)
        sys.stdout.flush()
        if over or not wait.for_reader(_LOOK):
            return
        if not new and time.monotonic() - asked > _ASK:
            over = _is_over(path)  # what was said before that is still to be read
            asked = time.monotonic()


def _is_over(path: str) -> bool:
    """Whether the run record says so, and no stage lives. A run that its stages have opened, one after another, is over
    when somebody has closed it.
    """
    try:
        view = read_job(path, steps=False)
    except CannotAnswer:  # moved away or removed
        return True
    run = view.run
    if run is None or any(stage.state == "running" for stage in view.stages):
        return False
    return run.closed or (not run.implicit and run.state != "running")


class _Waiting:
    """Sleeps, and wakes when whoever reads our output has gone: nothing else tells while there is nothing to write."""

    def __init__(self) -> None:
        self._poll: select.poll | None = None
        with contextlib.suppress(OSError, ValueError):
            number = sys.stdout.fileno()
            mode = os.fstat(number).st_mode
            if hasattr(select, "poll") and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
                self._poll = select.poll()
                self._poll.register(number, 0)

    def for_reader(self, seconds: float) -> bool:
        """False if the reader has gone."""
        if self._poll is None:
            time.sleep(seconds)
            return True
        return not self._poll.poll(seconds * 1000)


# -- how it looks ------------------------------------------------------------------------------------------------------


class _Printer:
    """One line a record, the further lines of it indented. Written as plain strings: rich takes longer for one line
    than the rest of us for fifty.

    On a terminal the day stands on a line of its own where it changes.
    """

    def __init__(self, terminal: Terminal, view: JobView) -> None:
        self._styled = terminal.console.is_terminal and not terminal.console.no_color
        self._on_terminal = terminal.console.is_terminal
        names = [PIPELINE, *(stage.name for stage in view.stages), *view.pending]
        self._width = min(max(cell_len(one_line(name)) for name in names), _LONGEST_STAGE)
        self._day = time.strftime("%Y-%m-%d") if self._on_terminal else ""
        self._head = functools.lru_cache(1_000)(self._uncached_head)

    def write(self, entries: Iterable[Entry]) -> None:
        write = sys.stdout.write
        for entry in entries:
            moment = entry.time
            if self._on_terminal:
                if moment[:_DAY] not in ("", self._day):
                    self._day = moment[:_DAY]
                    write(self._paint(self._day, "dim") + "\n")
                moment = moment[_DAY + 1 :]
            head = self._head(entry.stage, entry.logger, entry.level)
            write(f"{self._paint(moment, 'dim')}{head}{self._text(entry)}\n")

    def _text(self, entry: Entry) -> str:
        text = plain(entry.text)
        if "\n" in text:
            text = text.rstrip("\n").replace("\n", "\n    ")
        number = severity(entry.level)
        if number >= 40:
            return self._paint(text, "red")
        return self._paint(text, "dim") if number < 20 else text

    def _uncached_head(self, stage: str, logger: str, level: str) -> str:
        """Everything between the time and the text."""
        name = one_line(stage)
        name = self._paint(name, "magenta" if stage == PIPELINE else "cyan") + " " * (self._width - cell_len(name))
        if not logger:
            return f" {name} "
        number = severity(level)
        style = "bold red" if number >= 40 else "yellow" if number >= 30 else "dim" if number < 20 else "green"
        word = self._paint(f"{one_line(level):<8}", style)
        whose = "" if logger in (stage, f"stage.{stage}") else self._paint(f"{one_line(logger)}: ", "dim")
        return f" {name} {word} {whose}"

    def _paint(self, text: str, style: str) -> str:
        return _paint(text, style) if self._styled and text else text


def _paint(text: str, style: str) -> str:
    return Style.parse(style).render(text)


def _write_json(entries: Iterable[Entry]) -> None:
    """In ASCII, as :func:`otel_stageio.cli.terminal.document` does it."""
    for entry in entries:
        sys.stdout.write(json.dumps(entry._asdict()) + "\n")
