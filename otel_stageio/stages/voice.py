"""What a stage can say, as events: capture happens here, recording in :mod:`otel_stageio.stages.recorder`."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from typing import Any

from .. import semconv as sc
from ..capture import Capture
from ..events import ERROR, INFO, WARN, config_attributes
from ..resume.digest import Digest, Digests
from ..runtime import never_raises, runtime
from .artifacts import Artifacts

PROGRESS_INTERVAL_NS = 1_000_000_000
_MOST_KEYS = 200
_RESERVED = (sc.LOCAL_PREFIX, sc.LOST_PREFIX, sc.REDACTIONS, sc.SANITISED)


class Voice:
    """Turns calls into events for ``emit``, which the subclass provides.

    Args:
        digested: whether what is tracked is read for its digest.
    """

    def __init__(self, capture: Capture, *, digested: bool = False) -> None:
        self.capture = capture
        self.artifacts = Artifacts(capture, Digests(capture.job, None if digested else "off"))
        self._progress_ns = 0
        #: Kept so that the same exception is not recorded twice: added by the stage, then raised out of it.
        self._seen: BaseException | None = None

    def emit(
        self, name: str, attributes: dict[str, Any], body: str | None = None, severity: int = INFO, **_: Any
    ) -> None:
        raise NotImplementedError

    def traceback(self, text: str) -> None:
        """Show a traceback in the log files; a record without files has nowhere to."""

    def track(
        self,
        role: str,
        path: str | os.PathLike[str],
        kind: Any,
        metadata: Mapping[str, Any],
        intermediate: Mapping[str, Any] | None = None,
        digest: Digest | None = None,
    ) -> None:
        """``role`` is ``input``, ``output`` or ``intermediate``; ``digest`` is to be recorded as it is given.

        Raises:
            TypeError: if ``path`` is not a path.
        """
        given = os.fspath(path)
        given = given if isinstance(given, str) else os.fsdecode(given)
        self._track(role, given, kind, metadata, intermediate, digest)

    @never_raises()
    def _track(
        self,
        role: str,
        path: str,
        kind: Any,
        metadata: Mapping[str, Any],
        intermediate: Mapping[str, Any] | None,
        digest: Digest | None,
    ) -> None:
        attributes = self.artifacts.track(role, path, kind, metadata, digest)
        attributes.update(self.capture.mapping(intermediate or {}))
        self.emit(sc.EVENT_ARTIFACT, attributes, f"{role}: {attributes[sc.FILE_PATH]}")

    @never_raises()
    def examine(self, seconds: float | None = None) -> None:
        """Compute the digests of what was tracked; see :meth:`otel_stageio.stages.artifacts.Artifacts.examine`."""
        self.artifacts.examine(seconds)

    @never_raises()
    def config(self, values: Mapping[str, Any]) -> None:
        plain = self.capture.mapping(values)
        keys = sorted(plain)[:_MOST_KEYS]
        self.emit(sc.EVENT_CONFIG, {**config_attributes(plain), sc.CONFIG_KEYS: keys, sc.LOCAL_CONFIG: plain})

    @never_raises()
    def resources(self, values: Mapping[str, Any]) -> None:
        plain = self.capture.mapping(values)
        numbers = {
            sc.RESOURCE_PREFIX + key: value for key, value in plain.items() if isinstance(value, (bool, int, float))
        }
        self.emit(sc.EVENT_RESOURCES, {**numbers, sc.LOCAL_RESOURCES: plain})

    @never_raises()
    def warning(self, message: Any) -> None:
        self._say(sc.EVENT_WARNING, message, WARN, {})

    @never_raises()
    def error(self, message: Any, exception: BaseException | None = None) -> None:
        attributes = self._exception_attributes(exception) if isinstance(exception, BaseException) else {}
        self._say(sc.EVENT_ERROR, message, ERROR, attributes)

    @never_raises()
    def exception(self, exception: BaseException) -> None:
        """Record an exception with its traceback and what caused it; ``stage.log`` shows the traceback too."""
        again = exception is self._seen
        attributes = self._exception_attributes(exception)
        self.traceback(attributes[sc.LOCAL_TRACEBACK])
        if again:
            return
        name, detail = attributes[sc.EXCEPTION_TYPE], attributes[sc.LOCAL_DETAIL]
        self._say(sc.EVENT_EXCEPTION, f"{name}: {detail}" if detail else name, ERROR, attributes)

    @never_raises()
    def user_event(self, name: Any, attributes: Mapping[str, Any]) -> None:
        plain_name = self.capture.string(name) or "event"
        if plain_name.startswith(sc.EVENT_PREFIX):  # the fold trusts these names
            plain_name = f"user.{plain_name}"
        self.emit(plain_name, self.user_attributes(attributes))

    def user_attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """What a caller gave, captured, without the names that the fold counts by."""
        plain = self.capture.attributes(attributes)
        return {key: value for key, value in plain.items() if not key.startswith(_RESERVED)}

    @never_raises()
    def progress(self, done: float, total: float | None, unit: str) -> None:
        """At most one event a second, but always the first and the one that reaches the total."""
        now = runtime.clock.monotonic_ns()
        done, total = _number(done), _number(total)
        if self._progress_ns and now - self._progress_ns < PROGRESS_INTERVAL_NS and done != total:
            return
        self._progress_ns = now
        values = {sc.PROGRESS_DONE: done, sc.PROGRESS_TOTAL: total, sc.PROGRESS_UNIT: self.capture.string(unit)}
        given = {key: value for key, value in values.items() if value is not None and value != ""}
        self.emit(sc.EVENT_PROGRESS, self.capture.attributes(given))

    def _say(self, name: str, message: Any, severity: int, attributes: dict[str, Any]) -> None:
        local = self.capture.string(message)
        body = self.capture.paths.text(local)
        if body != local:
            attributes[sc.LOCAL_BODY] = local
        self.emit(name, attributes, body, severity)

    def _exception_attributes(self, exception: BaseException) -> dict[str, Any]:
        self._seen = exception
        capture = self.capture
        detail = capture.string(text_of(exception))
        frames = traceback.format_exception(type(exception), exception, exception.__traceback__)
        stack = capture.string("".join(frames).rstrip())
        attributes = {
            sc.EXCEPTION_TYPE: type_name(exception),
            sc.EXCEPTION_MESSAGE: capture.paths.text(detail),
            sc.EXCEPTION_STACKTRACE: capture.paths.text(stack),
            sc.LOCAL_DETAIL: detail,
            sc.LOCAL_TRACEBACK: stack,
        }
        cause = exception.__cause__ or (None if exception.__suppress_context__ else exception.__context__)
        if cause is not None:
            attributes[sc.CAUSE] = capture.paths.text(capture.string(f"{type_name(cause)}: {text_of(cause)}"))
        return attributes


def _number(value: Any) -> Any:
    """A number that JSON and OTLP hold, numpy's too; None for anything else."""
    try:
        number = value if type(value) in (int, float) else float(value)
        return number if -(2.0**63) <= number < 2.0**63 else None
    except Exception:
        return None


def type_name(exception: BaseException) -> str:
    kind = type(exception)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def text_of(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception:
        return "[unprintable]"
