"""A run as Chrome trace events, for https://ui.perfetto.dev: the "JSON Object Format" of
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.

The run and every attempt at a stage is a process there, so that each has its tracks and its curves. Times are
microseconds since the start of the run: since 1970, they would not fit into the numbers of a browser.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import semconv as sc
from ..events import iso
from ..layout import Job
from ..reading.job import CannotAnswer
from ..reading.text import plain
from ..reading.trace import Bar, Trace, read_trace
from ..reading.usage_series import Key, read_usage
from ..reading.view import JobView, RunView
from ..record.manifest import Note
from .attempts import PRODUCER, Attempt, attempts_of, encoded, masked, universal, written
from .lanes import Slice, lanes

_ALL = 10_000_000
_MIB = 1 << 20
_RUN = 1
#: Metric -> (name of the curve, what its values are divided by).
_CURVES = {
    sc.PROCESS_CPU_UTILIZATION.name: ("processor %", 0.01),
    sc.PROCESS_MEMORY_USAGE.name: ("memory MiB", _MIB),
    sc.HW_GPU_UTILIZATION.name: ("GPU %", 0.01),
    sc.HW_GPU_MEMORY_USAGE.name: ("GPU memory MiB, of the device", _MIB),
    sc.GPU_PROCESS_MEMORY_USAGE.name: ("GPU memory MiB, of the stage", _MIB),
    sc.HW_POWER.name: ("GPU power W", 1),
}

_Event = dict[str, Any]


def trace_events(view: JobView, run: RunView | None) -> Iterator[str]:
    """The lines of a JSON file, one for each event.

    Raises:
        CannotAnswer: if nothing of the run has begun.
    """
    trace = read_trace(view, run, most=_ALL)
    if trace is None:
        raise CannotAnswer(f"no stage of {view.path} has begun")
    about = {"job": view.name, "run": trace.run, "trace_id": trace.trace_id, "producer": PRODUCER}
    began = universal(iso(trace.root.start_ns))
    about["started_at"] = written(began) if began is not None else ""
    yield f'{{"displayTimeUnit":"ms","otherData":{encoded(about)},"traceEvents":[\n'
    before = ""
    for event in _events(view, trace, {(found.stage, found.number): found for found in attempts_of(view, run)}):
        yield before + encoded(event)
        before = ",\n"
    yield "\n]}\n"


def _events(view: JobView, trace: Trace, attempts: dict[tuple[str, int], Attempt]) -> Iterator[_Event]:
    root, start = trace.root, trace.root.start_ns
    yield from _named(_RUN, f"run {root.name}", 0)
    yield _slice(root, start, _RUN, 1, {"trace_id": trace.trace_id})
    for pid, bar in enumerate(trace.stages, _RUN + 1):
        attempt = attempts.get((bar.stage, bar.attempt))
        title = f"{bar.name} #{bar.attempt}" if bar.attempt > 1 else bar.name
        yield from _named(pid, title, pid)
        yield from _stage(bar, start, pid, trace.trace_id)
        if attempt is not None:
            yield from _notes(attempt, start, pid)
        yield from _usage(Job(view.path), bar, start, pid)


def _stage(stage: Bar, start: int, pid: int, trace_id: str) -> Iterator[_Event]:
    bars: list[Bar] = []
    parents: list[int | None] = []
    places: list[tuple[Bar, int | None]] = [(stage, None)]
    while places:  # not by recursion: spans may stand in each other to any depth
        bar, parent = places.pop()
        at = len(bars)
        bars.append(bar)
        parents.append(parent)
        places += [(child, at) for child in reversed(bar.children)]
    tracks = lanes([Slice(bar.start_ns, bar.end_ns, parent) for bar, parent in zip(bars, parents, strict=True)])
    for lane in range(max(tracks) + 1):
        name = f"parallel {lane}" if lane else "stage"
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": lane + 1, "args": {"name": name}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": lane + 1, "args": {"sort_index": lane}}
    for bar, lane in zip(bars, tracks, strict=True):
        yield _slice(bar, start, pid, lane + 1, {"trace_id": trace_id, "span_id": bar.span_id})


def _slice(bar: Bar, start: int, pid: int, tid: int, more: dict[str, Any]) -> _Event:
    args = {"status": bar.state, **more}
    if bar.kind == "stage":
        args["attempt"] = bar.attempt
    if bar.message:
        args["message"] = masked(bar.message)
    return {
        "ph": "X", "name": plain(bar.name) or bar.kind, "cat": bar.kind, "ts": _us(bar.start_ns - start),
        "dur": _us(bar.end_ns - bar.start_ns), "pid": pid, "tid": tid, "args": args,
    }  # fmt: skip


def _notes(attempt: Attempt, start: int, pid: int) -> Iterator[_Event]:
    record = attempt.record
    notes: list[tuple[str, Note]] = [("warning", note) for note in record.warnings]
    for kind, note in notes + [("error", problem) for problem in record.errors]:
        time = universal(note.timestamp)
        if time is not None:
            ts = round(time.timestamp() * 1e6) - start // 1000
            yield {
                "ph": "i", "name": kind, "cat": kind, "s": "t", "ts": ts, "pid": pid, "tid": 1,
                "args": {"message": masked(note.message)},
            }  # fmt: skip


def _usage(job: Job, bar: Bar, start: int, pid: int) -> Iterator[_Event]:
    for key, points in read_usage(job, bar.stage, bar.attempt).items():
        _, divisor = _CURVES[key.metric]
        name = _curve(key)
        for time_ns, value in points:
            args = {"value": float(f"{value / divisor:.6g}")}
            yield {"ph": "C", "name": name, "ts": _us(time_ns - start), "pid": pid, "tid": 1, "args": args}


def _curve(key: Key) -> str:
    title = _CURVES[key.metric][0]
    return plain(f"{title} {key.device[:12]}" if key.device else title)


def _named(pid: int, name: str, place: int) -> Iterator[_Event]:
    yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": plain(name)}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": place}}


def _us(nanoseconds: int) -> float:
    return nanoseconds / 1000
