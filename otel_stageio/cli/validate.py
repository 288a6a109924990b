"""``otel-stageio validate``: manifests, run record and spool against their definitions. Nothing is written."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..layout import Job, StrPath, owner_of
from ..reading.disk import Unreadable, entries, json_object, sentence, state_without_end
from ..reading.job import CannotAnswer, check_job, stage_directories
from ..reading.original import normalised
from ..reading.text import count, plain
from ..record.fold import KIND
from ..record.manifest import Manifest
from ..runs.run_record import RunBase, RunRecord, former_runs
from ..semconv import GOOD_STATUSES
from .findings import Findings
from .otlp_check import REQUESTS
from .spool_check import spool_file
from .terminal import Terminal
from .trace_check import Attempt, Traces

_SPOOL_FILE = re.compile(r"(?P<stage>.+)\.(?P<attempt>\d+)\.(?P<signal>[a-z]+)\.jsonl")
_MANIFESTS = ("manifest.json", "stage_manifest.json")


def validate_path(path: str) -> Findings:
    """Check a job, or one file.

    Raises:
        CannotAnswer: if there is nothing that could be checked.
    """
    findings = Findings()
    where = Path(path)
    if "\0" not in path and where.is_file():
        _file(where, findings)
    elif "\0" not in path and where.is_dir() and (where / "manifest.json").is_file() and not _has_stages(where):
        _manifest(where / "manifest.json", str(where / "manifest.json"), findings)
    else:
        job = Job(path)
        check_job(job, path)
        _job(job, findings)
    return findings


def _has_stages(directory: Path) -> bool:
    job = Job(directory)
    return (
        os.path.exists(job.machinery)
        or bool(stage_directories(job))
        or "stages" in _content(directory / "manifest.json")
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        return json_object(path)
    except Unreadable:
        return {}


def _file(path: Path, findings: Findings) -> None:
    match = _SPOOL_FILE.fullmatch(path.name)
    if path.suffix == ".jsonl":
        signal = match["signal"] if match else ""
        if signal not in REQUESTS:
            raise CannotAnswer(
                f"{path} has no name that tells its signal: expected <stage>.<attempt>.spans.jsonl, .logs or .metrics"
            )
        attempt = Attempt(match["stage"] if match else "", 1, path.name, alive=False)
        spool_file(path, str(path), signal, attempt, Traces(), findings)
    elif path.name == "run.json":
        _model(RunRecord, path, str(path), findings)
        findings.looked_at("run record")
    else:
        _manifest(path, str(path), findings)


def _job(job: Job, findings: Findings) -> None:
    spool = [(entry.name, match) for entry in entries(job.spool) if (match := _SPOOL_FILE.fullmatch(entry.name))]
    attempts: dict[tuple[str, int], Attempt] = {}
    for name, match in spool:
        stage, number = match["stage"], int(match["attempt"])
        # Asked before anything is read: what ends meanwhile counts as alive.
        attempts.setdefault(
            (stage, number), Attempt(stage, number, _shown(name), state_without_end(job, stage, number) == "running")
        )
    manifests = []
    for directory in stage_directories(job):
        for name in _MANIFESTS:
            if (directory / name).exists() or (directory / name).is_symlink():
                manifest = _manifest(directory / name, f"{directory.name}/{name}", findings)
                if manifest is not None:
                    manifests.append((f"{directory.name}/{name}", manifest))
    runs = _runs(job, findings)
    traces = Traces()
    for name, match in spool:
        attempt = attempts[match["stage"], int(match["attempt"])]
        if match["signal"] not in REQUESTS:
            findings.warning(_shown(name), "is none of ours: expected .spans, .logs or .metrics before .jsonl")
            continue
        spool_file(Path(job.spool, name), _shown(name), match["signal"], attempt, traces, findings)
    traces.check(list(attempts.values()), runs, findings)
    _compare(manifests, attempts, findings)
    for attempt in attempts.values():
        if attempt.fold.started_ns and not attempt.fold.ended and not attempt.alive:
            findings.warning(
                attempt.file, f"stage {attempt.stage} died and is not closed: otel-stageio status closes it"
            )


def _shown(name: str) -> str:
    return f".stageio/spool/{name}"


def _runs(job: Job, findings: Findings) -> list[RunBase]:
    if not os.path.exists(job.run_record):
        if os.path.isdir(job.spool):
            findings.warning(".stageio/run.json", "does not exist, though there is a spool")
        return []
    record = _model(RunRecord, job.run_record, ".stageio/run.json", findings)
    findings.looked_at("run record")
    finished = []
    for path in former_runs(job):
        run = _model(RunBase, path, f".stageio/runs/{os.path.basename(path)}", findings)
        findings.looked_at("run record")
        if isinstance(run, RunBase):
            finished.append(run)
    if not isinstance(record, RunRecord):
        return finished
    record.take_in(finished)
    return [record, *record.earlier]


def _model(
    model: type[BaseModel], path: StrPath, shown: str, findings: Findings, content: Any = None
) -> BaseModel | None:
    try:
        return model.model_validate(content or json_object(path, strict=True))
    except Unreadable as error:
        findings.error(shown, str(error))
    except ValidationError as error:
        for item in error.errors():
            findings.error(shown, sentence(item))
    except RecursionError:
        findings.error(shown, "is nested too deeply")
    return None


def _manifest(path: Path, shown: str, findings: Findings) -> Manifest | None:
    findings.looked_at("manifest")
    try:
        content = json_object(path, strict=True)
    except Unreadable as error:
        findings.error(shown, str(error))
        return None
    if content.get("kind") not in (None, KIND):
        findings.error(shown, f"kind is {content['kind']!r}, not {KIND!r}")
        return None
    found = _model(Manifest, path, shown, findings, normalised(content, owner_of(path.parent.name)))
    return found if isinstance(found, Manifest) else None


def _compare(
    manifests: list[tuple[str, Manifest]], attempts: dict[tuple[str, int], Attempt], findings: Findings
) -> None:
    """The record never lies: no manifest claims a success that its journal does not have."""
    for shown, manifest in manifests:
        for record in (manifest, *manifest.attempts, *manifest.substages.values()):
            attempt = attempts.get((record.stage, record.attempt))
            if record.kind == KIND and record.status in GOOD_STATUSES and attempt is not None:
                said = attempt.fold.record["status"]
                if attempt.fold.started_ns and said != record.status:
                    message = f"says {record.status} of {record.stage} (attempt {record.attempt}), its journal {said}"
                    findings.error(shown, message)


def show_findings(findings: Findings, path: str, terminal: Terminal) -> None:
    """One line each, as compilers say it: ``file:line: error: message``; then the sum."""
    for finding in findings.found:
        where = f"{plain(finding.file)}:{finding.line}" if finding.line else plain(finding.file)
        style = "red" if finding.level == "error" else "yellow"
        message = plain(finding.message).replace("\n", " ")
        terminal.line(f"{where}: ", (finding.level, style), f": {message}")
    for file, number in findings.left_out.items():
        terminal.line(f"{plain(file)}: and {count(number, 'further finding')}")
    errors, warnings = findings.count("error"), findings.count("warning")
    verdict = "valid" if findings.valid else "not valid"
    found = [count(number, noun) for number, noun in ((errors, "error"), (warnings, "warning")) if number]
    looked = ", ".join(count(number, what) for what, number in findings.checked.items()) or "nothing"
    terminal.line(
        terminal.glyph("success" if findings.valid else "failed"), " ", (plain(path), "bold"), f"  {verdict}",
        f": {', '.join(found)}" if found else "", (f"  (checked {looked})", "dim"),
    )  # fmt: skip
