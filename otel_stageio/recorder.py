"""One attempt at one stage: everything it says becomes one ordered stream, and every file is a projection of that.

``emit`` is the only way in for what changes the record: journal first, then the fold, the span event and the manifest.
``log`` is the way in for plain lines. Nothing here raises into stage code.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from . import ambient, fit, run
from . import semconv as sc
from ._version import __version__
from .capture import Capture
from .events import INFO, SEVERITY_TEXT, WARN, Event
from .fold import Fold
from .layout import Job, stage_number
from .lines import LineWriter
from .otlp import carrier, decode, encode
from .otlp.joined_span import JoinedSpan
from .otlp.provider import disabled, process_resource, tracer
from .otlp.root_span import context as span_context
from .otlp.span_events import Bridge
from .recovery import close_dead
from .runtime import boot_id, host_name, never_raises, runtime
from .sinks.console import Console
from .sinks.files import AppendFile, is_locked
from .sinks.manifest_file import ManifestFile
from .sinks.spool import Spool, parse_size, share_life
from .voice import Voice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Link, Span, SpanContext

#: The stage that this process was started for (``OTEL_STAGEIO_STAGE``) can be joined once.
_joined = False


class Recorder(Voice):
    """Opens on construction: journal locked, span started, manifest ``running``, log files there.

    Args:
        handed: run id of an owning ``Pipeline`` in this process.
        join: whether this may be the same stage as the parent process's (see ``OTEL_STAGEIO_STAGE``).
    """

    def __init__(
        self,
        job: Job,
        stage: str,
        *,
        manifest: bool = True,
        attributes: Mapping[str, Any] | None = None,
        handed: str | None = None,
        join: bool = True,
        links: Sequence[Link] = (),
    ) -> None:
        super().__init__(Capture(job))
        self.job = job
        self.stage = stage
        self.ended = False
        self.pid = os.getpid()
        self._lock = threading.RLock()
        self._durable = os.environ.get(sc.ENV_DURABILITY, "").strip().lower() == "power"
        self._fold = Fold()
        self._manifest = ManifestFile(job, stage, durable=self._durable) if manifest else None
        self._losses: dict[str, int] = {}
        self._projected = 0
        self._half_done = False
        self._user_attributes = self.capture.attributes(attributes or {})
        _make_directories(job, stage)
        self._start_mono = runtime.clock.monotonic_ns()
        self._start_wall = 0
        self.joined = join and self._try_join()
        if not self.joined:
            self._enter(handed, links)
        self._bridge = Bridge(self.span)
        self.console = Console()
        self.stage_log = AppendFile(job.stage_dir(stage) / "stage.log")
        self.pipeline_log = AppendFile(job.root / self.run.pipeline_log)
        self.lines = LineWriter(self)
        ambient.open_recorders.append(self)
        if not self.joined:
            self._started()

    # -- beginning ---------------------------------------------------------------------------------------------------

    def _enter(self, handed: str | None, links: Sequence[Link]) -> None:
        close_dead(self.job)
        active = trace.get_current_span().get_span_context()
        from_environment = carrier.extract()
        entry = run.enter(
            self.job,
            self.stage,
            handed or os.environ.get(sc.ENV_RUN_ID) or None,
            active if active.is_valid else from_environment,
            durable=self._durable,
        )
        self.run = entry.run
        self.attempt = entry.attempt
        self.opened_run = entry.opened_run
        # After the run has begun: a stage lies within its run.
        self._start_mono = runtime.clock.monotonic_ns()
        self._start_wall = runtime.clock.wall_ns()
        self.alive_attempts = entry.alive
        self.spool = self._open_spool(entry.journal)
        base = otel_context.get_current()
        if not active.is_valid:
            # TRACEPARENT names our parent only if it came with this very run; else it is the parent of the whole run.
            came_with_run = os.environ.get(sc.ENV_RUN_ID) == self.run.run_id
            root = span_context(self.run.trace_id, self.run.root_span_id)
            parent = from_environment if came_with_run and from_environment is not None else root
            base = trace.set_span_in_context(trace.NonRecordingSpan(parent), base)
        elif active.trace_id != self.run.trace_id:
            links = [*links, trace.Link(span_context(self.run.trace_id, self.run.root_span_id))]
        base = ambient.with_recorder(self, base)
        self._parent: SpanContext = trace.get_current_span(base).get_span_context()
        self.span: Span = tracer().start_span(
            self.stage,
            context=base,
            attributes={**self._user_attributes, **self._identity()},
            links=links,
            start_time=self._start_wall,
        )
        self.context = trace.set_span_in_context(self.span, base)
        self._address()

    def _try_join(self) -> bool:
        """Be the stage that the parent process opened for us, rather than a second attempt at it."""
        global _joined
        name, _, number = os.environ.get(sc.ENV_STAGE, "").rpartition(".")
        here = os.path.realpath(self.job.root)
        if _joined or name != self.stage or os.environ.get(sc.ENV_JOB) != here or not number.isdigit():
            return False
        content = run.find(run.load(self.job), os.environ.get(sc.ENV_RUN_ID, ""))
        path = self.job.journal(self.stage, int(number))
        if content is None or not is_locked(path):
            return False
        _joined = True
        self.run = run.Run(content)
        self.attempt = int(number)
        self.opened_run = False
        self.alive_attempts = []
        journal = AppendFile(path, durable=self._durable)
        share_life(journal)
        self.spool = self._open_spool(journal)
        self._replay()
        trace_ids = self._fold.record["trace"]
        self._start_wall = self._fold.started_ns or self._start_wall
        own = span_context(int(trace_ids["trace_id"], 16), int(trace_ids["span_id"], 16))
        self.span = JoinedSpan(self, own)
        # Inner spans nest under the process's own span, which the environment names.
        parent = carrier.extract() or own
        base = trace.set_span_in_context(trace.NonRecordingSpan(parent), otel_context.get_current())
        self.context = ambient.with_recorder(self, base)
        self._address()
        return True

    def _open_spool(self, journal: AppendFile) -> Spool:
        limit = parse_size(os.environ.get(sc.ENV_SPOOL_MAX, ""))
        return Spool(self.job, self.stage, self.attempt, journal, durable=self._durable, limit=limit)

    def _address(self) -> None:
        """What stands around this process's log records: resource, and whose records they are."""
        context = self.span.get_span_context()
        self.trace_id = context.trace_id if context.is_valid else self.run.trace_id
        self.span_id = context.span_id
        self.ids = encode.record_ids(context.trace_id, context.span_id, int(context.trace_flags) & 1)
        resource = process_resource()
        scope = {
            sc.PIPELINE_NAME: self.run.pipeline,
            sc.PIPELINE_RUN_ID: self.run.run_id,
            sc.TASK_NAME: self.stage,
            sc.PROCESS_PID: self.pid,
        }
        self.spool.address(
            encode.Envelope(
                "logs",
                encode.resource(resource.attributes),
                encode.scope(sc.SCOPE_NAME, __version__, scope),
                resource.schema_url,
                sc.SCHEMA_URL,
            )
        )

    def _identity(self) -> dict[str, Any]:
        return {
            sc.PIPELINE_NAME: self.run.pipeline,
            sc.PIPELINE_RUN_ID: self.run.run_id,
            sc.TASK_NAME: self.stage,
            sc.TASK_RUN_ID: f"{self.run.run_id}.{self.stage}.{self.attempt}",
            sc.STAGE_NUMBER: stage_number(self.stage),
            sc.STAGE_ATTEMPT: self.attempt,
            sc.JOB_ATTEMPT: self.run.attempt,
        }

    @never_raises()
    def _started(self) -> None:
        ids = {"trace_id": f"{self.trace_id:032x}", "span_id": f"{self.span_id:016x}", "run_id": self.run.run_id}
        if disabled():
            ids = {"run_id": self.run.run_id}
        elif self._parent.is_valid:
            ids["parent_span_id"] = f"{self._parent.span_id:016x}"
        attributes = {
            **self._user_attributes,
            **self._identity(),
            sc.PROCESS_PID: self.pid,
            sc.LOCAL_HOST: host_name(),
            sc.LOCAL_BOOT_ID: boot_id(),
            sc.LOCAL_TRACE: ids,
        }
        self.emit(sc.EVENT_STARTED, attributes, f"stage {self.stage} started", time_ns=self._start_wall)
        if self.alive_attempts:
            numbers = ", ".join(map(str, self.alive_attempts))
            self.warning(f"stage {self.stage} is already running in this job (attempt {numbers}); both write here")

    # -- events ------------------------------------------------------------------------------------------------------

    @never_raises()
    def emit(
        self,
        name: str,
        attributes: dict[str, Any],
        body: str | None = None,
        severity: int = INFO,
        *,
        time_ns: int | None = None,
        save: bool = False,
        **_: Any,
    ) -> None:
        """Record one event. ``attributes`` are plain already (see :class:`otel_stageio.capture.Capture`)."""
        with self._lock:
            if self.ended and name != sc.EVENT_LATE:
                self._late()
                return
            self._half_done = True  # a signal may raise anywhere below; then end() folds the journal anew
            event = Event(name, time_ns or runtime.clock.wall_ns(), attributes, body, severity)
            self._count(event)
            encoded = encode.event_record(event, SEVERITY_TEXT.get(severity, ""), self.ids)
            if len(encoded) > fit.LARGEST_RECORD:
                fit.shrink(event)
                encoded = encode.event_record(event, SEVERITY_TEXT.get(severity, ""), self.ids)
            self.spool.event(encoded)
            self._fold.apply(event)
            self._project(event)
            if self._manifest is not None and self.pid == os.getpid():
                if save or name in _SAVED_AT_ONCE:
                    self._manifest.write(self._fold.record)
                else:
                    self._manifest.offer(self._fold.record)
            self._half_done = False

    def _project(self, event: Event) -> None:
        """What of an event shows on the stage's span. A joined stage's span is its parent's, which reads this too."""
        if self.joined:
            return
        self._bridge.offer(event)
        if event.name == sc.EVENT_ATTRIBUTES:
            self.span.set_attributes(event.attributes)
        elif event.name == sc.EVENT_CONFIG:
            prefix = sc.CONFIG_PREFIX
            self.span.set_attributes({key: item for key, item in event.attributes.items() if key.startswith(prefix)})

    def _count(self, event: Event) -> None:
        """Each event carries what was masked, changed and lost since the one before: the fold adds it up."""
        redactions, changed = self.capture.counts()
        if redactions:
            event.attributes[sc.REDACTIONS] = redactions
        if changed:
            event.attributes[sc.SANITISED] = changed
        event.attributes.update(self._new_losses())

    def _new_losses(self) -> dict[str, int]:
        manifest = self._manifest.failed if self._manifest is not None else 0
        lines = getattr(self, "lines", None)
        totals = {
            "stage_log": self.stage_log.failed if lines else 0,
            "pipeline_log": self.pipeline_log.failed if lines else 0,
            "journal": self.spool.failed,
            "spool_full": self.spool.dropped,
            "manifest": manifest,
        }
        new = {}
        for what, total in totals.items():
            if total > self._losses.get(what, 0):
                new[sc.LOST_PREFIX + what] = total - self._losses.get(what, 0)
                self._losses[what] = total
        return new

    def _late(self) -> None:
        self.emit(sc.EVENT_LATE, {sc.LOST_PREFIX + "late": 1}, "said after the stage had ended", WARN, save=True)
        self.spool.close()

    def traceback(self, text: str) -> None:
        self.lines.write(logging.ERROR, "ERROR", f"stage.{self.stage}", text, spool=False)

    # -- spans -------------------------------------------------------------------------------------------------------

    def spool_line(self, record: str, time_ns: int) -> None:
        """Take one encoded log line into the spool's batch."""
        with self._lock:
            self.spool.log(record, time_ns)

    def write_span(self, span: ReadableSpan) -> None:
        """Called by the span processor for every span that ended in this stage's context."""
        encoded = encode.span(span)
        if fit.needs_second_look(encoded, self.capture):
            encoded = fit.second_look(encoded, self.capture)
        with self._lock:
            self.spool.span(span, encoded)

    # -- ending ------------------------------------------------------------------------------------------------------

    @property
    def record(self) -> dict[str, Any]:
        """The manifest's record so far. The caller must copy it before handing it out."""
        return self._fold.record

    @property
    def elapsed_ns(self) -> int:
        return runtime.clock.monotonic_ns() - self._start_mono

    @never_raises()
    def refresh(self) -> None:
        """Take in what other processes wrote to this stage's journal: a program that joined it, forked workers."""
        with self._lock:
            self.spool.flush()
            path = self.job.journal(self.stage, self.attempt)
            try:
                if path.stat().st_size <= self.spool.journal_bytes and not self._half_done:
                    return
            except OSError:
                return
            foreign = self._replay()
            for event in foreign[self._projected :]:
                self._project(event)
            self._projected = len(foreign)

    def _replay(self) -> list[Event]:
        """Fold the journal anew. Returns the events of other processes."""
        self._fold = Fold()
        foreign = []
        for scope, record in decode.log_records(decode.Lines(self.job.journal(self.stage, self.attempt))):
            event = decode.event_of(record)
            if event is not None:
                self._fold.apply(event)
                if scope.get(sc.PROCESS_PID) != self.pid:
                    foreign.append(event)
        return foreign

    @never_raises()
    def end(
        self,
        status: str,
        *,
        extra: Mapping[str, Any] | None = None,
        error_type: str | None = None,
        message: str | None = None,
        attributes: dict[str, Any] | None = None,
        save: bool = True,
    ) -> None:
        """End the stage. Only the first call counts, and only in the process that opened it."""
        if os.getpid() != self.pid:
            return
        with self._lock:
            if self.ended:
                self._late()
                return
            self.refresh()
            for changed in self.artifacts.final():
                self.emit(sc.EVENT_ARTIFACT, changed)
            elapsed = self.elapsed_ns
            plain = self.capture.mapping(extra or {})
            reason = plain.get("reason")
            ended = {sc.STAGE_STATUS: status, sc.DURATION: elapsed / 1e9, **(attributes or {})}
            if plain:
                ended[sc.LOCAL_EXTRA] = plain
            if status == "skipped" and isinstance(reason, str):
                ended[sc.SKIP_REASON] = self.capture.paths.text(reason)
            if error_type:
                ended[sc.ERROR_TYPE] = error_type
            if not save:  # the caller wants no manifest of this end: what stands there must not claim a success
                self._manifest_without_end()
            self.emit(sc.EVENT_ENDED, ended, f"stage {self.stage} ended: {status}", save=save)
            self.ended = True
            self._seen = None
            self._end_span(status, elapsed, error_type, message, ended)
            if save and self._manifest is not None:
                left = self._new_losses()
                if left:
                    self._fold.apply(Event(sc.EVENT_LATE, 0, dict(left)))
                    self._manifest.write(self._fold.record)
            self._close()

    def _manifest_without_end(self) -> None:
        manifest, self._manifest = self._manifest, None
        if manifest is not None:
            manifest.write(self._fold.record)

    def _end_span(
        self, status: str, elapsed: int, error_type: str | None, message: str | None, ended: Mapping[str, Any]
    ) -> None:
        if self.joined:
            return
        record = self._fold.record
        inputs, outputs = record["inputs"], record["outputs"]
        final: dict[str, Any] = {
            **self._identity(),  # again: the SDK evicts the oldest attributes when there are too many
            sc.STAGE_STATUS: status,
            sc.INPUT_COUNT: len(inputs),
            sc.INPUT_BYTES: sum(entry.get("size_bytes", 0) for entry in inputs),
            sc.OUTPUT_COUNT: len(outputs),
            sc.OUTPUT_BYTES: sum(entry.get("size_bytes", 0) for entry in outputs),
            sc.WARNING_COUNT: len(record["warnings"]),
            sc.ERROR_COUNT: len(record["errors"]),
        }
        final.update({key: value for key, value in ended.items() if not key.startswith(sc.LOCAL_PREFIX)})
        if status in sc.RESULTS:
            final[sc.TASK_RESULT] = sc.RESULTS[status]
        self._bridge.finish()
        if self._bridge.dropped:
            final[sc.SPAN_EVENTS_DROPPED] = self._bridge.dropped
        if status not in sc.GOOD_STATUSES and status != "incomplete":
            final.setdefault(sc.ERROR_TYPE, error_type or status)
            if message is None and record["errors"]:
                message = record["errors"][-1]["message"]
            text = self.capture.paths.text(self.capture.string(message)) if message else None
            self.span.set_status(trace.Status(trace.StatusCode.ERROR, text))
        self.span.set_attributes(final)
        self.span.end(end_time=self._start_wall + max(elapsed, 0))

    def _close(self) -> None:
        if self in ambient.open_recorders:
            ambient.open_recorders.remove(self)
        self.stage_log.close()
        self.pipeline_log.close()
        self.spool.close()

    def after_fork(self) -> None:
        """In a forked child: the stage is the parent's. What the child says still reaches the files."""
        self._lock = threading.RLock()
        self.stage_log.abandon()
        self.pipeline_log.abandon()
        self.spool.abandon()
        pid, self.pid = self.pid, os.getpid()
        self._address()
        self.pid = pid


#: Events after which the manifest on disk is brought up to date whatever it costs.
_SAVED_AT_ONCE = frozenset({sc.EVENT_STARTED, sc.EVENT_ERROR, sc.EVENT_EXCEPTION})


def _make_directories(job: Job, stage: str) -> None:
    for directory in (job.stage_dir(stage), job.logs, job.spool):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            pass  # every write into it will be counted
