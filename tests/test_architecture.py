"""How the package hangs together, read from its imports: what knows of what, and how large a file may get.

A layer may import itself and those that its row names. What is imported for the type checker alone binds nothing when
the program runs; only the strict layers answer for that too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent.parent / "otel_stageio"

_BELOW_STAGE = "ground capture otlp fold disk sinks resources run delivery resume"

#: Layer -> what it may import, and its modules; a name with a slash is a whole directory. From DESIGN §3, bottom up.
LAYERS = {
    "ground": ("", "_version ambient events held layout levels runtime semconv units"),
    "capture": ("ground", "capture/"),
    "otlp": ("ground", "otlp/"),
    "fold": ("ground", "record/"),
    "disk": ("ground", "sinks/files sinks/claim"),
    "sinks": ("ground capture otlp fold disk", "sinks/"),
    "resources": ("ground otlp", "resources/"),
    "run": ("ground capture otlp fold disk sinks resources", "recovery/ runs/"),
    "delivery": ("ground capture otlp disk run", "delivery/"),
    "upkeep": ("ground fold disk run delivery", "pruning"),
    "resume": ("ground capture fold disk run", "resume/"),
    "stage": (_BELOW_STAGE, "pipeline/ stages/"),
    "reading": ("ground capture otlp fold disk run delivery resume", "reading/"),
    "report": ("ground fold reading", "report/"),
    "export": ("ground capture fold reading", "export/"),
    "cli": (_BELOW_STAGE + " stage upkeep reading report export compat", "cli/ __main__"),
    "integrations": (_BELOW_STAGE + " stage", "integrations/"),
    "compat": (_BELOW_STAGE + " stage", "compat/"),
    "face": ("ground", "__init__"),  # it loads the rest by name, when that is used
    "testing": ("ground otlp", "testing"),
}

#: Layers whose ignorance of others is the point: they name them not even for the type checker.
STRICT = {"sinks", "delivery", "reading", "report", "export"}

#: Modules that write a job's files. What reads a job touches none of them.
WRITERS = (
    "pipeline.pipeline recovery.dead_spans recovery.recover runs.root_span runs.run runs.run_edit runs.run_end"
    " sinks.manifest_file sinks.open_spans stages.recorder stages.span_writer stages.stage_io"
)
READERS = {"reading", "report", "export", "cli"}
#: Commands are readers too, but for those that are there to do something.
ACTING = "cli.commands.act cli.prune cli.push cli.recover cli.run cli.schedule"

#: (who, whom) -> why all the same.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("delivery.worker", "sinks.pipeline_log"): "a receiver that is set up wrongly is said once in the pipeline log",
    ("reading.job", "recovery.recover"): "who asks about a job wants what died in it closed first",
}

#: File -> why it is longer than most.
LONG: dict[str, str] = {}
MOST_LINES = 400


class Import(NamedTuple):
    source: str
    line: int
    target: str
    kind: str  # "module", "function" or "types"

    def __str__(self) -> str:
        how = {"module": "", "function": " inside a function", "types": " for its types"}[self.kind]
        return f"otel_stageio/{_files()[self.source]}:{self.line} imports {self.target}{how}"


def _files() -> dict[str, str]:
    """Module, without the package's name -> its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = str(
            path.relative_to(PACKAGE)
        )
    return found


def _imports(module: str, file: str, known: dict[str, str]) -> Iterator[Import]:
    """What a module imports of this package."""
    package = [] if module == "__init__" else module.split(".")
    if not file.endswith("__init__.py"):
        package.pop()

    def targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE.name:
                    yield alias.name.partition(".")[2] or "__init__"
            return
        if node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
        elif node.module and node.module.split(".")[0] == PACKAGE.name:
            base = node.module.split(".")[1:]
        else:
            return
        modules = {".".join([*base, alias.name]) for alias in node.names} & known.keys()
        yield from sorted(modules)
        if len(modules) < len(node.names):
            yield ".".join(base) or "__init__"

    def visit(node: ast.AST, kind: str) -> Iterator[Import]:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, (ast.Import, ast.ImportFrom)):
                for target in targets(inner):
                    yield Import(module, inner.lineno, target, kind)
            elif isinstance(inner, ast.If) and ast.unparse(inner.test).endswith("TYPE_CHECKING"):
                yield from visit(inner, "types")
            elif isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                yield from visit(inner, kind if kind == "types" else "function")
            else:
                yield from visit(inner, kind)

    yield from visit(ast.parse((PACKAGE / file).read_text(encoding="utf-8")), "module")


def _layer(module: str) -> str:
    """The layer that names a module, or the innermost directory that it is in; empty if none does."""
    path = module.replace(".", "/")
    rows = {name: layer for layer, (_, names) in LAYERS.items() for name in names.split()}
    wanted = [path, *(f"{path[:end]}/" for end in range(len(path), 0, -1) if f"{path}/"[end] == "/")]
    return next((rows[name] for name in wanted if name in rows), "")


KNOWN = _files()
IMPORTS = [found for module, file in KNOWN.items() for found in _imports(module, file, KNOWN)]


def test_every_module_is_in_one_layer() -> None:
    homeless = [file for module, file in KNOWN.items() if not _layer(module)]
    assert not homeless, f"give these a layer in {Path(__file__).name}: {homeless}"
    named = [name for _, names in LAYERS.values() for name in names.split()]
    assert len(named) == len(set(named))
    gone = [name for name in named if name.rstrip("/").replace("/", ".") not in KNOWN and not (PACKAGE / name).is_dir()]
    assert not gone, f"in no file any more: {gone}"


def test_data_flows_one_way() -> None:
    wrong = []
    for found in IMPORTS:
        own, other = _layer(found.source), _layer(found.target)
        if found.kind == "types" and own not in STRICT:
            continue
        if other != own and other not in LAYERS[own][0].split() and (found.source, found.target) not in EXCEPTIONS:
            wrong.append(f"{found}: {own} knows {LAYERS[own][0] or 'nothing else'}, and not {other}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_readers_touch_no_writer() -> None:
    wrong = [
        f"{found}: that writes a job's files, and {_layer(found.source)} only reads them"
        for found in IMPORTS
        if _layer(found.source) in READERS
        and found.source not in ACTING.split()
        and (found.target in WRITERS.split() or _layer(found.target) in ("stage", "upkeep"))
        and (found.source, found.target) not in EXCEPTIONS
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_delivery_knows_nothing_of_logging() -> None:
    handlers = {"capture.log_handler", "capture.root_logging"}
    wrong = [str(found) for found in IMPORTS if _layer(found.source) == "delivery" and found.target in handlers]
    for module, file in KNOWN.items():
        if _layer(module) == "delivery":
            tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
            named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            wrong += [f"otel_stageio/{file} imports logging"] if "logging" in named else []
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_exception_is_needed() -> None:
    made = {(found.source, found.target) for found in IMPORTS}
    assert not set(EXCEPTIONS) - made, "no longer imported: take it out of EXCEPTIONS"
    assert all(reason for reason in EXCEPTIONS.values())


def test_no_circle_when_modules_are_loaded() -> None:
    graph: dict[str, set[str]] = {module: set() for module in KNOWN}
    for found in IMPORTS:
        if found.kind == "module":
            graph[found.source].add(found.target)
    done: set[str] = set()

    def follow(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        circle = next(filter(None, (follow(inner, [*way, module]) for inner in sorted(graph[module]))), [])
        done.add(module)
        return circle

    for module in graph:
        circle = follow(module, [])
        assert not circle, "these import each other: " + " -> ".join(circle)


def test_one_idea_fits_in_a_file() -> None:
    lines = {file: len((PACKAGE / file).read_text(encoding="utf-8").splitlines()) for file in KNOWN.values()}
    long = {file: number for file, number in lines.items() if number > MOST_LINES}
    new = [
        f"{file} has {number} lines: are there two ideas in it?" for file, number in long.items() if file not in LONG
    ]
    assert not new, "\n" + "\n".join([*new, "If not, say why in LONG."])
    assert not LONG.keys() - long.keys(), "short again: take it out of LONG"
