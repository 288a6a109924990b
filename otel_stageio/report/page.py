"""The page: data in, one HTML document out. Whatever stands in it was read from disk and is trusted by nobody.

Three fences: every value loses its control characters and direction marks, every value is escaped, and the page's own
policy allows no script and no style but the ones in it, by their digests, and no connection to anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from .._version import __version__
from ..events import iso
from ..layout import Job
from ..reading import text
from ..reading.job import read_job
from ..reading.trace import read_trace
from ..reading.view import GLYPHS, JobView
from ..runtime import runtime
from . import lineage
from .curves import curves_of
from .links import trace_links
from .parts import MOST, environment_of, on_disk, quality_of, stage_parts, value_text
from .verdict import facts_of, verdict_of
from .waterfall import MOST as MOST_SPANS
from .waterfall import Waterfall, waterfall_of

#: Earlier runs that are drawn.
_MOST_RUNS = 5
_HERE = Path(__file__).parent


def render(path: str, *, live: str | None = None) -> str:
    """A job's report.

    Args:
        path: the job directory.
        live: an address that answers with a stamp of the job's files, which the page asks for again and again to
            reload itself when it is another. What stands after ``#`` is the stamp that belongs to this page.

    Raises:
        CannotAnswer: if there is no job.
    """
    view = read_job(path, steps=False)
    job = Job(path)
    trace = read_trace(view, most=MOST_SPANS)
    fall = waterfall_of(trace) if trace is not None else None
    curves = curves_of(job, trace) if trace is not None else None
    parts = stage_parts(view, trace)
    facts = facts_of(view, fall.idle_seconds if fall else 0.0)
    verdict = verdict_of(view)
    graph = lineage.lineage_of(view)
    disk, environment = on_disk(view), environment_of(view)
    earlier = _earlier(view)
    present = {
        "waterfall": ("Timeline", fall), "curves": ("What it used", curves), "stages": ("Stages", True),
        "lineage": ("Files and stages", graph), "files": ("On the disk", disk.largest),
        "runs": ("Earlier runs", earlier),
        "trace": ("Trace", view.run), "environment": ("Environment", environment), "quality": ("Completeness", True),
    }  # fmt: skip
    style = _file("report.css") + (_file("vendor/uplot/uPlot.min.css") if curves else "")
    uplot, script = _file("vendor/uplot/uPlot.iife.min.js"), _file("report.js")
    return _environment().get_template("report.html.j2").render(
        view=view, verdict=verdict, facts=facts, fall=fall, parts=parts, graph=graph, disk=disk, earlier=earlier,
        environment=environment, quality=quality_of(view, parts, trace), curves=curves, most=MOST, live=live,
        sections=[(anchor, title) for anchor, (title, there) in present.items() if there],
        curves_json=_json(curves), graph_width=lineage.WIDTH, node_height=lineage.HEIGHT,
        more_runs=len(view.earlier) - len(earlier),
        links=trace_links(view.run.trace_id) if view.run else [],
        policy=_policy(style, [uplot, script] if curves else [script], live),
        style=Markup(style), uplot=Markup(uplot), script=Markup(script),
        version_of_us=__version__, made_at=text.clock(iso(runtime.clock.wall_ns())),
    )  # fmt: skip


def _earlier(view: JobView) -> list[tuple[Any, Waterfall | None]]:
    found = []
    for run in sorted(view.earlier, key=lambda run: -run.number)[:_MOST_RUNS]:
        trace = read_trace(view, run, most=MOST_SPANS)
        found.append((run, waterfall_of(trace) if trace is not None else None))
    return found


def _file(name: str) -> str:
    return (_HERE / name).read_text("utf-8")


def _policy(style: str, scripts: list[str], live: str | None) -> str:
    def digest(content: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    rules = ["default-src 'none'", f"style-src {digest(style)}", f"script-src {' '.join(map(digest, scripts))}",
             "base-uri 'none'", "form-action 'none'"]  # fmt: skip
    if live is not None:
        rules.append("connect-src 'self'")
    return "; ".join(rules)


def _json(content: Any) -> Markup:
    """For a script element of a kind that is not run: nothing in it can end the element or begin a comment."""
    raw = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(raw.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
    )
    environment.filters.update(
        anchor=lambda name: f"stage-{name}".replace(" ", "-"),
        clock=text.clock,
        count=text.count,
        css=lambda word: word if word in GLYPHS else "other",
        duration=text.duration,
        from_to=text.from_to,
        glyph=lambda word: GLYPHS.get(word, "?"),
        last_line=lambda value: text.one_line(value.strip().rpartition("\n")[2]),
        node_id=id,
        number=lambda value: f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}",
        one_line=text.one_line,
        shorten=lambda value, most: value if len(value) <= most else f"…{value[-max(int(most) - 1, 1) :]}",
        size=text.size,
        value=lambda value: "—" if value is None else value_text(value),
    )
    return environment


def _harmless(value: Any) -> Any:
    if isinstance(value, Markup):
        return value
    return text.plain(value) if isinstance(value, str) else value
