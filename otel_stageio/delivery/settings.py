"""Where the records go: the standard ``OTEL_EXPORTER_OTLP_*`` variables, read as the stock exporters read them.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/ ; two things are Python's own and kept, so that one
environment means the same to both: the timeout is in seconds, and headers that are not URL-encoded are taken too.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

#: Name of the signal in a journal's file name -> in the variables and in the path of a URL.
SIGNALS = {"spans": "traces", "logs": "logs", "metrics": "metrics"}
PROTOCOLS = ("http/protobuf", "grpc")
DEFAULT_TIMEOUT = 10.0

_PREFIX = "OTEL_EXPORTER_OTLP_"


@dataclass(frozen=True)
class Endpoint:
    """Where one signal goes, and how.

    Attributes:
        signal: ``traces``, ``logs`` or ``metrics``.
        url: with its path for ``http/protobuf``; for ``grpc`` as it was given.
        headers: names in lower case.
        timeout: seconds for one request.
        compression: ``none``, ``gzip`` or ``deflate``.
        certificate, client_certificate, client_key: paths of PEM files, or None.
        secure: whether TLS is spoken.
        problem: what is wrong with the settings, in words; then nothing can be sent.
    """

    signal: str
    url: str
    protocol: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = DEFAULT_TIMEOUT
    compression: str = "none"
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    secure: bool = False
    problem: str | None = None

    @property
    def address(self) -> str:
        """``host:port``: what several signals have in common when nobody is there."""
        parts = _split(self.url)
        try:
            port = parts.port
        except ValueError:
            port = None
        default = 4317 if self.protocol == "grpc" else 443 if parts.scheme == "https" else 80
        host = parts.hostname or ""
        return f"[{host}]:{port or default}" if ":" in host else f"{host}:{port or default}"

    @property
    def place(self) -> str:
        """The URL as it may be shown."""
        return shown(self.url)

    @property
    def server(self) -> str:
        """:attr:`place` without its path, e.g. ``http://localhost:4318``."""
        scheme, _, rest = self.place.rpartition("://")
        return f"{scheme or 'http'}://{rest.partition('/')[0]}"

    @property
    def path(self) -> str:
        """What the signals of one server differ in, e.g. ``/v1/traces``; empty for gRPC."""
        return "" if self.protocol == "grpc" else _split(self.place).path


def shown(url: str) -> str:
    """A URL without what may be a credential: user and password, even unescaped ones, and the query.

    Example:
        >>> shown("http://anna:pass/w?rd@collector:4318/v1/logs?api_key=s3cret")
        'http://collector:4318/v1/logs'
    """
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url)
    start = scheme[0] if scheme else ""
    return start + re.split(r"[?#]", url[len(start) :].rpartition("@")[2], maxsplit=1)[0]


def _split(url: str) -> SplitResult:
    """Its parts; none, for what is no URL."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def endpoints(
    environment: Mapping[str, str] | None = None,
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Endpoint]:
    """Journal signal (``spans``, ``logs``, ``metrics``) -> its endpoint. A signal that has none is not there.

    Args:
        environment: by default that of the process.
        endpoint: base URL for all signals, instead of what the variables say; but for those whose exporter is ``none``.
        protocol, headers: likewise; headers are added to those of the variables.

    Example:
        >>> endpoints({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})["spans"].url
        'http://collector:4318/v1/traces'
        >>> endpoints({})
        {}
    """
    environment = os.environ if environment is None else environment
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return {}
    found = {}
    for journal, signal in SIGNALS.items():
        chosen = _endpoint(environment, signal, endpoint, protocol, headers or {})
        if chosen is not None:
            found[journal] = chosen
    return found


def _endpoint(
    environment: Mapping[str, str], signal: str, base: str | None, protocol: str | None, headers: Mapping[str, str]
) -> Endpoint | None:
    def value(name: str) -> str | None:
        """The signal's own variable, else the one for all; an empty one counts as not set."""
        own = environment.get(f"{_PREFIX}{signal.upper()}_{name}", "").strip()
        return own or environment.get(f"{_PREFIX}{name}", "").strip() or None

    named = environment.get(f"OTEL_{signal.upper()}_EXPORTER", "").split(",")
    exporters = [name.strip() for name in named if name.strip()]
    if exporters == ["none"]:
        return None
    # A base URL that was given says more than the name of another exporter.
    if base is None and exporters and not any(name.startswith("otlp") for name in exporters):
        return None
    own = environment.get(f"{_PREFIX}{signal.upper()}_ENDPOINT", "").strip() if base is None else ""
    shared = base if base is not None else environment.get(f"{_PREFIX}ENDPOINT", "").strip()
    url = own or shared
    if not url:
        return None
    spoken = (protocol or value("PROTOCOL") or PROTOCOLS[0]).lower()
    if spoken == "grpc":
        url, secure = _grpc_target(url, value("INSECURE"))
    else:
        if not own:
            url = f"{url.rstrip('/')}/v1/{signal}"
        secure = url.lower().startswith("https:")
    certificate, client_certificate, client_key = map(value, ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"))
    compression = (value("COMPRESSION") or "none").lower()
    known, faulty = parse_headers(value("HEADERS") or "")
    found = Endpoint(
        signal=signal,
        url=url,
        protocol=spoken,
        headers={**known, **{name.lower(): text for name, text in headers.items()}},
        timeout=_seconds(value("TIMEOUT")),
        compression=compression if compression in ("gzip", "deflate") else "none",
        certificate=certificate,
        client_certificate=client_certificate,
        client_key=client_key,
        secure=secure,
    )
    problem = _problem(found, faulty)
    return found if problem is None else Endpoint(signal, url, spoken, problem=problem)


def _grpc_target(url: str, insecure: str | None) -> tuple[str, bool]:
    """The scheme decides on TLS; without one ``OTEL_EXPORTER_OTLP_INSECURE`` does, and TLS is the default."""
    if "://" not in url:
        plain = (insecure or "").lower() == "true"
        return f"{'http' if plain else 'https'}://{url}", not plain
    return url, url.lower().startswith("https:")


def _problem(endpoint: Endpoint, faulty_headers: list[str]) -> str | None:
    if endpoint.protocol not in PROTOCOLS:
        return f"the protocol {endpoint.protocol!r} is not supported; use {' or '.join(PROTOCOLS)}"
    return _problem_of_url(endpoint) or _problem_of_headers(endpoint, faulty_headers) or _problem_of_files(endpoint)


def _problem_of_url(endpoint: Endpoint) -> str | None:
    what = f"the endpoint {endpoint.place!r}"
    parts = _split(endpoint.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f\x7f]", endpoint.url):
        return f"{what} is no URL; give one like http://localhost:4318"
    try:
        _ = parts.port
    except ValueError:
        return f"{what} has no valid port (in a password, '/', '?', '#' and '@' have to be URL-encoded)"
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        return f"{what} has no valid host name"
    return None


def _problem_of_headers(endpoint: Endpoint, faulty: list[str]) -> str | None:
    """Told by position or well-known name: the rest of a value that has a comma in it looks like a name."""
    if faulty:
        return f"not of the form name=value: header {', '.join(faulty)} (in a value, ',' has to be URL-encoded)"
    name_form, value_form = _GRPC_HEADER if endpoint.protocol == "grpc" else _HTTP_HEADER
    for position, (name, value) in enumerate(endpoint.headers.items(), 1):
        if not name_form.fullmatch(name):
            return f"header {_told(position, name)} has a name that cannot be sent"
        if not value_form.fullmatch(value):
            return f"header {_told(position, name)} has a value that cannot be sent"
    return None


def _problem_of_files(endpoint: Endpoint) -> str | None:
    for what in ("certificate", "client_certificate", "client_key"):
        path = getattr(endpoint, what)
        if path is not None and not os.access(path, os.R_OK):
            return f"the {what.replace('_', ' ')} file {path} cannot be read"
    return None


#: (name, value): RFC 9110 for HTTP, in Latin-1; gRPC takes less, and bytes where a name ends in -bin.
_HTTP_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+"), re.compile(r"(?!\s)[\t -~\xa0-\xff]*")
_GRPC_HEADER = re.compile(r"(?!grpc-)(?!.*-bin$)[0-9a-z_.-]+"), re.compile(r"[ -~]*")
_KNOWN_HEADERS = ("authorization", "api-key", "x-api-key", "x-scope-orgid")


#: One of the variable: what is URL-encoded has no space in its value, what has one is taken as it stands.
_HEADER = re.compile(
    r"([\x21\x23-\x27\x2a\x2b\x2d\x2e0-9A-Z\x5e-\x7a\x7c\x7e]+)"
    r"[ \t]*=[ \t]*([\x20\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*)"
)


def _told(position: int, name: str) -> str:
    return name if name.lower() in _KNOWN_HEADERS else f"number {position}"


def parse_headers(text: str) -> tuple[dict[str, str], list[str]]:
    """``name=value,name=value``, URL-encoded or not -> headers, and which of them are none.

    As the stock exporters' parser does it, but for its warning, which has the value in it.

    Example:
        >>> parse_headers("Authorization=Bearer%20abc,nonsense")
        ({'authorization': 'Bearer abc'}, ['number 2'])
    """
    known: dict[str, str] = {}
    faulty = []
    for position, part in enumerate(filter(None, (part.strip() for part in text.split(","))), 1):
        if parsed := _HEADER.fullmatch(part):
            name, value = parsed.groups()
            encoded = " " not in value
            known[(unquote(name) if encoded else name).strip().lower()] = (unquote(value) if encoded else value).strip()
        else:
            faulty.append(_told(position, re.split(r"[=:\s]", part)[0]))
    return known, faulty


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text or "")
    except ValueError:
        return DEFAULT_TIMEOUT
    return seconds if math.isfinite(seconds) and seconds > 0 else DEFAULT_TIMEOUT
