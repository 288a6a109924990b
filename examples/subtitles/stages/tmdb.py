"""02 tmdb: look the film up in The Movie Database, for its names.

In: ``media.json`` of demux, for the title. Out: ``enrichment.json``: title, year, genres, cast and their characters.

The answers come from ``fixtures/tmdb.json`` (in the form of TMDB's API), so that the demo needs no network and no
account; if ``TMDB_API_KEY`` is set, they come from the live API.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from otel_stageio import StageIO

FIXTURE = Path(__file__).parent.parent / "fixtures" / "tmdb.json"
API = "https://api.themoviedb.org/3"


class Tmdb(Protocol):
    """The two calls that are made of TMDB."""

    source: str

    def search(self, title: str) -> dict[str, Any]:
        """``/search/movie``"""

    def movie(self, number: int) -> dict[str, Any]:
        """``/movie/{id}?append_to_response=credits``"""


class FixtureTmdb:
    """Committed answers: the search answers with whatever films the fixture has of that title."""

    source = "fixture"

    def __init__(self, path: Path = FIXTURE) -> None:
        self._answers = json.loads(path.read_text(encoding="utf-8"))

    def search(self, title: str) -> dict[str, Any]:
        found = [film for film in self._answers["search/movie"]["results"] if plain(film["title"]) == plain(title)]
        return {"page": 1, "results": found, "total_results": len(found)}

    def movie(self, number: int) -> dict[str, Any]:
        answer: dict[str, Any] = self._answers[f"movie/{number}"]
        return answer


class LiveTmdb:
    """The API itself, with either of TMDB's two kinds of key: a short API key or a long "read access token"."""

    source = "api"

    def __init__(self, key: str) -> None:
        self._key = key

    def search(self, title: str) -> dict[str, Any]:
        return self._get("search/movie", query=title)

    def movie(self, number: int) -> dict[str, Any]:
        return self._get(f"movie/{number}", append_to_response="credits")

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if len(self._key) > 32:
            headers["Authorization"] = f"Bearer {self._key}"
        else:  # TMDB takes a short key only in the URL, so no URL is ever logged here
            parameters["api_key"] = self._key
        url = f"{API}/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


def run_stage(io: StageIO, tmdb: Tmdb | None = None) -> None:
    log = io.get_stage_logger()
    media = io.load_json("media.json", from_stage="demux")
    io.track_input(io.get_input_path("media.json", from_stage="demux"), "metadata")
    if tmdb is None:
        key = os.environ.get("TMDB_API_KEY", "")
        tmdb = LiveTmdb(key) if key else FixtureTmdb()
    io.set_config({"source": tmdb.source})
    if io.up_to_date(code=__file__):
        return

    title = media["title"] or media["name"]
    with io.span("search") as span:
        candidates = tmdb.search(title)["results"]
        span.set_attribute("demo.tmdb.candidates", len(candidates))
    film = best_match(candidates, title)
    if film is None:
        io.add_warning(f"the title was not found ({tmdb.source}): no names for the glossary")
        enrichment: dict[str, Any] = {"title": title, "found": False, "cast": []}
    else:
        with io.span("details"):
            enrichment = enrich(tmdb.movie(film["id"]))
        log.info("found, %s, %d in the cast", enrichment["year"], len(enrichment["cast"]))
    io.track_output(io.save_json(enrichment, "enrichment.json"), "metadata")


def best_match(candidates: list[dict[str, Any]], title: str) -> dict[str, Any] | None:
    """Of the films with this very title the one that most people voted on: remakes and namesakes are many."""
    same = [film for film in candidates if plain(film["title"]) == plain(title)]
    return max(same, key=lambda film: film.get("vote_count", 0), default=None)


def enrich(movie: dict[str, Any]) -> dict[str, Any]:
    """What later stages want to know of a film."""
    credits = movie.get("credits", {})
    return {
        "found": True,
        "tmdb_id": movie["id"],
        "title": movie["title"],
        "year": movie.get("release_date", "")[:4],
        "genres": [genre["name"] for genre in movie.get("genres", [])],
        "cast": [{"name": who["name"], "character": who.get("character", "")} for who in credits.get("cast", [])],
        "crew": [{"name": who["name"], "job": who.get("job", "")} for who in credits.get("crew", [])],
    }


def plain(title: str) -> str:
    """For comparing titles: letters and digits, in lower case."""
    return re.sub(r"[\W_]+", " ", title).strip().lower()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job-dir", type=Path, required=True)
    arguments = parser.parse_args(argv)
    with StageIO("tmdb", output_base=arguments.job_dir) as io:
        run_stage(io)
    return 0


if __name__ == "__main__":
    sys.exit(main())
