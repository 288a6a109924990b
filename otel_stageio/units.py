"""Quantities as people say them."""

from __future__ import annotations

import math

#: Seconds, and the share of the work, before which nothing is said of how long it will take.
_TOO_EARLY, _TOO_LITTLE = 2.0, 0.05


def size(number: int | None) -> str:
    """``512 B``, ``1.4 KiB``, ``38.0 GiB``."""
    if number is None:
        return ""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1023.95 or unit == "TiB":
            return f"{number} B" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1024
    return ""


def duration(seconds: float | None) -> str:
    """``85 ms``, ``4.2 s``, ``3 min 20 s``, ``1 h 04 min``, ``2 d 03 h``; nothing for what is not known."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0005 or not seconds else "<1 ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def amount(done: float, total: float | None, unit: str = "") -> str:
    """``12 of 41 chunks``, ``1,204 lines``."""
    what = f" {unit}" if unit else ""
    return f"{_number(done)} of {_number(total)}{what}" if total else f"{_number(done)}{what}"


def share(done: float, total: float | None) -> float | None:
    """How much of the whole that is, from 0 to 1; None where there is no whole."""
    if not total or not total > 0 or not math.isfinite(done):
        return None
    return min(max(done / total, 0.0), 1.0)


def percent(part: float) -> str:
    """``29 %``; 100 only when it is all."""
    return f"{math.floor(100 * part)} %"


def seconds_left(done: float, total: float | None, seconds: float | None) -> float | None:
    """How much longer it takes if it goes on as it did. None where that would be a guess from next to nothing."""
    if not total or seconds is None or seconds < _TOO_EARLY or not _TOO_LITTLE * total <= done < total:
        return None
    return seconds * (total - done) / done


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
