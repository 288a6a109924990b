"""What could not be recorded of a stage, and what was recorded otherwise than it was given."""

from __future__ import annotations

from ..record.manifest import Record
from .text import count, one_line

_SINKS = {
    "stage_log": "lines of stage.log",
    "pipeline_log": "lines of the pipeline log",
    "journal": "records of the spool",
    "manifest": "writes of manifest.json",
    "spool_full": "log lines kept out of the full spool (stage.log has them)",
    "late": "calls after the stage had ended",
}


def honesty(record: Record) -> list[tuple[str, bool]]:
    """Sentences, each with whether something is lost."""
    said = [(f"lost: {_SINKS.get(what, one_line(what))} ({number:,})", True) for what, number in record.lost.items()]
    if record.redactions:
        said.append((f"{count(record.redactions, 'secret')} masked", False))
    if record.sanitised:
        said.append((f"{count(record.sanitised, 'value')} changed to fit into JSON", False))
    return said
