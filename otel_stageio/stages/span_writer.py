"""The spans of one stage, on their way to the files: kept while they are open, in the spool when they have ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..capture.redaction import Innocent
from ..otlp import encode
from ..recovery.dead_spans import end_spans
from ..recovery.left_open import left_open
from ..runtime import runtime
from ..sinks.open_spans import OpenSpans
from . import fit

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from .recorder import Recorder


class _Begun(NamedTuple):
    """A span as it was when it began.

    Attributes:
        kinds: types of the attributes' values, if they are scalars all. True is equal to 1, and another thing in JSON;
            lists are not looked into.
        innocent: another one if the redactor has learnt something since.
    """

    name: str
    attributes: Mapping[str, Any]
    kinds: list[type] | None
    innocent: Innocent
    beginning: str
    inside: str


_SCALAR = frozenset({str, int, float, bool})


class SpanWriter:
    """Keeps and writes the spans that are made in the context of one stage, and the stage's own."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._begun: dict[int, _Begun] = {}
        self._open: OpenSpans | None = None
        #: Whether the stage's own span is on disk, if it has ended.
        self._own_written = True

    def open(self, attempt: int) -> None:
        self._open = OpenSpans(self._recorder.job, self._recorder.stage, attempt)
        self._open.open()

    def began(self, span: Any, name: str, attributes: Mapping[str, Any]) -> None:
        """Keep one of our spans that has begun. ``name`` and ``attributes`` have been captured."""
        if self._open is None or not span.is_recording():
            return
        context = span.get_span_context()
        beginning, inside = encode.beginning(span), encode.attributes(attributes)
        innocent = self._recorder.capture.redactor.innocent
        kinds = [*map(type, attributes.values())]
        scalar = kinds if _SCALAR.issuperset(kinds) else None
        self._begun[context.span_id] = _Begun(name, attributes, scalar, innocent, beginning, inside)
        if not self._open.began(context.span_id, encode.begun(beginning, inside)):
            self._open.began(context.span_id, encode.begun(beginning, ""))

    def others_began(self, span: ReadableSpan) -> None:
        """The same for a span that a library began: nobody has captured what it says."""
        context = span.get_span_context()
        if context is None or self._open is None:
            return
        encoded = encode.begun(encode.beginning(span), encode.attributes(encode.attributes_of(span)))
        capture = self._recorder.capture
        if fit.needs_second_look(encoded, capture):
            encoded = fit.second_look(encoded, capture)
        self._open.began(context.span_id, encoded)

    def ended(self, span: ReadableSpan) -> None:
        """Called by the span processor for every span that ended in this stage's context."""
        recorder = self._recorder
        capture = recorder.capture
        attributes = encode.attributes_of(span)
        context = span.get_span_context()
        begun = self._begun.pop(context.span_id, None) if context is not None else None
        beginning = inside = None
        captured = False
        if begun is not None and begun.name == span.name:
            beginning = begun.beginning
            if begun.attributes == attributes:
                captured = begun.innocent is capture.redactor.innocent
                if begun.kinds == [*map(type, attributes.values())]:
                    inside = begun.inside
        head, rest = encode.halves(
            span,
            encode.attributes(attributes) if inside is None else inside,
            encode.beginning(span) if beginning is None else beginning,
        )
        encoded = head + rest
        as_captured = captured and rest == encode.NOTHING_MORE and len(encoded) <= fit.LARGEST_RECORD
        if not as_captured and fit.needs_second_look(encoded, capture):
            encoded = fit.second_look(encoded, capture)
        with recorder.lock:
            written = recorder.spool.span(span, encoded)
        if context is None:
            return
        if context.span_id == recorder.span_id:
            self._own_written &= written
        elif self._open is not None:
            self._open.ended(context.span_id, recorded=written)

    def end_dead(self) -> None:
        """Processes of this stage may have died within a span of theirs: a forked worker, a program that joined it."""
        if self._open is None:
            return
        job, stage, attempt = self._recorder.job, self._recorder.stage, self._recorder.attempt
        now, message = runtime.clock.wall_ns(), "its process died in the middle of it"
        for left in left_open(job, stage, attempt):
            dead = left.path != self._open.path and left.gone
            if dead and end_spans(job, left, now, message):
                left.remove()

    def make_room(self) -> bool:
        """Give back room on a disk that is full; see :meth:`OpenSpans.make_room`."""
        return self._open is not None and self._open.make_room()

    def close(self, *, whole: bool) -> None:
        """
        Args:
            whole: whether everything else of the stage is on disk. What could not be written is written by the next
                recovery, which goes by the file of open spans.
        """
        if self._open is not None:
            self._open.done(remove=whole and self._own_written)

    def abandon(self) -> None:
        """In a forked child: the open spans are the parent's."""
        if self._open is not None:
            self._open.abandon()
        self._begun.clear()
