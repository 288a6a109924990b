"""What the exports share: attempts at stages with their times, ids and files, and JSON that any reader takes."""

from __future__ import annotations

import datetime
import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .._version import __version__
from ..capture.redaction import Redactor
from ..layout import Job, within
from ..reading import attempts
from ..reading.text import moment
from ..reading.view import JobView, RunView, reason_of
from ..record.manifest import Artifact, Record

PRODUCER = f"https://pypi.org/project/otel-stageio/{__version__}/"
#: The same run has the same ids in every export of it.
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "https://pypi.org/project/otel-stageio/")


class File(NamedTuple):
    """A file that a stage read or wrote.

    Attributes:
        name: relative to the job; None for one outside.
        path: where it is now.
        there: whether it was, at the end of the stage.
    """

    name: str | None
    path: Path
    size: int | None
    digest: dict[str, str]
    there: bool


@dataclass
class Attempt:
    """An attempt at a stage.

    Attributes:
        state: how it stands by now.
        run_id: of its run; empty where there are no runs.
    """

    job: Job
    stage: str
    record: Record
    state: str
    run_id: str

    @property
    def id(self) -> str:
        return attempt_id(self.run_id or f"{self.job.root.name} {self.record.timestamp}", self.stage, self.number)

    @property
    def number(self) -> int:
        return self.record.attempt

    @property
    def started(self) -> datetime.datetime | None:
        return universal(self.record.timestamp)

    @property
    def ended(self) -> datetime.datetime | None:
        """None while it runs. Of one of which nothing says when it ended, its start."""
        if self.state == "running":
            return None
        started, ended = self.started, universal(self.record.completed_at)
        if ended is None and started is not None and self.record.duration_seconds is not None:
            ended = _later(started, self.record.duration_seconds)
        return max(started, ended) if started and ended else ended or started

    @property
    def reason(self) -> str:
        """Why it ended as it did, where that was no success; why it was skipped."""
        return masked(reason_of(self.record, self.state))

    @property
    def source(self) -> dict[str, Any]:
        """Of a skipped stage, the attempt that made its outputs: ``attempt``, ``trace_id``, ``span_id``, ``run_id``."""
        resume = self.record.resume
        return dict(resume.source or {}) if self.state == "skipped" and resume is not None and resume.skip else {}

    @property
    def inputs(self) -> Iterator[File]:
        return files_of(self.job, self.record.inputs)

    @property
    def outputs(self) -> Iterator[File]:
        return files_of(self.job, self.record.outputs)


def attempts_of(view: JobView, run: RunView | None = None) -> list[Attempt]:
    """The attempts that belong to a run, or every one; of each stage the oldest first."""
    job = Job(view.path)
    return [
        Attempt(job, stage.name, found.record, found.state, found.record.trace.run_id or "")
        for stage in view.stages
        for found in attempts.attempts_of(view, stage)
        if run is None or found.run == run.number
    ]


def files_of(job: Job, artifacts: Iterable[Artifact]) -> Iterator[File]:
    for artifact in artifacts:
        if not artifact.path or "\0" in artifact.path:
            continue
        name = within(artifact.path, job.root)
        path = job.root / name if name is not None else Path(os.path.abspath(artifact.path))
        digest = {str(key): value for key, value in (artifact.digest or {}).items() if isinstance(value, str)}
        yield File(name, path, artifact.size_bytes, digest, artifact.exists is not False)


def run_uuid(run_id: str) -> str:
    return str(uuid.uuid5(_IDS, well_formed(run_id)))


def attempt_id(run_id: str, stage: str, attempt: object) -> str:
    return str(uuid.uuid5(_IDS, well_formed(f"{run_id}/{stage}/{attempt}")))


def universal(stamp: str | None) -> datetime.datetime | None:
    """A recorded time in UTC, so that an export is the same on every machine."""
    found = moment(stamp)
    try:
        return found.astimezone(datetime.timezone.utc) if found is not None else None
    except OverflowError:
        return None


def written(time: datetime.datetime) -> str:
    """``2025-11-27T10:11:12.000+00:00``."""
    return time.isoformat(timespec="milliseconds")


def _later(time: datetime.datetime, seconds: float) -> datetime.datetime:
    try:
        return time + datetime.timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return time


def masked(text: str) -> str:
    """Ours was masked before it was written; what the original wrote never was."""
    return Redactor().text(text) if text else ""


def encoded(content: Any) -> str:
    """One line of JSON, in ASCII: it survives any encoding, and holds no character that a terminal obeys."""
    try:
        text = json.dumps(content, separators=(",", ":"), allow_nan=False)
        if "\\ud" not in text:  # no surrogates, as nearly always
            return text
    except ValueError:  # an infinite number
        pass
    return json.dumps(_strict(content), separators=(",", ":"), allow_nan=False)


def _strict(value: Any) -> Any:
    """Without what JSON has no word for: infinite numbers, and half a surrogate pair, which is no UTF-8."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {well_formed(str(key)): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return value


def well_formed(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
