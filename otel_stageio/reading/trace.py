"""One run of a job as a waterfall: what ran when, inside what, what it waited for, and what kept the end waiting.

From the spans on disk where there are any; a stage that is running, that died unseen or that the original ran has its
record instead.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable, Iterator
from typing import Any

from .. import semconv as sc
from ..layout import Job
from ..record.manifest import Record
from ..recovery.left_open import left_open
from ..runtime import runtime
from ..semconv import GOOD_STATUSES
from .disk import journal, spans
from .text import moment
from .view import JobView, RunView, StageView

_ERROR = 2  # opentelemetry.proto.trace.v1.Status.STATUS_CODE_ERROR
#: An interval without any stage counts as a gap from this share of the run on.
_SMALLEST_GAP = 0.01
_GAP_NS = 50_000_000
#: Seconds that no stage has taken: a damaged manifest may say anything.
_ABSURD = 1e9


@dataclasses.dataclass(slots=True, eq=False)
class Bar:
    """One span.

    Attributes:
        kind: ``run``, ``stage``, ``process`` or ``span``.
        state: a status word; an inner span is ``success`` or ``failed``, or ``running``.
        end_ns: of what is running, now.
        critical: the run would have been over sooner had this been shorter.
        left_out: how many spans inside it, at any depth, were too short to be kept.
    """

    span_id: str
    name: str
    kind: str
    state: str
    start_ns: int
    end_ns: int
    stage: str = ""
    attempt: int = 1
    message: str = ""
    critical: bool = False
    left_out: int = 0
    children: list[Bar] = dataclasses.field(default_factory=list)

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Bar]]:
        """This and everything inside it, with its depth, as one reads."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**content, "seconds": self.seconds, "children": [child.document() for child in self.children]}


@dataclasses.dataclass(slots=True)
class Gap:
    """A time within the run in which no stage ran."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


@dataclasses.dataclass(slots=True)
class Trace:
    """Attributes:
    run: its number; None for a job without runs.
    root: the run, with its stages as children in the order of their starts.
    clocks: a sentence, where the clocks of its hosts differ.
    """

    run: int | None
    trace_id: str
    root: Bar
    gaps: list[Gap]
    clocks: str = ""

    @property
    def stages(self) -> list[Bar]:
        return self.root.children


def read_trace(view: JobView, run: RunView | None = None, *, most: int = 200) -> Trace | None:
    """The waterfall of a run, by default the newest; None if nothing of it has begun.

    Args:
        most: inner spans that are kept of a stage, the longest.
    """
    run = run or view.run
    job = Job(view.path)
    now = runtime.clock.wall_ns()
    stages = [_stage(job, *found, now, most) for found in _attempts(view, run)]
    bars = sorted((bar for bar in stages if bar is not None), key=lambda bar: (bar.start_ns, bar.stage))
    began = _ns(run.started_at) if run is not None else None
    if not bars and began is None:
        return None
    start = min([bar.start_ns for bar in bars] + ([began] if began is not None else []))
    end = max([bar.end_ns for bar in bars], default=start)
    if run is not None:
        running = run.state == "running"
        end = max(end, now if running else _ns(run.ended_at) or end)
    root = Bar("", run.pipeline if run else view.name, "run", run.state if run else view.state, start, end)
    root.children = bars
    _mark_critical(root)
    clocks = view.clocks if run is view.run else ""
    return Trace(run.number if run else None, run.trace_id if run else "", root, _gaps(root), clocks)


def _attempts(view: JobView, run: RunView | None) -> Iterator[tuple[StageView, Record, str]]:
    """Every attempt at a stage that belongs to the run: its record, and how it stands by now."""
    for stage in view.stages:
        if run is None or stage.run == run.number:
            yield stage, stage.record, stage.state
        for former in stage.record.attempts:
            if run is not None and former.trace.run_id == run.run_id:
                yield stage, former, former.status


def _stage(job: Job, stage: StageView, record: Record, state: str, now: int, most: int) -> Bar | None:
    start = _ns(record.timestamp)
    own_id = record.trace.span_id or ""
    found = _spans(job, stage.name, record.attempt, own_id)
    own = found.own
    if own is not None:
        start, end = own.start_ns, own.end_ns
    elif start is None:
        return None
    elif record.duration_seconds is not None and 0 <= record.duration_seconds < _ABSURD:
        end = start + round(record.duration_seconds * 1e9)
    else:
        end = now if state == "running" else _ns(record.completed_at) or max(found.last, start)
    message = record.errors[-1].message if record.errors and state not in GOOD_STATUSES else ""
    bar = Bar(own_id, stage.name, "stage", state, start, max(start, end), stage.name, record.attempt, message)
    if state == "running":
        found.every += _open(job, stage.name, record.attempt, {one.bar.span_id for one in found.every}, now)
    _nest(bar, found.every, most)
    return bar


@dataclasses.dataclass(slots=True)
class _Inner:
    bar: Bar
    parent: str


@dataclasses.dataclass(slots=True)
class _Found:
    own: Bar | None
    every: list[_Inner]
    last: int


def _spans(job: Job, stage: str, attempt: int, own_id: str) -> _Found:
    found = _Found(None, [], 0)
    path = journal(job, stage, attempt, "spans")
    seen = set()
    for span in spans(path) if path is not None else ():
        inner = _inner(span, stage, attempt, span["attributes"])
        if inner is None or inner.bar.span_id in seen:
            continue
        seen.add(inner.bar.span_id)
        if inner.bar.span_id == own_id:
            found.own = inner.bar
            continue
        found.every.append(inner)
        found.last = max(found.last, inner.bar.end_ns)
    return found


def _open(job: Job, stage: str, attempt: int, ended: set[str], now: int) -> list[_Inner]:
    """The spans that are not over."""
    found = []
    for left in left_open(job, stage, attempt):
        for span in left.spans():
            if span.get("spanId") in ended:
                continue
            names = {str(pair.get("key")) for pair in span.get("attributes", ()) if isinstance(pair, dict)}
            with_end = {**span, "endTimeUnixNano": now, "status": None}
            inner = _inner(with_end, stage, attempt, names)
            if inner is not None:
                inner.bar.state = "running"
                found.append(inner)
    return found


def _inner(span: dict[str, Any], stage: str, attempt: int, attributes: Iterable[str]) -> _Inner | None:
    try:
        start, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
    except (KeyError, TypeError, ValueError):
        return None
    status = span.get("status")
    status = status if isinstance(status, dict) else {}
    failed = status.get("code") == _ERROR
    kind = "process" if sc.PROCESS_EXECUTABLE in attributes else "span"
    bar = Bar(
        str(span.get("spanId", "")),
        str(span.get("name", "")),
        kind,
        "failed" if failed else "success",
        start,
        max(start, end),
        stage,
        attempt,
        str(status.get("message") or "") if failed else "",
    )
    return _Inner(bar, str(span.get("parentSpanId", "")))


def _nest(stage: Bar, every: list[_Inner], most: int) -> None:
    """Put spans inside each other. What is too short to be kept hands its children to what it stood in."""
    parents = {inner.bar.span_id: inner.parent for inner in every}
    kept = heapq.nlargest(most, every, key=lambda inner: (inner.bar.end_ns - inner.bar.start_ns, -inner.bar.start_ns))
    bars = {inner.bar.span_id: inner.bar for inner in kept}

    def home(span_id: str) -> Bar:
        seen = set()
        parent = parents.get(span_id, "")
        while parent in parents and parent not in bars and parent not in seen:
            seen.add(parent)
            parent = parents[parent]
        found = bars.get(parent, stage)
        return stage if found.span_id == span_id else found

    for inner in every:
        above = home(inner.bar.span_id)
        if inner.bar.span_id in bars and not _inside(inner.bar.span_id, above.span_id, parents):
            above.children.append(inner.bar)
        else:
            above.left_out += 1
    for bar in (stage, *bars.values()):
        bar.children.sort(key=lambda child: (child.start_ns, -child.end_ns))


def _inside(span_id: str, of: str, parents: dict[str, str]) -> bool:
    """Whether ``of`` stands in ``span_id``: a damaged file may have spans that stand in each other."""
    seen = set()
    while of in parents and of not in seen:
        if of == span_id:
            return True
        seen.add(of)
        of = parents[of]
    return False


def _mark_critical(root: Bar) -> None:
    """From the end backwards: whatever ended last before the point reached so far is what was waited for.

    As Jaeger does it: https://github.com/jaegertracing/jaeger-ui, TracePage/CriticalPath.
    """
    places = [root]
    while places:
        bar = places.pop()
        bar.critical = True
        until = bar.end_ns
        for child in sorted(bar.children, key=lambda child: -child.end_ns):
            if child.end_ns <= until and child.end_ns > child.start_ns:
                places.append(child)
                until = child.start_ns


def _gaps(root: Bar) -> list[Gap]:
    if not root.children:
        return []
    smallest = max((root.end_ns - root.start_ns) * _SMALLEST_GAP, _GAP_NS)
    found, reached = [], root.start_ns
    for bar in sorted(root.children, key=lambda bar: bar.start_ns):
        if bar.start_ns - reached >= smallest:
            found.append(Gap(reached, bar.start_ns))
        reached = max(reached, bar.end_ns)
    if root.end_ns - reached >= smallest:
        found.append(Gap(reached, root.end_ns))
    return found


def _ns(stamp: str | None) -> int | None:
    found = moment(stamp)
    return round(found.timestamp() * 1_000_000) * 1000 if found is not None else None
