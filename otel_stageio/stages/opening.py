"""How a stage comes into being: its place in a run, its attempt, its journal, and its span.

Either it is the next attempt of its own, or it is the very stage that the parent process opened for this program
(``Pipeline.command``, ``otel-stageio run``) and joins that one's record.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from .. import semconv as sc
from ..ambient import handed as handed_over
from ..ambient import with_recorder
from ..layout import Job
from ..otlp import carrier
from ..otlp.built_span import context as span_context
from ..otlp.joined_span import JoinedSpan
from ..otlp.provider import tracer
from ..recovery import life
from ..recovery.recover import close_dead
from ..recovery.unfinished import may_live
from ..runs import run as runs
from ..runs import run_file
from ..runtime import runtime
from ..sinks.files import AppendFile
from ..sinks.spool import share_life

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext

    from .recorder import Recorder

#: The stage that this process was started for (``OTEL_STAGEIO_STAGE``) can be joined once.
_joined = False


@dataclass
class Opening:
    """What a recorder begins with.

    Attributes:
        context: what work inside the stage nests under.
        identity: the attributes that say which stage, attempt and run this is.
        started: the attributes of the ``started`` event; empty for a stage that was joined.
        alive: numbers of attempts at the same stage that are still running somewhere.
        start, start_mono: wall and monotonic time in nanoseconds, read together.
    """

    run: run_file.Run
    attempt: int
    journal: AppendFile
    span: Span
    context: Context
    identity: dict[str, Any]
    start: int
    start_mono: int
    joined: bool = False
    opened_run: bool = False
    started: dict[str, Any] = field(default_factory=dict)
    alive: list[int] = field(default_factory=list)


def make_directories(job: Job, stage: str) -> None:
    for directory in (job.stage_dir(stage), job.logs, job.spool):
        try:
            os.mkdir(directory)
        except FileExistsError:
            pass
        except OSError:
            with suppress(OSError):  # every write into it will be counted
                os.makedirs(directory, exist_ok=True)


def enter(recorder: Recorder, handed: str | None, attributes: Mapping[str, Any], *, durable: bool) -> Opening:
    """Begin the next attempt, in the run that it belongs to.

    Args:
        handed: run id of an owner in this process; that of one outside comes by :func:`join_run` or the environment.
    """
    job, stage = recorder.job, recorder.stage
    close_dead(job)
    active = trace.get_current_span().get_span_context()
    from_environment = carrier.extract()
    joined, given = handed_over(), os.environ.get(sc.ENV_RUN_ID)
    handed = handed or (joined.run_id if joined is not None else given) or None
    outside = active if active.is_valid else from_environment
    before = runtime.clock.wall_ns() if runtime.clock.of_host else 0
    entry = runs.enter(job, stage, handed, outside, durable=durable)
    run = entry.run
    # Read after the run has begun: a stage lies within its run.
    start, start_mono = runtime.clock.wall_ns(), runtime.clock.monotonic_ns()
    base = otel_context.get_current()
    links = []
    if not active.is_valid:
        # TRACEPARENT names our parent only if it came with this very run; else it is the parent of the whole run.
        came_with_run = given == run.run_id
        root: SpanContext = span_context(run.trace_id, run.root_span_id)
        above = from_environment if came_with_run and from_environment is not None else root
        base = trace.set_span_in_context(trace.NonRecordingSpan(above), base)
    elif active.trace_id != run.trace_id:
        links = [trace.Link(span_context(run.trace_id, run.root_span_id))]
    base = with_recorder(recorder, base)
    identity = run_file.identity_of(run, stage, entry.attempt)
    span = tracer().start_span(
        stage, context=base, attributes={**attributes, **identity}, links=links, start_time=start
    )
    own, parent = span.get_span_context(), trace.get_current_span(base).get_span_context()
    ids = {"run_id": run.run_id}
    if span.is_recording():  # else there is none to be found: a disabled SDK, an application's sampler
        ids["trace_id"], ids["span_id"] = f"{own.trace_id:032x}", f"{own.span_id:016x}"
        ids["parent_span_id"] = f"{parent.span_id:016x}"
    started = {
        **attributes,
        **identity,
        sc.PROCESS_PID: os.getpid(),
        **life.birth(locked=share_life(entry.journal)),
        **(life.clock_ahead(entry.journal.fd, before, start) if before else {}),
        sc.LOCAL_TRACE: ids,
    }
    return Opening(
        run=run,
        attempt=entry.attempt,
        journal=entry.journal,
        span=span,
        context=trace.set_span_in_context(span, base),
        identity=identity,
        start=start,
        start_mono=start_mono,
        opened_run=entry.opened_run,
        started=started,
        alive=entry.alive,
    )


def join(recorder: Recorder, *, durable: bool) -> Opening | None:
    """Be the stage that the parent process opened for this program, if there is one of this name and job."""
    global _joined
    if handed_over() is not None:  # a task of an engine: the environment is not about it
        return None
    job, stage = recorder.job, recorder.stage
    name, _, number = os.environ.get(sc.ENV_STAGE, "").rpartition(".")
    if _joined or name != stage or not number.isdigit() or os.environ.get(sc.ENV_JOB) != os.path.realpath(job.root):
        return None
    content = run_file.find(run_file.load(job), os.environ.get(sc.ENV_RUN_ID, ""))
    path = job.journal(stage, int(number))
    if content is None or not may_live(job, stage, int(number)):
        return None
    _joined = True
    journal = AppendFile(path, durable=durable, lockable=True)
    share_life(journal)
    ids = recorder.replay(path)["trace"]
    own = span_context(int(ids.get("trace_id", "0"), 16), int(ids.get("span_id", "0"), 16))
    # Inner spans nest under the process's own span, which the environment names.
    parent = carrier.extract() or own
    base = trace.set_span_in_context(trace.NonRecordingSpan(parent), otel_context.get_current())
    run = run_file.Run(content)
    return Opening(
        run=run,
        attempt=int(number),
        journal=journal,
        span=JoinedSpan(recorder, own),
        context=with_recorder(recorder, base),
        identity=run_file.identity_of(run, stage, int(number)),
        start=runtime.clock.wall_ns(),
        start_mono=runtime.clock.monotonic_ns(),
        joined=True,
    )
