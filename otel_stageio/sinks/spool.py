"""The spool of one stage attempt: journal and outbox in one, OTLP/JSON lines.

Events that change the record are written the moment they happen. Plain log lines, which ``stage.log`` has already, go
in small batches: up to 64 lines, 32 KiB or one second, whichever is first, and always before the next event, so that
the order on disk is the order in which things were said.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, NamedTuple

from .. import semconv as sc
from ..capture import Capture
from ..capture.redaction import Innocent
from ..layout import Job
from ..otlp import encode
from ..otlp.encode import Envelope
from ..otlp.provider import application_exports
from .files import AppendFile

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

BATCH_RECORDS = 64
BATCH_BYTES = 32 * 1024
BATCH_NS = 1_000_000_000
DEFAULT_MAX = 512 * 1024 * 1024

_NOBODYS = Envelope("logs", "{}", "{}")


class Spool:
    """Attributes: ``dropped`` counts log records that the size cap kept out, ``failed`` lines the disk refused."""

    def __init__(
        self,
        job: Job,
        stage: str,
        attempt: int,
        journal: AppendFile,
        capture: Capture,
        *,
        durable: bool,
        limit: int,
    ) -> None:
        self._journal = journal
        self._capture = capture
        self._spans = AppendFile(job.journal(stage, attempt, "spans"), durable=durable)
        self._metrics: AppendFile | None = None
        self._metrics_path = job.journal(stage, attempt, "metrics")
        self._batch: list[str] = []
        self._batch_records = BATCH_RECORDS
        self._batch_bytes = 0
        self._batch_since = 0
        self._limit = limit
        self._job = job
        self._before = -1
        self._envelope = _NOBODYS
        self._span_envelopes: dict[tuple[int, int], tuple[object, object, Envelope]] = {}
        self._span_envelope: tuple[object, object, Envelope] = (None, None, self._envelope)  # the latest of them
        self.dropped = 0

    def address(self, envelope: Envelope) -> None:
        """Set what stands around the log records of this stage."""
        self._envelope = envelope

    @property
    def failed(self) -> int:
        metrics = self._metrics.failed if self._metrics is not None else 0
        return self._journal.failed + self._spans.failed + metrics

    def others_wrote(self) -> bool:
        """Whether another process has written to the journal as well."""
        try:
            return os.fstat(self._journal.fd).st_size > self._journal.size
        except OSError:
            return False

    def event(self, record: str) -> bool:
        """Write one event now, after the log lines that came before it."""
        if self._batch:
            records = ",".join([*self._batch, record])
            if len(records) < BATCH_BYTES * 8:
                self._clear()
                return self._journal.write(self._envelope.line(records))
            self.flush()
        return self._journal.write(self._envelope.line(record))

    def log(self, record: str, time_ns: int) -> None:
        """Take one log line into the batch."""
        before = self._before if self._before >= 0 else self._used_before()
        if before + self._journal.size + self._spans.size > self._limit:
            self.dropped += 1
            return
        if not self._batch:
            self._batch_since = time_ns
        self._batch.append(record)
        self._batch_bytes += len(record)
        if (
            len(self._batch) >= self._batch_records
            or self._batch_bytes >= BATCH_BYTES
            or time_ns - self._batch_since >= BATCH_NS
        ):
            self.flush()

    def flush(self) -> None:
        if self._batch:
            records = ",".join(self._batch)
            self._clear()
            self._journal.write(self._envelope.line(records))

    def _clear(self) -> None:
        self._batch = []
        self._batch_bytes = 0

    def span(self, span: ReadableSpan, encoded: str) -> bool:
        """Write one ended span now."""
        resource, scope, envelope = self._span_envelope
        if resource is not span.resource or scope is not span.instrumentation_scope:
            key = (id(span.resource), id(span.instrumentation_scope))
            if key not in self._span_envelopes:
                # The objects are kept beside their envelope: an id is only good while its object lives.
                envelope = span_envelope(span, self._capture, application_exports=application_exports())
                self._span_envelopes[key] = (span.resource, span.instrumentation_scope, envelope)
            self._span_envelope = self._span_envelopes[key]
            envelope = self._span_envelope[2]
        return self._spans.write(envelope.line(encoded))

    def metrics(self, line: bytes) -> None:
        """Write one line of metrics, if there is room. A stage that ends at once has none, and no file for them."""
        if self._metrics is None:
            self._metrics = AppendFile(self._metrics_path)
        if self._used_before() + self._journal.size + self._spans.size + self._metrics.size <= self._limit:
            self._metrics.write(line)

    def _used_before(self) -> int:
        """Bytes that the job's spool had. Who neither logs nor lasts for a second does not ask for them."""
        if self._before < 0:
            try:
                with os.scandir(self._job.spool) as entries:
                    used = sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
            except OSError:
                used = 0
            self._before = max(used - self._journal.size - self._spans.size, 0)
        return self._before

    def abandon(self) -> None:
        """In a forked child: drop the parent's unwritten batch (the parent writes it) and the shared descriptors.

        A worker of ``multiprocessing`` ends with ``os._exit``, so what it says is written at once.
        """
        self._clear()
        self._batch_records = 1
        self._journal.abandon()
        self._spans.abandon()
        self._metrics = None

    def close(self) -> None:
        self.flush()
        self._spans.close()
        if self._metrics is not None:
            self._metrics.close()
        self._journal.close()  # last: closing it lets go of the lock that says "alive"


def span_envelope(span: ReadableSpan, capture: Capture | None = None, *, application_exports: bool = False) -> Envelope:
    """What stands around the spans of one resource and scope.

    Args:
        capture: redacts both, which come from the environment and from libraries; without it they stay as they are.
        application_exports: note that the application's own provider sends them, so that delivery does not.
    """
    scope = span.instrumentation_scope
    about_scope = dict(scope.attributes or {}) if scope else {}
    if capture is not None:
        about_scope = capture.attributes(about_scope)
    if application_exports:
        about_scope[sc.LOCAL_APPLICATION_EXPORTS] = True
    return Envelope(
        "spans",
        resource_text(span.resource, capture),
        encode.scope(scope.name, scope.version, about_scope) if scope else "{}",
        span.resource.schema_url,
        (scope.schema_url or "") if scope else "",
    )


class _Known(NamedTuple):
    resource: Resource
    innocent: Innocent
    text: str


#: The resource that was encoded last, if capture found nothing in it: all stages of a process have the same.
_known: _Known | None = None


def resource_text(resource: Resource, capture: Capture | None = None) -> str:
    """A resource, encoded.

    Args:
        capture: as for :func:`span_envelope`.
    """
    global _known
    if capture is None:
        return encode.resource(resource.attributes)
    known, innocent = _known, capture.redactor.innocent
    if known is not None and known.resource is resource and known.innocent is innocent:
        return known.text
    about = dict(resource.attributes)
    captured = capture.attributes(about)
    text = encode.resource(captured)
    if captured == about and os.sep not in text:  # a path shows as its job has it
        _known = _Known(resource, innocent, text)
    return text


def share_life(journal: AppendFile) -> bool:
    """Lock the journal for as long as this process lives.

    The lock is shared, because a program that ``Pipeline.command`` started may open the same stage as its parent;
    whoever wants to know whether the stage is dead asks for an exclusive one.
    """
    try:
        fcntl.flock(journal.fd, fcntl.LOCK_SH)
        return True
    except (OSError, ValueError):  # ValueError: the file could not be opened
        return False


def parse_size(text: str, default: int = DEFAULT_MAX) -> int:
    """``512MiB``, ``2GB``, ``1000000`` -> bytes; anything else is the default.

    Example:
        >>> parse_size("1KiB")
        1024
    """
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    text = text.strip().upper()
    digits = text.rstrip("BIKMG ")
    try:
        return int(float(digits) * units[text[len(digits) :].strip()])
    except (ValueError, KeyError, OverflowError):
        return default
