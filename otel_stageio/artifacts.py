"""Files that a stage reads, writes and keeps: what they are when tracked, and what they are at the end."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from . import semconv as sc
from .capture import Capture
from .digest import Digest, Digests, Identity, Stopped, budget, not_computed
from .read_ahead import WORTH_IT, read_ahead, wait_for

_MOST_ENTRIES = 100_000
#: (role, absolute path)
_Key = tuple[str, str]


class Look(NamedTuple):
    """What is seen of a path without reading it. ``size`` is None if it is not known, ``identity`` for a directory."""

    size: int | None
    present: bool
    identity: Identity | None


_ABSENT = Look(None, False, None)


class Artifacts:
    """The files of one stage. Identity is role and absolute path: the same file tracked twice is one entry."""

    def __init__(self, capture: Capture, digests: Digests) -> None:
        self._capture = capture
        self.digests = digests
        self._paths: dict[_Key, str] = {}
        self._looks: dict[_Key, Look] = {}
        self._told: dict[_Key, Digest | None] = {}
        self._found: dict[_Key, Digest] = {}

    def track(self, role: str, path: str, kind: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes of a ``stageio.artifact`` event. ``type`` in the metadata wins, as callers rely on."""
        key = (role, os.path.abspath(path))
        given = self._paths.setdefault(key, self._capture.string(path))
        plain = self._capture.mapping(metadata)
        kind = plain.pop("type", kind)
        look = _look(key[1], recursive=False)
        self._looks[key] = look
        self._told[key] = digest = self._known(look)
        if digest is None and look.size is not None and look.size >= WORTH_IT and self.digests.tier == "sha256":
            read_ahead(self.digests, key[1])
        attributes = self._attributes(key, given, look, digest)
        attributes[sc.ARTIFACT_TYPE] = self._capture.string(kind)
        if plain:
            attributes[sc.LOCAL_METADATA] = plain
        return attributes

    @property
    def tracked(self) -> list[tuple[str, str]]:
        """(role, absolute path) of each."""
        return list(self._looks)

    def examine(self, seconds: float | None = None) -> None:
        """Compute what digests are missing, the smaller files first, as long as there is time.

        Args:
            seconds: by default what the environment allows.
        """
        if self.digests.tier == "off":
            return
        seconds = budget() if seconds is None else seconds
        deadline = time.monotonic() + seconds
        wait_for(self.digests, deadline)
        for key in sorted(self._looks, key=lambda key: self._looks[key].size or 0):
            role, path = key
            if role == "input" and self._changed(key):
                self._found[key] = not_computed(path, "it changed while the stage ran")
                continue
            try:
                self._found[key] = self.digests.of(path, lambda: time.monotonic() > deadline)
            except Stopped:
                why = f"it would have taken longer than the {seconds:g} s of {sc.ENV_DIGEST_BUDGET}"
                self._found[key] = not_computed(path, why)
        self.digests.save()

    def final(self) -> Iterator[dict[str, Any]]:
        """Attributes for each file of which size, presence or digest is not what was last recorded."""
        self.digests.closed = True
        for key, before in list(self._looks.items()):
            now = _look(key[1], recursive=True)
            digest = self._found.get(key) or self._known(now)
            changed = key[0] == "input" and self._changed(key)
            if now[:2] != before[:2] or digest != self._told[key] or changed:
                self._looks[key], self._told[key] = now, digest
                attributes = self._attributes(key, self._paths[key], now, digest)
                if changed:
                    attributes[sc.ARTIFACT_CHANGED] = True
                yield attributes

    def _known(self, look: Look) -> Digest | None:
        return self.digests.known(look.identity) if look.identity and self.digests.tier != "off" else None

    def _changed(self, key: _Key) -> bool:
        before = self._looks[key]
        return before.identity is not None and _look(key[1], recursive=False).identity != before.identity

    def _attributes(self, key: _Key, given: str, look: Look, digest: Digest | None) -> dict[str, Any]:
        capture = self._capture
        role, absolute = key
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
        if look.size is not None:
            attributes[sc.FILE_SIZE] = look.size
        if not look.present:
            attributes[sc.ARTIFACT_EXISTS] = False
        if digest:
            attributes[sc.LOCAL_DIGEST] = digest
            for algorithm in ("sha256", "dirHash1"):
                if algorithm in digest:
                    attributes[sc.ARTIFACT_HASH] = digest[algorithm]
                    attributes[sc.ARTIFACT_HASH_ALGORITHM] = algorithm
        return attributes


def _look(path: str, *, recursive: bool) -> Look:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: an embedded NUL
        return _ABSENT
    if not stat.S_ISDIR(status.st_mode):
        return Look(status.st_size, True, Identity.of(status))
    # Walking a large tree once, at the end, is enough.
    return Look(_tree_size(path) if recursive else None, True, None)


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
