"""The first thing that a reader sees: how it went, where it stopped, why, and what to do now."""

from __future__ import annotations

import dataclasses
import shlex

from ..reading.text import count, duration, one_line
from ..reading.view import JobView, StageView
from ..semconv import GOOD_STATUSES


@dataclasses.dataclass
class Verdict:
    """Attributes:
    title: ``subtitles failed at asr``.
    why: the last error, or what else there is to say, in a sentence.
    commands: what to run now: (command, what for).
    """

    state: str
    title: str
    why: str
    commands: list[tuple[str, str]]


def verdict_of(view: JobView) -> Verdict:
    name = one_line(view.run.pipeline if view.run else view.name)
    culprit = culprit_of(view)
    state = view.state
    if state == "success":
        title, why = f"{name} succeeded", _summary(view)
    elif state == "running":
        now = [stage.name for stage in view.stages if stage.state == "running"]
        title = f"{name} is running"
        why = f"now: {', '.join(map(one_line, now))}" if now else "between two stages"
    else:
        verb = {"failed": "failed", "crashed": "crashed", "lost": "was lost", "timeout": "ran out of time",
                "cancelled": "was cancelled", "incomplete": "ended without saying how",
                "unknown": "left no result"}.get(state, f"ended as {one_line(state)}")  # fmt: skip
        title = f"{name} {verb}" + (f" at {one_line(culprit.name)}" if culprit else "")
        why = one_line(culprit.message) if culprit and culprit.message else _summary(view)
    return Verdict(state, title, why, _commands(view, culprit))


def culprit_of(view: JobView) -> StageView | None:
    """The stage that the run ended with, or the last that did not end well."""
    bad = [stage for stage in view.stages if stage.state not in GOOD_STATUSES and stage.state != "running"]
    mine = [stage for stage in bad if view.run is None or stage.run in (None, view.run.number)]
    return max(mine or bad, key=lambda stage: stage.started_at or "", default=None)


def _summary(view: JobView) -> str:
    done = sum(stage.state == "success" for stage in view.stages)
    skipped = sum(stage.state == "skipped" for stage in view.stages)
    parts = [f"{count(done, 'stage')} done"] + ([f"{skipped} skipped"] if skipped else [])
    if view.pending:
        parts.append(f"{len(view.pending)} not reached")
    return ", ".join(parts)


def _commands(view: JobView, culprit: StageView | None) -> list[tuple[str, str]]:
    job = shlex.quote(view.path)
    if view.state == "running":
        return [
            (f"otel-stageio status {job} --watch", "watch it"),
            (f"otel-stageio logs {job} --follow", "read what it says"),
        ]
    found: list[tuple[str, str]] = []
    if culprit is not None and view.state not in GOOD_STATUSES:
        stage = shlex.quote(culprit.name)
        found.append((f"otel-stageio show {job} {stage} --full", "all that is known of it"))
        found.append((f"otel-stageio logs {job} {stage} --level debug", "what it said, with what led to it"))
    if view.delivery is not None and view.delivery.pending_bytes:
        found.append((f"otel-stageio push {job}", "send to the collector what it has not accepted yet"))
    return found


def facts_of(view: JobView, idle_seconds: float) -> list[tuple[str, str]]:
    """A few numbers beside the verdict."""
    run = view.run
    found: list[tuple[str, str]] = []
    if run is not None:
        if run.seconds is not None:
            found.append(("took", duration(run.seconds)))
        if idle_seconds and run.seconds:
            found.append(("idle between stages", f"{duration(idle_seconds)} ({idle_seconds / run.seconds:.0%})"))
        found.append(("run", f"{run.number} of {1 + len(view.earlier)}" if view.earlier else f"{run.number}"))
    factor = _realtime_factor(view)
    if factor is not None:
        found.append(("time for a second of media", duration(factor)))
    warnings = sum(stage.warnings for stage in view.stages)
    if warnings:
        found.append(("warnings", f"{warnings:,}"))
    if run is not None and run.host:
        found.append(("host", one_line(run.host)))
    return found


def _realtime_factor(view: JobView) -> float | None:
    """Of the whole run: from a stage that said how long its media is."""
    if view.run is None or view.run.seconds is None or view.run.state == "running":
        return None
    for stage in view.stages:
        factor = stage.record.resources.get("realtime_factor")
        if isinstance(factor, (int, float)) and factor > 0 and stage.seconds and stage.run == view.run.number:
            return view.run.seconds * factor / stage.seconds
    return None
