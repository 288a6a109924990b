"""``otel-stageio schema``: JSON Schema, generated from the models that read the files."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ..record.manifest import Manifest
from ..runs.run_record import RunRecord

_MODELS: dict[str, type[BaseModel]] = {"manifest": Manifest, "run": RunRecord}


def schema_of(what: str) -> dict[str, Any]:
    """The schema of ``manifest`` (``manifest.json``) or ``run`` (``.stageio/run.json``)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_MODELS[what].model_json_schema()}
