"""The demo pipeline: its rules as plain functions, and one whole run as a user starts it."""

# ruff: noqa: E402 - what the demo needs is looked for before it is imported

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import needs
from helpers import environment
from ray_cluster import SETTINGS as RAY_SETTINGS

for _needed in ("av", "numpy", "pocketsphinx", "scipy", "srt"):
    pytest.importorskip(_needed, reason=f"the demo needs {_needed}: pip install -e '.[demo]'")

import av
import numpy as np
import srt

from examples.subtitles import audio, cues
from examples.subtitles.__main__ import CLIP, REFERENCE, STAGES, records
from examples.subtitles.segments import Segment, Word
from examples.subtitles.stages import alignment, asr, glossary_load, hallucination_removal, lyrics_detection, mux, tmdb
from examples.subtitles.stages import source_separation as separation
from examples.subtitles.wer import distance, word_error_rate, words_of
from otel_stageio import Manifest, StageIO

ROOT = Path(__file__).resolve().parent.parent


def words(text: str, start: float = 0.0, each: float = 0.3, pause_after: str = "") -> list[Word]:
    """A word every ``each`` seconds, and a second of silence after ``pause_after``."""
    made: list[Word] = []
    for word in text.split():
        made.append({"word": word, "start": round(start, 2), "end": round(start + each, 2), "probability": 1.0})
        start += each + (1.0 if word == pause_after else 0.0)
    return made


def segment(text: str, start: float = 0.0, seconds: float | None = None, **more: Any) -> Segment:
    spoken = words(text, start)
    end = start + seconds if seconds is not None else spoken[-1]["end"] if spoken else start + 1
    return {"id": 0, "start": start, "end": end, "text": text, "words": spoken, **more}  # type: ignore[typeddict-item]


# -- word error rate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a b c", "a b b c", 1),
        ("a b c", "", 3),
        ("a b", "c d e", 3),
    ],
)
def test_word_error_rate(reference: str, hypothesis: str, errors: int) -> None:
    assert distance(reference.split(), hypothesis.split()) == errors
    assert word_error_rate(reference, hypothesis) == errors / len(reference.split())


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert words_of("He wasn't — an ill-disposed man!") == ["he", "wasn't", "an", "ill", "disposed", "man"]
    assert word_error_rate("It's true.", "it's TRUE") == 0
    with pytest.raises(ValueError, match="no words"):
        word_error_rate("…", "something")


# -- hallucinations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made_up", "reason"),
    [
        (segment("", seconds=1), "no words"),
        (segment("so", seconds=0.1), "too short"),
        (segment("all of these words cannot be said in half a second", seconds=0.5), "too fast"),
        (segment("indeed", seconds=8), "hardly a word in a long stretch"),
        (segment("la la la la la la", seconds=3), "loop"),
        (segment("I know it I know it I know it I know it", seconds=4), "loop"),
        (segment("Thanks for watching!", seconds=4), "a stock phrase, said over nothing"),
        (segment("he said so", seconds=1, avg_logprob=-1.4, no_speech_prob=0.8), "unlikely, and probably no speech"),
    ],
)
def test_hallucinations_are_removed(made_up: Segment, reason: str) -> None:
    said = segment("he was not an ill disposed young man")
    kept, removed = hallucination_removal.clean([said, made_up])
    assert kept == [said]
    assert [entry["reason"] for entry in removed] == [reason]


def test_text_that_packs_too_well_is_removed() -> None:
    text = "and then we go to the river and look at the boats " * 6
    assert hallucination_removal.implausible(segment(text.strip())) == "compression ratio"


def test_a_repeated_sentence_is_removed_once_and_a_short_answer_is_not() -> None:
    long, short = segment("he might have been made amiable"), segment("no sir", 10)
    kept, removed = hallucination_removal.clean([long, long, long, short, short])
    assert kept == [long, short, short]
    assert len(removed) == 2


def test_real_sentences_are_kept() -> None:
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()
    said = [segment(line, 10.0 * number) for number, line in enumerate(lines)]
    said += [segment("yeah", 60, 0.4), segment("very very well", 70), segment("he said so", 80, avg_logprob=-1.4)]
    assert hallucination_removal.clean(said) == (said, [])


# -- cues --------------------------------------------------------------------------------------------------------------


def test_cues_fit_the_screen_and_can_be_read() -> None:
    text = " ".join(REFERENCE.read_text(encoding="utf-8").split())
    made = cues.cues_of([segment(text)])
    assert " ".join(cue.content.replace("\n", " ") for cue in made).lower() == text
    for cue in made:
        assert all(len(line) <= cues.LINE for line in cue.content.split("\n"))
        assert len(cue.content.split("\n")) <= cues.LINES
        assert 0 < (cue.end - cue.start).total_seconds() <= cues.LONGEST
    assert all(first.end < second.start for first, second in pairwise(made))
    assert [cue.index for cue in made] == list(range(1, len(made) + 1))
    assert list(srt.parse(srt.compose(made))) == made


def test_a_cue_is_split_where_the_speaker_pauses() -> None:
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    groups = cues.split(words(long, pause_after="six"))
    assert groups[0][-1]["word"] == "six"


def test_a_short_cue_stays_long_enough_but_never_runs_into_the_next() -> None:
    alone, crowded = cues.cues_of([segment("no", 0)]), cues.cues_of([segment("no", 0), segment("yes", 0.5)])
    assert alone[0].end.total_seconds() == cues.SHORTEST
    assert crowded[0].end.total_seconds() == pytest.approx(0.5 - cues.GAP)


def test_names_get_their_capitals_and_songs_their_notes() -> None:
    (cue,) = cues.cues_of([segment("and john dashwood's wife and i'm here", is_lyrics=True)], ["John", "Dashwood"])
    assert cue.content == "♪ And John Dashwood's wife and I'm here ♪"


def test_lines_are_even_and_a_word_longer_than_a_line_is_kept() -> None:
    first, second = cues.lines_of("it is a truth universally acknowledged that a single man")
    assert abs(len(first) - len(second)) < 10
    assert cues.lines_of("x" * 60) == ["x" * 60]


# -- sound -------------------------------------------------------------------------------------------------------------


def tone(seconds: float, pitch: float = 220.0) -> audio.Samples:
    t = np.arange(int(seconds * audio.RATE)) / audio.RATE
    return np.asarray(sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 6)) * 0.1)


def test_stft_and_back_is_the_same_sound() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 10_001)
    spectrum = audio.stft(noise, 512, 128)
    assert spectrum.shape[0] == 257
    np.testing.assert_allclose(audio.istft(spectrum, 512, 128, len(noise)), noise, atol=1e-12)


def test_wav_files_come_back_as_written_and_loud_ones_are_clipped(tmp_path: Path) -> None:
    samples = np.array([0.0, 0.5, -0.5, 2.0, -2.0])
    back = audio.read_wav(audio.write_wav(tmp_path / "a.wav", samples))
    np.testing.assert_allclose(back, [0, 0.5, -0.5, 32767 / 32768, -1])


def test_separation_takes_a_held_note_away_and_leaves_noise() -> None:
    note, noise = tone(4), np.random.default_rng(2).normal(0, 0.05, 4 * audio.RATE)
    assert audio.rms(separation.separate(note)) < 0.3 * audio.rms(note)
    assert audio.rms(separation.separate(noise)) > 0.7 * audio.rms(noise)
    assert separation.separate(noise[:100]) is not None


def test_separation_covers_every_sample_once() -> None:
    length = int(150.5 * audio.RATE)
    bounds = separation.block_bounds(length)
    assert [start for start, _, _ in bounds] == [0, *(end for _, end, _ in bounds[:-1])]
    assert bounds[-1][1] == length
    assert all(lead <= start for start, _, lead in bounds)


def test_a_held_note_is_sung_and_noise_is_not() -> None:
    note, noise = tone(3), np.random.default_rng(3).normal(0, 0.1, 3 * audio.RATE)
    assert lyrics_detection.measure(note, note)["score"] > lyrics_detection.THRESHOLD
    assert lyrics_detection.measure(noise, 0 * noise)["score"] < lyrics_detection.THRESHOLD
    pitch = lyrics_detection.pitch_track(note)
    assert np.nanmedian(pitch) == pytest.approx(220, rel=0.01)


@pytest.mark.parametrize("length", [0, 1, 100, 700, 20_000])
def test_silence_and_scraps_of_sound_are_no_song(length: int) -> None:
    silence = np.zeros(length)
    assert lyrics_detection.measure(silence, silence)["score"] == 0


# -- names -------------------------------------------------------------------------------------------------------------


def test_of_namesakes_the_best_known_is_taken() -> None:
    films = [{"id": 1, "title": "Emma", "vote_count": 3}, {"id": 2, "title": "EMMA.", "vote_count": 900}]
    found = tmdb.best_match([*films, {"id": 3, "title": "Emma 2", "vote_count": 10_000}], "emma")
    assert found is not None
    assert found["id"] == 2
    assert tmdb.best_match(films, "Persuasion") is None


def test_glossary_has_the_characters_names_without_their_titles() -> None:
    fixture = tmdb.FixtureTmdb()
    film = tmdb.best_match(fixture.search("sense and sensibility")["results"], "Sense and Sensibility")
    assert film is not None
    glossary = glossary_load.build_glossary(tmdb.enrich(fixture.movie(film["id"])))
    assert {"Dashwood", "John", "Elinor"} <= set(glossary["name_words"])
    assert not {"Mrs", "Mr", "Colonel", "Winslet"} & set(glossary["name_words"])


@pytest.mark.parametrize(("key", "in_header"), [("k" * 32, False), ("k" * 200, True)])
def test_live_tmdb_sends_its_key_as_tmdb_wants_it(monkeypatch: pytest.MonkeyPatch, key: str, in_header: bool) -> None:
    import io
    import urllib.request

    asked: list[urllib.request.Request] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        asked.append(request)
        return io.BytesIO(b'{"results": []}')

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert tmdb.LiveTmdb(key).search("Sense & Sensibility") == {"results": []}
    assert asked[0].full_url.startswith("https://api.themoviedb.org/3/search/movie?query=Sense+%26+Sensibility")
    assert (asked[0].get_header("Authorization") == f"Bearer {key}") is in_header
    assert (key in asked[0].full_url) is not in_header


# -- the other recogniser ----------------------------------------------------------------------------------------------


def test_faster_whisper_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in of the same interface: the model itself is a download."""
    asked: dict[str, Any] = {}

    class WhisperModel:
        def __init__(self, name: str, device: str, compute_type: str) -> None:
            asked.update(name=name, device=device)

        def transcribe(self, path: str, **options: Any) -> tuple[Iterator[Any], None]:
            asked.update(path=path, **options)
            word = types.SimpleNamespace(word=" He", start=1.001, end=1.25, probability=0.91)
            piece = types.SimpleNamespace(
                start=1.0, end=1.5, text=" He was", words=[word], avg_logprob=-0.2, no_speech_prob=0.01,
                compression_ratio=0.8,
            )  # fmt: skip
            return iter([piece]), None

    module = types.ModuleType("faster_whisper")
    module.WhisperModel = WhisperModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    with StageIO("asr", output_base=tmp_path) as io:
        speech = [{"start": 1.0, "end": 2.0}, {"start": 3.0, "end": 4.0}]
        (found,) = asr.with_faster_whisper(io, tmp_path / "audio.wav", speech, ["Dashwood"], "large-v3")
    assert found["text"] == "He was"
    assert found["words"] == [{"word": "He", "start": 1.0, "end": 1.25, "probability": 0.91}]
    assert asked["clip_timestamps"] == [1.0, 2.0, 3.0, 4.0]
    assert asked["hotwords"] == "Dashwood"
    assert asked["word_timestamps"] is True
    assert asked["device"] == "auto"


def test_alignment_keeps_the_spelling_and_takes_the_times() -> None:
    written, found = words("An ill-disposed man,"), words("an ill disposed man", start=10)
    assert alignment.retimed(written, found) == [
        {"word": "An", "start": 10.0, "end": 10.3, "probability": 1.0},
        {"word": "ill-disposed", "start": 10.3, "end": 10.9, "probability": 1.0},
        {"word": "man,", "start": 10.9, "end": 11.2, "probability": 1.0},
    ]


# -- the clip ----------------------------------------------------------------------------------------------------------


def test_the_clip_is_small_and_whole() -> None:
    assert CLIP.stat().st_size < 1024 * 1024
    with av.open(str(CLIP)) as film:
        assert [stream.type for stream in film.streams] == ["video", "audio"]
        assert film.metadata["title"] == "Sense and Sensibility"
        assert film.duration is not None
        assert 25 < film.duration / 1_000_000 < 35
        assert sum(1 for _ in film.decode(video=0)) > 300
    assert len(words_of(REFERENCE.read_text(encoding="utf-8"))) == 71


def test_a_film_without_cues_gets_no_subtitle_track(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    mux.remux(CLIP, None, film, "en")
    contents = mux.contents_of(film)
    assert contents == (["video", "audio"], 0)
    mux.check(contents, 0)
    with pytest.raises(ValueError, match="no subtitle stream"):
        mux.check(contents, 3)


# -- the whole run -----------------------------------------------------------------------------------------------------


def demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The demo as a user starts it, without what this machine's environment would add."""
    ours = ("OTEL_", "TMDB_", "TRACEPARENT", "TRACESTATE", "OUTPUT_DIR", "LOG_LEVEL", "DEBUG_MODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-m", "examples.subtitles", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    job = tmp_path_factory.mktemp("demo") / "job"
    return job, demo("--job-dir", job)


WholeRun = tuple[Path, subprocess.CompletedProcess[str]]


def test_the_demo_succeeds_and_prints_its_word_error_rate(whole_run: WholeRun) -> None:
    _, result = whole_run
    assert result.returncode == 0, result.stdout + result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("word error rate:")]
    assert float(line.split()[3]) < 0.4
    assert "otel-stageio status" in result.stdout


def test_on_ray_it_makes_the_same(whole_run: WholeRun, tmp_path: Path) -> None:
    needs("ray")
    job = tmp_path / CLIP.stem
    env = {**environment(OTEL_STAGEIO_CONSOLE="off", PYTHONWARNINGS="default"), **RAY_SETTINGS}
    program = [sys.executable, "-m", "examples.subtitles.on_ray", "--out", str(tmp_path)]
    done = subprocess.run(program, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{job}  success\n"

    def made(job: Path) -> dict[str, dict[str, str] | None]:
        return {
            f"{record.stage}: {os.path.relpath(entry.path, job)}": entry.digest
            for record in records(job)
            for entry in record.outputs
        }

    assert made(job) == made(whole_run[0])
    assert {record.stage: record.status for record in records(job)} == {
        record.stage: record.status for record in records(whole_run[0])
    }


def test_every_stage_has_a_manifest_that_says_how_it_ended(whole_run: WholeRun) -> None:
    job, _ = whole_run
    ended = {}
    for path in job.glob("*/manifest.json"):
        manifest = Manifest.load(path)
        for record in (manifest, *manifest.substages.values()):
            ended[record.stage] = record.status
            assert not record.errors
            assert not record.lost
            assert record.attempt == 1
    assert ended == {stage: "skipped" if stage == "translation" else "success" for stage in STAGES}


def test_the_film_has_its_subtitles(whole_run: WholeRun) -> None:
    job, _ = whole_run
    (film,) = job.glob("12_mux/*.mkv")
    (subtitles,) = job.glob("11_subtitle_generation/*.en.srt")
    made = list(srt.parse(subtitles.read_text(encoding="utf-8")))
    assert mux.contents_of(film) == (["video", "audio", "subtitle"], len(made))
    assert len(made) >= 5
    reference = REFERENCE.read_text(encoding="utf-8")
    assert word_error_rate(reference, " ".join(cue.content for cue in made)) < 0.4


def test_words_are_timed_by_alignment_and_the_tune_is_found(whole_run: WholeRun) -> None:
    job, _ = whole_run
    segments = json.loads((job / "08_lyrics_detection" / "segments.json").read_text(encoding="utf-8"))["segments"]
    assert all(part["aligned"] and not part["is_lyrics"] for part in segments)
    times = [time for part in segments for word in part["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times)
    music = json.loads((job / "08_lyrics_detection" / "lyrics_metadata.json").read_text(encoding="utf-8"))["music"]
    assert [passage["start"] for passage in music] == [0.0]


def test_the_run_is_one_trace_and_what_was_said_is_not_in_it(whole_run: WholeRun) -> None:
    job, _ = whole_run
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((job / ".stageio" / "spool").glob("*.jsonl")))
    assert "amiable" not in text
    spans = [
        span
        for path in (job / ".stageio" / "spool").glob("*.spans.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    by_id = {span["spanId"]: span for span in spans}
    assert len({span["traceId"] for span in spans}) == 1
    (root,) = [span for span in spans if not span.get("parentSpanId")]
    assert {span["name"] for span in spans if span.get("parentSpanId") == root["spanId"]} == set(STAGES)
    # Work done in a child process hangs below the stage, by way of the child's own span.
    for name, stage in (("decode_audio", "demux"), ("transcribe", "asr"), ("align", "alignment")):
        inner = next(span for span in spans if span["name"] == name)
        assert by_id[by_id[inner["parentSpanId"]]["parentSpanId"]]["name"] == stage


def test_a_second_run_does_nothing_again_and_says_whose_results_these_are(whole_run: WholeRun, tmp_path: Path) -> None:
    first, _ = whole_run
    job = tmp_path / "moved" / "job"
    shutil.copytree(first, job)
    result = demo("--job-dir", job)
    assert result.returncode == 0, result.stdout + result.stderr
    stages = {}
    for path in job.glob("*/manifest.json"):
        manifest = Manifest.load(path)
        stages.update({record.stage: record for record in (manifest, *manifest.substages.values())})
    assert {record.status for record in stages.values()} == {"skipped"}
    for name, record in stages.items():
        if name != "translation":  # which has nothing to do in any run
            (made,) = record.attempts
            assert record.resume is not None
            assert record.resume.skip
            assert record.resume.source is not None
            assert record.resume.source["span_id"] == made.trace.span_id
            assert [entry.digest for entry in record.outputs] == [entry.digest for entry in made.outputs]
            spans = (job / ".stageio" / "spool" / f"{name}.2.spans.jsonl").read_text(encoding="utf-8")
            assert f'"links":[{{"traceId":"{made.trace.trace_id}","spanId":"{made.trace.span_id}"' in spans


def test_a_film_that_is_none_fails_plainly(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"this is no film")
    result = demo("--media", film, "--job-dir", tmp_path / "job")
    assert result.returncode == 1
    assert "stage demux" in result.stderr
    assert "otel-stageio status" in result.stderr
    assert Manifest.load(tmp_path / "job" / "01_demux").status == "failed"


def test_a_directory_that_is_no_job_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    result = demo("--fresh", "--job-dir", tmp_path)
    assert result.returncode == 2
    assert (tmp_path / "thesis.txt").exists()
