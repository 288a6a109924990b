"""From a trace id to a trace viewer."""

from __future__ import annotations

import json
import os
from urllib.parse import quote, urlsplit

from ..semconv import ENV_GRAFANA_URL, ENV_JAEGER_URL


def trace_links(trace_id: str) -> list[tuple[str, str]]:
    """(name of the viewer, address), for those whose base address the environment gives."""
    if len(trace_id) != 32 or not trace_id.isalnum():
        return []
    found = []
    jaeger, grafana = _base(ENV_JAEGER_URL), _base(ENV_GRAFANA_URL)
    if jaeger:
        found.append(("Jaeger", f"{jaeger}/trace/{trace_id}"))
    if grafana:
        pane = {"a": {"datasource": "jaeger", "queries": [{"refId": "A", "query": trace_id}],
                      "range": {"from": "now-30d", "to": "now"}}}  # fmt: skip
        found.append(("Grafana", f"{grafana}/explore?schemaVersion=1&panes={quote(json.dumps(pane))}"))
    return found


def _base(variable: str) -> str:
    address = os.environ.get(variable, "").strip().rstrip("/")
    return address if urlsplit(address).scheme in ("http", "https") else ""
