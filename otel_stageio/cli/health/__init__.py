"""What ``otel-stageio doctor`` looks at: one module for each part of the world that a stage depends on."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        state: ``ok``; ``warning``, if something is not as one would expect; ``error``, if records suffer from it.
        said: how it is, in a sentence.
        advice: what to do about it; empty where there is nothing to do.
    """

    name: str
    state: str
    said: str
    advice: str = ""
