"""``StageManifest``: the original's class, for code that uses ``io.manifest``, as a view of the events.

Bound to a stage, what is added becomes events of that stage. On its own it folds its events in memory and ``save``
writes them; nothing else happens.
"""

from __future__ import annotations

import copy
import datetime
import json
import os
import re
from pathlib import Path
from typing import Any

from .. import semconv as sc
from ..capture import Capture
from ..events import INFO, Event
from ..layout import Job
from ..record.fold import Fold
from ..runtime import runtime
from ..sinks.files import replace
from .voice import Voice

_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Memory(Voice):
    """A record that lives in memory only."""

    def __init__(self, stage: str, number: int) -> None:
        super().__init__(Capture(Job(".")))
        self._fold = Fold()
        self._start_mono = runtime.clock.monotonic_ns()
        self.emit(sc.EVENT_STARTED, {sc.TASK_NAME: self.capture.string(stage), sc.STAGE_NUMBER: number})

    @property
    def record(self) -> dict[str, Any]:
        return self._fold.record

    def emit(
        self, name: str, attributes: dict[str, Any], body: str | None = None, severity: int = INFO, **_: Any
    ) -> None:
        redactions, changed = self.capture.counts()
        if redactions:
            attributes[sc.REDACTIONS] = redactions
        if changed:
            attributes[sc.SANITISED] = changed
        self._fold.apply(Event(name, runtime.clock.wall_ns(), attributes, body, severity))

    def end(self, status: str, extra: dict[str, Any]) -> None:
        for changed in self.artifacts.final():
            self.emit(sc.EVENT_ARTIFACT, changed)
        attributes: dict[str, Any] = {
            sc.STAGE_STATUS: self.capture.string(status),
            sc.DURATION: (runtime.clock.monotonic_ns() - self._start_mono) / 1e9,
            sc.LOCAL_EXTRA: self.capture.mapping(extra),
        }
        self.emit(sc.EVENT_ENDED, attributes)


class StageManifest:
    """A stage's manifest while it is being made.

    Args:
        stage_name: e.g. ``asr``.
        stage_number: position in the pipeline.
        voice: the stage whose record this is a view of; on its own by default.

    Example:
        >>> manifest = StageManifest("asr", 6)
        >>> manifest.add_config("model", "large-v3")
        >>> manifest.to_dict()["config"]
        {'model': 'large-v3'}
    """

    def __init__(self, stage_name: str, stage_number: int, *, voice: Any = None) -> None:
        self.stage_name = stage_name
        self.stage_number = stage_number
        self.start_time: datetime.datetime = datetime.datetime.now().astimezone()
        self._voice: Any = _Memory(stage_name, stage_number) if voice is None else voice

    @property
    def data(self) -> dict[str, Any]:
        """The record so far, as a copy: what is changed in it changes nothing else."""
        return copy.deepcopy(self._voice.record)

    def add_input(self, file_path: str | os.PathLike[str], file_type: str = "file", **metadata: Any) -> None:
        """Add an input. A SHA-256 in place of the type is taken for the file's hash, as later callers pass it."""
        self._add("input", file_path, file_type, metadata)

    def add_output(self, file_path: str | os.PathLike[str], file_type: str = "file", **metadata: Any) -> None:
        self._add("output", file_path, file_type, metadata)

    def _add(self, role: str, path: str | os.PathLike[str], kind: str, metadata: dict[str, Any]) -> None:
        if isinstance(kind, str) and _SHA256.fullmatch(kind):
            metadata, kind = {"hash": kind, **metadata}, "file"
        self._voice.track(role, path, kind, metadata)

    def add_intermediate(self, file_path: str | os.PathLike[str], retained: bool = False, reason: str = "") -> None:
        how = {sc.ARTIFACT_RETAINED: retained, sc.ARTIFACT_REASON: reason}
        self._voice.track("intermediate", file_path, "intermediate", {}, how)

    def add_config(self, key: str, value: Any) -> None:
        self._voice.config({key: value})

    def set_config(self, config_dict: dict[str, Any]) -> None:
        self._voice.config(config_dict)

    def add_warning(self, message: str) -> None:
        self._voice.warning(message)

    def add_error(self, message: str, exception: BaseException | None = None) -> None:
        self._voice.error(message, exception)

    def set_resources(self, **resources: Any) -> None:
        self._voice.resources(resources)

    def finalize(self, status: str = "success", **kwargs: Any) -> None:
        self._voice.end(status, extra=kwargs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record as strict JSON, replacing the file as a whole.

        Raises:
            OSError: as the file system says; an earlier file is then still there.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._voice.record, indent=2, allow_nan=False)
        replace(target, text.encode() + b"\n", target.parent)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over an existing manifest, if it is there and readable.

        A stage's own manifest takes nothing over: the original merged an earlier run's errors and inputs into the new
        record; here attempts stay apart.
        """
        if isinstance(self._voice, _Memory):
            try:
                content = json.loads(Path(path).read_bytes())
            except (OSError, ValueError):
                return
            if isinstance(content, dict):
                self._voice.record.update(content)

    def to_dict(self) -> dict[str, Any]:
        return self.data

    def get_inputs(self) -> list[dict[str, Any]]:
        return self.data["inputs"]  # type: ignore[no-any-return]

    def get_outputs(self) -> list[dict[str, Any]]:
        return self.data["outputs"]  # type: ignore[no-any-return]

    def get_intermediate_files(self) -> list[dict[str, Any]]:
        return self.data["intermediate_files"]  # type: ignore[no-any-return]

    def has_errors(self) -> bool:
        return bool(self._voice.record["errors"])

    def has_warnings(self) -> bool:
        return bool(self._voice.record["warnings"])
