"""A journal line stays under 1 MiB, and a span that others filled gets the same capture as everything else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .. import semconv as sc
from ..capture.redaction import MASK
from ..otlp import decode
from ..otlp.encode import any_value, attributes, quote

if TYPE_CHECKING:
    from ..capture import Capture
    from ..events import Event

#: Characters of one encoded record. Each is four bytes at most in UTF-8, and a batch of log lines may stand before it.
LARGEST_RECORD = 220_000
_SHORT = 1_000
#: Room that a value is cut down to before values begin to be left out.
_LEAST = 200
_OVERHEAD = 40  # characters of JSON around a key and its value
#: Attributes that others fill: they give way to what the fold reads.
_THEIRS = (sc.CONFIG_PREFIX, sc.RESOURCE_PREFIX)
_OURS = (sc.EVENT_PREFIX, "cicd.", "process.", "file.")


def shrink(event: Event) -> None:
    """Cut the largest values of an event until it fits in a line. What was cut says how large it was."""
    event.name = _cut(event.name, _SHORT)
    if event.body is not None:
        event.body = _cut(event.body, LARGEST_RECORD // 8)
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for key, item in event.attributes.items():
        (ours if key.startswith(_OURS) and not key.startswith(_THEIRS) else theirs)[key] = item
    kept = _fit_mapping(ours, LARGEST_RECORD // 2)
    kept.update(_fit_mapping(theirs, LARGEST_RECORD * 3 // 4 - len(attributes(kept))))
    kept[sc.SANITISED] = kept.get(sc.SANITISED, 0) + 1
    event.attributes = kept


def _fit(value: Any, room: int) -> Any:
    """``value`` cut until its JSON takes about ``room`` characters. A dict stays a dict: the fold relies on that."""
    if isinstance(value, str):
        return _cut(value, room)
    if isinstance(value, bytes):
        return f"[cut: {len(value)} bytes in all]"
    if isinstance(value, dict):
        return _fit_mapping(value, room)
    if isinstance(value, list):
        kept, dropped = _fit_pairs(enumerate(value), room)
        return [item for _, item in kept] + ([f"[cut: {len(value)} items in all]"] if dropped else [])
    return value


def _fit_mapping(values: dict[Any, Any], room: int) -> dict[Any, Any]:
    kept, dropped = _fit_pairs(values.items(), room)
    return {**dict(kept), **({"…": f"[cut: {len(values)} items in all]"} if dropped else {})}


def _fit_pairs(pairs: Iterable[tuple[Any, Any]], room: int) -> tuple[list[tuple[Any, Any]], int]:
    """The pairs that fit, the small ones whole and the large ones cut to the same size; and how many do not fit."""
    sized = [(key, item, len(any_value(item)) + len(str(key)) + _OVERHEAD) for key, item in pairs]
    share = _share([size for _, _, size in sized], room)
    kept: list[tuple[Any, Any]] = []
    for key, item, size in sized:
        allowed = max(min(size, share), _OVERHEAD)
        if allowed > room:
            break
        if size > share:
            name = _cut(key, _LEAST) if isinstance(key, str) else key
            key, item = name, _fit(item, share - len(str(name)) - _OVERHEAD)
        room -= allowed
        kept.append((key, item))
    return kept, len(sized) - len(kept)


def _share(sizes: list[int], room: int) -> int:
    """The size that everything larger has to be cut to, so that all together take no more than ``room``."""
    left, number = room, len(sizes)
    for position, size in enumerate(sorted(sizes)):
        share = left // (number - position)
        if size > share:
            return max(share, _LEAST)
        left -= size
    return room


def _cut(text: str, room: int) -> str:
    if len(quote(text)) <= room:
        return text
    note = f"… [cut: {len(text)} characters in all]"
    # Quotes, backslashes and line ends take two characters in JSON.
    length = max(room - len(note) - 2, 0)
    return text[: length if len(quote(text[:length])) <= length + 2 else length // 2] + note


def needs_second_look(encoded: str, capture: Capture) -> bool:
    """Whether an encoded span may hold a credential, a path of this machine, or control characters."""
    return (
        len(encoded) > LARGEST_RECORD
        or "\\u" in encoded
        or "bytesValue" in encoded
        or not encoded.isprintable()
        or capture.paths.mentions(encoded)
        or capture.redactor.suspicious(encoded.replace('{"key":', ""))
    )


def second_look(encoded: str, capture: Capture) -> str:
    """Redact, clean and shorten an encoded span, whoever set its attributes."""
    span = json.loads(encoded)
    status = span.get("status", {})
    if "message" in status:
        status["message"] = _seen(status["message"], capture)
    parts = [span, *span.get("events", ()), *span.get("links", ())]
    for part in parts:
        if "name" in part:
            part["name"] = _seen(part["name"], capture)
        part["attributes"] = _seen(decode.mapping(part.get("attributes", [])), capture)
    text = _encode(span, parts)
    if len(text) > LARGEST_RECORD:
        _fit_span(span)
        text = _encode(span, [span, *span.get("events", ()), *span.get("links", ())])
    return text


def _seen(value: Any, capture: Capture) -> Any:
    if isinstance(value, str):
        return capture.paths.text(capture.text(value))
    if isinstance(value, list):
        return [_seen(item, capture) for item in value]
    if isinstance(value, dict):
        return {_seen(key, capture): _seen_under(key, item, capture) for key, item in value.items()}
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
        seen = capture.redactor.text(text)
        return value if seen == text else seen
    return value


def _seen_under(key: str, item: Any, capture: Capture) -> Any:
    if item == MASK or not capture.hides(key, item):
        return _seen(item, capture)
    capture.redactor.count += 1
    return MASK


def _encode(span: dict[str, Any], parts: list[dict[str, Any]]) -> str:
    """The span as JSON again, with the attributes of its parts in OTLP's form. The parts keep theirs as mappings."""
    mappings = [part["attributes"] for part in parts]
    for part, mapping in zip(parts, mappings, strict=True):
        part["attributes"] = json.loads(f"[{attributes(mapping)}]")
    text = json.dumps(span, ensure_ascii=False, separators=(",", ":"))
    for part, mapping in zip(parts, mappings, strict=True):
        part["attributes"] = mapping
    return text


def _fit_span(span: dict[str, Any]) -> None:
    """Half of the room is for attributes, the rest for events and links; what has to go is counted, as the SDK does."""
    span["name"] = _cut(span["name"], _SHORT)
    if "status" in span and "message" in span["status"]:
        span["status"]["message"] = _cut(span["status"]["message"], 10 * _SHORT)
    # The last attributes are the ones to keep: a stage's identity is set again when it ends.
    kept, dropped = _fit_pairs(reversed(list(span["attributes"].items())), LARGEST_RECORD // 2)
    span["attributes"] = dict(reversed(kept))
    _count(span, "droppedAttributesCount", dropped)
    for field, counter, room in (
        ("events", "droppedEventsCount", LARGEST_RECORD // 4),
        ("links", "droppedLinksCount", LARGEST_RECORD // 8),
    ):
        if field in span:
            parts = _first_and_last(span[field], room)
            _count(span, counter, len(span[field]) - len(parts))
            span[field] = parts
    for part in (span, *span.get("links", ())):
        if len(part.get("traceState", "")) > _SHORT:  # no part of it would be valid
            del part["traceState"]


def _first_and_last(parts: list[dict[str, Any]], room: int) -> list[dict[str, Any]]:
    """Events or links, shortened; of too many the first and the last, which say most."""
    sizes = [_part_size(part) for part in parts]
    most = max(int(room * len(parts) / sum(min(size, _SHORT) for size in sizes)), 2)
    if len(parts) > most:
        parts = parts[: most // 2] + parts[len(parts) - (most - most // 2) :]
    share = _share([_part_size(part) for part in parts], room)
    for part in parts:
        if _part_size(part) > share:
            if "name" in part:
                part["name"] = _cut(part["name"], _LEAST)
            part["attributes"] = _fit_mapping(part["attributes"], share - 2 * _LEAST)
    return parts


def _part_size(part: dict[str, Any]) -> int:
    return len(attributes(part["attributes"])) + len(part.get("name", "")) + _LEAST


def _count(span: dict[str, Any], counter: str, dropped: int) -> None:
    if dropped:
        span[counter] = span.get(counter, 0) + dropped
