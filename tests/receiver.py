"""A recording OTLP receiver on loopback, HTTP or gRPC, that answers as badly as a test wants it to."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc

REQUESTS: dict[str, Any] = {
    "traces": trace_pb2.ExportTraceServiceRequest,
    "logs": logs_pb2.ExportLogsServiceRequest,
    "metrics": metrics_pb2.ExportMetricsServiceRequest,
}
RESPONSES: dict[str, Any] = {
    "traces": trace_pb2.ExportTraceServiceResponse,
    "logs": logs_pb2.ExportLogsServiceResponse,
    "metrics": metrics_pb2.ExportMetricsServiceResponse,
}


@dataclass
class Received:
    """One request, accepted or not."""

    signal: str
    message: Any
    headers: dict[str, str]
    size: int
    path: str = ""
    accepted: bool = False

    @property
    def spans(self) -> list[Any]:
        if self.signal != "traces":
            return []
        return [s for r in self.message.resource_spans for scope in r.scope_spans for s in scope.spans]

    @property
    def logs(self) -> list[Any]:
        if self.signal != "logs":
            return []
        return [s for r in self.message.resource_logs for scope in r.scope_logs for s in scope.log_records]

    @property
    def empty(self) -> bool:
        return not self.message.ByteSize()


@dataclass
class Answer:
    """Attributes:
    status: of HTTP; for gRPC a ``grpc.StatusCode`` stands in ``code``.
    hang: say nothing until the receiver is closed. drop: close the connection in the middle of the answer.
    drip: the answer comes byte by byte, without an end, until the receiver is closed.
    rejected: partial success.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    html: bool = False
    hang: bool = False
    drop: bool = False
    drip: bool = False
    rejected: int = 0
    code: Any = None


OK = Answer()


class Receiver:
    """``with Receiver() as receiver: ... receiver.url``.

    Args:
        answer: decides about each request; by default everything is accepted.
        port: to come back where another one was.
        tls: (certificate, key, CA that client certificates must come from or None)
    """

    def __init__(
        self,
        answer: Callable[[Received], Answer] | Answer = OK,
        *,
        port: int = 0,
        tls: tuple[Path, Path, Path | None] | None = None,
    ) -> None:
        self.answer = answer
        self.requests: list[Received] = []
        self.lock = threading.Lock()
        self.closed = threading.Event()
        self._server: Any = None
        self._tls = tls
        self.port = port

    def decide(self, received: Received) -> Answer:
        answer = self.answer(received) if callable(self.answer) else self.answer
        with self.lock:
            received.accepted = answer.status == 200 and answer.code is None and not answer.hang
            self.requests.append(received)
        if answer.hang:
            self.closed.wait(60)
        return answer

    # -- what came ---------------------------------------------------------------------------------------------------

    @property
    def accepted(self) -> list[Received]:
        with self.lock:
            return [received for received in self.requests if received.accepted]

    @property
    def spans(self) -> list[Any]:
        return [span for received in self.accepted for span in received.spans]

    @property
    def span_ids(self) -> Counter[str]:
        return Counter(span.span_id.hex() for span in self.spans)

    @property
    def logs(self) -> list[Any]:
        return [record for received in self.accepted for record in received.logs]

    @property
    def bodies(self) -> Counter[str]:
        return Counter(record.body.string_value for record in self.logs)

    # -- HTTP --------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Receiver:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        if self._tls:
            certificate, key, authority = self._tls
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            if authority:
                context.load_verify_locations(authority)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()


class CountingReceiver(Receiver):
    """Accepts everything and keeps numbers only: for a great deal of it.

    Attributes:
        ids: how often each span came. names: spans by name. lines: log records.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ids: Counter[bytes] = Counter()
        self.names: Counter[str] = Counter()
        self.lines = 0

    def decide(self, received: Received) -> Answer:
        with self.lock:
            self.ids.update(span.span_id for span in received.spans)
            self.names.update(span.name for span in received.spans)
            self.lines += len(received.logs)
        return OK


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, *args: Any) -> None:
        self.connections: set[Any] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """As a process that ends does: kept connections end too."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed, or a handshake that failed, as tests want it


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            encoding = self.headers.get("content-encoding")
            plain = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body) if encoding else body
            signal = self.path.rpartition("/")[2]
            if signal not in REQUESTS:
                self.send_error(404)
                return
            message = REQUESTS[signal].FromString(plain)
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.decide(Received(signal, message, headers, len(plain), self.path))
            if answer.hang:
                return
            if answer.status == 200 and not answer.html:
                response = RESPONSES[signal]()
                if answer.rejected or answer.text:
                    name = {"traces": "spans", "logs": "log_records", "metrics": "data_points"}[signal]
                    setattr(response.partial_success, f"rejected_{name}", answer.rejected)
                    response.partial_success.error_message = answer.text
                content = response.SerializeToString()
            elif answer.html:
                content = b"<html>not here</html>"
            else:
                content = Status(code=3, message=answer.text).SerializeToString()
            self.send_response(answer.status)
            self.send_header("content-type", "text/html" if answer.html else "application/x-protobuf")
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header(
                "content-length", str(len(content) + (100 if answer.drop else 10**6 if answer.drip else 0))
            )
            self.end_headers()
            while answer.drip and not receiver.closed.wait(0.02):
                self.wfile.write(b" ")
                self.wfile.flush()
            self.wfile.write(content)
            if answer.drop:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":  # as Go sends what it compresses
                return self.rfile.read(int(self.headers["content-length"]))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


class GrpcReceiver(Receiver):
    """The same over gRPC: an :class:`Answer` with a ``code`` is an error, its ``text`` the details."""

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def __enter__(self) -> GrpcReceiver:
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        trace_grpc.add_TraceServiceServicer_to_server(_servicer(self, "traces"), self._server)
        logs_grpc.add_LogsServiceServicer_to_server(_servicer(self, "logs"), self._server)
        metrics_grpc.add_MetricsServiceServicer_to_server(_servicer(self, "metrics"), self._server)
        address = f"127.0.0.1:{self.port}"
        if self._tls:
            certificate, key, authority = self._tls
            credentials = grpc.ssl_server_credentials(
                [(key.read_bytes(), certificate.read_bytes())],
                authority.read_bytes() if authority else None,
                authority is not None,
            )
            self.port = self._server.add_secure_port(address, credentials)
        else:
            self.port = self._server.add_insecure_port(address)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._server.stop(0).wait(5)


def _servicer(receiver: Receiver, signal: str) -> Any:
    class Servicer:
        def Export(self, request: Any, context: Any) -> Any:
            headers = {key: str(value) for key, value in context.invocation_metadata()}
            answer = receiver.decide(Received(signal, request, headers, request.ByteSize()))
            if answer.code is not None:
                if answer.headers:
                    context.set_trailing_metadata(tuple(answer.headers.items()))
                context.abort(answer.code, answer.text)
            return RESPONSES[signal]()

    return Servicer()


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
