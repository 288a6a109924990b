"""One attempt at one stage: everything it says becomes one ordered stream, and every file is a projection of that.

``emit`` is the only way in for what changes the record: journal first, then the fold, the span event and the manifest.
``log`` is the way in for plain lines. Nothing here raises into stage code.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import trace

from . import ambient, fit
from . import semconv as sc
from ._version import __version__
from .capture import Capture
from .capture.redaction import Innocent
from .dead_spans import end_spans
from .events import DEBUG, INFO, SEVERITY_TEXT, WARN, Event
from .fold import Fold
from .layout import Job
from .left_open import left_open
from .lines import LineWriter
from .opening import enter, join
from .otlp import decode, encode
from .otlp.built_span import context as span_context
from .otlp.provider import process_resource
from .otlp.span_events import Bridge
from .resources import out_of_memory
from .runtime import never_raises, runtime
from .sinks.console import Console
from .sinks.files import AppendFile
from .sinks.manifest_file import ManifestFile
from .sinks.open_spans import OpenSpans
from .sinks.spool import Spool, parse_size
from .usage import Usage, media_seconds
from .voice import Voice

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


class Recorder(Voice):
    """Opens on construction: journal locked, span started, manifest ``running``, log files there.

    Args:
        handed: run id of an owning ``Pipeline`` in this process.
    """

    silent = False

    def __init__(
        self,
        job: Job,
        stage: str,
        *,
        manifest: bool = True,
        attributes: Mapping[str, Any] | None = None,
        handed: str | None = None,
    ) -> None:
        super().__init__(Capture(job), digested=True)
        self.job = job
        self.stage = stage
        self.ended = False
        self.pid = os.getpid()
        self._lock = threading.RLock()
        self._fold = Fold()
        #: Losses by sink: those that the journal tells of, and those that the fold has counted.
        self._told: dict[str, int] = {}
        self._counted: dict[str, int] = {}
        self._projected = 0
        self._half_done = False
        #: The attributes of this process's word for how the stage ended.
        self._own_end: dict[str, Any] | None = None
        #: Whether the end, the span and the manifest are all on disk.
        self._whole = True
        self._begun: dict[int, _Begun] = {}
        self._open_spans: OpenSpans | None = None
        self._beat_gap = _FIRST_BEAT
        durable = os.environ.get(sc.ENV_DURABILITY, "").strip().lower() == "power"
        self._user_attributes = user_attributes = self.user_attributes(attributes or {})
        _make_directories(job, stage)
        opening = join(self, durable=durable) or enter(self, handed, user_attributes, durable=durable)
        self._open_spans = OpenSpans(job, stage, opening.attempt)
        self._open_spans.open()
        self._start_mono = opening.start_mono
        self.run, self.attempt, self.opened_run = opening.run, opening.attempt, opening.opened_run
        self.joined = opening.joined
        joined = ambient.handed()
        #: Whether other tasks may be at work in this process.
        self.in_company = joined is not None and not joined.alone
        self.usage = Usage(sampled=not self.joined)  # whoever started a program that joined looks at it
        self.span, self.context = opening.span, opening.context
        self._identity = opening.identity
        self._start_wall = opening.start
        self._bridge = Bridge(self.span)
        self._manifest = ManifestFile(job, stage, durable=durable) if manifest else None
        limit = parse_size(os.environ.get(sc.ENV_SPOOL_MAX, ""))
        self.spool = Spool(job, stage, self.attempt, opening.journal, self.capture, durable=durable, limit=limit)
        self._next_beat = self._start_mono + self._beat_gap
        self.console = Console()
        self.stage_log = AppendFile(job.stage_dir(stage) / "stage.log")
        self.pipeline_log = AppendFile(job.root / self.run.pipeline_log)
        self.lines = LineWriter(self)
        own = self.span.get_span_context()
        self.trace_id = own.trace_id if own.is_valid else self.run.trace_id
        self.span_id = own.span_id
        self.ids = encode.record_ids(own.trace_id, own.span_id, int(own.trace_flags) & 1)
        self._address(self.pid)
        ambient.open_recorders.append(self)
        if opening.started:
            if not manifest:
                opening.started[sc.LOCAL_NO_MANIFEST] = True
            self.emit(sc.EVENT_STARTED, opening.started, f"stage {stage} started", time_ns=opening.start)
        if opening.alive:
            numbers = ", ".join(map(str, opening.alive))
            message = f"stage {stage} is already running in this job (attempt {numbers}); both write here"
            self.warning(message)
            self.lines.write(logging.WARNING, "WARNING", f"stage.{stage}", message, spool=False)

    def _address(self, pid: int) -> None:
        """What stands around this process's log records: its resource, and whose records they are."""
        resource = process_resource()
        keys = (sc.PIPELINE_NAME, sc.PIPELINE_RUN_ID, sc.TASK_NAME)
        scope = {key: self._identity[key] for key in keys}
        about = encode.resource(self.capture.attributes(dict(resource.attributes)))

        def envelope(kind: str, scope: dict[str, Any]) -> encode.Envelope:
            around = encode.scope(sc.SCOPE_NAME, __version__, scope)
            return encode.Envelope(kind, about, around, resource.schema_url, sc.SCHEMA_URL)

        self.spool.address(envelope("logs", {**scope, sc.PROCESS_PID: pid}))
        self._metrics_envelope = envelope("metrics", scope)

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
            event = Event(name, time_ns or runtime.clock.wall_ns(), attributes, body, severity)
            self._count(event)
            self._append(event, save=save or name in _SAVED_AT_ONCE)

    def _append(self, event: Event, *, save: bool) -> None:
        self._half_done = True  # a signal may raise anywhere below; then end() folds the journal anew
        encoded = encode.event_record(event, SEVERITY_TEXT.get(event.severity, ""), self.ids)
        if len(encoded) > fit.LARGEST_RECORD:
            fit.shrink(event)
            encoded = encode.event_record(event, SEVERITY_TEXT.get(event.severity, ""), self.ids)
        written = self.spool.event(encoded)
        if event.name == sc.EVENT_ENDED:
            if not written and self._open_spans is not None and self._open_spans.make_room():
                written = self.spool.event(encoded)
            self._whole &= written
        if written:
            _enter(event, self._told)
        for key in [key for key in event.attributes if key.removeprefix(sc.LOST_PREFIX) in _SINKS]:
            del event.attributes[key]
        event.attributes.update(self._losses_since(self._counted))
        _enter(event, self._counted)
        self._fold.apply(event)
        self._project(event)
        if self._manifest is not None and self.pid == os.getpid():
            if save:
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
        elif event.name == sc.EVENT_RESUME:
            _link_to_source(self.span, event.attributes)
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
        event.attributes.update(self._losses_since(self._told))

    def _losses_since(self, ledger: dict[str, int]) -> dict[str, int]:
        """What has been lost and is not in a ledger yet. The journal and the fold have one each: a disk that refuses
        an event has not got what it tells of, and the next tells of that as well.
        """
        totals = {
            "stage_log": self.stage_log.failed,
            "pipeline_log": self.pipeline_log.failed,
            "journal": self.spool.failed,
            "spool_full": self.spool.dropped,
            "manifest": self._manifest.failed if self._manifest is not None else 0,
        }
        new = {}
        for what, total in totals.items():
            if total > ledger.get(what, 0):
                new[sc.LOST_PREFIX + what] = total - ledger.get(what, 0)
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
            if self._manifest is not None and self._manifest.pending:
                self._manifest.offer(self._fold.record)

    def span_began(self, span: Any, name: str, attributes: Mapping[str, Any]) -> None:
        """Keep one of our spans that has begun. ``name`` and ``attributes`` have been captured."""
        if self._open_spans is None or not span.is_recording():
            return
        context = span.get_span_context()
        beginning, inside = encode.beginning(span), encode.attributes(attributes)
        self._begun[context.span_id] = _Begun(name, attributes, self.capture.redactor.innocent, beginning, inside)
        if not self._open_spans.began(context.span_id, encode.begun(beginning, inside)):
            self._open_spans.began(context.span_id, encode.begun(beginning, ""))

    def others_span_began(self, span: ReadableSpan) -> None:
        """The same for a span that a library began: nobody has captured what it says."""
        context = span.get_span_context()
        if context is None or self._open_spans is None:
            return
        encoded = encode.begun(encode.beginning(span), encode.attributes(encode.attributes_of(span)))
        if fit.needs_second_look(encoded, self.capture):
            encoded = fit.second_look(encoded, self.capture)
        self._open_spans.began(context.span_id, encoded)

    def write_span(self, span: ReadableSpan) -> None:
        """Called by the span processor for every span that ended in this stage's context."""
        attributes = encode.attributes_of(span)
        context = span.get_span_context()
        begun = self._begun.pop(context.span_id, None) if context is not None else None
        beginning = inside = None
        captured = False
        if begun is not None and begun.name == span.name:
            beginning = begun.beginning
            if begun.attributes == attributes:
                captured = begun.innocent is self.capture.redactor.innocent
                # True is equal to 1 and another thing in JSON; lists are not looked into.
                if all(type(attributes[key]) is type(item) in _SCALAR for key, item in begun.attributes.items()):
                    inside = begun.inside
        head, rest = encode.halves(
            span,
            encode.attributes(attributes) if inside is None else inside,
            encode.beginning(span) if beginning is None else beginning,
        )
        encoded = head + rest
        as_captured = captured and rest == encode.NOTHING_MORE and len(encoded) <= fit.LARGEST_RECORD
        if not as_captured and fit.needs_second_look(encoded, self.capture):
            encoded = fit.second_look(encoded, self.capture)
        with self._lock:
            written = self.spool.span(span, encoded)
        if context is None:
            return
        if context.span_id == self.span_id:
            self._whole &= written
        elif self._open_spans is not None:
            self._open_spans.ended(context.span_id, recorded=written)

    # -- beating -----------------------------------------------------------------------------------------------------

    @never_raises()
    def beat(self) -> None:
        """Once a second, from :mod:`otel_stageio.pulse`: what was said goes to the disk, and a heartbeat when due."""
        if self.pid != os.getpid():
            return
        with self._lock:
            if self.ended:
                return
            self.spool.flush()
            self.usage.look()
            now = runtime.clock.monotonic_ns()
            if now < self._next_beat:
                return
            self._beat_gap = min(2 * self._beat_gap, _LONGEST_GAP)
            self._next_beat = now + self._beat_gap
            self.emit(sc.EVENT_HEARTBEAT, self.usage.so_far(), severity=DEBUG)
            self._write_metrics()

    def look_at_gpus(self) -> None:
        """From :mod:`otel_stageio.pulse`, when every stage's words are on the disk."""
        if self.pid == os.getpid() and not self.ended:
            self.usage.look_at_gpus()

    def _write_metrics(self) -> None:
        points = self.usage.points()
        if points:
            self.spool.metrics(self._metrics_envelope.line(points))

    def _used_in_all(self, status: str, elapsed: int, message: str | None) -> dict[str, Any]:
        """What the stage used; and its cause, if memory was what it lacked."""
        record = self._fold.record
        media = 0.0 if self.joined else media_seconds(self._user_attributes, record["config"], record["resources"])
        used = self.usage.in_all(elapsed / 1e9, media)
        self._write_metrics()
        if status not in sc.GOOD_STATUSES:
            told = ("exception_type", "exception_detail", "message")
            said = [": ".join(str(entry.get(key, "")) for key in told) for entry in record["errors"][-1:]]
            story = self.usage.lack_of_memory([message or "", *said], used)
            if story:
                used.update({sc.OOM: True, sc.CAUSE: self.capture.paths.text(self.capture.string(story))})
        return used

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
            foreign = self._foreign(path)
            for event in foreign[self._projected :]:
                self._project(event)
            self._projected = len(foreign)

    @never_raises()
    def examine(self, seconds: float | None = None) -> None:
        """As :meth:`Voice.examine`, and what forked workers have tracked as well."""
        self.refresh()
        for role, name in (("input", "inputs"), ("output", "outputs")):
            for entry in self.record[name]:
                if "digest" not in entry:
                    self.artifacts.adopt(role, entry["path"])
        super().examine(seconds)

    def replay(self, path: Path) -> dict[str, Any]:
        """Fold a journal anew: this stage's record is what it says, whoever wrote it."""
        self._foreign(path)
        return self._fold.record

    def _foreign(self, path: Path) -> list[Event]:
        """Fold a journal anew. Returns the events of other processes in it."""
        self._fold = Fold()
        self._counted = dict(self._told)
        foreign = []
        for scope, record in decode.log_records(decode.Lines(path)):
            event = decode.event_of(record)
            if event is not None:
                self._fold.apply(event)
                if scope.get(sc.PROCESS_PID) != self.pid:
                    foreign.append(event)
                elif event.name == sc.EVENT_ENDED:
                    self._own_end = event.attributes
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
            if self._own_end is None:
                self.refresh()
            elapsed = self.elapsed_ns
            if self._own_end is None:
                for changed in self.artifacts.final():
                    self.emit(sc.EVENT_ARTIFACT, changed)
                plain = self.capture.mapping(extra or {})
                reason = plain.get("reason")
                used = self._used_in_all(status, elapsed, message)
                ended = {sc.STAGE_STATUS: status, sc.DURATION: elapsed / 1e9, **used, **(attributes or {})}
                if sc.CAUSE in used:
                    ended[sc.CAUSE] = used[sc.CAUSE]
                elif sc.OOM in ended:
                    ended[sc.CAUSE] += out_of_memory.peaks(used)
                if plain:
                    ended[sc.LOCAL_EXTRA] = plain
                if status == "skipped" and isinstance(reason, str):
                    ended[sc.SKIP_REASON] = self.capture.paths.text(reason)
                if error_type:
                    ended[sc.ERROR_TYPE] = error_type
                if not save:  # the caller wants no manifest of this end: what stands there must not claim a success
                    self._manifest_without_end()
                    ended[sc.LOCAL_NO_MANIFEST] = True
                self.emit(sc.EVENT_ENDED, ended, f"stage {self.stage} ended: {status}", save=save)
                self._own_end = ended
            # Ctrl-C may come anywhere in here, and then this is called again: a stage ends once, as it did first.
            ended = self._own_end
            self.ended = True
            self._seen = None
            self._close_open_spans()
            self._end_span(ended[sc.STAGE_STATUS], elapsed, ended.get(sc.ERROR_TYPE), message, ended)
            rest = Event(sc.EVENT_LATE, runtime.clock.wall_ns(), {})
            self._count(rest)  # what was masked in the span, or lost, since the end was written
            if rest.attributes:
                self._append(rest, save=save)
            self._close()

    def _manifest_without_end(self) -> None:
        manifest, self._manifest = self._manifest, None
        if manifest is not None:
            manifest.write(self._fold.record)

    def _end_span(
        self, status: str, elapsed: int, error_type: str | None, message: str | None, ended: Mapping[str, Any]
    ) -> None:
        if self.joined or not self.span.is_recording():
            return
        record = self._fold.record
        inputs, outputs = record["inputs"], record["outputs"]
        final: dict[str, Any] = {
            **self._identity,  # again: the SDK evicts the oldest attributes when there are too many
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

    def _close_open_spans(self) -> None:
        """Processes of this stage may have died within a span of theirs: a forked worker, a program that joined it."""
        if self._open_spans is None or self.joined:
            return
        now, message = runtime.clock.wall_ns(), "its process died in the middle of it"
        for left in left_open(self.job, self.stage, self.attempt):
            dead = left.path != self._open_spans.path and left.gone
            if dead and end_spans(self.job, left, now, message):
                left.remove()

    def _close(self) -> None:
        if self in ambient.open_recorders:
            ambient.open_recorders.remove(self)
        self.stage_log.close()
        self.pipeline_log.close()
        self.spool.close()
        if self._open_spans is not None:
            # What could not be written is written by the next recovery, which goes by this file.
            stale = self._manifest is not None and self._manifest.stale
            self._open_spans.done(remove=self._whole and not stale)

    def after_fork(self) -> None:
        """In a forked child: the stage is the parent's. What the child says still reaches the files."""
        self._lock = threading.RLock()
        self.stage_log.abandon()
        self.pipeline_log.abandon()
        self.spool.abandon()
        if self._open_spans is not None:
            self._open_spans.abandon()
        self._begun.clear()
        self._address(os.getpid())


def open_recorder(job: Job, stage: str, **how: Any) -> Recorder:
    """A recorder; one that records nothing if ours has a bug, because the stage's own work goes on."""
    try:
        return Recorder(job, stage, **how)
    except Exception:
        runtime.internal_error("Recorder")
        from .silent import SilentRecorder

        return SilentRecorder(Capture(job))  # type: ignore[return-value]


def _link_to_source(span: trace.Span, attributes: Mapping[str, Any]) -> None:
    """From a stage that was skipped to the one that made its outputs."""
    wire = {key: value for key, value in attributes.items() if not key.startswith(sc.LOCAL_PREFIX)}
    span.set_attributes(wire)
    source = attributes.get(sc.LOCAL_RESUME, {}).get("source")
    if source and source.get("trace_id") and source.get("span_id"):
        context = span_context(int(source["trace_id"], 16), int(source["span_id"], 16))
        span.add_link(context, {sc.LINK: "made the outputs"})


class _Begun(NamedTuple):
    """A span as it was when it began; ``innocent`` is another one if the redactor has learnt something since."""

    name: str
    attributes: Mapping[str, Any]
    innocent: Innocent
    beginning: str
    inside: str


_SCALAR = (str, int, float, bool)


_SINKS = frozenset({"stage_log", "pipeline_log", "journal", "spool_full", "manifest"})


def _enter(event: Event, ledger: dict[str, int]) -> None:
    """Note what an event tells of losses."""
    for what in _SINKS:
        ledger[what] = ledger.get(what, 0) + event.attributes.get(sc.LOST_PREFIX + what, 0)


#: Nanoseconds to the first heartbeat, and at most between two.
_FIRST_BEAT, _LONGEST_GAP = 1_000_000_000, 30_000_000_000

#: Events after which the manifest on disk is brought up to date whatever it costs.
_SAVED_AT_ONCE = frozenset({sc.EVENT_STARTED, sc.EVENT_ERROR, sc.EVENT_EXCEPTION})


def _make_directories(job: Job, stage: str) -> None:
    for directory in (job.stage_dir(stage), job.logs, job.spool):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            pass  # every write into it will be counted
