"""Which stage made which file, and which stage read it: a graph of a job, laid out for a picture.

Stages stand in a column in the order in which they began; files to the right of what made them, those from outside to
the left. A pipeline is a line already: no layout engine is needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from ..layout import within
from ..reading.text import count, duration, size
from ..reading.view import JobView, StageView
from ..record.manifest import Artifact

#: Files of a stage that have a box of their own; the rest share one.
_MOST = 8
ROW, HEIGHT = 30, 22
#: Left edge and width of the columns: from outside, stages, made here.
COLUMNS = ((0, 250), (350, 220), (670, 430))
WIDTH = COLUMNS[2][0] + COLUMNS[2][1]


@dataclasses.dataclass(eq=False)
class Node:
    """Attributes:
    kind: ``stage`` or ``file``.
    state: of a stage its status word; of a file ``there``, ``gone`` or ``changed``, or ``many`` for several.
    """

    kind: str
    label: str
    note: str
    state: str
    column: int = 0
    y: int = 0

    @property
    def x(self) -> int:
        return COLUMNS[self.column][0]

    @property
    def width(self) -> int:
        return COLUMNS[self.column][1]


@dataclasses.dataclass(eq=False)
class Edge:
    """``kind`` is ``reads`` (from a file to a stage) or ``writes`` (from a stage to a file)."""

    source: Node
    target: Node
    kind: str

    @property
    def path(self) -> str:
        """A curve, as SVG has it; from the side of the source that faces the target."""
        a, b = self.source, self.target
        forth = a.column < b.column
        x1, x2 = (a.x + a.width, b.x) if forth else (a.x, b.x + b.width)
        y1, y2 = a.y + HEIGHT // 2, b.y + HEIGHT // 2
        if self.kind == "reads":
            y2 += 5  # beside the end at which the stage's own files begin
        bend = max(abs(x2 - x1) // 2, 40)
        return f"M{x1} {y1} C{x1 + (bend if forth else -bend)} {y1} {x2 - (bend if forth else -bend)} {y2} {x2} {y2}"


@dataclasses.dataclass
class Lineage:
    nodes: list[Node]
    edges: list[Edge]
    height: int


def lineage_of(view: JobView) -> Lineage | None:
    """None if no stage tracked a file."""
    root = Path(view.path).absolute()
    stages = sorted(view.stages, key=lambda stage: (stage.started_at or "~", stage.number))
    readers: dict[str, int] = {}
    for stage in stages:
        for name in {_key(entry, root) for entry in stage.record.inputs}:
            readers[name] = readers.get(name, 0) + 1
    made: dict[str, Node] = {}
    outside: dict[str, Node] = {}
    nodes: list[Node] = []
    edges: list[Edge] = []
    for stage in stages:
        older = view.run is not None and stage.run not in (None, view.run.number)
        note = f"run {stage.run}" if older else duration(stage.seconds)
        node = Node("stage", stage.name, note, stage.state, 1)
        nodes.append(node)
        for name, file in _files(stage.record.inputs, root, made, outside, readers, column=0):
            edges.append(Edge(file, node, "reads"))
            if name not in made:
                outside[name] = file
        for name, file in _files(_written(stage), root, made, {}, readers, column=2):
            made.setdefault(name, file)
            edges.append(Edge(node, made[name], "writes"))
    if not edges:
        return None
    _place(nodes, edges)
    files = dict.fromkeys([*outside.values(), *made.values()])
    every = [*nodes, *files]
    return Lineage(every, edges, max(node.y for node in every) + ROW)


def _written(stage: StageView) -> list[Artifact]:
    return [*stage.record.outputs, *stage.record.intermediate_files]


def _key(entry: Artifact, root: Path) -> str:
    return within(entry.path, root) or entry.path


def _files(
    entries: list[Artifact],
    root: Path,
    made: dict[str, Node],
    known: dict[str, Node],
    readers: dict[str, int],
    *,
    column: int,
) -> Iterable[tuple[str, Node]]:
    """A node for each file, those that others read first; beyond a number they share one."""
    byname = {_key(entry, root): entry for entry in entries}
    ordered = sorted(byname, key=lambda name: -readers.get(name, 0))
    for name in ordered[:_MOST]:
        yield name, made.get(name) or known.get(name) or _file(byname[name], name, root, column)
    rest = ordered[_MOST:]
    if rest:
        total = sum(byname[name].size_bytes or 0 for name in rest)
        yield f"\0{id(entries)}", Node("file", count(len(rest), "further file"), size(total), "many", column)


def _file(entry: Artifact, name: str, root: Path, column: int) -> Node:
    state, note = "there", size(entry.size_bytes)
    path = root / name if within(entry.path, root) is not None else Path(entry.path)
    if entry.exists is False:
        state, note = "gone", "was not there"
    elif path.is_absolute():
        found = size_now(path)
        if found is None:
            state, note = "gone", "no longer there"
        elif entry.size_bytes is not None and path.is_file() and found != entry.size_bytes:
            state, note = "changed", f"{size(entry.size_bytes)}, now {size(found)}"
    return Node("file", name, note, state, column)


def size_now(path: Path) -> int | None:
    """Bytes of what is there now; None if nothing is."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None


def _place(stages: list[Node], edges: list[Edge]) -> None:
    """Stage by stage from the top: each takes as many rows as the longer of its two lists of new files."""
    placed: set[Node] = set()
    row = 0
    for stage in stages:
        rows = {0: row, 2: row}
        for edge in edges:
            file = edge.source if edge.kind == "reads" else edge.target
            if stage not in (edge.source, edge.target) or file in placed:
                continue
            file.y = 4 + rows[file.column] * ROW
            rows[file.column] += 1
            placed.add(file)
        stage.y = 4 + row * ROW
        row = max(row + 1, *rows.values())
