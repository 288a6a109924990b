"""A job as one HTML file, for whoever was not there: offline, from any state of the job. Needs the extra ``cli``."""

from __future__ import annotations

from .page import render as render

__all__ = ["render"]
