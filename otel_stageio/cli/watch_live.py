"""``--watch`` on a terminal: one picture, drawn over in place, and never taller than the terminal."""

from __future__ import annotations

import signal
from collections import Counter
from types import FrameType

from rich.console import Group
from rich.live import Live as RichLive
from rich.text import Text

from ..reading.text import count, plain
from ..reading.view import JobView, StageView
from .jobs import Jobs, show_jobs
from .status import Tree, header, trouble
from .terminal import Terminal


class Page(Terminal):
    """A terminal that keeps its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Text] = []

    def line(self, *parts: Text | str | tuple[str, str]) -> None:
        text = Text.assemble(*parts, no_wrap=True, overflow="crop")
        text.rstrip()
        self.lines.append(text)


class Live:
    def __init__(self) -> None:
        self._live = RichLive(
            console=Terminal().console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._shown: list[Text] = []
        self._live.start(refresh=False)
        # Told to end, it gives the cursor back first.
        self._before = signal.signal(signal.SIGTERM, _end)

    def waiting(self, reason: str) -> None:
        page = Page()
        page.line(("waiting: ", "dim"), plain(reason))
        self._draw(page.lines)

    def job(self, job: JobView, *, over: bool) -> None:
        self._draw(picture(job, None if over else self._live.console.height))

    def jobs(self, jobs: Jobs) -> None:
        page = Page()
        room = self._live.console.height - 1
        show_jobs(jobs, page)
        lines = page.lines
        if len(lines) > room:
            lines = [*lines[: room - 1], Text(f"  {count(len(lines) - room + 1, 'line')} more", "dim")]
        self._draw(lines)

    def _draw(self, lines: list[Text]) -> None:
        if lines != self._shown:
            self._shown = lines
            self._live.update(Group(*lines), refresh=True)

    def close(self) -> None:
        self._live.stop()
        signal.signal(signal.SIGTERM, self._before)


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def picture(job: JobView, height: int | None) -> list[Text]:
    """A job as a tree of at most so many lines, with what is running in view; None is as many as it takes."""
    page = Page()
    header(job, page)
    head, page.lines = page.lines, []
    branches = Tree(page, job)
    rows = branches.rows
    blocks: list[list[Text]] = []
    for row in rows:
        branches.row(row)
        blocks.append(page.lines)
        page.lines = []
    if not blocks:
        blocks.append([Text("  no stage has begun", "dim")])
    trouble(job, page)
    foot = page.lines
    if height is None:
        return [*head, *_flat(blocks), *foot]
    room = height - 1
    tree = sum(map(len, blocks))
    if len(head) + tree + len(foot) > room:  # the stages are what it is about
        foot = []
        head = head if len(head) + tree <= room else head[:1]
    return [*head, *_cut(blocks, rows, room - len(head), page), *foot][:room]


def _cut(blocks: list[list[Text]], rows: list[StageView | str], room: int, page: Page) -> list[Text]:
    if sum(map(len, blocks)) <= room:
        return _flat(blocks)
    states = [row.state if isinstance(row, StageView) else "to come" for row in rows]
    at_work = [at for at, state in enumerate(states) if state == "running"]
    newest = max((at for at, state in enumerate(states) if state != "to come"), default=0)
    first, last = (at_work[0], at_work[-1]) if at_work else (newest, newest)
    room -= 2  # what is said of those above and below
    while True:  # the nearest first: before, then after
        for new_first, new_last in ((first - 1, last), (first, last + 1)):
            inside = new_first >= 0 and new_last < len(blocks)
            if inside and sum(map(len, blocks[new_first : new_last + 1])) <= room:
                first, last = new_first, new_last
                break
        else:
            break
    above, below = _left_out(states[:first], page), _left_out(states[last + 1 :], page)
    return [*above, *_flat(blocks[first : last + 1])[:room], *below]


def _flat(blocks: list[list[Text]]) -> list[Text]:
    return [line for block in blocks for line in block]


def _left_out(states: list[str], page: Page) -> list[Text]:
    if not states:
        return []
    dots = "⋮" if page.unicode else ":"
    said = ", ".join(f"{number} {plain(state)}" for state, number in Counter(states).items())
    return [page.fit(Text(f"{dots}   {said}", "dim"), page.width)]
