"""That what was recovered arrives: through the real collector into the real Jaeger, every span and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from otel_stageio.delivery.delivery import Delivery
from otel_stageio.delivery.settings import endpoints
from otel_stageio.delivery.shipper import push
from otel_stageio.layout import Job

from . import reader
from .promises import Broken


def arrives(jobs: list[Path], collector: Any, jaeger: Any) -> int:
    """Push jobs, and compare. Returns how many stages are errors in Jaeger.

    Args:
        collector, jaeger: running servers of ``tests/stack.py``.
    """
    from stack import wait_until

    delivery = Delivery(endpoints({}, endpoint=collector.http))
    for job in jobs:
        if push(Job(job), delivery).pending:
            raise Broken(f"{job} is not sent")
    delivery.close()
    errors = 0
    for job in jobs:
        traces: dict[str, dict[str, dict[str, Any]]] = {}
        for span in reader.read(job).spans:
            traces.setdefault(span["traceId"], {})[span["spanId"]] = span
        for trace, expected in traces.items():
            found = wait_until(
                lambda trace=trace, expected=expected: (
                    spans if len(spans := jaeger.spans(trace)) >= len(expected) else None
                ),
                what=f"the arrival of {trace}",
            )
            if {span["spanId"] for span in found} != expected.keys():
                raise Broken(f"trace {trace} of {job} is another one in Jaeger")
            errors += sum(
                span.get("status", {}).get("code") == 2 and _is_stage(expected[span["spanId"]]) for span in found
            )
    return errors


def _is_stage(span: dict[str, Any]) -> bool:
    return any(pair["key"] == "stageio.stage.attempt" for pair in span["attributes"])
