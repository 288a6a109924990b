"""The SDK's TracerProvider, ours or the application's, and the processor that writes ended spans to the spool.

If the application has an SDK provider, our processor joins it and its export is left alone. Otherwise ours becomes
the global one at the first stage, never at import, so that spans of libraries (requests, transformers) nest under the
stage.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.environment_variables import OTEL_EXPERIMENTAL_RESOURCE_DETECTORS
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from .. import semconv as sc
from .._version import __version__
from ..ambient import ambient, recorder_of
from ..runtime import host_name, runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind
    from opentelemetry.util.types import Attributes

    from ..stages.recorder import Recorder

_lock = threading.Lock()
_tracer: trace.Tracer | None = None
_provider: TracerProvider | None = None
_resource: Resource | None = None
_scope: InstrumentationScope | None = None


def disabled() -> bool:
    """``OTEL_SDK_DISABLED``: local files only, no spans."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def process_resource() -> Resource:
    """The resource of everything that this process writes: the application's, else from ``OTEL_*``."""
    global _resource
    if _resource is None:
        provider = trace.get_tracer_provider()
        _resource = provider.resource if isinstance(provider, TracerProvider) else _own_resource()
    return _resource


def _own_resource() -> Resource:
    # Resource.create() scans all installed packages for detectors; ask for that only where the user did.
    if os.environ.get(OTEL_EXPERIMENTAL_RESOURCE_DETECTORS):
        return Resource.create()
    resource = Resource(
        {
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": _sdk_version(),
            "telemetry.distro.name": "otel_stageio",
            "telemetry.distro.version": __version__,
            sc.HOST_NAME: host_name(),
            sc.OS_TYPE: sys.platform,
            sc.RUNTIME_NAME: sys.implementation.name,
            sc.RUNTIME_VERSION: ".".join(map(str, sys.version_info[:3])),  # importing platform takes 4 ms
        }
    ).merge(OTELResourceDetector().detect())
    if not resource.attributes.get("service.name"):
        resource = resource.merge(Resource({"service.name": "otel_stageio"}))
    return resource


def _sdk_version() -> str:
    from opentelemetry.sdk.version import __version__ as version

    return version


def scope() -> InstrumentationScope:
    global _scope
    if _scope is None:
        _scope = InstrumentationScope(sc.SCOPE_NAME, __version__, sc.SCHEMA_URL)
    return _scope


class _Ids(IdGenerator):
    """Ids from the runtime's seam, so that tests can fix them."""

    def generate_span_id(self) -> int:
        return runtime.ids.span_id()

    def generate_trace_id(self) -> int:
        return runtime.ids.trace_id()


class StageSpanProcessor(SpanProcessor):
    """Writes each ended span to the spool of the stage in whose context it began.

    An exception that escaped from here would come out of the user's ``with`` block: the SDK does not catch it.
    """

    def __init__(self) -> None:
        self._open: dict[int, Recorder] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        try:
            recorder = recorder_of(parent_context)
            if recorder is not None:
                context = span.get_span_context()
                self._open[context.span_id] = recorder
                scope = span.instrumentation_scope
                if scope is None or scope.name != sc.SCOPE_NAME:  # ours say so themselves, once captured
                    recorder.spans.others_began(span)
        except Exception:
            runtime.internal_error("on_start")

    def on_end(self, span: ReadableSpan) -> None:
        try:
            context = span.get_span_context()
            recorder = self._open.pop(context.span_id, None) if context is not None else None
            if recorder is not None:
                recorder.spans.ended(span)
        except Exception:
            runtime.internal_error("on_end")

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


class _StageTracer(trace.NoOpTracer):
    """The SDK's tracer, with two exceptions. Nothing is patched: it is our provider that hands this tracer out.

    A span with no parent at all nests under the one stage that is open: a new thread starts with an empty context, and
    a library's spans in a thread pool would each be a trace of its own.

    A span that nobody would see is not made. No stage writes what is outside of all, and as the parent of one, or of a
    run, it would be missing in the trace.

    Both are asked each time that a span begins: ``@tracer.start_as_current_span("name")`` stands above a function long
    before there is a stage. (The no-op tracer's own ``start_as_current_span`` calls ``start_span``, as the SDK's does.)
    """

    def __init__(self, tracer: trace.Tracer, provider: StageTracerProvider) -> None:
        self.wrapped = tracer
        self._provider = provider

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = trace.SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        if context is None:
            context = _adopted()
        seen = self._provider.has_others or recorder_of(context) is not None
        start = self.wrapped.start_span if seen else super().start_span
        return start(name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception)


def _adopted() -> Context | None:
    if trace.get_current_span() is not trace.INVALID_SPAN:
        return None
    recorder = ambient()
    return recorder.context if recorder is not None else None


class StageTracerProvider(TracerProvider):
    """Our global provider, where the application has none.

    Attributes:
        has_others: whether somebody else has given it a processor, which sees what is outside of all stages too.
    """

    has_others = False

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return _StageTracer(super().get_tracer(*args, **kwargs), self)

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        self.has_others |= not isinstance(span_processor, StageSpanProcessor)
        super().add_span_processor(span_processor)


def tracer() -> trace.Tracer:
    """The tracer for stages and their inner spans. Installs the processor, and our provider if there is none."""
    global _tracer
    if _tracer is None:
        with _lock:
            if _tracer is None:
                found = _install().get_tracer(sc.SCOPE_NAME, __version__, schema_url=sc.SCHEMA_URL)
                # Stages and steps say what their parent is.
                _tracer = found.wrapped if isinstance(found, _StageTracer) else found
    return _tracer


def application_exports() -> bool:
    """Whether spans are made, and so exported, by a provider that is not ours."""
    return _provider is not None and not isinstance(_provider, StageTracerProvider)


def _install() -> trace.TracerProvider:
    global _provider
    existing = trace.get_tracer_provider()
    if isinstance(existing, TracerProvider):
        provider = existing
    elif disabled():
        return trace.NoOpTracerProvider()
    else:
        # The SDK's fork hook submits to a thread pool. If concurrent.futures.thread is loaded after the provider is
        # made, that module's own fork hooks run too late and the child deadlocks (seen with SDK 1.45). Load it first.
        import concurrent.futures.thread  # noqa: F401

        provider = StageTracerProvider(resource=process_resource(), id_generator=_Ids(), shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    provider.add_span_processor(StageSpanProcessor())
    _provider = provider
    return provider
