"""The sections of the page as data: stages, files, environment, and how far all of it can be trusted."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from ..layout import Job, within
from ..reading import used
from ..reading.difference import CAUSES, Change, differences, other_versions, versions_of
from ..reading.disk import journal, resource
from ..reading.honesty import honesty
from ..reading.text import as_text, clock, count, one_line, plain, size
from ..reading.trace import Bar, Trace
from ..reading.view import JobView, StageView, reason_of
from ..record.manifest import Artifact, Record
from ..semconv import GOOD_STATUSES
from .excerpt import Excerpt, read_excerpt
from .lineage import size_now

#: Rows of a list; the rest is counted, and in the manifest.
MOST = 60
_MOST_FILES = 15


@dataclasses.dataclass
class FileRow:
    """Attributes: ``place`` is relative to the job where it lies in it; ``note`` says what is odd about it."""

    kind: str
    place: str
    size: str
    digest: str
    known: str
    note: str


@dataclasses.dataclass
class FileList:
    title: str
    rows: list[FileRow]
    left_out: int

    @property
    def known(self) -> bool:
        """Whether there is more to say of any of them than its place and size."""
        return any(row.digest or row.known for row in self.rows)


@dataclasses.dataclass
class Former:
    """An attempt before the newest."""

    record: Record
    why: str


@dataclasses.dataclass
class StagePart:
    """One stage of the page.

    Attributes:
        commands: what ran as the stage: (program, how it ended).
        changes: what is different from the last success.
        compared: the attempt that it was compared with.
    """

    view: StageView
    commands: list[tuple[str, str]]
    config: list[tuple[str, str]]
    changes: list[Change]
    compared: int | None
    files: list[FileList]
    measured: list[tuple[str, str]]
    said: list[tuple[str, str]]
    also: list[tuple[str, str]]
    honest: list[tuple[str, bool]]
    former: list[Former]
    log: Excerpt | None

    @property
    def record(self) -> Record:
        return self.view.record


def stage_parts(view: JobView, trace: Trace | None) -> list[StagePart]:
    bars = {(bar.stage, bar.attempt): bar for bar in trace.stages} if trace is not None else {}
    return [_stage(view, stage, bars.get((stage.name, stage.attempt))) for stage in view.stages]


def _stage(view: JobView, stage: StageView, bar: Bar | None) -> StagePart:
    root = Path(view.path).absolute()
    record = stage.record
    measured, said = used.split(record.resources)
    before = _last_success(stage)
    lists = [("Inputs", record.inputs), ("Outputs", record.outputs), ("Intermediate files", record.intermediate_files)]
    return StagePart(
        stage,
        _commands(bar),
        _pairs(record.config),
        _causes(Job(root), stage.name, before, record) if before is not None else [],
        before.attempt if before is not None else None,
        [_files(title, entries, root) for title, entries in lists if entries],
        measured,
        _pairs(said),
        _pairs({**(record.model_extra or {}), **(record.extra or {})}),
        honesty(record),
        [Former(former, one_line(reason_of(former, former.status))) for former in reversed(record.attempts)],
        read_excerpt(root / stage.directory / "stage.log", stage.name, _second(record.timestamp))
        if stage.directory
        else None,
    )


def _causes(job: Job, stage: str, before: Record, after: Record) -> list[Change]:
    """What may have made it end otherwise; that it did stands above."""
    root = str(job.root)
    found = differences(before, after, root_before=root, root_after=root)
    versions = (versions_of(job, stage, record.attempt) for record in (before, after))
    return [change for change in [*found, *other_versions(*versions)] if change.kind in CAUSES]


def _second(stamp: str) -> str:
    """As a log line has it."""
    text = clock(stamp)
    return text if len(text) == 19 else ""


def _last_success(stage: StageView) -> Record | None:
    for former in reversed(stage.record.attempts):
        if former.status == "success":
            return former
    return None


def _commands(bar: Bar | None) -> list[tuple[str, str]]:
    """Programs directly below the stage."""
    found = []
    for child in bar.children if bar is not None else ():
        if child.kind == "process":
            how = child.message or {"success": "ended with 0", "running": "is running"}.get(child.state, child.state)
            found.append((child.name, how))
    return found


def _pairs(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(str(key), value_text(value)) for key, value in values.items()]


def value_text(value: Any) -> str:
    text = as_text(value)
    return text if len(text) <= 2_000 else f"{text[:2_000]}… [{len(text):,} characters in all]"


def _files(title: str, entries: list[Artifact], root: Path) -> FileList:
    return FileList(title, [_file(entry, root) for entry in entries[:MOST]], max(len(entries) - MOST, 0))


def _file(entry: Artifact, root: Path) -> FileRow:
    known = dict(entry.model_extra or {})
    digest = known.pop("digest", None)
    if entry.metadata:
        known["metadata"] = entry.metadata
    notes = ["was not there at the end"] if entry.exists is False else []
    if entry.retained is not None:
        notes.append("kept" if entry.retained else "not kept")
    if entry.reason:
        notes.append(one_line(entry.reason))
    return FileRow(
        one_line(entry.type),
        within(entry.path, root) or entry.path,
        "" if entry.exists is False else size(entry.size_bytes),
        _digest(digest),
        ", ".join(f"{key}={value_text(value)}" for key, value in known.items()),
        ", ".join(notes),
    )


def _digest(given: Any) -> str:
    if isinstance(given, dict):
        return ", ".join(f"{name}:{value}" for name, value in given.items())
    return str(given) if given else ""


# -- what lies on the disk ---------------------------------------------------------------------------------------------


@dataclasses.dataclass
class OnDisk:
    """Attributes:
    total: bytes of all files that stages wrote and that are there now.
    intermediate: bytes of those among them that were not meant to stay.
    largest: (place, bytes, stage, what of it).
    """

    total: int
    intermediate: int
    largest: list[tuple[str, int, str, str]]


def on_disk(view: JobView) -> OnDisk:
    root = Path(view.path).absolute()
    found: dict[str, tuple[str, int, str, str]] = {}
    passing = 0
    for stage in view.stages:
        for entry in (*stage.record.outputs, *stage.record.intermediate_files):
            place = within(entry.path, root)
            path = root / place if place else Path(entry.path)
            if str(path) in found or not path.is_absolute() or entry.exists is False:
                continue
            number = _bytes_now(path, entry)
            if number is None:
                continue
            remark = "" if entry.retained is None or entry.retained else "intermediate, still there"
            passing += number if remark else 0
            found[str(path)] = (place or entry.path, number, stage.name, remark)
    largest = sorted(found.values(), key=lambda item: -item[1])
    return OnDisk(sum(item[1] for item in largest), passing, largest[:_MOST_FILES])


def _bytes_now(path: Path, entry: Artifact) -> int | None:
    number = size_now(path)
    return number if number is None or not path.is_dir() else entry.size_bytes or 0


# -- where it ran ------------------------------------------------------------------------------------------------------


def environment_of(view: JobView) -> list[tuple[str, str]]:
    """Attributes of the resources that its stages had, with the stages where these differ; drivers; models."""
    job = Job(view.path)
    found: dict[str, dict[str, list[str]]] = {}
    for stage in view.stages:
        if stage.record.kind is None:
            continue
        path = journal(job, stage.name, stage.attempt)
        for key, value in (resource(path) if path is not None else {}).items():
            found.setdefault(key, {}).setdefault(value_text(value), []).append(stage.name)
        for device in _gpus(stage.record):
            label = f"{device.get('name') or 'GPU'}, driver {device.get('driver') or 'unknown'}"
            found.setdefault("GPU", {}).setdefault(label, []).append(stage.name)
        for key in ("model", "model_name", "backend"):
            if isinstance(stage.record.config.get(key), str):
                found.setdefault(key, {}).setdefault(stage.record.config[key], []).append(stage.name)
    rows = []
    for key, values in found.items():
        for value, stages in values.items():
            where = "" if len(values) == 1 and len(stages) > 1 else f"  ({', '.join(stages)})"
            rows.append((key, value + where))
    return rows


def _gpus(record: Record) -> list[dict[str, Any]]:
    devices = record.resources.get("gpus")
    return [device for device in devices if isinstance(device, dict)] if isinstance(devices, list) else []


# -- how far to trust it -----------------------------------------------------------------------------------------------


def quality_of(view: JobView, parts: list[StagePart], trace: Trace | None) -> list[tuple[str, bool]]:
    """Sentences, each with whether something is wrong."""
    found = [(plain(problem), True) for problem in view.problems]
    for part in parts:
        name = one_line(part.view.name)
        found += [(plain(problem), True) for problem in part.view.problems]
        found += [(f"{name}: {said}", severe) for said, severe in part.honest]
        if part.log is not None and part.log.left_out:
            place = os.path.join(part.view.directory, "stage.log")
            found.append((f"{name}: {part.log.left_out:,} of {part.log.total:,} log records are not shown here; "
                          f"they are in {place} ({size(part.log.size)})", False))  # fmt: skip
        left = sum(files.left_out for files in part.files)
        if left:
            found.append((f"{name}: {count(left, 'file')} not listed here, see {part.view.directory}/manifest.json",
                          False))  # fmt: skip
        for device in _gpus(part.record):
            about = device.get("attribution")
            if isinstance(about, dict) and about.get("reason"):
                found.append((f"{name}: whose GPU memory it was is not known: {one_line(about['reason'])}", False))
        if part.view.state in GOOD_STATUSES and part.record.kind is None:
            found.append((f"{name}: recorded by the original, which has no spans and takes sizes when a file is named",
                          False))  # fmt: skip
    for bar in trace.stages if trace is not None else ():
        hidden = sum(one.left_out for _, one in bar.walk())
        if hidden:
            found.append((f"{one_line(bar.name)}: {count(hidden, 'shorter span')} not drawn; all of them are in "
                          f".stageio/spool/{one_line(bar.stage)}.{bar.attempt}.spans.jsonl", False))  # fmt: skip
    delivery = view.delivery
    if delivery is not None:
        if delivery.pending_bytes:
            found.append((f"{size(delivery.pending_bytes)} have not been accepted by the collector yet", True))
        refused = sum(delivery.refused.values())
        if refused:
            found.append((f"the collector refused {count(refused, 'record')}, see .stageio/refused.jsonl", True))
        found += [(f"{item.endpoint}: {item.reason}", True) for item in delivery.trouble]
    return list(dict.fromkeys(found))
