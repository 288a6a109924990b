"""What a stage has when its recorder could not be made: everything can be called, nothing is recorded.

That should never happen; if it does, the stage's own work goes on, and the error is counted and said on stderr.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from ..record.fold import Fold
from ..sinks.console import Console
from .lines import LineWriter
from .usage import Usage
from .voice import Voice

if TYPE_CHECKING:
    from ..capture import Capture


class SilentRecorder(Voice):
    silent = True
    joined = False
    opened_run = False
    job = None
    trace_id = span_id = 0
    elapsed_ns = 0
    span = trace.INVALID_SPAN

    def __init__(self, capture: Capture) -> None:
        super().__init__(capture)
        self.pid = os.getpid()
        self.ended = False
        self.record: dict[str, Any] = Fold().record
        self.context = otel_context.get_current()
        self.console = Console()
        self.lines = LineWriter(self)  # type: ignore[arg-type]
        self.stage_log = self.pipeline_log = self.spans = _Nowhere()
        self.usage = Usage(sampled=False)

    def emit(self, name: str, attributes: dict[str, Any], *_: Any, **__: Any) -> None:
        pass

    def spool_line(self, record: str, time_ns: int) -> None:
        pass

    def refresh(self) -> None:
        pass

    def end(self, status: str, **_: Any) -> None:
        self.ended = True


class _Nowhere:
    def write(self, record: bytes) -> bool:
        return False

    def began(self, *_: Any) -> None:
        pass
