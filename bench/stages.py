"""A whole stage, against an SDK span and a manifest written once at the end, as the original did; on a disk too."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from otel_stageio import StageIO

from .measure import Result, Scale, each, take_turns
from .scratch import fresh, new_job
from .sdk import raw_sdk


def _original_manifest(started: float) -> dict[str, object]:
    return {
        "stage": "asr",
        "stage_number": 6,
        "timestamp": datetime.now().isoformat(),
        "status": "success",
        "inputs": [],
        "outputs": [],
        "intermediate_files": [],
        "config": {},
        "resources": {},
        "errors": [],
        "warnings": [],
        "duration_seconds": time.time() - started,
        "completed_at": datetime.now().isoformat(),
    }


def stages(where: Path, scale: Scale) -> Iterator[Result]:
    with raw_sdk() as provider:
        tracer = provider.get_tracer("bench")

        def ours() -> float:
            jobs = [new_job(where) for _ in range(scale.stages)]

            def stage(number: int) -> None:
                with StageIO("asr", jobs[number]):
                    pass

            return each(stage, scale.stages)

        def theirs() -> float:
            jobs = [new_job(where) for _ in range(scale.stages)]

            def stage(number: int) -> None:
                with tracer.start_as_current_span("asr"):
                    manifest = _original_manifest(time.time())
                with open(jobs[number] / "06_asr" / "manifest.json", "w", encoding="utf-8") as file:
                    json.dump(manifest, file, indent=2)

            try:
                return each(stage, scale.stages)
            finally:
                provider.force_flush()

        def whole(root: Path) -> float:
            jobs = [root / f"whole{number}" for number in fresh(scale.stages)]

            def stage(number: int) -> None:
                with StageIO("asr", jobs[number]):
                    pass

            return each(stage, scale.stages)

        def dumped() -> float:
            jobs = [where / f"dumped{number}" / "06_asr" for number in fresh(scale.stages)]

            def stage(number: int) -> None:
                jobs[number].mkdir(parents=True)
                with open(jobs[number] / "manifest.json", "w", encoding="utf-8") as file:
                    json.dump(_original_manifest(time.time()), file, indent=2)

            return each(stage, scale.stages)

        with tempfile.TemporaryDirectory(prefix="stageio-bench-") as disk:
            contenders = {
                "ours": ours,
                "theirs": theirs,
                "whole": lambda: whole(where),
                "on disk": lambda: whole(Path(disk)),
                "dumped": dumped,
            }
            seconds = take_turns(contenders, scale.repetitions)
    what = "a stage: run, journal, logs, manifest"
    yield Result("stage", what, "SDK span, one json.dump", seconds["ours"], seconds["theirs"])
    yield Result("stage-dump", f"{what}, directories", "directory, json.dump", seconds["whole"], seconds["dumped"], 4.0)
    yield Result("stage-disk", "the same on a disk", "in memory", seconds["on disk"], seconds["whole"], limit=0.003)
