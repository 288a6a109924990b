"""The record that a pipeline has before it has any other: two log files, and JSON if the stage gets that far."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any


class Homemade:
    def __init__(self, directory: str, job: Path) -> None:
        self.job = job
        self.directory = job / directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.started = time.time()
        self.record: dict[str, Any] = {"stage": directory, "inputs": [], "outputs": [], "config": {}, "warnings": []}
        self.log = logging.getLogger(f"{job}.{directory}")
        self.log.setLevel(logging.DEBUG)
        for path, level in ((self.directory / "stage.log", logging.DEBUG), (job / "pipeline.log", logging.INFO)):
            handler = logging.FileHandler(path, encoding="utf-8")
            handler.setLevel(level)
            handler.setFormatter(logging.Formatter("[%(asctime)s] [%(levelname)s] %(message)s"))
            self.log.addHandler(handler)

    def load(self, path: str) -> Any:
        self.record["inputs"].append(path)
        return json.loads((self.job / path).read_text(encoding="utf-8"))

    def save(self, data: Any, name: str) -> None:
        (self.directory / name).write_text(json.dumps(data, indent=2, ensure_ascii=False), encoding="utf-8")
        self.record["outputs"].append(name)

    def warn(self, message: str) -> None:
        self.log.warning(message)
        self.record["warnings"].append(message)

    def progress(self, done: float, total: float | None = None, unit: str = "") -> None:
        self.log.debug("%s of %s %s", done, total, unit)

    def finish(self, status: str) -> None:
        self.record["status"] = status
        self.record["seconds"] = time.time() - self.started
        (self.directory / "manifest.json").write_text(json.dumps(self.record, indent=2), encoding="utf-8")
