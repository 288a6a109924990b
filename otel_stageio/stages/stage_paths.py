"""Where a stage finds its inputs and puts its outputs: the original's path and file helpers."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import layout
from ..events import iso
from ..layout import Job, canonical, directory_name, inside
from ..resume.digest import file_sha256
from ..runtime import runtime
from ..sinks.files import replace


class StagePaths:
    """The part of :class:`otel_stageio.StageIO` that works with no record at all.

    Paths are built from ``output_base`` exactly as the caller gave it, never resolved: callers compute
    ``path.relative_to(io.output_base)``.
    """

    stage_name: str
    stage_number: int
    output_base: Path
    stage_dir: Path
    logs_dir: Path
    _job: Job

    @property
    def output_dir(self) -> Path:
        return self.stage_dir

    @property
    def job_dir(self) -> Path:
        return self.output_base

    def get_input_path(self, filename: str, from_stage: str | None = None, required: bool = False) -> Path:
        """Where a former stage's file is: its directory, else the job's root if it is there; it may not exist.

        Args:
            from_stage: by default the stage with the number before this one.
            required: raise if there is no such file.

        Raises:
            FileNotFoundError: if ``required`` and the file is nowhere.
        """
        path = self._input_path(filename, from_stage)
        if required and not path.exists():
            raise FileNotFoundError(f"input file not found: {path}")
        return path

    def _input_path(self, filename: str, from_stage: str | None) -> Path:
        at_root = self.output_base / filename
        stage = self._previous_stage() if from_stage is None else canonical(from_stage)
        if stage is None:
            return at_root
        path = self.output_base / directory_name(stage) / filename
        if path.exists():
            return path
        if at_root.exists():
            return at_root
        if stage not in layout.NUMBERS and not path.parent.exists():
            # The original's answer for a stage that nobody knows and that has written nothing.
            return self.output_base / f"{self.stage_number - 1:02d}_{stage}" / filename
        return path

    def _previous_stage(self) -> str | None:
        return next((name for name, number in layout.NUMBERS.items() if number == self.stage_number - 1), None)

    def get_output_path(self, filename: str) -> Path:
        """``stage_dir / filename``.

        Raises:
            ValueError: for a name that leaves the stage's directory (absolute, or with ``..``).
        """
        return inside(self.stage_dir, filename)

    def save_json(self, data: Any, filename: str) -> Path:
        """Write JSON (UTF-8, indented, non-ASCII kept) to the stage's directory; the file is replaced as a whole.

        Raises:
            TypeError, ValueError: if ``data`` is no JSON; an earlier file is then still there.
        """
        path = self.get_output_path(filename)
        text = json.dumps(data, indent=2, ensure_ascii=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, text.encode("utf-8", "backslashreplace"), self._job.temporary)
        return path

    def load_json(self, filename: str, from_stage: str | None = None) -> Any:
        """Read JSON from a former stage (see :meth:`get_input_path`).

        Raises:
            FileNotFoundError: if there is no such file.
        """
        path = self.get_input_path(filename, from_stage, required=True)
        return json.loads(path.read_text(encoding="utf-8"))

    def save_metadata(self, metadata: Mapping[str, Any]) -> Path:
        """Write ``metadata.json`` with stage, number and time added. The caller's mapping is left as it is."""
        now = iso(runtime.clock.wall_ns())
        added = {"stage": self.stage_name, "stage_number": self.stage_number, "timestamp": now}
        return self.save_json({**metadata, **added}, "metadata.json")

    def load_metadata(self, from_stage: str | None = None) -> dict[str, Any]:
        """A former stage's ``metadata.json``; ``{}`` if it has none."""
        try:
            return self.load_json("metadata.json", from_stage)  # type: ignore[no-any-return]
        except FileNotFoundError:
            return {}

    def get_log_path(self, timestamp: str | None = None) -> Path:
        """``logs/NN_<stage>_<YYYYMMDD_HHMMSS>.log``, for a program that keeps a log of its own."""
        stamp = timestamp or time.strftime("%Y%m%d_%H%M%S")
        return self.logs_dir / f"{self.stage_number:02d}_{self.stage_name}_{stamp}.log"

    def copy_to_base(self, filename: str) -> Path:
        """Copy an output up to the job's root, if it is there. Returns the destination."""
        source, destination = self.get_output_path(filename), inside(self.output_base, filename)
        if source.exists():
            shutil.copy2(source, destination)
        return destination

    def get_all_inputs(self) -> list[Path]:
        """Every entry of the previous stage's directory; [] if there is none."""
        stage = self._previous_stage()
        directory = self.output_base / directory_name(stage) if stage else None
        return list(directory.iterdir()) if directory is not None and directory.is_dir() else []

    def compute_hash(self, file_path: str | os.PathLike[str]) -> str:
        """SHA-256 of a file, 64 hex digits.

        Raises:
            OSError: if it cannot be read.
        """
        return file_sha256(file_path)
