"""03 glossary_load: the names that may be spoken, from the film's characters and cast.

In: ``enrichment.json`` of tmdb. Out: ``glossary_snapshot.json``, which the ASR (as hints) and the subtitles (for
capital letters) read: a snapshot, so that a later run can tell whether the glossary has changed.
"""

from __future__ import annotations

import re
from typing import Any

from otel_stageio import StageIO

TITLES = {"mr", "mrs", "miss", "ms", "sir", "lady", "dr", "colonel", "captain", "the", "of", "and"}


def run_stage(io: StageIO) -> None:
    log = io.get_stage_logger()
    io.track_input(io.get_input_path("enrichment.json", from_stage="tmdb"), "metadata")
    if io.up_to_date(code=__file__):
        return
    with io.span("build_glossary"):
        glossary = build_glossary(io.load_json("enrichment.json", from_stage="tmdb"))
    log.info("%d terms, %d name words", len(glossary["terms"]), len(glossary["name_words"]))
    io.track_output(io.save_json(glossary, "glossary_snapshot.json"), "glossary")


def build_glossary(enrichment: dict[str, Any]) -> dict[str, Any]:
    """Characters first: they are spoken of in the film, the actors hardly ever are."""
    terms: dict[str, str] = {}
    for kind in ("character", "name"):
        for person in enrichment["cast"]:
            if person[kind]:
                terms.setdefault(person[kind], "character" if kind == "character" else "cast")
    words = {
        word
        for term, kind in terms.items()
        if kind == "character"
        for word in re.findall(r"[^\W\d_]+", term)
        if word.lower() not in TITLES and word[0].isupper()
    }
    return {
        "terms": [{"term": term, "kind": kind} for term, kind in terms.items()],
        "name_words": sorted(words),
    }
