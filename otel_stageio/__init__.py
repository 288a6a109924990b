"""Run records for staged pipelines, made of OpenTelemetry.

A stage is an OpenTelemetry span. Everything a stage says is one ordered stream of records; ``stage.log``, the pipeline
log, ``manifest.json`` and the trace are projections of it. Names are loaded when first used: importing this package
opens no file, touches no logger and no global provider.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .pipeline.handover import StagesRunning, begin_run, end_run, join_run
    from .pipeline.pipeline import Pipeline, StageFailed
    from .record.manifest import Manifest, ManifestError
    from .recovery.recover import recover
    from .runs.run_record import RunRecord
    from .stages.decorator import stage
    from .stages.stage_io import StageIO
    from .stages.stage_manifest import StageManifest

__all__ = [
    "Manifest",
    "ManifestError",
    "Pipeline",
    "RunRecord",
    "StageFailed",
    "StageIO",
    "StageManifest",
    "StagesRunning",
    "__version__",
    "begin_run",
    "end_run",
    "join_run",
    "recover",
    "stage",
]

_HOMES = {
    "Manifest": "record.manifest",
    "ManifestError": "record.manifest",
    "Pipeline": "pipeline.pipeline",
    "RunRecord": "runs.run_record",
    "StageFailed": "pipeline.pipeline",
    "StageIO": "stages.stage_io",
    "StageManifest": "stages.stage_manifest",
    "StagesRunning": "pipeline.handover",
    "begin_run": "pipeline.handover",
    "end_run": "pipeline.handover",
    "join_run": "pipeline.handover",
    "recover": "recovery.recover",
    "stage": "stages.decorator",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
