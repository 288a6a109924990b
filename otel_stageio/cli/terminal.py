"""What a terminal shows and how: one place for glyphs, colours, width and columns.

Text goes out as :class:`rich.text.Text`, never as markup, so nothing read from disk is ever parsed. Without a terminal
there is no colour, and no line is cut unless ``COLUMNS`` says how wide it may be.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ..reading.text import plain, strict
from ..reading.view import GLYPHS

#: state -> (glyph in ASCII, style)
_STATES = {
    "success": ("+", "green"),
    "failed": ("x", "bold red"),
    "crashed": ("x", "bold red"),
    "timeout": ("x", "bold red"),
    "lost": ("x", "bold red"),
    "running": ("*", "bold cyan"),
    "skipped": ("-", "yellow"),
    "cancelled": ("#", "yellow"),
    "incomplete": ("#", "yellow"),
    "pending": (".", "dim"),
}
_OTHER = ("?", "magenta")
_UNLIMITED = 10_000

Row = Sequence["Text | str"]


class Terminal:
    """Attributes: ``width`` in cells; ``unicode``, whether more than ASCII can be shown."""

    def __init__(self) -> None:
        with contextlib.suppress(AttributeError, ValueError):
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.unicode = (self.console.encoding or "").lower().startswith("utf")
        bounded = self.console.is_terminal or os.environ.get("COLUMNS", "").isdecimal()
        self.width = max(self.console.width, 30) if bounded else _UNLIMITED

    def glyph(self, state: str) -> Text:
        ascii_only, style = _STATES.get(state, _OTHER)
        return Text(GLYPHS.get(state, "?") if self.unicode else ascii_only, style)

    def state(self, state: str) -> Text:
        """The word itself; what a stage gave in place of one is cut to a word's length."""
        return self.fit(plain(state).replace("\n", " "), 24, self.style(state))

    def style(self, state: str) -> str:
        return _STATES.get(state, _OTHER)[1]

    @property
    def gap(self) -> str:
        return "·" if self.unicode else "."

    @property
    def times(self) -> str:
        return "×" if self.unicode else "x"

    def bar(self, share: float, cells: int = 16) -> Text:
        full = round(min(max(share, 0.0), 1.0) * cells)
        done, left = ("━", "─") if self.unicode else ("#", ".")
        return Text.assemble((done * full, "cyan"), (left * (cells - full), "dim"))

    def fit(self, text: Text | str, width: int, style: str = "") -> Text:
        """Cut to one line of at most ``width`` cells."""
        line = Text(text, style) if isinstance(text, str) else text
        if cell_len(line.plain) <= width:
            return line
        end = "…" if self.unicode else "..."
        line = line.copy()
        line.truncate(max(width - len(end), 1))
        line.rstrip()
        return line.append(end)

    def line(self, *parts: Text | str | tuple[str, str]) -> None:
        text = Text.assemble(*parts)
        text.rstrip()
        self.console.print(text, soft_wrap=True)

    def wrapped(self, text: Text | str, indent: int = 0) -> None:
        """A paragraph, folded at the width; long words are broken, so that nothing is lost."""
        for part in self.fold(_text(text), self.width - indent):
            self.line(" " * indent, part)

    def heading(self, text: str) -> None:
        self.line()
        self.line((text, "bold"))

    def columns(self, rows: Iterable[Row], *, indent: int = 2, header: Row | None = None, right: str = "") -> None:
        """Rows in aligned columns, two spaces apart; the last column is folded at the width with the indent kept.

        Columns in which nothing stands are left out.

        Args:
            right: numbers of the columns that are set to the right, as digits: ``"03"``.
        """
        body = [[_text(cell) for cell in row] for row in rows]
        if not body:
            return
        size = max(len(row) for row in body)
        body = [row + [Text("")] * (size - len(row)) for row in body]
        used = [at for at in range(size) if any(row[at].plain for row in body)]
        if header is not None:
            body.insert(0, [Text(str(cell), "dim") for cell in header])
        natural = [_widest(body, at) for at in used]
        widths = _shared(natural[:-1], self.width - indent, natural[-1] if used else 0)
        for row in body:
            head = Text(" " * indent)
            for at, width in zip(used, widths, strict=False):
                cell = self.fit(row[at], width)
                gap = Text(" " * (width - cell_len(cell.plain)))
                pair = (gap, cell) if str(at) in right else (cell, gap)
                head = Text.assemble(head, *pair, "  ")
            last = row[used[-1]] if used else Text("")
            if used and str(used[-1]) in right:
                last = Text.assemble(" " * (natural[-1] - cell_len(last.plain)), last)
            folded = self.fold(last, self.width - cell_len(head.plain))
            pad = " " * cell_len(head.plain)
            for number, part in enumerate(folded):
                self.line(head if not number else pad, part)

    def fold(self, text: Text, width: int) -> list[Text]:
        """Lines of at most ``width`` cells, broken at spaces where there are any."""
        lines: list[Text] = []
        for paragraph in text.split("\n", allow_blank=True):
            if cell_len(paragraph.plain) <= width:
                lines.append(paragraph)
            else:
                lines += paragraph.wrap(self.console, max(width, 16), overflow="fold")
        return lines or [Text("")]


def _text(cell: Text | str) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def _widest(rows: list[list[Text]], at: int) -> int:
    return max(cell_len(row[at].plain) for row in rows)


def _shared(widths: list[int], available: int, last: int) -> list[int]:
    """Column widths that leave the last column what it needs, up to a third of the line: the widest gives way."""
    limit = available - min(last, max(available // 3, 20)) - 2 * len(widths)
    widths = list(widths)
    while widths and sum(widths) > max(limit, len(widths)):
        widest = widths.index(max(widths))
        if widths[widest] <= 6:
            break
        widths[widest] -= 1
    return widths


def document(content: Any, *, indent: int | None = 2) -> None:
    """One JSON document, in ASCII: it survives any encoding, and holds no character that a terminal obeys.

    Args:
        indent: None for one line.
    """
    sys.stdout.write(json.dumps(strict(content), indent=indent, ensure_ascii=True, allow_nan=False) + "\n")


def complain(message: str) -> None:
    text = f"otel-stageio: {plain(message)}\n"
    encoding = getattr(sys.stderr, "encoding", None) or "ascii"
    sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))
