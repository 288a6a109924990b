"""What lies in a job directory, read by rules of its own: the library's readers must not vouch for its writers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def strict(data: bytes) -> Any:
    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no JSON")

    return json.loads(data, parse_constant=refuse)


@dataclass
class OnDisk:
    """Attributes:
    torn: lines of the spool that are no JSON.
    """

    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    stage_logs: dict[str, str] = field(default_factory=dict)
    pipeline_log: str = ""
    spans: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    torn: int = 0
    left_open: list[str] = field(default_factory=list)

    def attempt(self, stage: str, number: int) -> dict[str, Any] | None:
        """The record of one attempt, wherever in its directory's manifest it stands."""
        for manifest in self.manifests.values():
            for whole in (manifest, *manifest.get("substages", {}).values()):
                for record in (whole, *whole.get("attempts", ())):
                    if (record.get("stage"), record.get("attempt")) == (stage, number):
                        return dict(record)
        return None

    def span_names(self, **attributes: Any) -> Counter[str]:
        return Counter(span["name"] for span in self.spans)


def read(job: Path, *, lied_to: bool = False) -> OnDisk:
    """All of a job.

    Args:
        lied_to: somebody has put bytes of any kind into the logs.

    Raises:
        ValueError: if a file that must be valid at every instant is not.
    """
    found = OnDisk()
    errors = "replace" if lied_to else "strict"
    for path in sorted(job.glob("*/manifest.json")):
        found.manifests[path.parent.name] = strict(path.read_bytes())
    record = job / ".stageio" / "run.json"
    if record.exists():
        found.run = strict(record.read_bytes())
    for path in sorted((job / ".stageio" / "runs").glob("*.json")):
        strict(path.read_bytes())
    for path in job.glob("*/stage.log"):
        found.stage_logs[path.parent.name] = path.read_text(encoding="utf-8", errors=errors)
    found.pipeline_log = "".join(
        path.read_text(encoding="utf-8", errors=errors) for path in sorted((job / "logs").glob("99_*.log"))
    )
    for path in sorted((job / ".stageio" / "spool").glob("*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            if line.strip():
                _line(found, path.name, line)
    found.left_open = [path.name for path in (job / ".stageio" / "open").glob("*")]
    return found


def _line(found: OnDisk, name: str, line: bytes) -> None:
    try:
        request = strict(line)
    except ValueError:
        found.torn += 1
        return
    for resource in request.get("resourceSpans", ()):
        for scope in resource["scopeSpans"]:
            found.spans += scope["spans"]
    for resource in request.get("resourceLogs", ()):
        for scope in resource["scopeLogs"]:
            found.records.setdefault(name, []).extend(scope["logRecords"])
