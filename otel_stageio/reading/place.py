"""Where a path in a record lies: in this job, wherever the job lies by now, or outside of it.

Manifests keep paths as their callers gave them, often relative to a directory that is long gone; the job may have been
moved or copied since.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_STAGE_DIRECTORY = re.compile(r"\d\d_.+")


def within(path: str, root: Path) -> str | None:
    """A recorded path relative to the job, or None for one outside.

    Args:
        root: the job directory, absolute.

    Example:
        >>> within("out/film/06_asr/segments.json", Path("/mnt/copy/film"))
        '06_asr/segments.json'
    """
    if not path or "\0" in path:
        return None
    full = os.path.abspath(path)
    top = str(root)
    if full == top:
        return "."
    if full.startswith(top + os.sep):
        return full[len(top) + 1 :]
    parts = Path(path).parts
    for at in range(len(parts) - 1, -1, -1):
        if parts[at] == root.name and at + 1 < len(parts):
            return _joined(parts[at + 1 :])
    for at, part in enumerate(parts[:-1]):
        if _STAGE_DIRECTORY.fullmatch(part) and (root / part).is_dir():
            return _joined(parts[at:])
    return None


def _joined(parts: tuple[str, ...]) -> str | None:
    return None if ".." in parts else os.path.join(*parts)
