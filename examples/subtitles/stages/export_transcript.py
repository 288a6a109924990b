"""09 export_transcript: the text to read, in ``transcripts/transcript.txt`` of the job: a line for each segment.

In: ``segments.json`` of lyrics_detection. Sung lines stand between notes (♪ … ♪).
"""

from __future__ import annotations

from pathlib import Path

from examples.subtitles.segments import segments_of
from otel_stageio import StageIO


def run_stage(io: StageIO) -> Path:
    log = io.get_stage_logger()
    io.track_input(io.get_input_path("segments.json", from_stage="lyrics_detection"), "transcript")
    # Outside the stage's directory, where the original puts it too.
    transcript = io.output_base / "transcripts" / "transcript.txt"
    if io.up_to_date(code=__file__):
        return transcript
    segments = segments_of(io.load_json("segments.json", from_stage="lyrics_detection"))
    lines = [f"♪ {segment['text']} ♪" if segment.get("is_lyrics") else segment["text"] for segment in segments]
    transcript.parent.mkdir(parents=True, exist_ok=True)
    transcript.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    io.track_output(transcript, "transcript", lines=len(lines))
    log.info("%d lines", len(lines))
    return transcript
