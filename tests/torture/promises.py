"""What has to hold after whatever happened (DESIGN §4), asked of the disk alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .reader import OnDisk, read


class Broken(AssertionError):
    """A promise that was not kept; says which, where and with which seed."""


def after_a_kill(job: Path, attempts: list[tuple[str, int, list[tuple[str, str]], bool]]) -> OnDisk:
    """Nothing that was finished is missing, and every attempt has the end that it had.

    Args:
        attempts: stage, number of the attempt, what it announced, and whether it reached its end.
    """
    found = read(job)
    for stage, number, announced, ended in attempts:
        _one_attempt(found, stage, number, announced, ended)
    ids = [span["spanId"] for span in found.spans]
    _equal(len(set(ids)), len(ids), "no span is written twice")
    _equal(found.left_open, [], "nothing is left open")
    roots = [span for span in found.spans if span["name"].startswith("RUN ")]
    _equal(found.run["status"] != "running", True, "the run is over")
    _equal(len(roots), found.run["attempt"], "each run has one root span")
    _parents(found)
    return found


def _one_attempt(found: OnDisk, stage: str, number: int, announced: Iterable[tuple[str, str]], ended: bool) -> None:
    record = found.attempt(stage, number)
    if record is None:
        raise Broken(f"{stage}.{number} is in no manifest")
    _equal(record["status"], "success" if ended else "crashed", f"the end of {stage}.{number}")
    if not ended:
        _equal(bool(record.get("cause")), True, f"the cause of {stage}.{number}")
    events = [item.get("eventName") for item in found.records.get(f"{stage}.{number}.logs.jsonl", ())]
    _equal(events.count("stageio.stage.started"), 1, f"{stage}.{number} began once")
    _equal(events.count("stageio.stage.ended"), 1, f"{stage}.{number} ended once")
    own = [span for span in found.spans if span["spanId"] == record["trace"]["span_id"]]
    _equal(len(own), 1, f"{stage}.{number} has one span")
    if not ended:
        _equal(own[0]["status"]["code"], 2, f"the span of {stage}.{number} is an error")
    log = "".join(found.stage_logs.values())
    errors = {entry["message"] for entry in record["errors"]}
    warnings = {entry["message"] for entry in record["warnings"]}
    outputs = {entry["path"].rpartition("/")[2] for entry in record["outputs"]}
    names = found.span_names()
    for kind, name in announced:
        there = {
            "line": f" line {name} " in log and f" line {name} " in found.pipeline_log,
            "debug": f" debug {name}\n" in log,
            "span": names[f"span {name}"] == 1,
            "warning": f"warning {name}" in warnings,
            "error": f"error {name}" in errors,
            "output": f"{name}.txt" in outputs,
            "config": f"key {name}" in record["config"],
            "event": f"event {name}" in events,
        }.get(kind, True)
        if not there:
            raise Broken(f"{kind} {name} of {stage}.{number} was finished and is missing")


def _parents(found: OnDisk) -> None:
    ids = {span["spanId"] for span in found.spans}
    for span in found.spans:
        if span.get("parentSpanId") and span["parentSpanId"] not in ids:
            raise Broken(f"the parent of {span['name']} is in no spool")


def counted_or_there(job: Path, stage: str, number: int, announced: list[tuple[str, str]]) -> None:
    """After a full disk: what is missing is counted."""
    found = read(job)
    record = found.attempt(stage, number)
    if record is None:
        return  # there was no room to say that it had begun
    if record["status"] not in ("success", "crashed"):
        raise Broken(f"{stage}.{number} ended on a full disk and is called {record['status']}")
    lost = sum(record["lost"].values())
    names = found.span_names()
    warnings = {entry["message"] for entry in record["warnings"]}
    missing = sum(
        (kind == "span" and not names[f"span {name}"]) or (kind == "warning" and f"warning {name}" not in warnings)
        for kind, name in announced
    )
    if missing and not lost:
        raise Broken(f"{missing} things are missing of {stage}.{number}, and none is counted")


def _equal(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise Broken(f"{what}: expected {expected!r}, found {found!r}")
