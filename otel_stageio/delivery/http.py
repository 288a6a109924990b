"""OTLP over HTTP with protobuf bodies: one request, one outcome.

The stock exporter answers success or failure; here a refusal, a wrong address and a busy receiver are different things.
"""

from __future__ import annotations

import email.utils
import gzip
import time
import zlib
from typing import Any

import requests
from google.protobuf.message import DecodeError, Message
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

from .. import semconv as sc
from .._version import __version__
from . import wire
from .outcome import Kind, Outcome, innermost, one_line, unforeseen, wait
from .settings import Endpoint, shown

#: As much of an answer as is read: a Status or a partial success is small, an error page need not be.
_LONGEST_ANSWER = 64 * 1024
_LATER = frozenset({408, 429, 500, 502, 503, 504})


class HttpSender:
    """Keeps one connection. Not for several threads at once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._session = requests.Session()
        self._headers = {
            **endpoint.headers,
            "content-type": "application/x-protobuf",
            "user-agent": f"{sc.SCOPE_NAME}/{__version__} {requests.utils.default_user_agent()}",
        }
        if endpoint.compression != "none":
            self._headers["content-encoding"] = endpoint.compression
        # Passed with each request: REQUESTS_CA_BUNDLE would win over the session's own setting.
        self._verify: bool | str = endpoint.certificate or True
        self._certificate: Any = None
        if endpoint.client_certificate:
            key = endpoint.client_key
            self._certificate = (endpoint.client_certificate, key) if key else endpoint.client_certificate

    def send(self, message: Message, timeout: float | None = None) -> Outcome:
        """Send one request.

        Args:
            timeout: seconds, if fewer than the endpoint's own.
        """
        seconds = min(timeout or self.endpoint.timeout, self.endpoint.timeout)
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # or our own request would be a span to send
        try:
            return self._send(self._compressed(message.SerializeToString()), seconds)
        except requests.exceptions.SSLError as error:
            return Outcome(Kind.MISCONFIGURED, f"TLS: {innermost(error)}", unreachable=True)
        except requests.exceptions.InvalidHeader:  # its text has the value in it, and with it the credential
            return Outcome(Kind.MISCONFIGURED, "a header cannot be sent as it is")
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema):
            return Outcome(Kind.MISCONFIGURED, "the address of the receiver, or of a proxy, is no valid URL")
        except (requests.exceptions.RequestException, OSError) as error:
            return Outcome(Kind.LATER, innermost(error), unreachable=True)
        except Exception as error:
            return unforeseen(error)
        finally:
            detach(token)

    def _send(self, body: bytes, seconds: float) -> Outcome:
        deadline = time.monotonic() + seconds
        with self._session.post(
            self.endpoint.url,
            data=body,
            headers=self._headers,
            timeout=seconds,
            verify=self._verify,
            cert=self._certificate,
            allow_redirects=False,  # a redirected POST becomes a GET
            stream=True,
        ) as answer:
            content = b""
            if answer.status_code != 200 or answer.headers.get("content-length") != "0":
                for byte in answer.iter_content(1):  # more at a time would be waited for, for as long as any comes
                    content += byte
                    if len(content) > _LONGEST_ANSWER:
                        break
                    if time.monotonic() > deadline:
                        raise requests.exceptions.ReadTimeout("the answer did not end in time")
            return self._outcome(answer, content)

    def _outcome(self, answer: requests.Response, content: bytes) -> Outcome:
        code = answer.status_code
        if 200 <= code < 300:
            return self._accepted(answer, content)
        reason = f"{code} {answer.reason or ''}".strip()
        if 300 <= code < 400:
            return Outcome(
                Kind.MISCONFIGURED, f"{reason}: redirected to {shown(answer.headers.get('location', 'nowhere'))}"
            )
        said = _message(answer, content)
        reason = f"{reason}: {said}" if said and said.lower() not in reason.lower() else reason
        if code in _LATER:
            return Outcome(Kind.LATER, reason, retry_after=_retry_after(answer.headers.get("retry-after")))
        if code == 413:
            return Outcome(Kind.TOO_LARGE, reason)
        if code in (400, 422):
            return Outcome(Kind.REFUSED, reason)
        if code >= 500:
            return Outcome(Kind.LATER, reason, retry_after=_retry_after(answer.headers.get("retry-after")))
        return Outcome(Kind.MISCONFIGURED, reason)

    def _accepted(self, answer: requests.Response, content: bytes) -> Outcome:
        """A 200 that is no OTLP answer comes from something else that happens to listen there: nothing was accepted."""
        kind = answer.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind == "text/html":
            return Outcome(Kind.MISCONFIGURED, f"{answer.status_code} with a web page: this is no OTLP receiver")
        rejected, said = 0, ""
        if kind == "application/x-protobuf":
            try:
                rejected, said = wire.partial_success(self.endpoint.signal, content)
            except DecodeError:
                pass  # accepted all the same: that is what the status says
        return Outcome(Kind.ACCEPTED, said, rejected=rejected)

    def _compressed(self, body: bytes) -> bytes:
        if self.endpoint.compression == "gzip":
            return gzip.compress(body, 6)
        if self.endpoint.compression == "deflate":
            return zlib.compress(body)
        return body

    def close(self) -> None:
        self._session.close()


def _message(answer: requests.Response, content: bytes) -> str:
    """What a receiver says about an error: OTLP's Status, or the first line of a text."""
    kind = answer.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/x-protobuf":
        return wire.status_message(content)
    if kind == "text/html":
        return ""
    return one_line(content.decode("utf-8", "replace"))


def _retry_after(text: str | None) -> float | None:
    """Seconds, or a date (RFC 9110, 10.2.3)."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return wait(seconds)
