"""What a stage was made of: its inner spans and child processes, from its spans on disk."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import semconv as sc
from ..layout import Job
from .disk import journal, spans

_ERROR = 2  # opentelemetry.proto.trace.v1.Status.STATUS_CODE_ERROR


@dataclasses.dataclass
class Step:
    """Inner spans of one name, or a child process.

    Attributes:
        kind: ``span`` or ``process``.
        seconds: of all of them together.
        failed: how many ended in an error.
        steps: of a process, what is directly below it.
    """

    name: str
    kind: str
    count: int = 0
    seconds: float = 0.0
    failed: int = 0
    exit_code: int | None = None
    steps: list[Step] = dataclasses.field(default_factory=list)


class _Span:
    """The little of a span that is needed; a stage may have a hundred thousand."""

    __slots__ = ("exit_code", "failed", "name", "process", "seconds", "span_id", "start")

    def __init__(self, span: dict[str, Any]) -> None:
        attributes = span["attributes"]
        code = attributes.get(sc.PROCESS_EXIT_CODE)
        self.span_id = str(span.get("spanId", ""))
        self.name = str(span.get("name", ""))
        self.process = sc.PROCESS_EXECUTABLE in attributes
        self.exit_code = code if isinstance(code, int) else None
        self.start: int = span["startTimeUnixNano"]
        self.seconds = (span["endTimeUnixNano"] - self.start) / 1e9
        status = span.get("status")
        self.failed = isinstance(status, dict) and status.get("code") == _ERROR


def steps_of(job: Job, stage: str, attempt: int, span_id: str | None) -> tuple[list[Step], int]:
    """The steps directly below a stage (and below its processes), and the number of all spans inside it."""
    path = journal(job, stage, attempt, "spans")
    if path is None or not span_id:
        return [], 0
    children: dict[str, list[_Span]] = {}
    total = 0
    for span in spans(path):
        if span.get("spanId") == span_id:
            continue
        total += 1
        children.setdefault(str(span.get("parentSpanId", "")), []).append(_Span(span))
    return _grouped(children, span_id, 1), total


def _grouped(children: dict[str, list[_Span]], parent: str, below: int) -> list[Step]:
    groups: dict[tuple[str, str], Step] = {}
    for span in sorted(children.get(parent, ()), key=lambda span: span.start):
        if span.process:
            step = Step(span.name, "process", exit_code=span.exit_code)
            groups[span.name, span.span_id] = step
            if below:
                step.steps = _grouped(children, span.span_id, below - 1)
        else:
            step = groups.setdefault((span.name, ""), Step(span.name, "span"))
        step.count += 1
        step.seconds += span.seconds
        step.failed += span.failed
    return list(groups.values())
