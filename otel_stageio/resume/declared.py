"""What a stage says that its result depends on, beside the files that it tracks: parameters, code, environment."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from .digest import Digests

#: Words of a command that name files with these endings are its code.
_SCRIPTS = frozenset({".bash", ".js", ".lua", ".pl", ".py", ".r", ".rb", ".sh"})
#: In the place of a digest.
NOT_READ = "not read"


@dataclass
class Declared:
    """What a stage says that its result depends on.

    Attributes:
        code: files by digest, under their names; or a version.
        inputs: name and place of the files that it reads, as far as it knows by now.
        place: the job, and what its relative paths are relative to.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    inputs: list[tuple[str, Path]] = field(default_factory=list)
    place: dict[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """For the record, which has the inputs themselves: so many were tracked before it asked."""
        return {
            "parameters": self.parameters,
            "code": self.code,
            "environment": self.environment,
            "inputs": len(self.inputs),
            "place": self.place,
        }


def code_of(code: Any, digests: Digests) -> dict[str, str]:
    """What a caller named as code, by digest.

    Args:
        code: a path, a module, a function or class, a version, or a list of these.

    Raises:
        TypeError: for something that has no source file.
    """
    if code is None:
        return {}
    if isinstance(code, (list, tuple, set, frozenset)):
        found: dict[str, str] = {}
        for item in code:
            for name, value in code_of(item, digests).items():
                former = found.get(name, value)
                found[name] = value if former == value else f"{former}, {value}"  # of two versions both count
        return found
    if isinstance(code, (str, os.PathLike)):
        file = _existing(code)
        if file is None and isinstance(code, str) and not code.endswith(tuple(_SCRIPTS)):
            return {"version": code}
        if file is None:
            raise TypeError(f"code={code!r}: there is no such file; give a path, a module, a function or a version")
        return {os.path.abspath(file): _source_digest(str(file), digests)}
    source = None
    if isinstance(code, ModuleType) or callable(code):
        try:
            source = inspect.getsourcefile(inspect.unwrap(code) if callable(code) else code)
        except TypeError:
            source = None
    if source is None or _existing(source) is None:  # in a notebook there is a name, and no file
        raise TypeError(f"code={code!r} has no source file; give a path, a module, a function or a version")
    return {os.path.abspath(source): _source_digest(source, digests)}


def code_of_command(words: Iterable[str], cwd: str | os.PathLike[str] | None, digests: Digests) -> dict[str, str]:
    """The scripts that a command names."""
    found = {}
    for word in words:
        path = os.path.join(cwd or ".", word)
        if os.path.splitext(word)[1].lower() in _SCRIPTS and _existing(path):
            found[os.path.abspath(path)] = _source_digest(path, digests)
    return found


def environment_of(given: Mapping[str, Any] | Iterable[str] | None) -> dict[str, Any]:
    """Versions and the like as given, or the values of environment variables by their names."""
    if given is None:
        return {}
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping):
        return dict(given)
    return {str(name): os.environ.get(str(name)) for name in given}


def _source_digest(path: str, digests: Digests) -> str:
    found = digests.of(path, kind="sha256")
    return f"sha256:{found['sha256']}" if "sha256" in found else NOT_READ


def code_now(name: str, before: str, digests: Digests) -> str:
    return _source_digest(name, digests) if is_digest(before) else before


def is_digest(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("sha256:")


def _existing(path: str | os.PathLike[str]) -> Path | None:
    """The path, if there is a file."""
    try:
        found = Path(path)
        return found if found.is_file() else None
    except (OSError, TypeError, ValueError):
        return None
