"""What is wrong with an endpoint, in words: name, port, TLS, credentials, path, protocol, each asked for in turn."""

from __future__ import annotations

import errno
import socket
import ssl
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .outcome import Kind, Outcome, innermost
from .settings import Endpoint

_SECONDS = 5.0
#: What every HTTP/2 client begins with, and an empty SETTINGS frame; a server answers with a frame of the same type.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_HTTP2_SETTINGS = 4
_WANTS_CLIENT_CERTIFICATE = (
    "the receiver seems to want a client certificate: set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _CLIENT_KEY"
)


@dataclass
class Finding:
    """Attributes:
    good: whether this signal gets through.
    steps: what was found out on the way, in order.
    advice: what to do; empty when all is well.
    """

    endpoint: Endpoint
    good: bool = False
    steps: list[str] = field(default_factory=list)
    advice: str = ""

    def fails(self, step: str, advice: str) -> Finding:
        self.steps.append(step)
        self.advice = advice
        return self


def diagnose(endpoint: Endpoint) -> Finding:
    """Ask an endpoint, step by step, up to an empty export request. Takes some seconds at worst; sends no data."""
    found = Finding(endpoint)
    if endpoint.problem is not None:
        return found.fails(endpoint.problem, "mend the variable or option that says so")
    parts = urlsplit(endpoint.url)
    host, port = parts.hostname or "", int(endpoint.address.rpartition(":")[2])
    proxy = _proxy(endpoint)
    if proxy:
        found.steps.append(f"goes through the proxy {proxy}")
    else:
        try:
            addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        except OSError as error:
            return found.fails(
                f"the name {host} is not known here ({error.strerror})", "check the spelling, and the machine's DNS"
            )
        if addresses != {host}:
            found.steps.append(f"{host} is {', '.join(sorted(addresses))}")
        refused = _connect(found, host, port)
        if refused is not None:
            return refused
    return _ask(found)


def _proxy(endpoint: Endpoint) -> str:
    if endpoint.protocol == "grpc":
        return ""
    from requests.utils import select_proxy, get_environ_proxies  # isort: skip

    proxy = str(select_proxy(endpoint.url, get_environ_proxies(endpoint.url)) or "")
    return proxy.rpartition("@")[2]


def _connect(found: Finding, host: str, port: int) -> Finding | None:
    endpoint = found.endpoint
    try:
        connection = socket.create_connection((host, port), _SECONDS)
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            return found.fails(
                f"nothing listens on port {port}",
                "start the collector, or correct the port (by default 4318 for HTTP, 4317 for gRPC)",
            )
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return found.fails(f"port {port} cannot be reached: {why}", "check the address, and firewalls on the way")
    with connection:
        found.steps.append(f"port {port} is open")
        if not endpoint.secure:
            return None
        try:
            context = ssl.create_default_context(cafile=endpoint.certificate)
            if endpoint.client_certificate:
                context.load_cert_chain(endpoint.client_certificate, endpoint.client_key)
            with context.wrap_socket(connection, server_hostname=host) as secured:
                found.steps.append(f"{secured.version()} spoken")
        except (OSError, ValueError) as error:
            return found.fails(f"TLS fails: {_tls_words(error)}", _tls_advice(error, endpoint))
    return None


def _tls_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return str(getattr(error, "reason", None) or error).replace("_", " ").lower()


def _tls_advice(error: Exception, endpoint: Endpoint) -> str:
    words = f"{_tls_words(error)} {error}".lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        if "expired" in words or "not yet valid" in words:
            return "renew the receiver's certificate, or check this machine's clock"
        if "mismatch" in words or "not valid for" in words:
            return "use the name that the certificate was made for"
        return "set OTEL_EXPORTER_OTLP_CERTIFICATE to the PEM file of the authority that the receiver is signed by"
    if "wrong version" in words or "record layer" in words:
        return f"nobody speaks TLS there: use {endpoint.server.replace('https://', 'http://')}"
    if "certificate required" in words or "handshake failure" in words or "bad certificate" in words:
        return _WANTS_CLIENT_CERTIFICATE
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return "the receiver hangs up during the TLS handshake: is it meant to speak TLS?"
    return "check OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY"


def _ask(found: Finding) -> Finding:
    """An empty export request: a receiver accepts it, and says with what it does not agree."""
    from . import wire
    from .delivery import sender
    from .settings import SIGNALS

    endpoint = found.endpoint
    journal = next(journal for journal, signal in SIGNALS.items() if signal == endpoint.signal)
    try:
        asked = sender(endpoint)
    except (OSError, ValueError) as error:
        return found.fails(f"the settings do not work: {innermost(error)}", "check the certificate and key files")
    began = time.monotonic()
    try:
        outcome = asked.send(wire.REQUESTS[journal](), _SECONDS)
    finally:
        asked.close()
    if outcome.kind is Kind.ACCEPTED:
        found.good = True
        found.steps.append(f"accepts {endpoint.signal}, in {(time.monotonic() - began) * 1000:.0f} ms")
        return found
    return found.fails(outcome.reason, _advice(endpoint, outcome))


def _advice(endpoint: Endpoint, outcome: Outcome) -> str:
    reason = outcome.reason.lower()
    if reason.startswith(("401", "unauthenticated")):
        given = "authorization" in endpoint.headers
        said = "the credentials are not the right ones" if given else "credentials are wanted"
        return f"{said}: OTEL_EXPORTER_OTLP_HEADERS=Authorization=Bearer%20TOKEN"
    if reason.startswith(("403", "permission_denied")):
        return "the credentials are known, but not allowed to write here"
    if "http request to an https server" in reason:
        return f"that port speaks TLS: use {endpoint.server.replace('http://', 'https://')}"
    if reason.startswith(("404", "405", "unimplemented")):
        if endpoint.signal != "traces":
            return (
                f"this receiver takes no {endpoint.signal} (Jaeger takes traces only): send to a collector, "
                f"or set OTEL_{endpoint.signal.upper()}_EXPORTER=none"
            )
        if endpoint.protocol == "grpc":
            return "a gRPC server, but no OTLP receiver: check the port"
        return (
            "no OTLP receiver at this path: OTEL_EXPORTER_OTLP_ENDPOINT is a base URL (/v1/traces is added), "
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT a whole one"
        )
    if endpoint.secure and outcome.unreachable and not endpoint.client_certificate:
        # With TLS 1.3 a client learns only after its handshake that its certificate is missed.
        return _WANTS_CLIENT_CERTIFICATE
    if "redirected" in reason:
        return "use the address that it redirects to"
    if "web page" in reason:
        return "that is a web server: correct the port (4318 for OTLP over HTTP)"
    if endpoint.protocol != "grpc" and _speaks_http2(endpoint):
        return "a gRPC port: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use the port for HTTP (by default 4318)"
    if endpoint.protocol == "grpc" and _speaks_http1(endpoint):
        return "no gRPC port: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or use the port for gRPC (by default 4317)"
    if outcome.kind is Kind.LATER and not outcome.unreachable:
        return "the receiver is there, but does not accept anything now: look at its log"
    return "look at the receiver's log"


def _speaks_http2(endpoint: Endpoint) -> bool:
    answer = _say(endpoint, _HTTP2_PREFACE, alpn=["h2"])
    return len(answer) >= 9 and answer[3] == _HTTP2_SETTINGS


def _speaks_http1(endpoint: Endpoint) -> bool:
    question = f"GET / HTTP/1.1\r\nHost: {endpoint.address}\r\nConnection: close\r\n\r\n"
    return _say(endpoint, question.encode(), alpn=["http/1.1"]).startswith(b"HTTP/1.")


def _say(endpoint: Endpoint, words: bytes, alpn: list[str]) -> bytes:
    host, _, port = endpoint.address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS) as connection:
            if not endpoint.secure:
                connection.sendall(words)
                return connection.recv(64)
            context = ssl.create_default_context(cafile=endpoint.certificate)
            context.set_alpn_protocols(alpn)
            with context.wrap_socket(connection, server_hostname=host) as secured:
                secured.sendall(words)
                return secured.recv(64)
    except (OSError, ValueError):
        return b""
