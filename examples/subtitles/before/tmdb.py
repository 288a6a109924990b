from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from examples.subtitles.before.homemade import Homemade
from examples.subtitles.stages.tmdb import FixtureTmdb, best_match, enrich


def run_stage(job: Path) -> None:
    stage = Homemade("02_tmdb", job)
    media = stage.load("01_demux/media.json")
    title = media["title"] or media["name"]
    enrichment: dict[str, Any] = {"title": title, "found": False, "cast": []}
    try:
        tmdb = FixtureTmdb()
        film = best_match(tmdb.search(title)["results"], title)
        if film is not None:
            enrichment = enrich(tmdb.movie(film["id"]))
    except Exception as error:
        stage.log.error("TMDB failed: %s", error)
        stage.finish("failed")
        sys.exit(1)
    stage.log.info("found: %s", enrichment["title"])
    stage.save(enrichment, "enrichment.json")
    stage.finish("success")
