"""``otel-stageio doctor``: does what is sent arrive, and if not, why."""

from __future__ import annotations

from rich.text import Text

from ..delivery.diagnosis import Finding, diagnose
from ..delivery.settings import Endpoint
from ..reading.text import one_line
from .terminal import Terminal, document


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
    """By server, since most of what can be wrong is wrong for all signals alike."""
    servers: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        servers.setdefault((finding.endpoint.server, finding.endpoint.protocol), []).append(finding)
    terminal = Terminal()
    for (server, protocol), group in servers.items():
        good = all(finding.good for finding in group)
        glyph = terminal.glyph("success" if good else "failed")
        terminal.line(Text.assemble(glyph, " ", (one_line(server), "bold"), (f"  {one_line(protocol)}", "dim")))
        common = _common([finding.steps for finding in group])
        alike = all(len(finding.steps) == common and finding.advice == group[0].advice for finding in group)
        _steps(terminal, group[0].steps[:common], "  ", fails=alike and not good)
        if alike:
            _advise(terminal, group[0].advice, "  ")
            continue
        for finding in group:
            terminal.line(
                Text.assemble(
                    "  ",
                    terminal.glyph("success" if finding.good else "failed"),
                    " ",
                    (f"{finding.endpoint.signal:<8} ", "bold"),
                    one_line(finding.endpoint.path),
                )
            )
            _steps(terminal, finding.steps[common:], "    ", fails=not finding.good)
            _advise(terminal, finding.advice, "    ")


def _common(lists: list[list[str]]) -> int:
    """How many steps at the beginning are the same for all."""
    number = 0
    for steps in zip(*lists, strict=False):
        if len(set(steps)) > 1:
            break
        number += 1
    return number


def _steps(terminal: Terminal, steps: list[str], indent: str, *, fails: bool) -> None:
    for number, step in enumerate(steps, 1):
        terminal.line(indent, (one_line(step), "red" if fails and number == len(steps) else "dim"))


def _advise(terminal: Terminal, advice: str, indent: str) -> None:
    if advice:
        terminal.line(indent, (f"{'→' if terminal.unicode else '->'} {one_line(advice)}", "bold"))
