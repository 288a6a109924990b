"""The stages of a job, each from the best of its manifest, its journal and, for an old job, the original's records."""

from __future__ import annotations

from pathlib import Path

from ..events import iso
from ..layout import Job, directory_name, owner_of, spooled_attempts, stage_number
from ..record.fold import Fold
from ..record.manifest import Manifest
from ..recovery.life import Birth, birth_of
from ..runs.run_record import RunRecord
from ..runtime import runtime
from .disk import Unreadable, entries, folded, journal, json_object, last_line, state_without_end, tolerant
from .hosts import FileClock, too_long
from .now import used_now
from .original import Root, normalised
from .runs import run_number
from .steps import steps_of
from .text import count, one_line, seconds_between
from .view import UNKNOWN, StageView, reason_of

_NOT_HEARD_OF = "nothing is heard of it any more, and it left no end"
_MANIFESTS = ("manifest.json", "stage_manifest.json")


def read_stages(
    job: Job, runs: RunRecord | None, root: Root | None, directories: list[Path], *, steps: bool
) -> list[StageView]:
    """Every stage that has left anything, in the order of their numbers, then of starting."""
    found: dict[str, StageView] = {}
    for directory in directories:
        for view in _of_directory(directory):
            _take(found, view)
    spooled = spooled_attempts(job)
    for name, attempts in spooled.items():
        _catch_up(job, found, name, attempts[-1])
    if root is not None:
        _merge_root(found, root)
    for view in found.values():
        _derive(job, view, runs, spooled.get(view.name, []), steps)
    return sorted(found.values(), key=lambda view: (view.number, view.started_at or "~", view.name))


def _take(found: dict[str, StageView], view: StageView) -> None:
    """The name is for the directory that it belongs to; the original's 10_mux stands beside it."""
    other = found.get(view.name)
    if other is not None and view.directory == directory_name(view.name):
        found[f"{other.name}/{other.directory}"] = other
        other = None
    found[view.name if other is None else f"{view.name}/{view.directory}"] = view


def _number(directory: str) -> int:
    return int(directory[:2]) if directory[:2].isdecimal() else 99


def _view(name: str, directory: str, record: Manifest, problems: list[str]) -> StageView:
    view = StageView(name, _number(directory), directory, UNKNOWN, record=record, problems=problems)
    view.attempt = record.attempt
    return view


def _of_directory(directory: Path) -> list[StageView]:
    """The directory's own stage and its sub-stages."""
    owner = owner_of(directory.name)
    for name in _MANIFESTS:
        try:
            content = json_object(directory / name)
        except Unreadable as error:
            if str(error) == "does not exist":
                continue
            return [_damaged(owner, directory.name, f"{directory.name}/{name} {error}")]
        content = normalised(content, owner)
        try:
            manifest, problems = tolerant(Manifest, content)
        except Unreadable as error:
            return [_damaged(owner, directory.name, f"{directory.name}/{name} {error}")]
        problems = [f"{directory.name}/{name}: {problem}" for problem in problems]
        if "status" not in manifest.model_fields_set:
            manifest.status = UNKNOWN  # the default is "running", and nothing says that
        views = [_view(manifest.stage or owner, directory.name, manifest, problems)]
        views += [_view(stage, directory.name, record, []) for stage, record in manifest.substages.items()]
        return views
    left = [entry.name for entry in entries(directory)]
    view = _view(owner, directory.name, _unknown(owner), [])
    if left:
        files = [name for name in left if name != "stage.log"]
        view.message = "no manifest" + (f", {count(len(files), 'file')}" if files else ", only a log")
        return [view]
    return []


def _damaged(stage: str, directory: str, problem: str) -> StageView:
    view = _view(stage, directory, _unknown(stage), [problem])
    view.message = "its manifest cannot be read"
    return view


def _unknown(stage: str) -> Manifest:
    return Manifest(stage=stage, status=UNKNOWN)


def _catch_up(job: Job, found: dict[str, StageView], name: str, newest: int) -> None:
    """Take the journal's word where the manifest is missing, damaged, or of an earlier attempt."""
    view = found.get(name)
    if view is not None and view.record.attempt >= newest and view.record.status != UNKNOWN:
        return
    record = _folded(job, name, newest)
    if record is None:
        return
    if view is None:
        directory = directory_name(name)
        found[name] = view = _view(name, directory, record, [])
    elif view.record.status != UNKNOWN:
        record.attempts = [*view.record.attempts, view.record]
    view.record, view.attempt, view.message = record, record.attempt, ""


def _folded(job: Job, name: str, attempt: int) -> Manifest | None:
    path = journal(job, name, attempt)
    state = folded(path) if path is not None else Fold()
    if not state.started_ns:
        return None
    try:
        record, _ = tolerant(Manifest, {**state.record, "attempt": attempt, "stage": name})
    except Unreadable:
        return None
    return record


def _merge_root(found: dict[str, StageView], root: Root) -> None:
    for item in root.stages:
        name = item["stage"]
        try:
            record, problems = tolerant(Manifest, item)
        except Unreadable:
            continue
        view = found.get(name)
        if view is None:
            view = _view(
                name, f"{stage_number(name):02d}", record, [f"manifest.json: {problem}" for problem in problems]
            )
            view.directory = ""
            found[name] = view
        elif view.record.status == UNKNOWN:
            view.record, view.message = record, ""
        elif view.record.duration_seconds is None and view.record.kind is None:
            view.record.duration_seconds = record.duration_seconds
        if view.record.kind is None and record.status not in (UNKNOWN, view.record.status):
            view.problems.append(f"the job's own manifest.json says {one_line(record.status)}")


def _derive(job: Job, view: StageView, runs: RunRecord | None, spooled: list[int], steps: bool) -> None:
    """What follows from the record: how it stands by now, for how long, and why."""
    record, name = view.record, view.name
    state = record.status
    journaled = view.attempt in spooled
    born = birth_of(job.journal(name, view.attempt)) if journaled else Birth()
    stands = state_without_end(job, name, view.attempt) if state == "running" and journaled else "running"
    if stands != "running":
        # It may have ended since its manifest was read.
        fresh = _folded(job, name, view.attempt)
        if fresh is not None:
            fresh.attempts = record.attempts
            view.record = record = fresh
            state = record.status
        if state == "running":
            state, view.died = "lost" if stands == "lost" else "crashed", True
            view.message = "its process is gone, and it left no end" if state == "crashed" else _NOT_HEARD_OF
    elif state == "running" and not journaled:
        state = "lost"
        view.message = "the record says running, and nothing tells whether that is still so"
    view.state, view.host = state, born.host
    view.message = view.message or reason_of(record, state)
    view.run = run_number(runs, name, view.attempt, record.trace.run_id)
    view.started_at = record.timestamp or None
    view.ended_at = record.completed_at
    view.seconds = record.duration_seconds
    if record.host_clock is not None:
        view.host, view.clock_ahead = born.host or record.host_clock.host, record.host_clock.ahead_seconds
    if state == "running":
        passed = seconds_between(view.started_at, iso(runtime.clock.wall_ns()))
        view.seconds = None if passed is None else max(passed + (view.clock_ahead or 0.0), 0.0)
        view.now = used_now(job, name, view.attempt)
        if born.elsewhere:
            view.silent_seconds = too_long(FileClock().silence(job, name, view.attempt))
    elif view.seconds is None:
        view.seconds = seconds_between(view.started_at, view.ended_at)
    if state in ("running", "crashed", "lost", "timeout"):
        view.last_line = last_line(job.root / view.directory / "stage.log")
    view.progress = record.progress
    view.inputs, view.outputs = len(record.inputs), len(record.outputs)
    view.warnings, view.errors = len(record.warnings), len(record.errors)
    if steps:
        view.steps, view.span_count = steps_of(job, name, view.attempt, record.trace.span_id)
