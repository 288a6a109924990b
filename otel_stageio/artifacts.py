"""Files that a stage reads, writes and keeps: what they are when tracked, and what they are at the end."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from . import semconv as sc
from .capture import Capture

#: (bytes or None if unknown, whether it is there)
Measure = tuple[int | None, bool]
_ABSENT: Measure = (None, False)
_MOST_ENTRIES = 100_000


class Artifacts:
    """The files of one stage. Identity is role and absolute path: the same file tracked twice is one entry."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._paths: dict[tuple[str, str], str] = {}
        self._measures: dict[tuple[str, str], Measure] = {}

    def track(self, role: str, path: str, kind: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes of a ``stageio.artifact`` event. ``type`` in the metadata wins, as callers rely on."""
        key = (role, os.path.abspath(path))
        given = self._paths.setdefault(key, self._capture.string(path))
        plain = self._capture.mapping(metadata)
        kind = plain.pop("type", kind)
        measure = _measure(key[1], recursive=False)
        self._measures[key] = measure
        attributes = self._attributes(role, given, key[1], measure)
        attributes[sc.ARTIFACT_TYPE] = self._capture.string(kind)
        if plain:
            attributes[sc.LOCAL_METADATA] = plain
        return attributes

    def final(self) -> Iterator[dict[str, Any]]:
        """Attributes for each file whose size or presence is not what was last recorded."""
        for key, before in list(self._measures.items()):
            now = _measure(key[1], recursive=True)
            if now != before:
                self._measures[key] = now
                yield self._attributes(key[0], self._paths[key], key[1], now)

    def _attributes(self, role: str, given: str, absolute: str, measure: Measure) -> dict[str, Any]:
        capture = self._capture
        name = os.path.basename(absolute)
        attributes: dict[str, Any] = {
            sc.ARTIFACT_ROLE: role,
            sc.FILE_NAME: capture.string(name),
            sc.FILE_PATH: capture.string(capture.paths.relative(absolute)),
            sc.LOCAL_PATH: given,
        }
        extension = os.path.splitext(name)[1].lstrip(".")
        if extension:
            attributes[sc.FILE_EXTENSION] = capture.string(extension)
        size, present = measure
        if size is not None:
            attributes[sc.FILE_SIZE] = size
        if not present:
            attributes[sc.ARTIFACT_EXISTS] = False
        return attributes


def _measure(path: str, *, recursive: bool) -> Measure:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: an embedded NUL
        return _ABSENT
    if not stat.S_ISDIR(status.st_mode):
        return (status.st_size, True)
    # Walking a large tree once, at the end, is enough.
    return (_tree_size(path) if recursive else None, True)


def _tree_size(top: str) -> int | None:
    """The files below a directory; None if it is so large that nobody should wait for the sum."""
    total, pending, left = 0, [top], _MOST_ENTRIES
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    left -= 1
                    if not left:
                        return None
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                        else:
                            total += entry.stat(follow_symlinks=False).st_size
                    except OSError:
                        continue  # vanished while we looked
        except OSError:
            continue
    return total
