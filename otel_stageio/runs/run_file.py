"""``run.json`` as it is read: which runs a job has had, and what identifies one.

It has the newest run, and below ``earlier`` those before it that are not over. What is over moves to a file of its own,
``.stageio/runs/<attempt>.json``: a job of a thousand runs begins its next as fast as its first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from .. import semconv as sc
from ..layout import Job, stage_number
from ..sinks.files import read_file

KIND = "stageio.run"


class Run:
    """One run's identity. Ids are integers here and hex on disk.

    Attributes:
        pipeline_log: relative to the job, e.g. ``logs/99_pipeline_20251127_101112.log``; fixed once per run.
        parent: trace and span id of the span outside under which this run happens, or None.
        previous: trace and root span id of the run before, for a link.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.run_id: str = data["run_id"]
        self.attempt: int = data["attempt"]
        self.pipeline: str = data["pipeline"]
        self.implicit: bool = data["implicit"]
        self.trace_id = int(data["trace_id"], 16)
        self.root_span_id = int(data["root_span_id"], 16)
        self.pipeline_log: str = data["pipeline_log"]
        self.started_ns: int = data["started_ns"]

    @property
    def parent(self) -> int | None:
        parent = self.data.get("parent_span_id")
        return int(parent, 16) if parent else None

    @property
    def previous(self) -> tuple[int, int] | None:
        previous = self.data.get("previous")
        return (int(previous["trace_id"], 16), int(previous["root_span_id"], 16)) if previous else None


def identity_of(run: Run, stage: str, attempt: int) -> dict[str, Any]:
    """The attributes that say which stage, attempt and run something is of."""
    return {
        sc.PIPELINE_NAME: run.pipeline,
        sc.PIPELINE_RUN_ID: run.run_id,
        sc.TASK_NAME: stage,
        sc.TASK_RUN_ID: f"{run.run_id}.{stage}.{attempt}",
        sc.STAGE_NUMBER: stage_number(stage),
        sc.STAGE_ATTEMPT: attempt,
        sc.JOB_ATTEMPT: run.attempt,
    }


_NEEDED: dict[str, type] = {
    "run_id": str, "attempt": int, "pipeline": str, "implicit": bool, "trace_id": str, "root_span_id": str,
    "pipeline_log": str, "started_ns": int, "status": str,
}  # fmt: skip


def load(job: Job) -> dict[str, Any]:
    """``run.json`` as a dict; ``{}`` if there is none or it is damaged."""
    try:
        return read(job)
    except OSError:
        return {}


def read(job: Job) -> dict[str, Any]:
    """:func:`load`, except that a file that is there and cannot be read is an error.

    Raises:
        OSError: then nobody knows whether it is damaged.
    """
    try:
        content = json.loads(read_file(job.run_record))
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return {}
    return content if is_whole(content) else {}


def is_whole(content: Any) -> bool:
    """Whether this is a run record in which everything is what the code here takes it for."""
    if not isinstance(content, dict) or content.get("kind") != KIND:
        return False
    for name, kind in _NEEDED.items():
        if type(content.get(name)) is not kind:
            return False
    lists = (content.get("earlier", []), content.get("stages", []))
    if not all(isinstance(items, list) and all(isinstance(item, dict) for item in items) for items in lists):
        return False
    return all(isinstance(content.get(name, {}), dict) for name in ("owner", "stage_attempts"))


def find(content: dict[str, Any], run_id: str) -> dict[str, Any] | None:
    """The current run, or one before it that is not over, by its id."""
    for candidate in (content, *content.get("earlier", ())):
        if candidate.get("run_id") == run_id:
            return dict(candidate)
    return None


def finished(job: Job) -> Iterator[dict[str, Any]]:
    """The runs that are over and were followed by another, the newest first."""
    for number in sorted(finished_attempts(job), reverse=True):
        try:
            content = json.loads(read_file(job.former_run(number)))
        except (OSError, ValueError, RecursionError):
            continue
        if is_whole(content):
            yield content


def all_runs(job: Job) -> list[dict[str, Any]]:
    """Every run of a job, the newest first."""
    content = load(job)
    found = {run["run_id"]: run for run in finished(job)}
    for run in (*content.get("earlier", ()), *([content] if content else ())):
        found.setdefault(run.get("run_id"), run)
    return sorted(found.values(), key=lambda run: run.get("attempt", 0), reverse=True)


def finished_attempts(job: Job) -> list[int]:
    with suppress(OSError):
        names = (name.partition(".") for name in os.listdir(job.former_runs))
        return [int(number) for number, _, kind in names if number.isdecimal() and kind == "json"]
    return []


def open_detached(job: Job) -> dict[str, Any] | None:
    """The run of a job that a scheduler's script has begun and not ended. Stages and pipelines are a part of it."""
    content = load(job)
    return dict(content) if content.get("detached") and content["status"] == "running" else None
