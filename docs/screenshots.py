"""``python -m docs.screenshots`` makes the pictures of reports in ``docs/images`` anew. Needs Chromium."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from otel_stageio.report import render
from tests import report_jobs

IMAGES = Path(__file__).resolve().parent / "images"
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
            chromium.close()
        os.chdir(IMAGES)


def _report(name: str, make: Callable[[Path], None]) -> Path:
    """A job of ``tests/report_jobs.py`` as ``out/<name>``; the path of its report."""
    job = Path("out", name)
    make(job.absolute())
    path = Path(f"{name}.html").absolute()
    path.write_text(render(str(job)), encoding="utf-8")
    return path


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
