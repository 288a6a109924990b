"""What mkdocs calls: pages get what they take from the code, and pages outside of ``docs/`` are in the site too."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

from docs.generated import ROOT, expand

#: Pages of the repository that are in the site as well, under their own paths.
ALSO = ("collector/README.md", "collector/SIZING.md", "examples/subtitles/README.md")
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])+)\]\((?![a-z]+:|#)([^)\s]+?)(#[^)\s]*)?\)")

_ROLE = re.compile(r":(?:class|func|meth|mod):(?=<code>)")


def on_files(files: Files, *, config: Any) -> Files:
    for path in ALSO:
        files.append(File.generated(config, path, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    return site_links(expand(markdown), page.file.src_uri)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name what they speak of as Sphinx would have it: ``:meth:`StageIO.skip```."""
    return _ROLE.sub("", html)


def site_links(markdown: str, page: str) -> str:
    """Links as the site has them: what is in the repository and not in the site stays as words."""
    here = page if page in ALSO else f"docs/{page}"

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        if path in ALSO:
            place = path
        elif path.startswith("docs/"):
            place = path.removeprefix("docs/")
        else:
            return str(words)
        return f"[{words}]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{anchor or ''})"

    return _LINK.sub(link, markdown)
