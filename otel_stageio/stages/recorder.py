"""One attempt at one stage: everything it says becomes one ordered stream, and every file is a projection of that.

``emit`` is the only way in for what changes the record: journal first, then the fold, the span event and the manifest.
``log`` is the way in for plain lines. Nothing here raises into stage code.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

from .. import ambient
from .. import semconv as sc
from ..capture import Capture
from ..events import DEBUG, INFO, SEVERITY_TEXT, WARN, Event
from ..layout import Job
from ..otlp import decode, encode
from ..record.fold import Fold
from ..resources import out_of_memory
from ..runtime import never_raises, runtime
from ..sinks.console import Console
from ..sinks.envelopes import own_envelope
from ..sinks.files import AppendFile
from ..sinks.manifest_file import ManifestFile
from ..sinks.spool import Spool, parse_size
from . import fit
from .lines import LineWriter
from .losses import Losses, Lost
from .opening import enter, join, make_directories
from .span_writer import SpanWriter
from .stage_span import StageSpan
from .usage import Usage, media_seconds
from .voice import Voice


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
        self.lock = threading.RLock()
        self._fold = Fold()
        self._losses = Losses()
        self._projected = 0
        self._half_done = False
        #: The attributes of this process's word for how the stage ended.
        self._own_end: dict[str, Any] | None = None
        #: Whether the end is on disk.
        self._end_written = True
        self._beat_gap = _FIRST_BEAT
        durable = os.environ.get(sc.ENV_DURABILITY, "").strip().lower() == "power"
        self._user_attributes = user_attributes = self.user_attributes(attributes or {})
        self.spans = SpanWriter(self)
        make_directories(job, stage)
        opening = join(self, durable=durable) or enter(self, handed, user_attributes, durable=durable)
        self.spans.open(opening.attempt)
        self._start_mono = opening.start_mono
        self.run, self.attempt, self.opened_run = opening.run, opening.attempt, opening.opened_run
        self.joined = opening.joined
        joined = ambient.handed()
        #: Whether other tasks may be at work in this process.
        self.in_company = joined is not None and not joined.alone
        self.usage = Usage(sampled=not self.joined)  # whoever started a program that joined looks at it
        self.span, self.context = opening.span, opening.context
        self._identity = opening.identity
        self._stage_span = StageSpan(opening, self.capture)
        self._manifest = ManifestFile(job, stage, durable=durable) if manifest else None
        limit = parse_size(os.environ.get(sc.ENV_SPOOL_MAX, ""))
        self.spool = Spool(job, stage, self.attempt, opening.journal, self.capture, durable=durable, limit=limit)
        self._next_beat = self._start_mono + self._beat_gap
        self.console = Console()
        self.stage_log = AppendFile(f"{job.stage_dir(stage)}/stage.log")
        self.pipeline_log = AppendFile(f"{job.key}/{self.run.pipeline_log}")
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
        """Say whose the records are that this process writes."""
        self.spool.address(own_envelope("logs", self._identity, self.capture, pid))

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
        with self.lock:
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
            if not written and self.spans.make_room():
                written = self.spool.event(encoded)
            self._end_written &= written
        if written:
            self._losses.told_by(event)
        self._losses.count_in(event, self._lost())
        self._fold.apply(event)
        self._stage_span.show(event)
        if self._manifest is not None and self.pid == os.getpid():
            if save:
                self._manifest.write(self._fold.record)
            else:
                self._manifest.offer(self._fold.record)
        self._half_done = False

    def _count(self, event: Event) -> None:
        """Each event carries what was masked, changed and lost since the one before: the fold adds it up."""
        redactions, changed = self.capture.counts()
        if redactions:
            event.attributes[sc.REDACTIONS] = redactions
        if changed:
            event.attributes[sc.SANITISED] = changed
        event.attributes.update(self._losses.to_tell(self._lost()))

    def _lost(self) -> Lost:
        """What each sink has lost so far."""
        manifest = self._manifest.failed if self._manifest is not None else 0
        return Lost(self.stage_log.failed, self.pipeline_log.failed, self.spool.failed, self.spool.dropped, manifest)

    def _late(self) -> None:
        self.emit(sc.EVENT_LATE, {sc.LOST_PREFIX + "late": 1}, "said after the stage had ended", WARN, save=True)
        self.spool.close()

    def traceback(self, text: str) -> None:
        self.lines.write(logging.ERROR, "ERROR", f"stage.{self.stage}", text, spool=False)

    def spool_line(self, record: str, time_ns: int) -> None:
        """Take one encoded log line into the spool's batch."""
        with self.lock:
            self.spool.log(record, time_ns)
            if self._manifest is not None and self._manifest.pending:
                self._manifest.offer(self._fold.record)

    # -- beating -----------------------------------------------------------------------------------------------------

    @never_raises()
    def beat(self) -> None:
        """Once a second, from :mod:`.pulse`: what was said goes to the disk, and a heartbeat when due."""
        if self.pid != os.getpid():
            return
        with self.lock:
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
        """From :mod:`otel_stageio.stages.pulse`, when every stage's words are on the disk."""
        if self.pid == os.getpid() and not self.ended:
            self.usage.look_at_gpus()

    def _write_metrics(self) -> None:
        points = self.usage.points()
        if points:
            self.spool.metrics(own_envelope("metrics", self._identity, self.capture).line(points))

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
        with self.lock:
            self.spool.flush()
            if not (self._half_done or self.spool.others_wrote()):
                return
            foreign = self._foreign(self.job.journal(self.stage, self.attempt))
            for event in foreign[self._projected :]:
                self._stage_span.show(event)
            self._projected = max(self._projected, len(foreign))

    @never_raises()
    def examine(self, seconds: float | None = None) -> None:
        """As :meth:`Voice.examine`, and what forked workers have tracked as well."""
        self.refresh()
        for role, name in (("input", "inputs"), ("output", "outputs")):
            for entry in self.record[name]:
                if "digest" not in entry:
                    self.artifacts.adopt(role, entry["path"])
        super().examine(seconds)

    def replay(self, path: str) -> dict[str, Any]:
        """Fold a journal anew: this stage's record is what it says, whoever wrote it."""
        self._foreign(path)
        return self._fold.record

    def _foreign(self, path: str) -> list[Event]:
        """Fold a journal anew, unless somebody has removed it. Returns the events of other processes in it."""
        fold, foreign, own_end = Fold(), [], self._own_end
        for scope, record in decode.log_records(decode.Lines(path)):
            event = decode.event_of(record)
            if event is not None:
                fold.apply(event)
                if scope.get(sc.PROCESS_PID) != self.pid:
                    foreign.append(event)
                elif event.name == sc.EVENT_ENDED:
                    own_end = event.attributes
        if not fold.started_ns:  # what it said is known here alone
            return []
        self._fold, self._own_end = fold, own_end
        self._losses.folded_anew()
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
        with self.lock:
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
            if not self.joined:
                self.spans.end_dead()
            self._stage_span.end(self._fold.record, elapsed, message, ended)
            rest = Event(sc.EVENT_LATE, runtime.clock.wall_ns(), {})
            self._count(rest)  # what was masked in the span, or lost, since the end was written
            if rest.attributes:
                self._append(rest, save=save)
            self._close()

    def _manifest_without_end(self) -> None:
        manifest, self._manifest = self._manifest, None
        if manifest is not None:
            manifest.write(self._fold.record)

    def _close(self) -> None:
        if self in ambient.open_recorders:
            ambient.open_recorders.remove(self)
        self.stage_log.close()
        self.pipeline_log.close()
        self.spool.close()
        stale = self._manifest is not None and self._manifest.stale
        self.spans.close(whole=self._end_written and not stale)

    def after_fork(self) -> None:
        """In a forked child: the stage is the parent's. What the child says still reaches the files."""
        self.lock = threading.RLock()
        self.stage_log.abandon()
        self.pipeline_log.abandon()
        self.spool.abandon()
        self.spans.abandon()
        self._address(os.getpid())


def open_recorder(job: Job, stage: str, **how: Any) -> Recorder:
    """A recorder; one that records nothing if ours has a bug, because the stage's own work goes on."""
    try:
        return Recorder(job, stage, **how)
    except Exception:
        runtime.internal_error("Recorder")
        from .silent import SilentRecorder

        return SilentRecorder(Capture(job))  # type: ignore[return-value]


#: Nanoseconds to the first heartbeat, and at most between two.
_FIRST_BEAT, _LONGEST_GAP = 1_000_000_000, 30_000_000_000

#: Events after which the manifest on disk is brought up to date whatever it costs.
_SAVED_AT_ONCE = frozenset({sc.EVENT_STARTED, sc.EVENT_ERROR, sc.EVENT_EXCEPTION})
