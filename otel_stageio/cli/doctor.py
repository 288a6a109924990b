"""``otel-stageio doctor``: is everything there that records need, does what is sent arrive, and if not, why."""

from __future__ import annotations

import os

from rich.text import Text

from ..delivery.diagnosis import Finding, diagnose
from ..delivery.settings import Endpoint
from ..reading.text import count, one_line, plain
from .health import ERROR, OK, WARNING, Check
from .terminal import Row, Terminal, document

_NO_ENDPOINT = Check(
    "endpoint", OK, "none is set: everything stays in the job directory, and nothing is sent",
    "to send as well, set OTEL_EXPORTER_OTLP_ENDPOINT",
)  # fmt: skip
_STATES = {OK: "success", ERROR: "failed"}


def examine(where: dict[str, Endpoint], *, json: bool) -> bool:
    """Ask every endpoint, and say what was found. True if all is well."""
    findings = [diagnose(endpoint) for endpoint in where.values()]
    good = all(finding.good for finding in findings)
    if json:
        document({"good": good, "endpoints": [_document(finding) for finding in findings]})
    else:
        _show_endpoints(findings, Terminal())
    return good


def examine_all(job: str | None, where: dict[str, Endpoint], *, json: bool) -> bool:
    """Look at everything that a stage depends on, and say what was found. True unless something is an error.

    Args:
        job: whose file system is looked at; by default that of where the next job would be.
    """
    from .health.environment import environment
    from .health.files import files
    from .health.gpu import gpu
    from .health.redaction import redaction
    from .health.settings import settings

    sections = {"environment": environment(), "settings": settings(os.environ)}
    place, sections["files"] = files(job)
    sections |= {"redaction": redaction(), "gpu": gpu()}
    findings = [diagnose(endpoint) for endpoint in where.values()]
    good = all(finding.good for finding in findings)
    good = good and all(check.state != ERROR for checks in sections.values() for check in checks)
    if json:
        checks = {name: [vars(check) for check in found] for name, found in sections.items()}
        endpoints = [_document(finding) for finding in findings]
        document({"good": good, "place": place, "checks": checks, "endpoints": endpoints})
    else:
        _show_all(sections, findings, Terminal())
    return good


def _show_all(sections: dict[str, list[Check]], findings: list[Finding], terminal: Terminal) -> None:
    for number, (name, checks) in enumerate(sections.items()):
        if number:
            terminal.line()
        terminal.line(("GPU" if name == "gpu" else name.capitalize(), "bold"))
        _checks(checks, terminal)
    terminal.heading("Endpoint")
    if findings:
        _show_endpoints(findings, terminal)
    else:
        _checks([_NO_ENDPOINT], terminal)
    every = [check.state for checks in sections.values() for check in checks]
    errors = every.count(ERROR) + sum(not finding.good for finding in findings)
    parts = [count(number, noun) for number, noun in ((errors, "error"), (every.count(WARNING), "warning")) if number]
    terminal.line()
    terminal.line(", ".join(parts) or "all is well")


def _checks(checks: list[Check], terminal: Terminal) -> None:
    rows: list[Row] = []
    for check in checks:
        glyph = Text("!", "yellow") if check.state == WARNING else terminal.glyph(_STATES[check.state])
        rows.append([glyph, plain(check.name), one_line(check.said)])
        if check.advice:
            rows.append(
                ["", "", Text(f"{_arrow(terminal)} {one_line(check.advice)}", "bold" if check.state != OK else "")]
            )
    terminal.columns(rows)


def _arrow(terminal: Terminal) -> str:
    return "→" if terminal.unicode else "->"


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


def _show_endpoints(findings: list[Finding], terminal: Terminal) -> None:
    """By server, since most of what can be wrong is wrong for all signals alike."""
    servers: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        servers.setdefault((finding.endpoint.server, finding.endpoint.protocol), []).append(finding)
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
        terminal.line(indent, (f"{_arrow(terminal)} {one_line(advice)}", "bold"))
