"""What stands around the records of a stage in the spool: its resource, and whose records they are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from .. import semconv as sc
from .._version import __version__
from ..capture import Capture
from ..events import Event
from ..layout import Job, StrPath
from ..otlp import decode
from ..otlp.encode import Envelope, scope
from ..otlp.provider import process_resource
from .spool import resource_text

_WHOSE = (sc.PIPELINE_NAME, sc.PIPELINE_RUN_ID, sc.TASK_NAME)


def own_envelope(kind: str, identity: Mapping[str, Any], capture: Capture, pid: int | None = None) -> Envelope:
    """Of the log records, or the metrics, of a stage that runs in this process.

    Args:
        pid: whose log records they are.
    """
    about, schema = _own_resource(capture)
    whose = {key: identity[key] for key in _WHOSE}
    if pid is not None:
        whose[sc.PROCESS_PID] = pid
    return Envelope(kind, about, scope(sc.SCOPE_NAME, __version__, whose), schema, sc.SCHEMA_URL)


def envelope_of(job: Job, stage: str, attempt: int, kind: str, started: Event | None = None) -> Envelope:
    """Of records that are written for a stage: the resource that it had itself, not that of whoever closes it."""
    whose: dict[str, Any] = {}
    if started is not None:
        whose = {key: started.attributes[key] for key in _WHOSE if key in started.attributes}
        whose[sc.PROCESS_PID] = os.getpid()
    about, schema = resource_of(job, job.journal(stage, attempt))
    return Envelope(kind, about, scope(sc.SCOPE_NAME, __version__, whose), schema, sc.SCHEMA_URL)


def resource_of(job: Job, path: StrPath) -> tuple[str, str]:
    """The resource of a journal and its schema; if it does not say, that of this process."""
    for request in decode.Lines(path):
        try:
            first = request["resourceLogs"][0]
            return json.dumps(first["resource"], ensure_ascii=False), str(first.get("schemaUrl", ""))
        except (KeyError, IndexError, TypeError, AttributeError):
            continue
    return _own_resource(Capture(job))


def _own_resource(capture: Capture) -> tuple[str, str]:
    own = process_resource()
    return resource_text(own, capture), own.schema_url
