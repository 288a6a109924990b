"""``manifest.json``: valid at every instant, one file for all stages of a directory.

Each write puts this stage's record into the file as it is on disk (:mod:`otel_stageio.record.shared_manifest`), under
the directory's lock, and replaces the file.
"""

from __future__ import annotations

import json
import math
import os
import stat
from typing import Any

from ..layout import Job, directory_name, owner_of
from ..record.shared_manifest import compose, too_deep
from ..runtime import runtime
from .files import locked, read_file, replace
from .manifest_text import ManifestText

#: A write that took 1 ms may happen again after 20: tracking 10,000 files must not cost 10,000 rewrites of the file.
_REST = 20
#: The first writes are free: a stage that says all it has to say at once and then computes for hours is up to date.
_FREE_WRITES = 32
#: What a file that is JSON, but no manifest, makes of the code that puts a record into it.
_UNUSABLE = (AttributeError, TypeError, ValueError, RecursionError)


class ManifestFile:
    """Attributes: ``failed`` counts writes that the file system refused, ``stale`` is whether the last one was."""

    def __init__(self, job: Job, stage: str, *, durable: bool = False) -> None:
        self._job = job
        self._stage = stage
        self._path = job.manifest(stage)
        self._lock = job.directory_lock(stage)
        self._owner = owner_of(directory_name(stage))
        self._durable = durable
        self._written: tuple[int, int, int] | None = None
        self._others: dict[str, Any] = {}
        self._text = ManifestText(job)
        self._not_before = 0
        self._writes = 0
        self.failed = 0
        self.pending = False
        self.stale = False

    def offer(self, record: dict[str, Any]) -> None:
        """Write unless the last write was too recent; then the next event, or the end, writes."""
        if self._writes < _FREE_WRITES or runtime.clock.monotonic_ns() >= self._not_before:
            self.write(record)
        else:
            self.pending = True

    def write(self, record: dict[str, Any]) -> bool:
        """Put ``record`` into the file now."""
        started = runtime.clock.monotonic_ns()
        try:
            with locked(self._lock):
                if self._written is None or self._written != _stat(self._path):
                    self._others = self._read()
                content, text = self._composed(record)
                replace(self._path, text.encode() + b"\n", self._job.temporary, durable=self._durable)
                self._others = content
                self._written = _stat(self._path)
        except OSError:
            self.failed += 1
            self.stale = True
            return False
        self.stale = False
        self._writes += 1
        now = runtime.clock.monotonic_ns()
        self._not_before = now + _REST * (now - started)
        self.pending = False
        return True

    def _composed(self, record: dict[str, Any]) -> tuple[dict[str, Any], str]:
        try:
            content = compose(self._others, record, self._owner)
            return content, self._text.of(content)
        except _UNUSABLE:
            if not self._others:
                raise
        # JSON, and yet nothing that a record can be put into.
        self._set_aside()
        content = compose({}, record, self._owner)
        return content, self._text.of(content)

    def _read(self) -> dict[str, Any]:
        try:
            regular = stat.S_ISREG(os.stat(self._path).st_mode)  # a pipe in its place would be waited on for ever
        except FileNotFoundError:
            return {}
        try:
            # The original wrote NaN and Infinity, which are not JSON: they stay, as words.
            content = json.loads(read_file(self._path), parse_constant=str, parse_float=_finite) if regular else None
            if isinstance(content, dict) and type(content.get("attempt", 1)) is int and not too_deep(content):
                return content
        except (ValueError, RecursionError):
            pass
        # The original could leave half a file, and then failed at every later start. Set it aside; lose nothing.
        self._set_aside()
        return {}

    def _set_aside(self) -> None:
        name = f"{directory_name(self._stage)}.manifest.json.damaged-{runtime.ids.span_id():016x}"
        os.replace(self._path, f"{self._job.machinery}/{name}")


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _stat(path: Any) -> tuple[int, int, int] | None:
    try:
        result = os.stat(path)
    except OSError:
        return None
    return (result.st_ino, result.st_mtime_ns, result.st_size)
