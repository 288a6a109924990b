"""A run of which something else starts the stages: a scheduler, an engine's tasks, other hosts.

The job directory, which all of them see, is what they have in common. :func:`begin_run` begins a run that stays open
with nobody alive for it, :func:`join_run` makes what a task opens a part of a run, :func:`end_run` ends it. A program
needs no call to be a part of it: it finds the same in its environment or, as the run that is open, in the directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from .. import ambient, delivery
from .. import semconv as sc
from ..capture import Capture
from ..layout import Job, canonical
from ..otlp import carrier
from ..otlp.built_span import context as span_context
from ..recovery.recover import close_dead, recover
from ..runs import run as runs
from ..runs import run_end, run_file
from ..sinks import pipeline_log
from ..stages import lifecycle

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

#: Words that somebody else may say of a run. That it succeeded, only its stages can.
_WORDS = ("failed", "cancelled", "timeout")


class StagesRunning(Exception):
    """A run cannot be ended: nobody has heard how these stages of it ended.

    Attributes:
        stages: their names.
    """

    def __init__(self, stages: list[str]) -> None:
        names = ", ".join(stages)
        super().__init__(
            f"{names} may still be running: wait for it, or say that it is dead and why, dead={{{stages[0]!r}: '…'}}"
        )
        self.stages = stages


def begin_run(
    name: str,
    job_dir: str | os.PathLike[str],
    *,
    stages: Sequence[str] = (),
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Begin a run whose stages a scheduler starts, and that stays open until :func:`end_run` or the job's next run.

    Every stage of the job is a part of it from now on, whether or not it is told of it, on whichever host.

    Args:
        name: the pipeline's name.
        stages: the stages that are to come; a run in which one of them did not happen is no success.
        attributes: further attributes of the root span.

    Returns:
        What to give to tasks: as the environment of a program, or to :func:`join_run`. Plain words, which may go
        through JSON, a command line or a pickle.

    Raises:
        ValueError: for a name that is blank.

    Example:
        >>> handed = begin_run("subtitles", job, stages=["demux", "asr"])
        >>> with join_run(handed), StageIO("demux") as io:
        ...     io.add_config("container", "mkv")
        >>> end_run(job)                                   # asr was planned, and has not happened
        'incomplete'
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a run needs the name of its pipeline, not {name!r}")
    job = Job(job_dir)
    capture = Capture(job)
    planned = [capture.string(canonical(stage)) for stage in stages]
    close_dead(job)
    given = capture.attributes(attributes or {})
    run = runs.begin(job, capture.string(name), _outside(), planned, given, detached=True)
    _say(job, capture, run, f"{run.pipeline}: run {run.attempt} of {job.root.name} begun")
    return environment_of(job, run, span_context(run.trace_id, run.root_span_id))


def _outside() -> SpanContext | None:
    """The span around everything. What :func:`begin_run` gave for another job, left in a shell, is not around this."""
    active = trace.get_current_span().get_span_context()
    if active.is_valid:
        return active
    parent = carrier.extract()
    left = os.environ.get(sc.ENV_OUTPUT_DIR)
    if parent is not None and left and os.environ.get(sc.ENV_RUN_ID):
        for run in run_file.all_runs(Job(left)):
            if run["root_span_id"] == f"{parent.span_id:016x}" and run.get("detached"):
                return None
    return parent


def environment_of(job: Job, run: run_file.Run, root: SpanContext) -> dict[str, str]:
    """What a program or task needs to be a part of a run."""
    return {sc.ENV_RUN_ID: run.run_id, sc.ENV_OUTPUT_DIR: str(job.root), **carrier.inject(root)}


@contextmanager
def join_run(environment: Mapping[str, str], *, alone: bool = False) -> Iterator[None]:
    """Stages that are opened in the block are a part of the run that ``environment`` tells of.

    For a task of an engine (Airflow, Prefect, Dask, Ray), which may share its process with tasks of other runs. Where
    the engine's own tracing has brought a span of the same trace along, the stages are below that one. What is
    logged or traced in a thread is the stage's if the thread was given its context (:mod:`contextvars`), and only then:
    it might work for another task.

    Args:
        environment: from :func:`begin_run` or :attr:`Pipeline.environment`, in whatever way it came here.
        alone: this process is at no other task meanwhile: what threads say that were not given the task's context is
            the stage's too.

    Raises:
        ValueError: if it is not from there.

    Example:
        >>> with Pipeline("subtitles", job) as run:
        ...     with join_run(run.environment), StageIO("asr") as io:        # on another host, say
        ...         io.trace_id == run.trace_id
        True
    """
    missing = [key for key in (sc.ENV_RUN_ID, sc.ENV_OUTPUT_DIR) if not environment.get(key)]
    if missing:
        raise ValueError(
            f"join_run() takes what begin_run() or Pipeline.environment has given; {' and '.join(missing)} is missing"
        )
    context = otel_context.get_current()
    parent = carrier.extract(environment)
    active = trace.get_current_span(context).get_span_context()
    if parent is not None and not (active.is_valid and active.trace_id == parent.trace_id):
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
    handed = ambient.Handed(environment[sc.ENV_OUTPUT_DIR], environment[sc.ENV_RUN_ID], alone)
    with ambient.attached(ambient.with_handed(handed, context)):
        yield


def end_run(
    job_dir: str | os.PathLike[str], status: str | None = None, *, dead: Mapping[str, str] | None = None
) -> str:
    """End the run that :func:`begin_run` began. Returns how it ended, by its stages; again, if it had ended already.

    ``incomplete`` is one in which a stage that was to come did not happen, or none at all.

    Args:
        status: ``failed``, ``cancelled`` or ``timeout``, if the scheduler knows it better than the stages.
        dead: stages that the scheduler knows to be dead, and why; as for :func:`recover`.

    Raises:
        ValueError: for another status.
        LookupError: if the newest run of this job is no such run.
        StagesRunning: if a stage of it has not ended, and is not known to be dead.
    """
    if status is not None and status not in _WORDS:
        words = ", ".join(_WORDS)
        raise ValueError(f"a scheduler's word for a run is one of {words}, not {status!r}; else leave it out")
    job = Job(job_dir)
    content = run_file.load(job)
    if not content.get("detached"):
        raise LookupError(f"the newest run of {job.base} was not begun by begin_run() or `otel-stageio begin`")
    if content["status"] != "running":
        return str(content["status"])
    recover(job_dir, dead=dead)
    content = run_file.load(job)
    records = run_end.stage_records(job, content)
    going = sorted({record["stage"] for record in records if record["alive"] or record["status"] == "running"})
    if going:
        raise StagesRunning(going)
    word = status or _result(content, records)
    capture, run = Capture(job), run_file.Run(content)
    _say(job, capture, run, f"{run.pipeline}: {word}", "INFO" if word in sc.GOOD_STATUSES else "ERROR")
    lifecycle.install_hooks()
    delivery.attend(job)
    run_end.close(job, run.run_id, word)
    return word


def _result(content: dict[str, Any], records: list[dict[str, Any]]) -> str:
    word = run_end.result_of(records)
    happened = {record["stage"] for record in records}
    planned = content.get("planned", ())
    if word in sc.GOOD_STATUSES and not (happened and happened.issuperset(planned)):
        return "incomplete"
    return word


def _say(job: Job, capture: Capture, run: run_file.Run, text: str, level: str = "INFO") -> None:
    pipeline_log.append(job, run.pipeline_log, pipeline_log.line(capture, "pipeline", level, text))
