"""The stage's span as seen by a program that a pipeline started for that stage.

The parent process holds the real span and ends it, since it knows how the program ended; what the program says about it
travels through the journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from .. import semconv as sc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import SpanContext

    from ..stages.recorder import Recorder


class JoinedSpan(trace.Span):
    def __init__(self, recorder: Recorder, context: SpanContext) -> None:
        self._recorder = recorder
        self._context = context

    def get_span_context(self) -> SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return not self._recorder.ended

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self._recorder.emit(sc.EVENT_ATTRIBUTES, self._recorder.capture.attributes(attributes))

    def set_attribute(self, key: str, value: Any) -> None:
        self.set_attributes({key: value})

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        self._recorder.user_event(name, attributes or {})

    def record_exception(
        self, exception: BaseException, attributes: Any = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        self._recorder.exception(exception)

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        pass  # links of the stage's span are the parent's to make

    def update_name(self, name: str) -> None:
        pass  # a stage keeps its name: everything on disk goes by it

    def set_status(self, status: Any, description: str | None = None) -> None:
        pass  # finalize() says how a stage ended

    def end(self, end_time: int | None = None) -> None:
        pass
