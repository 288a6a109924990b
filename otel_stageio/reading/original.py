"""What the original and its later versions wrote, brought into the shape that the readers know.

Four manifest dialects exist. Per stage directory: the documented one, that of ``StageRunner`` (written only when a
stage had succeeded; no status), and that of the last version's tests (an exit code in place of a status). In the job's
root: one file for all stages, which is not ours to touch, with the stages as a list or by name.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..events import iso
from ..layout import Job
from ..record.fold import KIND
from .disk import Unreadable, json_object

#: Words of the job manifest -> ours.
_STATES = {
    "completed": "success",
    "complete": "success",
    "done": "success",
    "error": "failed",
    "in_progress": "running",
}
#: Not begun.
_PENDING = frozenset({"pending", "prepared", "queued", ""})


class Root(NamedTuple):
    """The job manifest in the job's root."""

    name: str
    status: str
    created_at: str
    updated_at: str
    #: Records of the stages that have begun, in the shape of a stage's manifest.
    stages: list[dict[str, Any]]
    pending: list[str]


def normalised(content: dict[str, Any], directory_stage: str) -> dict[str, Any]:
    """A stage manifest of any dialect as one of the documented shape; ours comes back as it is."""
    if content.get("kind") == KIND:
        return content
    found = dict(content)
    found["stage"] = str(found.get("stage") or found.get("stage_name") or directory_stage)
    found["status"] = _status(content)
    if isinstance(found.get("timestamp"), (int, float)):
        found["timestamp"] = _time(found["timestamp"])
    for ours, theirs in (
        ("timestamp", ("started_at", "start_time")),
        ("completed_at", ("end_time",)),
        ("duration_seconds", ("duration",)),
        ("inputs", ("input_files",)),
        ("config", ("params", "metadata")),
    ):
        for key in theirs:
            if ours not in found and key in found:
                found[ours] = found.pop(key)
    error = found.get("error")
    if isinstance(error, str) and error and not found.get("errors"):
        found["errors"] = [error]
    return {key: value for key, value in found.items() if value is not None}


def _status(content: dict[str, Any]) -> str:
    status, code = content.get("status"), content.get("exit_code")
    if isinstance(status, str) and status and not status.endswith(".json"):  # the last version put a path there
        return _STATES.get(status.lower(), status)
    if isinstance(code, int):
        return "success" if code == 0 else "failed"
    return "success" if "runner_version" in content else "unknown"


def _time(number: float) -> str:
    try:
        return iso(int(number * 1_000_000_000))
    except (OverflowError, ValueError):
        return str(number)


def root_manifest(job: Job) -> Root | None:
    """The original's job manifest, if the job has one that can be read."""
    try:
        content = json_object(job.root / "manifest.json")
    except Unreadable:
        return None
    listed = content.get("stages")
    if isinstance(listed, dict):
        listed = [{"name": name, **item} for name, item in listed.items() if isinstance(item, dict)]
    if not isinstance(listed, list):
        return None
    pipeline = content.get("pipeline")
    status = content.get("status") or (pipeline.get("status") if isinstance(pipeline, dict) else "")
    stages, pending = [], []
    for item in listed:
        name = item.get("name") or item.get("stage_name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            continue
        if str(item.get("status", "")).lower() in _PENDING and "exit_code" not in item:
            pending.append(name)
        else:
            stages.append(normalised({**item, "stage": name}, name))
    title = content.get("job_id") or content.get("title") or content.get("workflow")
    word = str(status or "").lower()
    return Root(
        str(title or job.root.name),
        _STATES.get(word, word),
        str(content.get("created_at") or ""),
        str(content.get("updated_at") or ""),
        stages,
        pending,
    )
