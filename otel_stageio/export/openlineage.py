"""A run as OpenLineage events: https://openlineage.io/docs/spec/object-model.

One START and one end for the run and for every attempt at a stage, in the order of time; of what still runs, START and
RUNNING. Files are datasets of the namespace ``file``, as https://openlineage.io/docs/spec/naming has it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .._version import __version__
from ..events import iso
from ..reading.job import CannotAnswer
from ..reading.view import JobView, RunView
from ..runtime import runtime
from ..semconv import SCOPE_NAME
from .attempts import PRODUCER, Attempt, File, attempt_id, attempts_of, encoded, masked, run_uuid, universal, written

_SPEC = "https://openlineage.io/spec"
_EVENT = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
#: "ABORT to signify that the job has been stopped abnormally", FAIL that it "has failed".
_TYPES = {
    "running": "RUNNING", "success": "COMPLETE", "skipped": "COMPLETE", "failed": "FAIL", "timeout": "FAIL",
    "cancelled": "ABORT", "crashed": "ABORT", "lost": "ABORT", "incomplete": "ABORT",
}  # fmt: skip

_Event = dict[str, Any]


class _Due(NamedTuple):
    """An event, made when its turn comes: it may have thousands of files."""

    time: datetime.datetime
    #: Of events at the same time: a run begins before its stages, and ends after them.
    rank: int
    make: Callable[[], _Event]


def events(view: JobView, run: RunView | None) -> Iterator[str]:
    """The lines of a JSON Lines file.

    Raises:
        CannotAnswer: if nothing of the run has begun, as far as is recorded.
    """
    attempts = [attempt for attempt in attempts_of(view, run) if attempt.started is not None]
    now = universal(iso(runtime.clock.wall_ns()))
    assert now is not None
    due: list[_Due] = []
    for attempt in attempts:
        due += _of_attempt(attempt, view, run, now)
    times = [one.time for one in due]
    if run is not None:
        began, ended = universal(run.started_at), universal(run.ended_at)
        times += [time for time in (began, ended if run.state != "running" else now) if time is not None]
    if not times:
        raise CannotAnswer(f"nothing of {view.path} has begun, or no time of it is recorded")
    if run is not None:
        due += _of_run(run, min(times), max(times))
    for one in sorted(due, key=lambda one: one[:2]):
        yield encoded({"eventTime": written(one.time), **one.make()}) + "\n"


def _of_run(run: RunView, began: datetime.datetime, ended: datetime.datetime) -> Iterator[_Due]:
    about = {"number": run.number, "status": run.state, "traceId": run.trace_id, "runId": run.run_id}

    def event(kind: str, known: dict[str, Any]) -> _Event:
        facets = {"processing_engine": _engine(), "stageio_run": _own("RunFacet", **known)}
        return _event(kind, run_uuid(run.run_id), facets, run.pipeline, "PIPELINE")

    begun = {key: value for key, value in about.items() if key != "status"}
    yield _Due(began, 0, lambda: event("START", begun))
    yield _Due(ended, 3, lambda: event(_TYPES.get(run.state, "ABORT"), about))


def _of_attempt(attempt: Attempt, view: JobView, run: RunView | None, now: datetime.datetime) -> Iterator[_Due]:
    name = f"{run.pipeline if run is not None else view.name}.{attempt.stage}"
    trace = attempt.record.trace
    about = {"stage": attempt.stage, "attempt": attempt.number, "traceId": trace.trace_id, "spanId": trace.span_id}
    about = {key: value for key, value in about.items() if value is not None}
    kind = _TYPES.get(attempt.state, "ABORT")
    facets: dict[str, Any] = {"processing_engine": _engine()}
    if run is not None:
        above = {"run": {"runId": run_uuid(run.run_id)}, "job": {"namespace": SCOPE_NAME, "name": run.pipeline}}
        facets["parent"] = _facet("1-2-0", "ParentRunFacet", **above, root=above)

    def start() -> _Event:
        found = {**facets, "stageio_attempt": _own("RunFacet", **about)}
        return _event("START", attempt.id, found, name, "STAGE")

    def end() -> _Event:
        found = {**facets, "stageio_attempt": _own("RunFacet", **about, status=attempt.state), **_told(attempt, kind)}
        written_now = attempt.state != "skipped"
        return {
            **_event(kind, attempt.id, found, name, "STAGE"),
            "inputs": [_dataset(file) for file in attempt.inputs if file.there],
            "outputs": [_output(file, written_now) for file in attempt.outputs if file.there],
        }

    assert attempt.started is not None
    yield _Due(attempt.started, 1, start)
    yield _Due(attempt.ended or max(attempt.started, now), 2, end)


def _event(kind: str, run_id: str, facets: dict[str, Any], name: str, type_: str) -> _Event:
    job_type = _facet("2-0-4", "JobTypeJobFacet", processingType="BATCH", integration="OTEL_STAGEIO", jobType=type_)
    return {
        "eventType": kind,
        "run": {"runId": run_id, "facets": facets},
        "job": {"namespace": SCOPE_NAME, "name": name, "facets": {"jobType": job_type}},
        "inputs": [],
        "outputs": [],
        "producer": PRODUCER,
        "schemaURL": _EVENT,
    }


def _told(attempt: Attempt, kind: str) -> dict[str, Any]:
    """Why it ended so."""
    if attempt.state == "skipped":
        source = attempt.source
        made = {"reason": attempt.reason}
        for ours, theirs in (("attempt", "attempt"), ("trace_id", "traceId"), ("span_id", "spanId")):
            if source.get(ours) is not None:
                made[theirs] = source[ours]
        if isinstance(source.get("run_id"), str):
            made["runId"] = attempt_id(source["run_id"], attempt.stage, source.get("attempt"))
        return {"stageio_skip": _own("RunFacet", **made)}
    if kind not in ("FAIL", "ABORT"):
        return {}
    errors = attempt.record.errors
    told = {"message": attempt.reason or attempt.state, "programmingLanguage": "Python"}
    if errors and errors[-1].traceback:
        told["stackTrace"] = masked(errors[-1].traceback)
    return {"errorMessage": _facet("1-0-1", "ErrorMessageRunFacet", **told)}


def _dataset(file: File) -> dict[str, Any]:
    about: dict[str, Any] = {"digest": file.digest}
    if file.size is not None:
        about["size"] = file.size
    facets = {"stageio_file": _own("DatasetFacet", **about)}
    for kind in ("sha256", "dirHash1"):
        if kind in file.digest:
            version = f"{kind}:{file.digest[kind]}"
            facets["version"] = _facet("1-0-1", "DatasetVersionDatasetFacet", datasetVersion=version)
    return {"namespace": "file", "name": str(file.path), "facets": facets}


def _output(file: File, written_now: bool) -> dict[str, Any]:
    dataset = _dataset(file)
    if written_now and file.size is not None:
        dataset["outputFacets"] = {
            "outputStatistics": _facet("1-0-2", "OutputStatisticsOutputDatasetFacet", size=file.size)
        }
    return dataset


def _engine() -> dict[str, Any]:
    about = {"version": __version__, "name": SCOPE_NAME, "openlineageAdapterVersion": __version__}
    return _facet("1-1-1", "ProcessingEngineRunFacet", **about)


def _facet(version: str, name: str, /, **content: Any) -> dict[str, Any]:
    url = f"{_SPEC}/facets/{version}/{name}.json#/$defs/{name}"
    return {"_producer": PRODUCER, "_schemaURL": url, **content}


def _own(base: str, /, **content: Any) -> dict[str, Any]:
    """A facet of ours, under a key of ours; the schema that it keeps to is that of every facet."""
    return {"_producer": PRODUCER, "_schemaURL": f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/{base}", **content}
