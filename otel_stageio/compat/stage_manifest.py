"""The original's ``shared.stage_manifest``."""

from __future__ import annotations

from ..stages.stage_manifest import StageManifest

__all__ = ["StageManifest"]
