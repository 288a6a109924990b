"""Whether the spans of a job make whole traces: every parent is there, nothing is there twice, nothing is missing."""

from __future__ import annotations

import dataclasses

from ..record.fold import Fold
from ..runs.run_record import RunBase
from .findings import Findings
from .otlp_check import SpanId

_Key = tuple[str, str]


@dataclasses.dataclass
class Attempt:
    """One stage attempt as its journal tells it.

    Attributes:
        alive: its process was there before its files were read.
        sampled: its spans are written at all.
    """

    stage: str
    number: int
    file: str
    alive: bool
    fold: Fold = dataclasses.field(default_factory=Fold)
    sampled: bool = True

    @property
    def key(self) -> _Key | None:
        """Trace and span id, unless the SDK was disabled."""
        trace = self.fold.record["trace"]
        ids = (str(trace.get("trace_id", "")), str(trace.get("span_id", "")))
        return ids if all(ids) else None

    @property
    def has_gaps(self) -> bool:
        """Its process has gone, whether or not somebody has closed it since; or the disk refused some of it."""
        record = self.fold.record
        return record["status"] == "crashed" or bool(record["lost"]) or not (self.alive or self.fold.ended)

    @property
    def parent(self) -> str:
        return str(self.fold.record["trace"].get("parent_span_id", ""))


class Traces:
    """Collects the spans of a job; :meth:`check` says what is wrong with them."""

    def __init__(self) -> None:
        self._spans: dict[_Key, tuple[SpanId, str, int]] = {}

    def add(self, span: SpanId, file: str, line: int, findings: Findings) -> None:
        key = (span.trace_id, span.span_id)
        if key in self._spans:
            _, where, first = self._spans[key]
            findings.error(file, f"span {span.span_id} ({span.name}) was written before, in {where}:{first}", line)
        else:
            self._spans[key] = (span, file, line)

    def check(self, attempts: list[Attempt], runs: list[RunBase], findings: Findings) -> None:
        known: set[_Key] = set(self._spans)
        parents = {key: attempt.parent for attempt in attempts if (key := attempt.key) is not None}
        living = {key[0] for attempt in attempts if attempt.alive and (key := attempt.key)}
        gaps = {key[0] for attempt in attempts if attempt.has_gaps and (key := attempt.key)}
        for attempt in attempts:
            key = attempt.key
            if key is None or not attempt.fold.started_ns:
                continue
            if attempt.fold.ended and attempt.sampled and not attempt.alive and key not in known:
                findings.error(attempt.file, f"stage {attempt.stage} has ended, but its span is not in the spool")
            known.add(key)
        for run in runs:
            key = (run.trace_id, run.root_span_id)
            parents[key] = run.parent_span_id or ""
            traced = any(trace == run.trace_id for trace, _ in self._spans)
            if run.status != "running" and traced and key not in known:
                findings.error(
                    ".stageio/run.json", f"run {run.attempt} has ended, but its root span is not in the spool"
                )
            known.add(key)
        for key, (span, file, line) in self._spans.items():
            if not span.parent_id or (span.trace_id, span.parent_id) in known:
                continue
            if parents.get(key) == span.parent_id:
                continue  # outside the job, as was recorded when it began
            if span.trace_id in living:
                continue  # the parent may be open still
            message = f"span {span.span_id} ({span.name}) has a parent that is not in its trace: {span.parent_id}"
            if span.trace_id in gaps:
                findings.warning(file, message + " (lost with its process or to the disk?)", line)
            else:
                findings.error(file, message, line)
