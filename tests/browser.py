"""Pages as people see them, in a real Chromium that can reach nothing.

    def test_a_page(visit):
        page = visit(path, dark=True)
        assert page.title() == "…"

A page that asks for anything but itself, that complains on the console or breaks its own policy fails its test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from conftest import needs

SIZE = {"width": 1280, "height": 900}
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of a module. Not for more: while it runs, no test could start an event loop."""
    needs("playwright")
    chromium = needs("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, headless=True, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Opens a file, or an address of this machine; at the end of the test nothing may have gone wrong in it."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def open_page(
        what: Path | str,
        *,
        dark: bool = False,
        scripts: bool = True,
        motion: Literal["reduce", "no-preference"] = "no-preference",
        **options: Any,
    ) -> Any:
        address = what.resolve().as_uri() if isinstance(what, Path) else what
        context = browser.new_context(
            **{"viewport": SIZE, **options},
            color_scheme="dark" if dark else "light",
            reduced_motion=motion,
            java_script_enabled=scripts,
            locale="en-GB",
            timezone_id="UTC",
            service_workers="block",
        )
        contexts.append(context)
        page = context.new_page()
        _watch(context, page, address, wrong)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def _watch(context: Any, page: Any, address: str, wrong: list[str]) -> None:
    own = urlsplit(address)

    def route(handler: Any) -> None:
        asked = urlsplit(handler.request.url)
        if (asked.scheme, asked.netloc) == (own.scheme, own.netloc) and (own.netloc or asked.path == own.path):
            handler.continue_()
            return
        wrong.append(f"asked for {handler.request.url}")
        handler.abort()

    def console(message: Any) -> None:
        if message.type in ("error", "warning", "assert"):
            wrong.append(f"console: {message.text}")

    def dialog(shown: Any) -> None:
        wrong.append(f"dialog: {shown.message}")
        shown.dismiss()

    context.route("**/*", route)
    context.on("page", lambda other: other is page or wrong.append(f"opened {other.url}"))
    page.on("console", console)
    page.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
    page.on("dialog", dialog)
    page.on("download", lambda download: wrong.append(f"downloaded {download.url}"))


def wait_until(page: Any, condition: str) -> None:
    """For as long as a JavaScript expression is false. (Playwright's own way is against a page's policy.)"""
    look = f"const look = () => ({condition}) ? done() : requestAnimationFrame(look); look();"
    page.evaluate(f"() => new Promise((done) => {{ {look} }})")


def axe(page: Any, *rules: str) -> list[str]:
    """What axe-core calls a serious or critical violation of accessibility, each with where it is.

    Args:
        rules: only these.
    """
    source = files(needs("axe_playwright_python")).joinpath("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(source)
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found = page.evaluate("(options) => axe.run(document, options)", options)
    return [
        f"{violation['id']}: {violation['help']}: {node['target']} {node.get('failureSummary', '')}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
