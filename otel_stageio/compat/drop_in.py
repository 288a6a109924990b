"""The environment that makes unmodified scripts of the original use this library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..semconv import ENV_DROP_IN

HOOK = Path(__file__).parent / "hook"


def drop_in_environment(package: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """``environ`` with the import hook for ``package`` (``shared`` in CP-WhisperX) put in; children inherit it.

    Raises:
        ValueError: if ``package`` is no module name.
    """
    if not all(part.isidentifier() for part in package.split(".")):
        raise ValueError(f"--drop-in needs the name of a package, like 'shared', not {package!r}")
    environ = os.environ if environ is None else environ
    path = [str(HOOK), *(entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry)]
    return {**environ, ENV_DROP_IN: package, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}
