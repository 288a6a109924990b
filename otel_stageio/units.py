"""Quantities as people say them."""

from __future__ import annotations


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
