"""What pages take from the code, so that it cannot drift: an HTML comment in a page names it.

    <!-- code: examples/subtitles/stages/asr.py run_stage -->     a function's source; without a name, the whole file
    <!-- section: README.md Environment -->                        a section of another page, without its heading
    <!-- semantic conventions -->
    <!-- commands -->
    <!-- schema: manifest -->

``expand`` puts it in their place. The site's build does it (``docs/hooks.py``), and the tests look at the same text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from typer.testing import CliRunner

from otel_stageio.cli.app import app
from otel_stageio.cli.schema import schema_of
from otel_stageio.semconv import USED

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "otel_stageio"
_DIRECTIVE = re.compile(
    r"^<!-- (code|section|schema|semantic conventions|commands)(?:: (\S+)(?: (.+))?)? -->$", re.MULTILINE
)


def expand(markdown: str) -> str:
    """The page with what it takes from the code.

    Raises:
        LookupError: if it names what is not there.
    """
    return _DIRECTIVE.sub(lambda match: _MAKERS[match[1]](*filter(None, match.groups()[1:])), markdown)


# -- source and sections ---------------------------------------------------------------------------------------------


def code(path: str, name: str = "") -> str:
    """A file, or one function or class of it, as a block with the path as its title."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if name:
        found = [node for node in ast.parse(text).body if getattr(node, "name", "") == name]
        if not found:
            raise LookupError(f"there is no {name} in {path}")
        text = ast.get_source_segment(text, found[0]) or ""
    return f'```python title="{path}"\n{text.strip()}\n```'


def section(path: str, heading: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"there is no section {heading!r} in {path}")
    return found[1].strip()


# -- semantic conventions --------------------------------------------------------------------------------------------


def conventions() -> str:
    """A table for each part of ``semconv.py``; its headings say how stable the conventions are."""
    source = (PACKAGE / "semconv.py").read_text(encoding="utf-8")
    used = _uses()
    tables = []
    for title, stability, text in _parts(source):
        rows = [_row(constant, stability, used) for constant in _constants(text)]
        if any(rows):
            short, _, more = title.partition(". ")
            head = [
                f"## {short}\n",
                f"{more}.\n" if more else "",
                "| Name | Stability | Set or read by |",
                "|---|---|---|",
            ]
            tables.append("\n".join([*head, *filter(None, rows)]))
    return "\n\n".join(tables)


def _parts(source: str) -> Iterator[tuple[str, str, str]]:
    """(title, stability, text) of each part up to the names of variables, which are in a table of their own."""
    pieces = re.split(r"^# -- (.+?) -{2,}$", source, flags=re.MULTILINE)[1:]
    for heading, text in zip(pieces[::2], pieces[1::2], strict=True):
        title, stability = re.fullmatch(r"(.+?)(?: \((.+)\))?", heading).groups()  # type: ignore[union-attr]
        if title in ("environment", "status words"):
            continue
        yield title[0].upper() + title[1:], stability or "", text


def _constants(text: str) -> Iterator[tuple[str, Any]]:
    """(constant, value): a name, or the arguments of a ``Metric``."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if isinstance(node.value, ast.Constant):
                yield name, node.value.value
            elif isinstance(node.value, ast.Call):
                yield name, [argument.value for argument in node.value.args if isinstance(argument, ast.Constant)]
            elif isinstance(node.value, ast.Dict):
                yield from ((name, value.value) for value in node.value.values if isinstance(value, ast.Constant))


def _row(constant: tuple[str, Any], stability: str, used: dict[str, list[str]]) -> str:
    name, value = constant
    what = f"`{value}`" if isinstance(value, str) else f"`{value[0]}` ({value[2]}, `{value[1]}`)"
    plain = value if isinstance(value, str) else value[0]
    if name == "ERROR_OTHER":  # a value of error.type
        return ""
    modules = sorted({*used.get(name, ()), *(used["USED"] if plain in USED.values() else ())})
    return f"| {what}{'…' if plain.endswith('.') else ''} | {_stability(plain, stability)} | {', '.join(modules)} |"


def _stability(name: str, heading: str) -> str:
    """``heading`` is one word, or ``host.*, os.*: stable; process.runtime.*: release candidate``."""
    if name.startswith(("stageio.", "media.")):
        return "ours"
    for part in heading.split("; "):
        globs, _, word = part.rpartition(": ")
        if any(name.startswith(glob.removesuffix("*")) for glob in globs.split(", ")):
            return word
    raise LookupError(f"semconv.py does not say how stable {name} is")


def _uses() -> dict[str, list[str]]:
    """Constant of ``semconv.py`` -> the modules that use it."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "semconv.py":
            continue
        module = str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for name in re.findall(r"\b[A-Z][A-Z0-9_]{2,}\b", path.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(f"`{module}`")
    return {name: sorted(modules) for name, modules in found.items()}


# -- the command line ------------------------------------------------------------------------------------------------


def commands() -> str:
    """The help of every command, as it is printed."""
    group = typer.main.get_command(app)
    names: list[str] = list(group.commands)  # type: ignore[attr-defined]
    runner = CliRunner()
    pages = []
    for name in names:
        text = runner.invoke(app, [name, "--help"], prog_name="otel-stageio", env={"COLUMNS": "80"}).stdout
        pages.append(f"## {name}\n\n```text\n{text.strip()}\n```")
    return "\n\n".join(pages)


# -- JSON Schema -----------------------------------------------------------------------------------------------------


def schema(what: str) -> str:
    """A table for each object of a file's JSON Schema."""
    whole = schema_of(what)
    objects: dict[str, Any] = dict(whole["$defs"])
    first = whole["$ref"].rpartition("/")[2] if "$ref" in whole else str(whole["title"])  # a model may refer to itself
    described = objects.pop(first, whole)
    return "\n\n".join(_object(*item) for item in ((first, described), *objects.items()))


def _object(name: str, described: dict[str, Any]) -> str:
    rows = [
        f"| `{key}` | {_type(field)} | {_cell(field.get('description', ''))} |"
        for key, field in described.get("properties", {}).items()
    ]
    about = described.get("description", "").partition("\n\n")[0].replace("\n", " ")
    return "\n".join([f"### {name}\n", f"{about}\n", "| Key | Type | Meaning |", "|---|---|---|", *rows])


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    kind = field.get("type", "any")
    if kind == "array":
        return f"list of {_type(field.get('items', {}))}"
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"map of {_type(field['additionalProperties'])}"
    return str(kind)


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


_MAKERS: dict[str, Any] = {
    "code": code,
    "section": section,
    "schema": schema,
    "semantic conventions": conventions,
    "commands": commands,
}
