"""06 asr: speech to text.

In: ``audio.wav`` of demux, ``speech_segments.json`` of pyannote_vad, ``glossary_snapshot.json``. Out:
``segments.json``.

Two backends: ``pocketsphinx`` (small, on the CPU, its English model comes in the wheel; about three words in four are
right) and ``faster-whisper`` (the real thing; install the extra ``faster-whisper``. It takes the GPU if there is one,
and downloads its model on first use).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.subtitles.audio import read_wav
from examples.subtitles.segments import Segment, document
from otel_stageio import StageIO

BACKENDS = ("pocketsphinx", "faster-whisper")
WHISPER_MODEL = "large-v3"
LANGUAGE = "en"


def run_stage(io: StageIO, backend: str = "pocketsphinx", model: str = WHISPER_MODEL) -> None:
    log = io.get_stage_logger()
    audio = io.track_input(io.get_input_path("audio.wav", from_stage="demux"), "audio")
    io.track_input(io.get_input_path("speech_segments.json", from_stage="pyannote_vad"), "speech_segments")
    speech = io.load_json("speech_segments.json", from_stage="pyannote_vad")["segments"]
    io.set_config({"backend": backend, "language": LANGUAGE})

    if backend == "faster-whisper":
        io.track_input(io.get_input_path("glossary_snapshot.json", from_stage="glossary_load"), "glossary")
        names = io.load_json("glossary_snapshot.json", from_stage="glossary_load")["name_words"]
        segments = with_faster_whisper(io, audio, speech, names, model)
    else:
        segments = with_pocketsphinx(io, audio, speech)

    # What was said goes to the file only: log lines and span attributes leave the machine.
    log.info("%d segments, %d words", len(segments), sum(len(segment["words"]) for segment in segments))
    if not segments:
        io.add_warning("nothing was recognised")
    result = document(segments, language=LANGUAGE, backend=backend)
    io.track_output(io.save_json(result, "segments.json"), "transcript")


def with_pocketsphinx(io: StageIO, audio: Path, speech: list[dict[str, float]]) -> list[Segment]:
    """Decode each stretch of speech with the general English language model."""
    from examples.subtitles.sphinx import decode, load_decoder

    with io.span("load_model"):
        decoder = load_decoder()
    samples = read_wav(audio)
    segments: list[Segment] = []
    for number, part in enumerate(speech):
        with io.span("transcribe", segment=number, seconds=round(part["end"] - part["start"], 2)) as span:
            words = decode(decoder, samples, part["start"], part["end"])
            span.set_attribute("demo.asr.words", len(words))
        io.progress(done=number + 1, total=len(speech), unit="segments")
        if words:
            text = " ".join(word["word"] for word in words)
            segments.append({"id": number, "start": part["start"], "end": part["end"], "text": text, "words": words})
    return segments


def with_faster_whisper(
    io: StageIO, audio: Path, speech: list[dict[str, float]], names: list[str], model_name: str
) -> list[Segment]:
    """Whisper on CTranslate2, over the detected speech only, with the glossary's names as hints."""
    from faster_whisper import WhisperModel

    io.set_config({"model": model_name, "beam_size": 5, "hints": len(names)})
    with io.span("load_model"):
        model = WhisperModel(model_name, device="auto", compute_type="auto")
    with io.span("transcribe", segments=len(speech)) as span:
        found, _ = model.transcribe(
            str(audio),
            language=LANGUAGE,
            beam_size=5,
            word_timestamps=True,
            condition_on_previous_text=False,  # else one hallucination begets the next
            hotwords=" ".join(names) or None,
            # Whisper's own detector finds the speech if stage 5 has not.
            clip_timestamps=[time for part in speech for time in (part["start"], part["end"])] or "0",
            vad_filter=not speech,
        )
        segments = [_from_whisper(number, piece) for number, piece in enumerate(_watched(io, found, speech))]
        span.set_attribute("demo.asr.words", sum(len(segment["words"]) for segment in segments))
    return segments


def _watched(io: StageIO, found: Any, speech: list[dict[str, float]]) -> Any:
    """The segments as they come: the work is done while iterating, so this is where progress is."""
    end = speech[-1]["end"] if speech else None
    for piece in found:
        io.progress(done=round(piece.end, 1), total=end, unit="s")
        yield piece


def _from_whisper(number: int, piece: Any) -> Segment:
    return {
        "id": number,
        "start": round(piece.start, 2),
        "end": round(piece.end, 2),
        "text": piece.text.strip(),
        "words": [
            {
                "word": word.word.strip(),
                "start": round(word.start, 2),
                "end": round(word.end, 2),
                "probability": round(word.probability, 4),
            }
            for word in piece.words or []
        ],
        "avg_logprob": round(piece.avg_logprob, 3),
        "no_speech_prob": round(piece.no_speech_prob, 3),
        "compression_ratio": round(piece.compression_ratio, 3),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job-dir", type=Path, required=True)
    parser.add_argument("--backend", choices=BACKENDS, default="pocketsphinx")
    parser.add_argument("--model", default=WHISPER_MODEL, help="faster-whisper's model: a name or a directory")
    arguments = parser.parse_args(argv)
    with StageIO("asr", output_base=arguments.job_dir) as io:
        run_stage(io, arguments.backend, arguments.model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
