"""``otel-stageio doctor``: does what is sent arrive, and if not, why."""

from __future__ import annotations

from rich.text import Text

from ..delivery.diagnosis import Finding, diagnose
from ..delivery.settings import Endpoint
from .terminal import Terminal, document
from .text import one_line


def examine(where: dict[str, Endpoint], *, json: bool) -> bool:
    """Ask every endpoint, and say what was found. True if all is well."""
    findings = [diagnose(endpoint) for endpoint in where.values()]
    if json:
        document({"endpoints": [_document(finding) for finding in findings]})
    else:
        _show(findings)
    return all(finding.good for finding in findings)


def _document(finding: Finding) -> dict[str, object]:
    endpoint = finding.endpoint
    return {
        "signal": endpoint.signal,
        "endpoint": endpoint.place,
        "protocol": endpoint.protocol,
        "good": finding.good,
        "steps": finding.steps,
        "advice": finding.advice,
    }


def _show(findings: list[Finding]) -> None:
    terminal = Terminal()
    for finding in findings:
        endpoint = finding.endpoint
        terminal.line(
            Text.assemble(
                terminal.glyph("success" if finding.good else "failed"),
                " ",
                (f"{endpoint.signal:<8}", "bold"),
                one_line(endpoint.place),
                (f"  {one_line(endpoint.protocol)}", "dim"),
            )
        )
        for number, step in enumerate(finding.steps, 1):
            failed = not finding.good and number == len(finding.steps)
            terminal.line("    ", (one_line(step), "red" if failed else "dim"))
        if finding.advice:
            terminal.line("    ", (f"→ {finding.advice}" if terminal.unicode else f"-> {finding.advice}", "bold"))
