"""10 translation: left out, and recorded as left out.

No translation model comes in a Python package, and the demo downloads nothing. A stage that has nothing to do says so
with its reason: ``skipped`` is a result of its own, neither success nor a hole in the record.
"""

from __future__ import annotations

from otel_stageio import StageIO


def run_stage(io: StageIO) -> None:
    io.skip("no translation model ships in a package; the subtitles stay in the language spoken")
