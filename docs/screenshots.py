"""``python -m docs.screenshots`` makes the pictures in ``docs/images`` anew. Needs Chromium.

For the one of Jaeger it needs Jaeger's pages too, which are not in its Go module: ``JAEGER_PAGES`` names the directory
with their ``index.html``, from a release or built from the repository jaeger-ui (``npm ci``, ``npm run build``).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.text import Text

from collector.native import JAEGER
from otel_stageio import RunRecord
from otel_stageio.report import render
from tests import report_jobs

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
_LARGEST = 200_000  # bytes of one picture: they lie in the repository


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    os.environ["OTEL_STAGEIO_CONSOLE"] = "off"
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)  # so that pages show short paths, and none of this machine
        demo, failed = _report("demo", report_jobs.demo), _report("failed", report_jobs.failed)
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            for scheme in ("light", "dark"):
                page = chromium.new_page(
                    viewport={"width": 1280, "height": 1200}, color_scheme=scheme, locale="en-GB", timezone_id="UTC"
                )
                page.goto(demo.as_uri())
                for button in page.locator("#waterfall .group:not(:has(a[href='#stage-asr'])) .fold").all():
                    button.click()
                _picture(page, f"report-{scheme}", _above(page, "#stages"))
                page.locator("#lineage svg").screenshot(path=_place(f"lineage-{scheme}"))
                page.goto(failed.as_uri())
                _picture(page, f"report-failed-{scheme}", 1200)
            pages = os.environ.get("JAEGER_PAGES")
            if pages:
                _jaeger(chromium, Path("out", "demo"), Path(pages))
            else:
                print("jaeger-trace.png stays as it is: JAEGER_PAGES is not set")
            chromium.close()
        _terminal("terminal-status", "status", "out/failed")
        _terminal("terminal-trace", "trace", "out/failed")
        os.chdir(IMAGES)


def _report(name: str, make: Callable[[Path], None]) -> Path:
    """A job of ``tests/report_jobs.py`` as ``out/<name>``; the path of its report."""
    job = Path("out", name)
    make(job.absolute())
    path = Path(f"{name}.html").absolute()
    path.write_text(render(str(job)), encoding="utf-8")
    return path


def _jaeger(chromium: Browser, job: Path, pages: Path) -> None:
    """A job's newest run in the real Jaeger."""
    sys.path.insert(0, str(ROOT / "tests"))
    from stack import Jaeger, wait_until

    config = Path("pages.yaml").absolute()
    config.write_text(f"extensions: {{jaeger_query: {{ui: {{assets_path: {pages.absolute()}}}}}}}\n", encoding="utf-8")
    server = Jaeger(Path("jaeger").absolute(), (*JAEGER, config))
    server.start()
    try:
        push = [sys.executable, "-m", "otel_stageio", "push", str(job), "--endpoint", server.otlp_http]
        subprocess.run(push, check=False, capture_output=True)  # it takes traces, and refuses logs and metrics
        trace = RunRecord.load(job).trace_id
        wait_until(lambda: server.spans(trace), what="the trace in Jaeger")
        page = chromium.new_page(viewport={"width": 1280, "height": 760}, timezone_id="UTC")
        page.goto(f"{server.query}/trace/{trace}")
        page.get_by_text("lyrics_detection").first.wait_for()
        _picture(page, "jaeger-trace", 760)
    finally:
        server.stop()


def _terminal(name: str, *arguments: str) -> None:
    """What a command prints in a terminal, as a picture of text."""
    done = subprocess.run(
        [sys.executable, "-m", "otel_stageio", *arguments],
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    console = Console(record=True, width=100, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    console.print(Text.from_ansi(f"\x1b[1m$ otel-stageio {' '.join(arguments)}\x1b[0m\n{done.stdout.rstrip()}"))
    picture = console.export_svg(title="", unique_id=name)
    picture = re.sub(r"@font-face \{.*?\}\n", "", picture, flags=re.DOTALL)  # it would come from elsewhere
    path = IMAGES / f"{name}.svg"
    path.write_text(picture, encoding="utf-8")
    print(f"{path.name}  {path.stat().st_size:,} bytes")


def _above(page: Page, selector: str) -> float:
    box: Any = page.locator(selector).bounding_box()
    return float(box["y"])


def _place(name: str) -> Path:
    return IMAGES / f"{name}.png"


def _picture(page: Page, name: str, height: float) -> None:
    path = _place(name)
    page.mouse.move(0, 0)
    page.screenshot(path=path, clip={"x": 0, "y": 0, "width": 1280, "height": height})
    size = path.stat().st_size
    print(f"{path.name}  {size:,} bytes")
    if size > _LARGEST:
        raise SystemExit(f"{path} is larger than {_LARGEST:,} bytes")


if __name__ == "__main__":
    main()
