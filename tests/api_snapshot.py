"""The public API as text: each name, how it is called, what is public in it; each command and its options.

    python tests/api_snapshot.py        writes tests/api_snapshot.txt anew

``tests/test_public_api.py`` compares. What counts as public and what a change needs: docs/VERSIONS.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import otel_stageio

SNAPSHOT = Path(__file__).with_name("api_snapshot.txt")


class AsWritten(str):
    """An annotation, which is a string here, without quotes: the text is the same under every Python."""

    __repr__ = str.__str__


def signature(function: Any) -> str:
    found = inspect.signature(function)
    parameters = [one.replace(annotation=AsWritten(one.annotation)) if one.annotation is not one.empty else one
                  for one in found.parameters.values()]  # fmt: skip
    answer = found.return_annotation
    if answer is not found.empty:
        answer = AsWritten(answer)
    return str(found.replace(parameters=parameters, return_annotation=answer))


def members(cls: type) -> Iterator[str]:
    for name in sorted(dir(cls)):
        if name.startswith(("_", "model_")) and name not in ("__enter__", "__exit__"):
            continue  # model_ is pydantic's
        owner = next(base for base in cls.__mro__ if name in vars(base))
        member = inspect.getattr_static(cls, name)
        if not owner.__module__.startswith("otel_stageio"):
            continue  # pydantic's and Exception's
        if isinstance(member, property):
            yield f"    {name}: {signature(member.fget).rpartition(' -> ')[2]}"
        elif inspect.isroutine(member):
            kind = {classmethod: "classmethod ", staticmethod: "staticmethod "}.get(type(member), "")
            yield f"    {kind}{name}{signature(getattr(cls, name))}"
        else:
            yield f"    {name}"
    for name, field in getattr(cls, "model_fields", {}).items():
        yield f"    {name}: {'required' if field.is_required() else 'optional'}"


def commands() -> Iterator[str]:
    """What the command line takes; its root's options belong to no command."""
    from typer.main import get_command

    from otel_stageio.cli.app import app

    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    for name, command in sorted(found.items()):
        words = [word for one in command.params for word in (*one.opts, *one.secondary_opts)]
        yield " ".join(["otel-stageio", name, *words])


def snapshot() -> str:
    lines: list[str] = []
    for name in otel_stageio.__all__:
        value = getattr(otel_stageio, name)
        if inspect.isclass(value):
            bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
            lines += [f"class {name}({bases})", *members(value)]
            if "__init__" in vars(value):
                lines.append(f"    __init__{signature(value.__init__)}")
        elif callable(value):
            lines.append(f"{name}{signature(value)}")
        else:
            lines.append(name)
    lines += commands()
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
