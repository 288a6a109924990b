"""The original's ``shared.stage_order``: names, numbers and directories of the stages."""

from __future__ import annotations

from .. import layout

SUB_STAGES: dict[str, str] = {
    "hallucination_removal": "asr",
    "load_transcript": "translation",
    "hinglish_detection": "subtitle_generation",
}
#: In order, aliases after the stage that they stand for; sub-stages are not among them.
STAGE_ORDER: list[str] = [
    name
    for stage in layout.STAGES
    for name in (stage, *(alias for alias, parent in layout.SHARED.items() if parent == stage))
    if name not in SUB_STAGES
]
STAGE_NUMBERS: dict[str, int] = dict(layout.NUMBERS)
STAGE_DIRECTORIES: list[str] = [layout.directory_name(stage) for stage in layout.STAGES]


def get_stage_number(stage_name: str) -> int:
    """1 to 12.

    Raises:
        ValueError: if the stage is not in the table.
    """
    if stage_name not in layout.NUMBERS:
        raise ValueError(f"Unknown stage: {stage_name}")
    return layout.NUMBERS[stage_name]


def get_stage_dir(stage_name: str, job_dir: str | None = None) -> str:
    """``06_asr``, or ``<job_dir>/06_asr``.

    Raises:
        ValueError: if the stage is not in the table.
    """
    get_stage_number(stage_name)
    directory = layout.directory_name(stage_name)
    return f"{str(job_dir).rstrip('/')}/{directory}" if job_dir else directory


def get_all_stage_dirs() -> list[str]:
    """The twelve directories, in order."""
    return list(STAGE_DIRECTORIES)
