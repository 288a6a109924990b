"""The same bytes in other jobs: who made them there, and who read them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ..layout import STAGE_DIRECTORY, find_jobs, within


class Place(NamedTuple):
    """Attributes: ``role`` is ``made`` or ``read``."""

    job: str
    stage: str
    name: str
    role: str

    @property
    def sentence(self) -> str:
        return f"{self.role} by {self.stage} of {self.job} as {self.name}"


def places_by_content(root: str, without: str) -> dict[str, list[Place]]:
    """Content (``sha256:…``) -> where the jobs below a directory have it.

    Args:
        without: the job that asks.
    """
    found: dict[str, list[Place]] = {}
    own = os.path.realpath(without)
    for job in sorted(find_jobs(root)):
        if os.path.realpath(job) == own:
            continue
        for place, content in _of_job(job):
            found.setdefault(content, []).append(place)
    return found


def _of_job(job: str) -> list[tuple[Place, str]]:
    found = []
    root = Path(job).absolute()
    try:
        directories = [entry.path for entry in os.scandir(job) if STAGE_DIRECTORY.fullmatch(entry.name)]
    except OSError:
        return []
    for directory in sorted(directories):
        try:
            manifest = json.loads(Path(directory, "manifest.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        found += _of_manifest(manifest, job, root)
    return found


def _of_manifest(manifest: Any, job: str, root: Path) -> list[tuple[Place, str]]:
    found: list[tuple[Place, str]] = []
    if not isinstance(manifest, dict):
        return found
    substages = manifest.get("substages")
    for record in (manifest, *(substages.values() if isinstance(substages, dict) else ())):
        for role, key in (("made", "outputs"), ("read", "inputs")):
            entries = record.get(key) if isinstance(record, dict) else None
            for entry in entries if isinstance(entries, list) else ():
                digest = entry.get("digest") if isinstance(entry, dict) else None
                for kind in ("sha256", "dirHash1"):
                    value = digest.get(kind) if isinstance(digest, dict) else None
                    if isinstance(value, str):
                        name = within(str(entry.get("path", "")), root) or str(entry.get("path", ""))
                        found.append((Place(job, str(record.get("stage", "")), name, role), f"{kind}:{value}"))
    return found
