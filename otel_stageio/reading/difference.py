"""What differs between two attempts at a stage, or two jobs' records of it.

What only time makes different is no difference: ids, stamps, process numbers, and quantities within a tenth.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..layout import Job, within
from ..record.manifest import Artifact, Record
from . import used
from .disk import journal, resource

#: Kinds of what goes into a stage; the others come out of it.
CAUSES = frozenset({"config", "input", "version"})

#: Measured quantity -> the least difference that says something, however small the quantity is.
_MEASURED = {
    "peak_memory_bytes": 16 * 1024**2,
    "cpu_seconds": 0.5,
    "gpu_memory_peak_bytes": 16 * 1024**2,
    "gpu_process_memory_peak_bytes": 16 * 1024**2,
    "gpu_busy_seconds": 0.5,
    "gpu_energy_joules": 10,
}
_DURATION = 0.5
_TENTH = 0.1
#: Of a file whose size is not known.
_THERE = "there"
#: A configured text is compared as a path if it may be one.
_LONGEST_PATH = 4096


class Change(NamedTuple):
    """Attributes:
    kind: ``config``, ``input``, ``version``, ``output``, ``status``, ``duration`` or ``resource``.
    key: which of them: a dotted key, a path within the job.
    before, after: None where it is absent. Of a file: its size, or its digest where the sizes are the same.
    """

    kind: str
    key: str
    before: Any
    after: Any


def differences(before: Record, after: Record, *, root_before: str = "", root_after: str = "") -> list[Change]:
    """What went in first, then what came out.

    Args:
        root_before, root_after: the job directories, so that a file counts as the same in both.
    """
    old, new = _Root(root_before), _Root(root_after)
    return [
        *_mappings("config", before.config, after.config, old, new),
        *_files("input", before.inputs, after.inputs, old, new),
        *_files("output", before.outputs, after.outputs, old, new),
        *([Change("status", "status", before.status, after.status)] if before.status != after.status else []),
        *_quantity("duration", "duration_seconds", before.duration_seconds, after.duration_seconds, _DURATION),
        *_resources(before.resources, after.resources),
    ]


def versions_of(job: Job, stage: str, attempt: int) -> dict[str, str]:
    """What the stage ran on, as its journal says. Empty if there is none any more."""
    path = journal(job, stage, attempt)
    found = resource(path) if path is not None else {}
    return {key: str(value) for key, value in found.items() if key.endswith(".version")}


def other_versions(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """Nothing, if one of both is not known."""
    if not before or not after:
        return []
    keys = dict.fromkeys([*before, *after])
    return [
        Change("version", key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)
    ]


class _Root:
    """A job directory."""

    def __init__(self, path: str) -> None:
        self._path = Path(os.path.abspath(path)) if path else None

    def place(self, path: str) -> str:
        """A path as this job's, whichever way it is written."""
        if self._path is None:
            return path
        return within(path, self._path) or path

    def value(self, value: Any) -> Any:
        """A configured value, with the paths in it as this job's."""
        if isinstance(value, str):
            return self.place(value) if os.sep in value and len(value) <= _LONGEST_PATH else value
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value


def _mappings(kind: str, before: Mapping[str, Any], after: Mapping[str, Any], old: _Root, new: _Root) -> list[Change]:
    was, now = dict(_flat(before)), dict(_flat(after))
    keys = dict.fromkeys([*was, *now])
    pairs = ((key, was.get(key), now.get(key)) for key in keys)  # null is as good as nothing
    return [
        Change(kind, key, one, other)
        for key, one, other in pairs
        if not _same(one, other) and not _same(old.value(one), new.value(other))
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)  # NaN is the same as NaN here


# -- files -------------------------------------------------------------------------------------------------------------


def _files(kind: str, before: list[Artifact], after: list[Artifact], old: _Root, new: _Root) -> Iterator[Change]:
    was = {old.place(file.path): file for file in before}
    now = {new.place(file.path): file for file in after}
    for path in dict.fromkeys([*was, *now]):
        first, second = was.get(path), now.get(path)
        said = _said(first), _said(second)
        one, other = _digests(first), _digests(second)
        common = next((name for name in one if name in other), "")
        if said[0] != said[1] and _THERE not in said:
            yield Change(kind, path, *said)
        elif common and one[common] != other[common]:
            yield Change(kind, path, f"{common}:{one[common]}", f"{common}:{other[common]}")
        elif first is None or second is None:
            yield Change(kind, path, *said)


#: What a digest may have in place of one: two files with the same bytes differ in it.
_NO_CONTENT = frozenset({"stat", "not_computed"})


def _said(file: Artifact | None) -> Any:
    if file is None:
        return None
    if file.exists is False:
        return "missing"
    return _THERE if file.size_bytes is None else file.size_bytes


def _digests(file: Artifact | None) -> dict[str, str]:
    """Of the content, by algorithm; the original's last version has one ``hash`` and does not say of which."""
    if file is not None and file.digest:
        return {name: str(value) for name, value in file.digest.items() if name not in _NO_CONTENT}
    extra = (file.model_extra if file is not None else None) or {}
    plain = extra.get("hash") or extra.get("checksum")
    return {"hash": plain} if isinstance(plain, str) else {}


# -- quantities --------------------------------------------------------------------------------------------------------


def _quantity(kind: str, key: str, before: Any, after: Any, least: float) -> list[Change]:
    """Nothing where one of both was not measured."""
    if not _number(before) or not _number(after):
        return []
    apart = abs(after - before)
    if apart <= least or apart <= _TENTH * max(abs(before), abs(after)):
        return []
    return [Change(kind, key, before, after)]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _resources(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    for key, least in _MEASURED.items():
        yield from _quantity("resource", key, before.get(key), after.get(key), least)
    one, other = _devices(before), _devices(after)
    if one and other and one != other:
        yield Change("resource", "gpu", one, other)
    # What the stage itself has said of its resources.
    was, now = used.split(before)[1], used.split(after)[1]
    for change in _mappings("resource", was, now, _Root(""), _Root("")):
        if _number(change.before) and _number(change.after):
            yield from _quantity("resource", change.key, change.before, change.after, 0)
        else:
            yield change


def _devices(resources: dict[str, Any]) -> str:
    """Which GPUs there were."""
    devices = resources.get("gpus")
    if isinstance(devices, list):
        return ", ".join(str(device.get("name") or "GPU") for device in devices if isinstance(device, dict))
    said = resources.get("gpu")
    return said if isinstance(said, str) and said.startswith("not available") else ""
