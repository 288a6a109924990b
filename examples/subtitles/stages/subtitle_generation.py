"""11 subtitle_generation: ``<title>.en.srt``, with the ``srt`` library.

In: ``segments.json`` of lyrics_detection, ``glossary_snapshot.json`` of glossary_load (names get their capital
letters) and ``media.json`` of demux (the file's name).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import srt

from examples.subtitles.cues import LINE, LONGEST, READING_SPEED, SHORTEST, cues_of
from examples.subtitles.segments import segments_of
from otel_stageio import StageIO


def run_stage(io: StageIO) -> Path:
    log = io.get_stage_logger()
    io.track_input(io.get_input_path("segments.json", from_stage="lyrics_detection"), "transcript")
    io.track_input(io.get_input_path("glossary_snapshot.json", from_stage="glossary_load"), "glossary")
    io.track_input(io.get_input_path("media.json", from_stage="demux"), "metadata")
    source = io.load_json("segments.json", from_stage="lyrics_detection")
    names = io.load_json("glossary_snapshot.json", from_stage="glossary_load")["name_words"]
    title = file_name(io.load_json("media.json", from_stage="demux"))
    subtitles = io.get_output_path(f"{title}.{source['language']}.srt")
    io.set_config(
        {"line_length": LINE, "shortest": SHORTEST, "longest": LONGEST, "characters_per_second": READING_SPEED}
    )
    if io.up_to_date(code=__file__):
        return subtitles

    with io.span("lay_out") as span:
        cues = cues_of(segments_of(source), names)
        span.set_attribute("demo.cues", len(cues))
    hurried = [cue for cue in cues if len(cue.content) > 1.5 * READING_SPEED * (cue.end - cue.start).total_seconds()]
    if hurried:
        io.add_warning(f"{len(hurried)} of {len(cues)} cues leave little time to read")

    subtitles.write_text(srt.compose(cues), encoding="utf-8")
    io.track_output(subtitles, "subtitles", language=source["language"], cues=len(cues))
    log.info("%d cues", len(cues))
    return subtitles


def file_name(media: dict[str, Any]) -> str:
    """The film's title, or the name of its file, as a file name without spaces."""
    return re.sub(r"[\W_]+", "_", media["title"] or media["name"]).strip("_") or "film"
