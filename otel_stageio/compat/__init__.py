"""The original's modules by their names: ``stage_utils``, ``logger``, ``stage_manifest`` and ``stage_order``.

Migrating a stage is changing one import line (``from shared.stage_utils import StageIO`` becomes ``from
otel_stageio.compat.stage_utils import StageIO``), or none: ``otel-stageio run --drop-in shared -- python script.py``.
"""
