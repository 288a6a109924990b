"""A job directory as a Process Run Crate: https://w3id.org/ro/wfrun/process/0.5, which is RO-Crate 1.1.

Every attempt at a stage is an action. A skipped one did nothing: in its place stands the one that made its files. What
lies in the job is a File or a Dataset under its relative path; what lies elsewhere, or no longer there, is no part of
the crate, and is named only.
"""

from __future__ import annotations

import datetime
import hashlib
import mimetypes
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..events import iso
from ..reading.view import JobView, RunView
from ..runtime import runtime
from ..semconv import GOOD_STATUSES
from .attempts import Attempt, File, attempts_of, encoded, universal, well_formed, written

_CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_METADATA = "ro-crate-metadata.json"
_SHA256 = re.compile("[0-9a-f]{64}")
_NEVER = datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)

_Entity = dict[str, Any]


def crate(view: JobView, run: RunView | None) -> Iterator[str]:
    """The lines of ``ro-crate-metadata.json``, one for each entity.

    Args:
        run: None for all that ever ran in the job.
    """
    attempts = _that_did_something(view, run)
    files = _Files()
    for attempt in attempts:
        for file in (*attempt.inputs, *attempt.outputs):
            files.add(file)
    tools = {attempt.stage: _tool(attempt) for attempt in attempts}
    actions = [_action(attempt, files) for attempt in attempts]
    root: _Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": view.name,
        "description": f"{view.run.pipeline if view.run else view.name}: a pipeline's stages and their files",
        "datePublished": _latest(attempts),
        "license": "No licence is stated: ask whoever made these files.",
        "conformsTo": {"@id": _PROFILE},
        **_listed("hasPart", files.parts),
        **_listed("mentions", actions),
    }
    about: list[_Entity] = [
        {
            "@id": _METADATA,
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
    ]
    yield f'{{"@context":{encoded(_CONTEXT)},"@graph":[\n'
    yield encoded(root)
    for entity in (*about, *tools.values(), *actions, *files.entities):
        yield ",\n" + encoded(entity)
    yield "\n]}\n"


def _that_did_something(view: JobView, run: RunView | None) -> list[Attempt]:
    every = {(attempt.stage, attempt.number): attempt for attempt in attempts_of(view)}
    found = {}
    for attempt in attempts_of(view, run):
        skipped = attempt.state == "skipped"
        number = attempt.source.get("attempt", 0) if skipped else attempt.number
        key = attempt.stage, number if isinstance(number, int) else 0
        if key in every:
            found[key] = every[key]
    return sorted(found.values(), key=lambda attempt: attempt.started or _NEVER)


class _Files:
    """The files of the crate, each once, as the last attempt that knew of it left it."""

    def __init__(self) -> None:
        self._found: dict[Path, _Entity] = {}

    def add(self, file: File) -> None:
        self._found[file.path] = _entity(file)

    def of(self, files: Iterable[File]) -> Iterator[_Entity]:
        """Those of the files whose content is still what the attempt had there."""
        for file in files:
            entity = self._found[file.path]
            if file.there and _same(file, entity):
                yield entity

    @property
    def entities(self) -> list[_Entity]:
        return [entity for entity in self._found.values() if entity["@id"] not in ("./", _METADATA)]

    @property
    def parts(self) -> list[_Entity]:
        return [entity for entity in self.entities if not entity["@id"].startswith("#")]


def _same(file: File, entity: _Entity) -> bool:
    """As far as is known."""
    seen, now = file.digest.get("sha256"), entity.get("sha256")
    if seen is not None and now is not None:
        return bool(seen == now)
    return file.size is None or entity.get("contentSize", str(file.size)) == str(file.size)


def _entity(file: File) -> _Entity:
    size = file.size
    digest = file.digest.get("sha256", "")
    entity: _Entity = {"name": file.path.name}
    try:
        status = file.path.stat() if file.name is not None else None
    except (OSError, ValueError):
        status = None
    if status is None:
        # Where it lies elsewhere is nobody's business but this machine's.
        shown = file.name or f"{file.path.name}-{hashlib.sha256(well_formed(str(file.path)).encode()).hexdigest()[:8]}"
        why = "outside the job directory" if file.name is None else "no longer in the job directory"
        entity |= {"@id": f"#file-{_quoted(shown)}", "@type": "CreativeWork", "description": why}
    elif stat.S_ISDIR(status.st_mode):
        entity |= {"@id": f"{_quoted(str(file.name))}/" if file.name != "." else "./", "@type": "Dataset"}
        return entity
    else:
        entity |= {"@id": _quoted(str(file.name)), "@type": "File"}
        if size is not None and size != status.st_size:
            digest = ""  # it was written to after its stage had ended
        size = status.st_size
    kind = mimetypes.guess_type(file.path.name)[0]
    if kind:
        entity["encodingFormat"] = kind
    if size is not None:
        entity["contentSize"] = str(size)
    if _SHA256.fullmatch(digest):
        entity["sha256"] = digest
    return entity


def _tool(attempt: Attempt) -> _Entity:
    tool: _Entity = {"@id": f"#stage-{_quoted(attempt.stage)}", "@type": "SoftwareApplication", "name": attempt.stage}
    resume = attempt.record.resume
    if resume is not None and resume.code.get("version"):
        tool["softwareVersion"] = resume.code["version"]
    return tool


def _action(attempt: Attempt, files: _Files) -> _Entity:
    trace = attempt.record.trace.trace_id
    about = f"attempt {attempt.number} at the stage {attempt.stage}: {attempt.state}"
    action: _Entity = {
        "@id": f"#{attempt.id}",
        "@type": "CreateAction",
        "name": f"{attempt.stage} #{attempt.number}" if attempt.number > 1 else attempt.stage,
        "description": f"{about}, trace {trace}" if trace else about,
        "instrument": {"@id": f"#stage-{_quoted(attempt.stage)}"},
    }
    for key, time in (("startTime", attempt.started), ("endTime", attempt.ended)):
        if time is not None:
            action[key] = written(time)
    for key, entries in (("object", attempt.inputs), ("result", attempt.outputs)):
        action |= _listed(key, files.of(entries))
    if attempt.state in GOOD_STATUSES:
        action["actionStatus"] = "http://schema.org/CompletedActionStatus"
    elif attempt.state == "running":
        action["actionStatus"] = "http://schema.org/ActiveActionStatus"
    else:
        action["actionStatus"] = "http://schema.org/FailedActionStatus"
        action["error"] = attempt.reason or attempt.state
    return action


def _latest(attempts: list[Attempt]) -> str:
    times = [time for attempt in attempts for time in (attempt.started, attempt.ended) if time is not None]
    now = universal(iso(runtime.clock.wall_ns()))
    assert now is not None
    return written(max(times, default=now))


def _listed(key: str, entities: Iterable[_Entity]) -> _Entity:
    """As RO-Crate has it: nothing for none, and no list for one."""
    found = [{"@id": entity["@id"]} for entity in entities]
    if not found:
        return {}
    return {key: found[0] if len(found) == 1 else found}


def _quoted(path: str) -> str:
    return quote(well_formed(path), safe="/")
