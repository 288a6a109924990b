"""07 alignment: when each word was said, by forced alignment.

In: ``segments_clean.json`` of hallucination_removal and ``audio.wav`` of demux. Out: ``segments_aligned.json``.

The decoder is given the words and finds the path of their sounds through the recording (``Decoder.set_align_text``).
A segment that cannot be aligned (a word that is not in the dictionary, a text that does not fit) keeps the ASR's own
times, with a warning.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.subtitles.audio import Samples, read_wav
from examples.subtitles.segments import Segment, Word, document, segments_of
from examples.subtitles.sphinx import decode, load_decoder
from examples.subtitles.wer import words_of
from otel_stageio import StageIO


def run_stage(io: StageIO) -> None:
    log = io.get_stage_logger()
    audio = io.track_input(io.get_input_path("audio.wav", from_stage="demux"), "audio")
    io.track_input(io.get_input_path("segments_clean.json", from_stage="hallucination_removal"), "transcript")
    source = io.load_json("segments_clean.json", from_stage="hallucination_removal")
    segments = segments_of(source)
    io.set_config({"backend": "pocketsphinx", "search": "align_text"})
    samples = read_wav(audio)

    with io.span("load_model"):
        decoder = load_decoder()
    for number, segment in enumerate(segments, 1):
        with io.span("align", segment=segment["id"], words=len(segment["words"])) as span:
            words = align(decoder, samples, segment)
            span.set_attribute("demo.aligned", words is not None)
        segment["aligned"] = words is not None
        if words:
            log.debug("segment %d: moved by at most %.2f s", segment["id"], shift(segment["words"], words))
            segment["words"], segment["start"], segment["end"] = words, words[0]["start"], words[-1]["end"]
        else:
            io.add_warning(f"segment {segment['id']} could not be aligned; it keeps the times of the ASR")
        io.progress(done=number, total=len(segments), unit="segments")

    log.info("%d of %d segments aligned", sum(segment["aligned"] for segment in segments), len(segments))
    result = document(segments, language=source["language"])
    io.track_output(io.save_json(result, "segments_aligned.json"), "transcript", word_times=True)


def align(decoder: Any, samples: Samples, segment: Segment) -> list[Word] | None:
    """The segment's words with the times of the alignment; None if there is none."""
    spoken = [part for word in segment["words"] for part in words_of(word["word"])]
    if not spoken or any(decoder.lookup_word(part) is None for part in spoken):
        return None
    decoder.set_align_text(" ".join(spoken))
    try:
        found = decode(decoder, samples, segment["start"], segment["end"])
    except RuntimeError:  # the text does not fit the sound
        return None
    return retimed(segment["words"], found) if [part["word"] for part in found] == spoken else None


def retimed(words: list[Word], found: list[Word]) -> list[Word]:
    """The ASR's words, spelling and confidence, with the times of what was aligned ("ill-disposed" is two of those)."""
    parts = iter(found)
    result = []
    for word in words:
        own = [next(parts) for _ in words_of(word["word"])]
        if own:
            word = {**word, "start": own[0]["start"], "end": own[-1]["end"]}
        result.append(word)
    return result


def shift(before: list[Word], after: list[Word]) -> float:
    """The largest change of a word's start, in seconds."""
    return max((abs(old["start"] - new["start"]) for old, new in zip(before, after, strict=False)), default=0.0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job-dir", type=Path, required=True)
    arguments = parser.parse_args(argv)
    with StageIO("alignment", output_base=arguments.job_dir) as io:
        run_stage(io)
    return 0


if __name__ == "__main__":
    sys.exit(main())
