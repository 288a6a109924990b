"""``otel-stageio lineage``: what came from what."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from ..layout import within
from ..reading.elsewhere import Place, places_by_content
from ..reading.job import CannotAnswer
from ..reading.lineage import Action, Lineage
from ..reading.text import count, one_line, plain
from .terminal import Terminal

_MOST_ELSEWHERE = 3
_STYLES = {"stale": "yellow", "changed": "red", "missing": "red"}


def find_file(lineage: Lineage, asked: str) -> str:
    """The name of a file of the job, from a path or the end of one.

    Raises:
        CannotAnswer: if there is none such, or several.
    """
    files = lineage.files
    if asked in files:
        return asked
    relative = within(asked, Path(lineage.job).absolute())
    if relative in files:
        return str(relative)
    ends = [name for name in files if name.endswith(f"/{asked}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise CannotAnswer(f"{asked} is more than one file: {', '.join(ends[:5])}")
    raise CannotAnswer(f"no stage of {lineage.job} has read or written {asked}; see otel-stageio lineage {lineage.job}")


def elsewhere_of(lineage: Lineage, root: str | None) -> dict[str, list[Place]]:
    return places_by_content(root, lineage.job) if root is not None else {}


class LineageTree:
    """Args: ``elsewhere``: content -> where else the same bytes are."""

    def __init__(self, lineage: Lineage, elsewhere: dict[str, list[Place]], terminal: Terminal) -> None:
        self._lineage, self._elsewhere, self._terminal = lineage, elsewhere, terminal
        self._files = lineage.files
        self._shown: set[str] = set()
        guides = ("├── ", "└── ", "│   ") if terminal.unicode else ("|-- ", "`-- ", "|   ")
        self._branch, self._end, self._trunk = guides

    def whole(self) -> None:
        """Every result, with all that it came from."""
        results = self._lineage.results
        if not self._files:
            self._terminal.line(("no stage has tracked a file", "dim"))
        for name in results or list(self._files)[:1]:
            self.upstream(name)

    def upstream(self, name: str) -> None:
        self._above(name, "", "")

    def downstream(self, name: str) -> None:
        """What was made with the help of a file."""
        readers = self._lineage.read_by.get(name, [])
        if readers:
            self._terminal.heading("Used by")
            self._shown.clear()
            self._below(name, "  ")

    def _above(self, name: str, lead: str, guide: str) -> None:
        """A file and what it was made from; what has been shown once is not shown again."""
        action = self._lineage.made_by.get(name)
        inputs = [file.name for file in action.inputs if file.name != name] if action is not None else []
        again = name in self._shown and bool(inputs)
        self._shown.add(name)
        line = self._file(name)
        self._terminal.line((lead, "dim"), line.append("  (see above)", "dim") if again else line)
        for number, inner in enumerate([] if again else inputs, 1):
            last = number == len(inputs)
            self._above(inner, guide + (self._end if last else self._branch), guide + ("    " if last else self._trunk))

    def _below(self, name: str, guide: str) -> None:
        readers = self._lineage.read_by.get(name, [])
        for number, action in enumerate(readers, 1):
            last = number == len(readers)
            self._terminal.line((guide + (self._end if last else self._branch), "dim"), self._action(action))
            inner = guide + ("    " if last else self._trunk)
            if action.name in self._shown:
                continue
            self._shown.add(action.name)
            outputs = [file.name for file in action.outputs if file.name != name]
            for at, output in enumerate(outputs, 1):
                final = at == len(outputs)
                self._terminal.line(
                    (inner + (self._end if final else self._branch), "dim"), self._file(output, by=False)
                )
                self._below(output, inner + ("    " if final else self._trunk))

    def _action(self, action: Action) -> Text:
        return Text.assemble(self._terminal.glyph(action.state), " ", (one_line(action.name), "bold"))

    def _file(self, name: str, *, by: bool = True) -> Text:
        file = self._files[name]
        line = Text(plain(name).replace("\n", "\\n"))
        if file.size:
            line.append(f"  {file.size}", "dim")
        maker = self._lineage.made_by.get(name)
        if by and maker is not None:
            line.append("  by ", "dim").append(one_line(maker.name), "bold")
            line.append(f", run {maker.run}" if maker.run is not None else "", "dim")
        elif by:
            line.append("  from outside", "dim")
        state = self._lineage.now.get(name)
        if state:
            line.append(f"  {state}: {one_line(self._lineage.why[name])}", _STYLES[state])
        places = self._elsewhere.get(file.content, []) if file.content else []
        for place in places[:_MOST_ELSEWHERE]:
            line.append(f"  = {one_line(place.sentence)}", "cyan")
        if len(places) > _MOST_ELSEWHERE:
            line.append(f"  and {count(len(places) - _MOST_ELSEWHERE, 'further place')}", "dim")
        return line


def dot(lineage: Lineage) -> str:
    """For Graphviz: ``otel-stageio lineage JOB --dot | dot -Tsvg``."""
    colours = {"stale": "goldenrod", "changed": "crimson", "missing": "crimson"}
    lines = ["digraph lineage {", "  rankdir=LR;", '  node [fontname="sans-serif", fontsize=11];']
    current = {id(action) for action in lineage.made_by.values()}
    current |= {id(action) for readers in lineage.read_by.values() for action in readers}
    for name, file in lineage.files.items():
        colour = colours.get(lineage.now.get(name, ""), "black")
        label = f"{name}\n{file.size}" if file.size else name
        lines.append(f"  {_quoted('file ' + name)} [shape=note, label={_quoted(label)}, color={colour}];")
    for action in lineage.actions:
        if id(action) not in current:
            continue
        node = _quoted(f"stage {action.name}")
        lines.append(f"  {node} [shape=box, style=rounded, label={_quoted(action.name)}];")
        lines += [f"  {_quoted('file ' + file.name)} -> {node};" for file in action.inputs]
        lines += [f"  {node} -> {_quoted('file ' + file.name)};" for file in action.outputs
                  if lineage.made_by.get(file.name) is action]  # fmt: skip
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = plain(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
