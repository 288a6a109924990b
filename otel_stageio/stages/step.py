"""``io.span(...)``: a piece of a stage's work as an ordinary OpenTelemetry child span."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from .. import semconv as sc
from ..ambient import recorder_in
from ..otlp.provider import tracer
from ..runtime import runtime
from .ending import is_success
from .voice import type_name

if TYPE_CHECKING:
    from .recorder import Recorder


class Step:
    """A context manager, written as a class: ``contextlib``'s generator costs as much again as the span.

    An exception marks the span as failed; the stage records it, once.
    """

    __slots__ = ("_attributes", "_name", "_pid", "_recorder", "_span", "_token")

    def __init__(self, recorder: Recorder, name: str, attributes: dict[str, Any]) -> None:
        self._recorder = recorder
        self._name = name
        self._attributes = attributes

    def __enter__(self) -> trace.Span:
        recorder = self._recorder
        try:
            base = otel_context.get_current()
            if recorder_in(base) is not recorder:
                base = recorder.context
            capture = recorder.capture
            attributes = capture.attributes(self._attributes) if self._attributes else {}
            name = capture.name(self._name)
            self._span: trace.Span = tracer().start_span(name, base, attributes=attributes)
            recorder.spans.began(self._span, name, attributes)
            self._token = otel_context.attach(trace.set_span_in_context(self._span, base))
        except Exception:
            runtime.internal_error("span")
            self._span = trace.INVALID_SPAN
            self._token = otel_context.attach(otel_context.get_current())
        self._pid = os.getpid()
        return self._span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            otel_context.detach(self._token)
            if os.getpid() != self._pid:  # a forked child that fell out of the block: the span is its parent's
                return
            if error is not None and not _harmless(error):
                self._span.set_attribute(sc.ERROR_TYPE, type_name(error))
                text = self._recorder.capture.string(error)
                self._span.set_status(trace.Status(trace.StatusCode.ERROR, self._recorder.capture.paths.text(text)))
            self._span.end()
        except Exception:
            runtime.internal_error("span")


def _harmless(error: BaseException) -> bool:
    return isinstance(error, GeneratorExit) or is_success(error)
