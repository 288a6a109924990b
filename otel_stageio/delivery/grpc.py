"""OTLP over gRPC: one request, one outcome."""

from __future__ import annotations

import threading
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from .. import semconv as sc
from .._version import __version__
from . import wire
from .outcome import Kind, Outcome, innermost, one_line, unforeseen, wait
from .settings import Endpoint

_STUBS: dict[str, Any] = {"traces": TraceServiceStub, "logs": LogsServiceStub, "metrics": MetricsServiceStub}
_CODE = grpc.StatusCode
#: The receiver, or the way to it, is wrong; no other data would fare better.
_MISCONFIGURED = frozenset({_CODE.UNAUTHENTICATED, _CODE.PERMISSION_DENIED, _CODE.UNIMPLEMENTED, _CODE.NOT_FOUND})
_REFUSED = frozenset({_CODE.INVALID_ARGUMENT, _CODE.FAILED_PRECONDITION})
#: How the channel itself says UNAVAILABLE; a receiver that says so is there.
_NOBODY_THERE = ("failed to connect", "DNS resolution failed", "Connection reset", "Socket closed", "onnection refused")
#: As Go's and C's servers say it, and tonic's.
_TOO_LARGE = ("larger than max", "exceeds maximum size", "message length too large")
_RETRY_INFO = "google.rpc.retryinfo-bin"


class GrpcSender:
    """Keeps one channel. Not for several threads at once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._channel: Any = None
        self._export: Any = None
        self._call: Any = None
        self._closed = threading.Event()

    def _open(self) -> None:
        endpoint = self.endpoint
        options = (
            ("grpc.primary_user_agent", f"{sc.SCOPE_NAME}/{__version__}"),
            ("grpc.max_receive_message_length", 4 * 1024 * 1024),
            ("grpc.enable_retries", 0),  # when to try again is decided in one place, and not here
        )
        compression = grpc.Compression.Gzip if endpoint.compression == "gzip" else grpc.Compression.NoCompression
        target = endpoint.address
        if endpoint.secure:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=_content(endpoint.certificate),
                private_key=_content(endpoint.client_key),
                certificate_chain=_content(endpoint.client_certificate),
            )
            self._channel = grpc.secure_channel(target, credentials, options=options, compression=compression)
        else:
            self._channel = grpc.insecure_channel(target, options=options, compression=compression)
        self._export = _STUBS[endpoint.signal](self._channel).Export

    def send(self, message: Message, timeout: float | None = None) -> Outcome:
        """Send one request.

        Args:
            timeout: seconds, if fewer than the endpoint's own.
        """
        seconds = min(timeout or self.endpoint.timeout, self.endpoint.timeout)
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # or our own request would be a span to send
        try:
            if self._channel is None:
                self._open()
            self._call = self._export.future(message, timeout=seconds, metadata=tuple(self.endpoint.headers.items()))
            answer = self._call.result()
            rejected, said = wire.partial_success(self.endpoint.signal, answer.SerializeToString())
            return Outcome(Kind.ACCEPTED, said, rejected=rejected)
        except grpc.RpcError as error:
            outcome = _outcome(error)
            if outcome.unreachable:  # a fresh channel next time: this one waits longer with each failure
                self._drop()
            return outcome
        except (grpc.FutureCancelledError, ValueError, OSError) as error:
            return Outcome(Kind.LATER, innermost(error), unreachable=True)
        except Exception as error:
            return unforeseen(error)
        finally:
            self._call = None
            detach(token)

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Also from another thread, while a request is under way: it is given up."""
        call = self._call
        if call is not None:
            call.cancel()
        self._drop()


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def _outcome(error: Any) -> Outcome:
    code = error.code()
    details = one_line(error.details() or "")
    reason = f"{code.name}: {details}" if details else code.name
    retry_after = _retry_after(error)
    if code in _MISCONFIGURED:
        return Outcome(Kind.MISCONFIGURED, reason)
    if code in _REFUSED:
        return Outcome(Kind.REFUSED, reason)
    if code is _CODE.RESOURCE_EXHAUSTED and retry_after is None and any(words in details for words in _TOO_LARGE):
        return Outcome(Kind.TOO_LARGE, reason)
    nobody = code is _CODE.UNAVAILABLE and any(words in details for words in _NOBODY_THERE)
    unreachable = nobody or code is _CODE.DEADLINE_EXCEEDED
    return Outcome(Kind.LATER, reason, retry_after=retry_after, unreachable=unreachable)


def _retry_after(error: Any) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == _RETRY_INFO:
            from google.rpc.error_details_pb2 import RetryInfo

            try:
                delay = RetryInfo.FromString(value).retry_delay
            except (DecodeError, TypeError):
                return None
            return wait(delay.seconds + delay.nanos / 1e9)
    return None
