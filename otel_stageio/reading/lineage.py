"""Which attempt made which file, from which files: the lineage of a job, and from one job to another by digest."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..layout import Job, within
from ..record.manifest import Artifact, Record
from ..resume.digest import Digest, Digests
from ..semconv import GOOD_STATUSES
from .attempts import Attempt, attempts_of
from .text import size
from .view import JobView

_CONTENT = ("sha256", "dirHash1")


@dataclasses.dataclass(frozen=True)
class FileVersion:
    """A file as an attempt read or wrote it.

    Attributes:
        name: relative to the job where it lies in it.
        content: ``sha256:…`` or ``dirHash1:…``; empty where it was not computed.
        inside: whether it lies in the job; the name of one outside is its path as the stage gave it.
    """

    name: str
    content: str
    size_bytes: int | None
    kind: str
    inside: bool

    @property
    def size(self) -> str:
        return size(self.size_bytes)


@dataclasses.dataclass(eq=False)
class Action:
    """One attempt at a stage, and the files that it read and wrote."""

    stage: str
    attempt: int
    run: int | None
    state: str
    started_at: str
    trace_id: str
    inputs: list[FileVersion]
    outputs: list[FileVersion]

    @property
    def name(self) -> str:
        return self.stage if self.attempt == 1 else f"{self.stage} #{self.attempt}"


@dataclasses.dataclass
class Lineage:
    """The files and attempts of one job.

    Attributes:
        actions: in the order in which they began; not those that were skipped because nothing had changed.
        made_by: name of a file -> the attempt that wrote what is to be there now.
        read_by: name -> the attempts that read what is to be there now.
        now: name -> what has become of it since: ``stale``, ``changed``, ``missing``; not in it if nothing.
        why: name -> the sentence about that.
    """

    job: str
    actions: list[Action]
    made_by: dict[str, Action]
    read_by: dict[str, list[Action]]
    now: dict[str, str]
    why: dict[str, str]

    @property
    def files(self) -> dict[str, FileVersion]:
        """The newest version of each file, by its name."""
        found: dict[str, FileVersion] = {}
        for action in self.actions:
            found.update({file.name: file for file in action.inputs if file.name not in self.made_by})
            found.update({file.name: file for file in action.outputs if self.made_by[file.name] is action})
        return found

    @property
    def results(self) -> list[str]:
        """Files that were made here and that no later stage read."""
        return [name for name in self.made_by if not self.read_by.get(name)]


def read_lineage(view: JobView, *, verify: bool = True) -> Lineage:
    """
    Args:
        verify: look at what the files are now.
    """
    root = Path(view.path).absolute()
    actions = sorted(_actions(view, root), key=lambda action: (action.started_at, action.stage))
    made_by: dict[str, Action] = {}
    for action in actions:
        if action.state == "success" or not any(file.name in made_by for file in action.outputs):
            made_by.update({file.name: action for file in action.outputs})
    current = {id(action) for action in _newest(actions)}
    read_by: dict[str, list[Action]] = {}
    for action in actions:
        if id(action) in current:
            for file in action.inputs:
                read_by.setdefault(file.name, []).append(action)
    lineage = Lineage(view.path, actions, made_by, read_by, {}, {})
    if verify:
        _verify(lineage, root)
    return lineage


def _newest(actions: list[Action]) -> Iterable[Action]:
    """The last success of each stage; of one that never succeeded its last attempt."""
    found: dict[str, Action] = {}
    for action in actions:
        if action.state in GOOD_STATUSES or found.get(action.stage) is None or found[action.stage].state != "success":
            found[action.stage] = action
    return found.values()


def _actions(view: JobView, root: Path) -> Iterator[Action]:
    for stage in view.stages:
        for attempt in attempts_of(view, stage):
            if not _is_echo(attempt.record):
                yield _action(attempt, root)


def _is_echo(record: Record) -> bool:
    """A skip that stands for an earlier attempt."""
    return record.status == "skipped" and record.resume is not None and record.resume.skip is True


def _action(attempt: Attempt, root: Path) -> Action:
    record = attempt.record
    return Action(
        attempt.stage,
        record.attempt,
        attempt.run,
        attempt.state,
        record.timestamp,
        record.trace.trace_id or "",
        [_version(entry, root) for entry in record.inputs],
        [_version(entry, root) for entry in record.outputs if entry.exists is not False],
    )


def _version(entry: Artifact, root: Path) -> FileVersion:
    name = within(entry.path, root)
    return FileVersion(
        name or entry.path, content_of(entry), entry.size_bytes, str(entry.type), inside=name is not None
    )


def content_of(entry: Artifact) -> str:
    """``sha256:…``, or empty."""
    digest = entry.digest or {}
    return next((f"{kind}:{digest[kind]}" for kind in _CONTENT if isinstance(digest.get(kind), str)), "")


def _verify(lineage: Lineage, root: Path) -> None:
    digests = Digests(Job(root))
    for name, file in lineage.files.items():
        path = root / name
        if not file.inside and not path.exists():
            path = Path(os.path.abspath(name))
            if not os.path.isabs(name) and not path.exists():
                continue  # relative to a directory that nobody knows any more
        recorded = _digest_of(file)
        now = digests.again(str(path), recorded) if recorded else None
        if now == {} or (now is None and not path.exists()):
            lineage.now[name], lineage.why[name] = "missing", "it is no longer there"
        elif now is not None and not any(recorded[kind] == now.get(kind) for kind in recorded):
            lineage.now[name], lineage.why[name] = "changed", "it is no longer what was recorded"
    for name in lineage.made_by:
        reason = _stale(lineage, name, set())
        if reason and lineage.now.get(name) is None:
            lineage.now[name], lineage.why[name] = "stale", reason


def _digest_of(file: FileVersion) -> Digest:
    kind, _, value = file.content.partition(":")
    return {kind: value} if value else {}


def _stale(lineage: Lineage, name: str, seen: set[str]) -> str:
    """Why a file is no longer what its inputs would make; empty if it is."""
    if name in seen:
        return ""
    seen.add(name)
    action = lineage.made_by.get(name)
    newest = lineage.files
    for file in action.inputs if action is not None else ():
        if lineage.now.get(file.name) == "changed":
            return f"made from {file.name}, which has changed since"
        again = newest.get(file.name)
        if again is not None and file.content and again.content and again.content != file.content:
            maker = lineage.made_by.get(file.name)
            anew = f"{maker.stage} has made anew" if maker is not None and maker is not action else "has changed since"
            return f"made from {file.name}, which {anew}"
        above = _stale(lineage, file.name, seen)
        if above:
            return f"made from {file.name}, which is stale"
    return ""


def as_document(lineage: Lineage, others: dict[str, list[str]]) -> dict[str, Any]:
    """For ``--json``: what stands where, and who read and wrote it.

    Args:
        others: content -> where else the same bytes are.
    """
    return {
        "job": lineage.job,
        "files": [
            {
                "name": name,
                "type": file.kind,
                "size_bytes": file.size_bytes,
                "content": file.content or None,
                "made_by": _reference(lineage.made_by.get(name)),
                "read_by": [_reference(action) for action in lineage.read_by.get(name, ())],
                "state": lineage.now.get(name, "as recorded"),
                "why": lineage.why.get(name, ""),
                "elsewhere": others.get(file.content, []),
            }
            for name, file in lineage.files.items()
        ],
        "actions": [
            {
                **(_reference(action) or {}),
                "state": action.state,
                "started_at": action.started_at,
                "trace_id": action.trace_id or None,
                "inputs": [_described(file) for file in action.inputs],
                "outputs": [_described(file) for file in action.outputs],
            }
            for action in lineage.actions
        ],
    }


def _described(file: FileVersion) -> dict[str, Any]:
    return {"name": file.name, "content": file.content, "size_bytes": file.size_bytes, "kind": file.kind}


def _reference(action: Action | None) -> dict[str, Any] | None:
    return {"stage": action.stage, "attempt": action.attempt, "run": action.run} if action is not None else None
