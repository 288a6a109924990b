"""The jobs below a directory as a page: what ``otel-stageio status ROOT`` says, with a link to each report."""

from __future__ import annotations

import base64
import hashlib
import html
import os
from pathlib import Path
from urllib.parse import quote

from ..reading.jobs import Closer
from ..reading.text import clock, count, duration, one_line
from ..reading.view import GLYPHS
from .jobs import Jobs, Wanted, read_jobs

#: Jobs in the list.
_MOST = 500

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 2rem auto; max-width: 64rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .25rem .75rem; text-align: left; }
tr + tr { border-top: 1px solid #8884; } td:last-child { text-align: right; white-space: nowrap; }
.failed, .crashed, .lost, .timeout { color: light-dark(#b81d27, #ff7b72); }
.success { color: light-dark(#1a7f37, #3fb950); } .running { color: light-dark(#0969da, #58a6ff); }
"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'"


def page(root: Path) -> str:
    """
    Raises:
        CannotAnswer: if there is no job.
    """
    jobs = read_jobs(str(root), Wanted(limit=_MOST))
    rows = []
    for job, closer in jobs.rows:
        path = os.path.relpath(job.path, root)
        state = one_line(job.state)
        kind = state if state in GLYPHS else ""
        cells = (
            f'<span class="{kind}">{GLYPHS.get(state, "?")} {html.escape(state)}</span>',
            f'<a href="/job/{quote(os.fsencode(path))}/">{html.escape(one_line(path))}</a>',
            html.escape(one_line(job.pipeline)),
            html.escape(clock(job.started_at)),
            *([html.escape(_places(closer))] if jobs.hosts else []),
            html.escape(duration(closer.seconds)),
        )
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    where = "<th>where</th>" if jobs.hosts else ""
    head = f"<tr><th>state</th><th>job</th><th>pipeline</th><th>started</th>{where}<th></th></tr>"
    summary = ", ".join(f"{number:,} {html.escape(one_line(state))}" for state, number in jobs.counts.items())
    more = f"<p>{count(jobs.left_out, 'further job')} not shown</p>" if jobs.left_out else ""
    title = html.escape(one_line(root))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{summary or 'no job yet'}</p>{_hosts(jobs)}"
        f"<table>{head}{''.join(rows)}</table>{more}</html>\n"
    )


def _hosts(jobs: Jobs) -> str:
    """What each host does, where there are several."""
    rows = []
    for host in jobs.hosts:
        silent = f"silent for {duration(host.silent_seconds)}, " if host.silent_seconds else ""
        counted = ", ".join(f"{number:,} {one_line(state)}" for state, number in host.stages.items())
        cells = (
            html.escape(one_line(host.name)),
            f'<span class="lost">{html.escape(silent)}</span>{html.escape(counted)}',
        )
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<table><tr><th>host</th><th></th></tr>{''.join(rows)}</table>" if rows else ""


def _places(closer: Closer) -> str:
    """``asr on gpu-7``."""
    return ", ".join(f"{one_line(stage.name)} on {one_line(stage.host)}" for stage in closer.stages if stage.host)
