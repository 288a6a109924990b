"""Put first on PYTHONPATH by ``otel-stageio run --drop-in PACKAGE``: the original's modules become ours.

Scripts of the original insert their project root at the front of ``sys.path``, so a directory on the path cannot
stand in for ``shared.stage_utils``; an import hook can. It reaches child processes through the environment, imports
nothing until one of the three modules is asked for, and leaves everything else of the package alone.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType

_MODULES = ("stage_utils", "logger", "stage_manifest")
_HERE = os.path.dirname(os.path.abspath(__file__))


class _Loader(importlib.abc.Loader):
    def __init__(self, target: str) -> None:
        self._target = target

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        source = importlib.import_module(self._target)
        names = {name: value for name, value in vars(source).items() if not name.startswith("__")}
        module.__dict__.update(names, __doc__=source.__doc__)


class _Finder(importlib.abc.MetaPathFinder):
    """First on ``sys.meta_path``: PACKAGE.stage_utils, PACKAGE.logger, PACKAGE.stage_manifest."""

    def __init__(self, package: str) -> None:
        self._targets = {f"{package}.{name}": f"otel_stageio.compat.{name}" for name in _MODULES}
        self._said = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._targets:
            return None
        if importlib.util.find_spec("otel_stageio") is None:
            if not self._said:
                self._said = True
                sys.stderr.write(
                    f"otel_stageio is not installed for {sys.executable}: {name} stays as it is and is not recorded\n"
                )
            return None
        return importlib.util.spec_from_loader(name, _Loader(self._targets[name]))


class _LastResort(importlib.abc.MetaPathFinder):
    """Last on ``sys.meta_path``: PACKAGE itself and its stage_order, where the project has none of its own."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == f"{self._package}.stage_order" and importlib.util.find_spec("otel_stageio") is not None:
            return importlib.util.spec_from_loader(name, _Loader("otel_stageio.compat.stage_order"))
        if name != self._package:
            return None
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = []
        return spec


def _next_sitecustomize() -> None:
    """Run the sitecustomize that we stand in front of, if there is one."""
    others = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_package = os.environ.get("OTEL_STAGEIO_DROP_IN", "")
if _package:
    sys.meta_path.insert(0, _Finder(_package))
    sys.meta_path.append(_LastResort(_package))
_next_sitecustomize()
