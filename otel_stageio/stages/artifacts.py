"""Files that a stage reads, writes and keeps: what they are when tracked, and what they are at the end."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .. import semconv as sc
from ..capture import Capture
from ..resume.digest import Digest, Digests, Identity, Stopped, budget, not_computed
from ..resume.read_ahead import WORTH_IT, read_ahead, wait_for

_MOST_ENTRIES = 100_000
_SMALL = 1 << 20
#: (role, absolute path)
_Key = tuple[str, str]


class Look(NamedTuple):
    """What is seen of a path without reading it. ``size`` is None if it is not known, ``identity`` for a directory.

    Attributes:
        newest: when a directory, or what is in it, was last changed: nanoseconds, 0 if it was not looked into.
    """

    size: int | None
    present: bool
    identity: Identity | None
    newest: int = 0


_ABSENT = Look(None, False, None)


class Artifacts:
    """The files of one stage. Identity is role and absolute path: the same file tracked twice is one entry."""

    def __init__(self, capture: Capture, digests: Digests) -> None:
        self._capture = capture
        self.digests = digests
        self._paths: dict[_Key, str] = {}
        self._looks: dict[_Key, Look] = {}
        self._since: dict[_Key, int] = {}
        self._told: dict[_Key, Digest | None] = {}
        self._found: dict[_Key, Digest] = {}
        self._altered: set[_Key] = set()

    def track(
        self, role: str, path: str, kind: str, metadata: Mapping[str, Any], digest: Digest | None = None
    ) -> dict[str, Any]:
        """The attributes of a ``stageio.artifact`` event. ``type`` in the metadata wins, as callers rely on.

        Args:
            digest: to be recorded, instead of what the file has.
        """
        key = (role, os.path.abspath(path))
        given = self._paths.setdefault(key, self._capture.string(path))
        plain = self._capture.mapping(metadata)
        kind = plain.pop("type", kind)
        look = self._look_at(key)
        if digest is not None:
            self._told[key] = self._found[key] = digest
        elif role == "input" and self._told.get(key):
            digest = self._told[key]
        else:
            digest = self._told[key] = self._known(look) or self._fresh(key, look)
        if digest is None and look.size is not None and look.size >= WORTH_IT and self.digests.tier == "sha256":
            read_ahead(self.digests, key[1])
        attributes = self._attributes(key, given, look, digest)
        attributes[sc.ARTIFACT_TYPE] = self._capture.string(kind)
        if plain:
            attributes[sc.LOCAL_METADATA] = plain
        return attributes

    def keep(self, role: str, path: str, digest: Digest) -> None:
        """What a file is said to be at the end is what it was verified to be."""
        self._found[role, os.path.abspath(path)] = digest

    def adopt(self, role: str, path: str) -> None:
        """Look after a file that another process of this stage has tracked: a forked worker ends without looking."""
        key = (role, os.path.abspath(path))
        if key not in self._looks:
            self._paths[key], self._told[key] = path, None
            self._look_at(key)

    def _look_at(self, key: _Key) -> Look:
        """The first look at an input stays: the stage may have read it by now."""
        former = self._looks.get(key)
        if key[0] == "input" and former is not None and former.present:
            return former
        self._since[key] = time.time_ns()
        look = self._looks[key] = _look(key[1], recursive=False)
        return look

    def _fresh(self, key: _Key, look: Look) -> Digest | None:
        """Of a small input that was written a moment ago: another write in this moment would not show in its times."""
        if key[0] != "input" or look.identity is None or self.digests.tier not in ("sha256", "quick"):
            return None
        if look.identity.size >= _SMALL or look.identity.settled(time.time_ns()):
            return None
        found = self.digests.of(key[1])
        return None if "not_computed" in found else found

    def examine(self, seconds: float | None = None) -> None:
        """Compute what digests are missing, the smaller files first, as long as there is time.

        Args:
            seconds: by default what the environment allows.
        """
        if self._looks and self.digests.tier != "off":
            self._compute(budget() if seconds is None else seconds)
        self.digests.save()

    def _compute(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        wait_for(self.digests, deadline)
        for key in sorted(self._looks, key=lambda key: self._looks[key].size or 0):
            role, path = key
            if key in self._found:
                continue
            changed = role == "input" and not self._told[key] and self._touched(key)
            found: Digest = {}
            try:
                if not changed:
                    found = self.digests.of(path, lambda: time.monotonic() > deadline)
                    changed = self._changed(key, found)
            except Stopped:
                why = f"it would have taken longer than the {seconds:g} s of {sc.ENV_DIGEST_BUDGET}"
                found = not_computed(path, why)
            if changed:
                self._altered.add(key)
                found = not_computed(path, "it changed while the stage ran")
            self._found[key] = found

    def final(self) -> Iterator[dict[str, Any]]:
        """Attributes for each file of which size, presence or digest is not what was last recorded."""
        self.digests.closed = True
        for key, before in list(self._looks.items()):
            now = _look(key[1], recursive=True)
            digest = self._found.get(key) or self._known(now)
            changed = key in self._altered or self._changed(key, digest)
            if now[:2] != before[:2] or digest != self._told[key] or changed:
                self._looks[key], self._told[key] = now, digest
                attributes = self._attributes(key, self._paths[key], now, digest)
                if changed:
                    attributes[sc.ARTIFACT_CHANGED] = True
                yield attributes

    def _known(self, look: Look) -> Digest | None:
        return self.digests.known(look.identity) if look.identity and self.digests.tier != "off" else None

    def _changed(self, key: _Key, digest: Digest | None) -> bool:
        """Whether an input is not what it was when it was tracked; by its content, where that was known then."""
        if key[0] != "input" or not self._looks[key].present:
            return False
        told = self._told[key]
        if told and digest and "not_computed" not in digest:
            return digest != told
        return self._touched(key)

    def _touched(self, key: _Key) -> bool:
        before = self._looks[key]
        if before.identity is not None:
            return _look(key[1], recursive=False).identity != before.identity
        return before.present and _look(key[1], recursive=True).newest > self._since[key]

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
    if not recursive:  # walking a large tree at the end is enough
        return Look(None, True, None)
    size, newest = _tree(path, status.st_ctime_ns)
    return Look(size, True, None, newest)


def _tree(top: str, newest: int) -> tuple[int | None, int]:
    """The size of the files below a directory, None if there are so many that nobody should wait for the sum; and when
    the last of them was changed.
    """
    total, pending, left = 0, [top], _MOST_ENTRIES
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    left -= 1
                    if not left:
                        return None, newest
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue  # vanished while we looked
                    newest = max(newest, status.st_ctime_ns)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(entry.path)
                    else:
                        total += status.st_size
        except OSError:
            continue
    return total, newest
