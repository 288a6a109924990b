"""A stage asks whether it has to run; the answer is recorded, and if it does not have to, so is the skip."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import semconv as sc
from ..capture.parameters import comparable
from ..resume.decide import Decision, decide, inside_of, place_of
from ..resume.declared import Declared, code_of, code_of_command, environment_of
from ..runtime import never_raises

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .stage_io import StageIO

_UNKNOWN = Decision(False, "it cannot be told: an internal error")


def ask(io: StageIO, params: Mapping[str, Any], code: Any, env: Mapping[str, Any] | Iterable[str] | None) -> Decision:
    """
    Raises:
        TypeError: if ``code`` has no source file.
    """
    recorder = io._recorder
    sources = code_of(code, recorder.artifacts.digests)
    if not isinstance(params, Mapping):
        raise TypeError(f"params must be a mapping of names to values, not {params!r}")
    return _decided(io, {**recorder.record["config"], **params}, sources, environment_of(env))


def ask_for_command(
    io: StageIO,
    words: Sequence[str],
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str] | None,
    code: Any,
) -> Decision:
    """The same for a program: its arguments are its parameters, and the scripts among them its code."""
    digests = io._recorder.artifacts.digests
    sources = {**code_of_command(words, cwd, digests), **code_of(code, digests)}
    root = str(io._job.root)
    told = {"arguments": [word.replace(root, ".") for word in words]}
    if cwd is not None:
        place = os.path.abspath(cwd)
        told["directory"] = [inside_of(place, root) or place]
    return _decided(io, told, sources, {name: value.replace(root, ".") for name, value in (env or {}).items()})


@never_raises(lambda: _UNKNOWN)
def _decided(io: StageIO, params: Mapping[str, Any], code: dict[str, str], env: Mapping[str, Any]) -> Decision:
    recorder = io._recorder
    if recorder.silent:
        return _UNKNOWN
    recorder.refresh()
    capture = recorder.capture
    place = {"job": str(io._job.root), "directory": str(Path.cwd())}
    inputs = [place_of(io._job, entry, {"place": place}) for entry in recorder.record["inputs"]]
    declared = Declared(comparable(capture, params), code, comparable(capture, env), inputs, place)
    decision = decide(io._job, io.stage_name, declared, recorder.artifacts.digests, attempt=recorder.attempt)
    if decision:
        _take_over(io, decision)
    sentence = recorder.capture.paths.text(decision.sentence)
    wire = {sc.RESUME_DECISION: "skip" if decision else "run", sc.RESUME_REASON: sentence}
    local = {**declared.plain(), **decision.plain()}
    recorder.emit(sc.EVENT_RESUME, {**wire, sc.LOCAL_RESUME: local}, sentence)
    said = "skipped" if decision else "has to run"
    shown = logging.INFO if io._handler is None else io._handler.console_level  # as its caller has set it
    text = f"{said}: {decision.sentence}"
    recorder.lines.write(logging.INFO, "INFO", f"stage.{io.stage_name}", text, console_level=shown)
    if decision:
        io._up_to_date = True
        io.skip(decision.sentence)
    return decision


def _take_over(io: StageIO, decision: Decision) -> None:
    """The record of a skip has the files that it stands for, so that who reads it need not look for another; and their
    digests, so that what happens to them from now on is a change.
    """
    record = decision.record or {}
    own = io._recorder.record
    told = {(name, entry["path"]): entry.get("digest") for name in ("inputs", "outputs") for entry in own[name]}
    for role, name in (("input", "inputs"), ("output", "outputs")):
        for entry in record.get(name, ()):
            _, path = place_of(io._job, entry, record.get("resume"))
            known = {"path", "type", "size_bytes", "exists", "changed", "digest"}
            metadata = {key: value for key, value in entry.items() if key not in known}
            shown = entry["path"] if os.path.abspath(entry["path"]) == str(path) else str(path)
            if entry.get("digest") and told.get((name, shown)) == entry["digest"]:
                io._recorder.artifacts.keep(role, shown, entry["digest"])
                continue
            io._recorder.track(role, shown, entry.get("type", "file"), metadata, digest=entry.get("digest"))
