"""From the spool to a collector: read what is pending, send it, and move on only when it was accepted.

``settings`` (what the ``OTEL_EXPORTER_OTLP_*`` variables say) -> ``outbox`` (one job's pending lines and how far they
were accepted) -> ``wire`` (lines as official protobuf requests) -> ``http``, ``grpc`` (one request, one outcome) ->
``delivery`` (what to do about the outcome). ``worker`` does that on a daemon thread of a stage's or pipeline's process,
``shipper`` for any number of jobs. Nothing of it is imported where there is no endpoint.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..layout import Job


_ENDPOINTS = tuple(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT" for signal in ("", "TRACES_", "LOGS_", "METRICS_"))


def attend(job: Job, *, owner: bool = False) -> None:
    """Deliver a job from now on, if there is an endpoint and it is this process's to do; see :mod:`.worker`."""
    if any(map(os.environ.get, _ENDPOINTS)):
        from . import worker

        worker.attend(job, owner=owner)


def finish() -> None:
    """At exit: one last round, within ``OTEL_STAGEIO_EXIT_BUDGET`` seconds."""
    if (worker := sys.modules.get(f"{__name__}.worker")) is not None:
        worker.finish()


def after_fork() -> None:
    if (worker := sys.modules.get(f"{__name__}.worker")) is not None:
        worker.after_fork()
