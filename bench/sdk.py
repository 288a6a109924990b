"""The raw OpenTelemetry SDK as one would set it up, minus the sending."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult


class Nowhere(SpanExporter):
    """Takes spans and does nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class Encoded(SpanExporter):
    """Takes spans as far as the bytes that would be sent."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


@contextmanager
def raw_sdk(exporter: SpanExporter | None = None) -> Iterator[TracerProvider]:
    """A provider of its own with a batch processor; the global one stays as it is."""
    provider = TracerProvider(resource=Resource({"service.name": "bench"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter or Nowhere()))
    try:
        yield provider
    finally:
        provider.shutdown()


class _NoLogs(LogRecordExporter):
    """Takes log records and does nothing."""

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


@contextmanager
def sdk_logging() -> Iterator[logging.Handler]:
    """The SDK's handler for :mod:`logging`, with its batch processor."""
    provider = LoggerProvider(resource=Resource({"service.name": "bench"}), shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(_NoLogs()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is about to move to a package of its own
        handler = LoggingHandler(logger_provider=provider)
    try:
        yield handler
    finally:
        provider.shutdown()
