"""What enters the record passes here once: redaction, plain values, path policy. Nothing downstream does it again."""

from __future__ import annotations

from .capture import Capture

__all__ = ["Capture"]
