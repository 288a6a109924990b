"""What lies on disk after a fault, read from outside, and whether the job can go on once the fault is gone."""

from __future__ import annotations

import json
import re
import traceback
from pathlib import Path
from typing import Any

from otel_stageio import StageIO, recover
from otel_stageio.cli.validate import validate_path

STAGE, DIRECTORY = "asr", "06_asr"
_STAMP = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] ")


def examine(job: Path) -> dict[str, Any]:
    """What there is, and what came of it after ``recover`` and a further attempt."""
    found = facts(job)
    try:
        found["recovered"] = recover(job)
        after = facts(job)
        with StageIO(STAGE, job) as io:
            io.get_stage_logger("CRITICAL").info("once more")
            io.add_config("again", True)
        again = facts(job)
    except BaseException:
        found["broken"] = traceback.format_exc()
        return found
    findings = validate_path(str(job))
    found["invalid"] = [f"{item.file}:{item.line}: {item.message}" for item in findings.found if item.level == "error"]
    found["warnings"] = [
        f"{item.file}:{item.line}: {item.message}" for item in findings.found if item.level == "warning"
    ]
    found["after"], found["again"] = after, again
    return found


def facts(job: Path) -> dict[str, Any]:
    torn: list[str] = []
    found: dict[str, Any] = {"torn": torn, "unreadable": [], "stray": []}
    for path in sorted(job.rglob("*")):
        name = str(path.relative_to(job))
        if not path.is_file():
            continue
        if ".stageio/tmp/" in name or ".damaged-" in name:
            found["stray"].append(name)
        elif path.suffix == ".json":
            try:
                strict(path.read_bytes())
            except ValueError as error:
                found["unreadable"].append(f"{name}: {error}")
    found["manifest"] = loaded(job / DIRECTORY / "manifest.json")
    found["run"] = loaded(job / ".stageio" / "run.json")
    found["stage_log"] = lines(job / DIRECTORY / "stage.log")
    found["pipeline_log"] = [line for path in sorted((job / "logs").glob("*.log")) for line in lines(path)]
    found["spool"] = {}
    for path in sorted((job / ".stageio" / "spool").glob("*.jsonl")):
        found["spool"][path.name.removesuffix(".jsonl")] = spooled(path, torn)
    found["outputs"] = {path.name: path.read_text() for path in sorted((job / DIRECTORY).glob("segments*"))}
    return found


def loaded(path: Path) -> Any:
    return strict(path.read_bytes()) if path.exists() else None


def strict(data: bytes) -> Any:
    """JSON as the standard has it."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(data, parse_constant=refuse)


def lines(path: Path) -> list[str]:
    """The first lines of the records of a log, without their times."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text.split("\n")[:-1]
    return [re.sub(r"after [\d.]+ s", "after … s", _STAMP.sub("", line)) for line in whole if _STAMP.match(line)]


def spooled(path: Path, torn: list[str]) -> list[str]:
    """What a spool file says, one word for each log record, event and span."""
    said: list[str] = []
    for line in path.read_bytes().split(b"\n"):
        if not line:
            continue
        try:
            request = strict(line)
        except ValueError:
            torn.append(path.name)
            continue
        for resource in request.get("resourceLogs", ()):
            for record in (record for scope in resource["scopeLogs"] for record in scope["logRecords"]):
                said.append(record.get("eventName") or "line: " + record.get("body", {}).get("stringValue", ""))
        for resource in request.get("resourceSpans", ()):
            said += ["span: " + span["name"] for scope in resource["scopeSpans"] for span in scope["spans"]]
    return said
