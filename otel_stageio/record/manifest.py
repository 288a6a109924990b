"""The schema of ``manifest.json``, as pydantic models: readers load through them, JSON Schema is generated from them.

Tolerant on purpose: manifests that the original wrote, half-written ones and later versions' keys all load; what cannot
be read at all is a :class:`ManifestError` that says why.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..events import iso
from ..layout import Job, StrPath, directory_name
from ..semconv import STATUSES
from .fold import KIND, SCHEMA_VERSION


class ManifestError(Exception):
    """A manifest or run record that cannot be read: missing, torn, or of another shape."""


class Open(BaseModel):
    """Keys that we do not know are kept: metadata and ``finalize(**kwargs)`` put any there."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", populate_by_name=True)


class Artifact(Open):
    """A file or directory that a stage read, wrote or kept."""

    type: Any = Field("file", description="What it is to the stage: audio, transcript, …")
    path: str = Field("", description="The path exactly as the stage passed it.")
    size_bytes: int | None = Field(None, description="Size at the end of the stage; a directory's is recursive.")
    exists: bool | None = Field(None, description="False if it was not there at the end.")
    changed: bool | None = Field(None, description="True for an input that changed while the stage ran.")
    digest: dict[str, Any] | None = Field(None, description="sha256 or dirHash1; or why it was not computed.")
    retained: Any = Field(None, description="Intermediate files: kept after the stage?")
    reason: Any = Field(None, description="Intermediate files: why it was made or kept.")
    metadata: dict[str, Any] | None = Field(None, description="Metadata under reserved names.")


class Note(Open):
    """A warning."""

    timestamp: str = Field("", description="Local time with zone, ISO 8601.")
    message: str = ""


class Problem(Note):
    """An error, or the exception that ended the stage."""

    exception_type: str | None = None
    exception_detail: str | None = None
    traceback: str | None = None
    cause: str | None = Field(None, description="What it was raised from, or what killed the stage.")
    last_lines: list[str] | None = Field(None, description="Of stage.log, where the stage died without an end.")


class Trace(Open):
    """Where the stage is in the trace; hex."""

    trace_id: str | None = Field(None, description="32 hex digits.")
    span_id: str | None = Field(None, description="16 hex digits.")
    parent_span_id: str | None = None
    run_id: str | None = None


class Resume(Open):
    """What a stage declared that its result depends on, and whether that made it run."""

    parameters: dict[str, Any] = Field(default_factory=dict)
    code: dict[str, str] = Field(default_factory=dict, description="Files by digest, or a version by its name.")
    environment: dict[str, Any] = Field(default_factory=dict)
    skip: bool | None = Field(None, description="Whether everything was verified to be as it was.")
    sentence: str = Field("", description="Why it ran, or why it did not have to.")
    reasons: list[dict[str, Any]] = Field(default_factory=list)
    source: dict[str, Any] | None = Field(None, description="The attempt whose outputs these are.")


class HostClock(Open):
    """How the clock of the stage's host stood to that of the file system when the stage began."""

    host: str = ""
    ahead_seconds: float = Field(0.0, description="Negative: behind.")


class Progress(Open):
    done: float | None = None
    total: float | None = None
    unit: str = ""


class Record(Open):
    """One attempt at one stage."""

    kind: str | None = Field(None, description=f"{KIND!r}; absent in the original's manifests.")
    schema_version: int | None = Field(None, description=f"{SCHEMA_VERSION} now; absent in the original's manifests.")
    stage: str = ""
    stage_number: int = 99
    timestamp: str = Field("", description="When it began: local time with zone, ISO 8601.")
    status: str = Field("incomplete", description=f"{', '.join(STATUSES)}; another word never counts as success.")
    inputs: list[Artifact] = Field(default_factory=list)
    outputs: list[Artifact] = Field(default_factory=list)
    intermediate_files: list[Artifact] = Field(default_factory=list)
    config: dict[str, Any] = Field(default_factory=dict)
    resources: dict[str, Any] = Field(default_factory=dict)
    errors: list[Problem] = Field(default_factory=list)
    warnings: list[Note] = Field(default_factory=list)
    duration_seconds: float | None = Field(None, description="By the monotonic clock.")
    completed_at: str | None = None
    cause: str | None = Field(None, description="Why it died, where that is known.")
    progress: Progress | None = None
    resume: Resume | None = None
    host_clock: HostClock | None = Field(None, description="Where it was off by a second or more.")
    attempt: int = Field(1, description="The stage's how-manieth attempt in this job.")
    trace: Trace = Field(default_factory=lambda: Trace())
    lost: dict[str, int] = Field(default_factory=dict, description="What could not be recorded, counted by sink.")
    redactions: int = Field(0, description="How many secrets were masked.")
    sanitised: int = Field(0, description="How many values had to be changed to fit into JSON.")
    extra: dict[str, Any] | None = Field(None, description="finalize(**kwargs) under reserved names.")

    @field_validator("inputs", "outputs", "intermediate_files", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Other dialects of the original have mappings here, or bare paths."""
        if isinstance(value, dict):
            value = [{"type": key, **(item if isinstance(item, dict) else {"path": str(item)})}
                     for key, item in value.items()]  # fmt: skip
        if isinstance(value, list):
            return [{"path": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator("errors", "warnings", mode="before")
    @classmethod
    def _noted(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value] if value else []
        if isinstance(value, list):
            return [{"message": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator("timestamp", "completed_at", mode="before")
    @classmethod
    def _timed(cls, value: Any) -> Any:
        """One dialect of the original has seconds since 1970."""
        return iso(int(value * 1e9)) if isinstance(value, (int, float)) else value

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, content: Any) -> Any:
        """``null`` is as good as nothing."""
        if not isinstance(content, dict):
            return content
        return {key: item for key, item in content.items() if item is not None}


class Manifest(Record):
    """``manifest.json``: the newest attempt at the directory's stage, and everything else of the directory below it."""

    attempts: list[Record] = Field(default_factory=list, description="Former attempts, oldest first.")
    substages: dict[str, Manifest] = Field(default_factory=dict, description="Other stages of this directory.")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read a manifest: the file, or a stage's directory.

        Raises:
            ManifestError: if there is none, or it is torn or no manifest.

        Example:
            >>> Manifest.load(job / "06_asr").status
            'success'
        """
        file = Path(path)
        if file.is_dir():
            file = file / "manifest.json"
        return checked(cls, file, "manifest")  # type: ignore[no-any-return]

    def of(self, stage: str) -> Manifest | None:
        """The manifest of one of the directory's stages."""
        return self if self.stage == stage else self.substages.get(stage)


def manifest_of(job: Job, stage: str) -> Manifest:
    """A stage's manifest within a job.

    Raises:
        ManifestError: if it has none.
    """
    path = job.root / directory_name(stage) / "manifest.json"
    found = Manifest.load(path).of(stage)
    if found is None:
        raise ManifestError(f"{path} has no record of the stage {stage}")
    return found


def read_json(path: StrPath, what: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ManifestError: saying what is wrong with it, and what to do.
    """
    try:
        with open(path, "rb") as file:
            content = json.load(file)
    except FileNotFoundError:
        raise ManifestError(f"there is no {what} at {path}") from None
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        hint = "was it cut off? `otel_stageio.recover(job)` closes a stage that died and writes its manifest anew"
        raise ManifestError(f"{path} is not valid JSON ({error}); {hint}") from error
    if not isinstance(content, dict):
        raise ManifestError(f"{path} is no {what}: expected a JSON object, found a {type(content).__name__}")
    return content


def checked(model: type[BaseModel], path: StrPath, what: str) -> Any:
    """Read and validate. ``Manifest`` and ``RunRecord`` load through this."""
    try:
        return model.model_validate(read_json(path, what))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ManifestError(f"{path} is no {what}: {where}: {first['msg']}") from error
