"""The built site: strict, whole, and content with the machine that it is read on."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import Visit, browser, visit
from conftest import needs
from opentelemetry.semconv import attributes

import otel_stageio
from docs import generated
from otel_stageio import semconv, testing

__all__ = ["browser", "visit"]

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("mkdocs")
    needs("material")
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return place


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_site_takes_nothing_from_elsewhere(site: Path) -> None:
    foreign = re.compile(
        r"""(?:<script[^>]+src|<link[^>]+(?:stylesheet|icon|preconnect)[^>]+href|<img[^>]+src)=["']?https?:"""
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not foreign.search(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )['\"]?https?:", style.read_text(encoding="utf-8")), style


def test_no_source_and_no_mark_is_published(site: Path) -> None:
    assert not list(site.rglob("*.py"))
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<!-- code:" not in text
        assert "::: otel_stageio" not in text


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("page", ["index.html", "STAGE_LOGGING_IMPLEMENTATION_GUIDE.html", "reference/python.html"])
def test_a_page_opens_in_a_browser_that_reaches_nothing_else(served: str, visit: Visit, page: str, dark: bool) -> None:
    opened: Any = visit(f"{served}/{page}", dark=dark)
    assert opened.locator("h1").first.inner_text()
    width = opened.evaluate("document.documentElement.scrollWidth")
    assert width <= 1280, "it scrolls sideways"


# -- what is made from the code --------------------------------------------------------------------------------------


def test_every_public_name_is_in_the_reference() -> None:
    python = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: otel_stageio\.(\w+)$", python, re.MULTILINE)) == set(otel_stageio.__all__)
    page = (ROOT / "docs" / "reference" / "testing.md").read_text(encoding="utf-8")
    own = {name for name, value in vars(testing).items() if getattr(value, "__module__", "") == testing.__name__}
    public = {name for name in own if not name.startswith("_")} - {"records", "strict"}  # fixtures, told of in words
    assert set(re.findall(r"^::: otel_stageio\.testing\.(\w+)$", page, re.MULTILINE)) == public


def test_the_table_of_conventions_has_every_name_with_its_stability() -> None:
    table = generated.conventions()
    values = [value for name, value in vars(semconv).items() if name.isupper() and not name.startswith("ENV_")]
    names = {value for value in values if isinstance(value, str) and "." in value and "//" not in value}
    metrics = {value.name for value in values if isinstance(value, semconv.Metric)}
    for name in names | metrics | set(semconv.USED.values()):
        assert re.search(
            rf"^\| `{re.escape(name)}`.* \| (stable|release candidate|development|ours) \| `", table, re.M
        ), name


def test_what_is_called_stable_is_so_for_opentelemetry() -> None:
    stable = {
        value
        for module in Path(attributes.__file__).parent.glob("*.py")
        for value in re.findall(r'^[A-Z_]+: Final = "([a-z_.]+)"', module.read_text(encoding="utf-8"), re.MULTILINE)
    }
    said = set(re.findall(r"^\| `([a-z_.]+)` \| stable \|", generated.conventions(), re.MULTILINE)) - {"exception"}
    assert said
    assert said <= stable


def test_the_help_of_every_command_is_in_the_reference() -> None:
    text = generated.commands()
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE)[:3] == ["run", "begin", "end"]
    assert text.count("Usage: otel-stageio ") == text.count("\n## ") + 1
    assert max(map(len, text.splitlines())) <= 80


def test_a_page_that_names_what_is_not_there_is_refused() -> None:
    with pytest.raises(LookupError, match="no nothing in"):
        generated.expand("<!-- code: examples/subtitles/stages/asr.py nothing -->")
    with pytest.raises(LookupError, match="no section 'Nothing'"):
        generated.expand("<!-- section: README.md Nothing -->")
