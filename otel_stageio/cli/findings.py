"""What a check has found."""

from __future__ import annotations

import dataclasses
from typing import Any

#: Of one file, as many findings of a level are kept; the rest is counted.
_MOST = 20


@dataclasses.dataclass(frozen=True)
class Finding:
    """Attributes: ``level`` is ``error`` or ``warning``; ``line`` is 0 where it is about the whole file."""

    level: str
    file: str
    line: int
    message: str


class Findings:
    """Attributes: ``checked`` counts what was looked at; ``left_out`` findings beyond the first of a file."""

    def __init__(self) -> None:
        self.found: list[Finding] = []
        self.checked: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        self._counts: dict[tuple[str, str], int] = {}

    @property
    def valid(self) -> bool:
        return not self.count("error")

    def count(self, level: str) -> int:
        return sum(number for (kind, _), number in self._counts.items() if kind == level)

    def error(self, file: str, message: str, line: int = 0) -> None:
        self._add("error", file, line, message)

    def warning(self, file: str, message: str, line: int = 0) -> None:
        self._add("warning", file, line, message)

    def looked_at(self, what: str, number: int = 1) -> None:
        self.checked[what] = self.checked.get(what, 0) + number

    def _add(self, level: str, file: str, line: int, message: str) -> None:
        number = self._counts.get((level, file), 0)
        self._counts[level, file] = number + 1
        if number < _MOST:
            self.found.append(Finding(level, file, line, message))
        else:
            self.left_out[file] = self.left_out.get(file, 0) + 1

    def document(self, job: str) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "job": job,
            "valid": self.valid,
            "checked": self.checked,
            "errors": [_plain(finding) for finding in self.found if finding.level == "error"],
            "warnings": [_plain(finding) for finding in self.found if finding.level == "warning"],
            "left_out": self.left_out,
        }


def _plain(finding: Finding) -> dict[str, Any]:
    return {"file": finding.file, "line": finding.line or None, "message": finding.message}
