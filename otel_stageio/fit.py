"""A journal line stays under 1 MiB, and a span that others filled gets the same capture as everything else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .otlp.encode import any_value

if TYPE_CHECKING:
    from .capture import Capture
    from .events import Event

#: Characters of one encoded record. Non-ASCII text takes up to three bytes each in UTF-8, and the envelope is small.
LARGEST_RECORD = 300_000
LONGEST_LIST = 200
_SMALL = 2_000


def shrink(event: Event) -> None:
    """Cut the largest values of an event until it fits in a line. What was cut says how large it was."""
    if event.body is not None and len(event.body) > LARGEST_RECORD // 8:
        event.body = _cut_text(event.body, LARGEST_RECORD // 8)
    event.attributes = _shrink(event.attributes, LARGEST_RECORD - LARGEST_RECORD // 4)


def _shrink(values: dict[str, Any], budget: int) -> dict[str, Any]:
    sizes = {key: len(any_value(item)) + len(key) for key, item in values.items()}
    total = sum(sizes.values())
    result = dict(values)
    for key in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if total <= budget or sizes[key] < _SMALL:
            break
        item = result[key]
        share = max(_SMALL, sizes[key] - (total - budget))
        if isinstance(item, dict) and share > _SMALL:
            result[key] = _shrink(item, share)
        elif isinstance(item, str):
            result[key] = _cut_text(item, share // 8)
        else:
            result[key] = f"[cut: {sizes[key]} characters of JSON]"
        total += len(any_value(result[key])) + len(key) - sizes[key]
    if total > budget:  # a multitude of small values
        kept: dict[str, Any] = {}
        room = budget
        for key, item in result.items():
            room -= len(any_value(item)) + len(key) + 40
            if room < 0:
                kept["…"] = f"[cut: {len(result)} items in all]"
                break
            kept[key] = item
        return kept
    return result


def _cut_text(text: str, length: int) -> str:
    return f"{text[:length]}… [cut: {len(text)} characters in all]"


def needs_second_look(encoded: str, capture: Capture) -> bool:
    """Whether an encoded span may hold a credential, a path of this machine, or control characters."""
    return (
        len(encoded) > LARGEST_RECORD
        or "\\u" in encoded
        or not encoded.isprintable()
        or capture.paths.text(encoded) != encoded
        or capture.redactor.suspicious(encoded)
    )


def second_look(encoded: str, capture: Capture) -> str:
    """Redact, clean and shorten an encoded span, whoever set its attributes."""
    span = json.loads(encoded)
    _look(span, capture)
    text = json.dumps(span, ensure_ascii=False, separators=(",", ":"))
    if len(text) > LARGEST_RECORD:
        _shorten(span, LARGEST_RECORD // 8)
        text = json.dumps(span, ensure_ascii=False, separators=(",", ":"))
        limit = 100
        while len(text) > LARGEST_RECORD and limit:  # thousands of attributes: keep the first, say how many went
            _trim(span, limit)
            limit //= 2
            text = json.dumps(span, ensure_ascii=False, separators=(",", ":"))
    return text


def _look(node: Any, capture: Capture) -> None:
    if isinstance(node, list):
        for item in node:
            _look(item, capture)
        return
    if not isinstance(node, dict):
        return
    key = node.get("key")
    if isinstance(key, str) and "value" in node and "stringValue" in node["value"] and capture.redactor.key(key):
        node["value"] = {"stringValue": "[redacted]"}
        capture.redactor.count += 1
    for name, item in node.items():
        if isinstance(item, str) and name in ("stringValue", "name", "message", "key"):
            node[name] = capture.paths.text(capture.text(item))
        else:
            _look(item, capture)


def _shorten(node: Any, length: int) -> None:
    if isinstance(node, list):
        for item in node:
            _shorten(item, length)
    elif isinstance(node, dict):
        for name, item in node.items():
            if isinstance(item, str) and len(item) > length:
                node[name] = _cut_text(item, length)
            else:
                _shorten(item, length)


def _trim(span: dict[str, Any], limit: int) -> None:
    for field, dropped in (
        ("attributes", "droppedAttributesCount"),
        ("events", "droppedEventsCount"),
        ("links", "droppedLinksCount"),
    ):
        items = span.get(field, [])
        if len(items) > limit:
            span[dropped] = span.get(dropped, 0) + len(items) - limit
            span[field] = items[-limit:] if field == "attributes" else items[:limit]
