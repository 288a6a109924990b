"""What ``manifest.json`` is made of, one file for all stages of a directory. Writes nothing.

The record of the stage that the directory is named after stands at the top, the others whole under
``substages.<name>``; former attempts under ``attempts``.
"""

from __future__ import annotations

import json
from typing import Any

from ..layout import Job, directory_name, owner_of
from .fold import KIND

#: The parser takes more.
_DEEPEST = 100


def compose(existing: dict[str, Any], record: dict[str, Any], owner: str) -> dict[str, Any]:
    """The directory's file with ``record`` put in its place.

    Args:
        existing: the file's content; ``{}`` if there is none; the original's format is kept as a former attempt.
        record: one attempt at one stage, as :func:`otel_stageio.record.fold.fold` made it.
        owner: the stage that the directory is named after.
    """
    stages = by_stage(existing, owner)
    attempts = stages.setdefault(record["stage"], [])
    attempts[:] = [former for former in attempts if not _same(former, record)]
    # By number, so that a late writer of attempt 1 never hides attempt 2. The original's records have none: first.
    attempts.append({key: item for key, item in record.items() if key not in ("attempts", "substages")})
    attempts.sort(key=lambda former: former.get("attempt", 0))
    top_stage = owner if owner in stages else next(iter(stages))
    top = _newest(stages.pop(top_stage))
    top["substages"] = {name: _newest(records) for name, records in sorted(stages.items())}
    return top


def _same(former: dict[str, Any], record: dict[str, Any]) -> bool:
    return former.get("kind") == KIND and former.get("attempt") == record.get("attempt", 1)


def _newest(records: list[dict[str, Any]]) -> dict[str, Any]:
    return {**records[-1], "attempts": records[:-1]}


def by_stage(content: dict[str, Any], owner: str) -> dict[str, list[dict[str, Any]]]:
    """Stage name -> its records, oldest first."""
    stages: dict[str, list[dict[str, Any]]] = {}
    if not content:
        return stages
    substages = content.get("substages")
    for whole in (content, *(substages.values() if isinstance(substages, dict) else ())):
        if not isinstance(whole, dict):
            continue
        name = whole.get("stage") or owner
        former = whole.get("attempts")
        records = [item for item in former if isinstance(item, dict)] if isinstance(former, list) else []
        records.append({key: item for key, item in whole.items() if key not in ("attempts", "substages")})
        stages.setdefault(str(name), []).extend(records)
    return stages


def ended_record(job: Job, stage: str, attempt: int) -> dict[str, Any] | None:
    """The record of an attempt, if the manifest of its directory has it with its end."""
    try:
        with open(job.manifest(stage), "rb") as file:
            content = json.load(file)
        for record in by_stage(content, owner_of(directory_name(stage))).get(stage, ()):
            if record.get("kind") == KIND and record.get("attempt") == attempt and record.get("completed_at"):
                return record
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        pass
    return None


def too_deep(content: Any) -> bool:
    """Whether lists and objects are nested deeper than the code can go that walks through them level by level."""
    depth, level = 0, [content]
    while level and depth <= _DEEPEST:
        depth += 1
        containers = (item.values() if isinstance(item, dict) else item for item in level)
        level = [inner for items in containers for inner in items if isinstance(inner, (dict, list))]
    return depth > _DEEPEST
