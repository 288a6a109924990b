"""Whether a stage runs again, and the reason that it gives: decided by looking, each time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import LIMIT, kill_after, read_manifest, run_python, start_python, write_script
from helpers import clean_environment as clean_environment
from helpers import job as job

from otel_stageio import Manifest, Pipeline, StageIO, stage
from otel_stageio.layout import Job
from otel_stageio.otlp import decode
from otel_stageio.resume.decide import Decision

ONCE_MORE = "unchanged since attempt 1: 1 input, 1 output, 1 parameter verified"


def sha(content: str) -> str:
    return f"{hashlib.sha256(content.encode()).hexdigest()[:8]}…"


@dataclass
class World:
    """What a stage depends on, here for a test to change; the stage copies its inputs in capitals."""

    job: Path
    inputs: list[str] = field(default_factory=lambda: ["audio.wav"])
    params: dict[str, Any] = field(default_factory=lambda: {"beam_size": 5})
    code: Any = "v1"
    env: Any = None
    ran: int = 0

    @property
    def output(self) -> Path:
        return self.job / "06_asr" / "segments.json"

    def body(self, io: StageIO) -> Decision:
        for path in self.inputs:
            io.track_input(path, "audio")
        decision = io.up_to_date(params=self.params, code=self.code, env=self.env)
        if not decision:
            self.ran += 1
            text = "".join(Path(path).read_text().upper() for path in self.inputs if Path(path).exists())
            self.output.write_text(text)
            io.track_output(self.output, "transcript", words=len(text))
        return decision

    def run(self, name: str = "asr") -> Decision:
        with StageIO(name, self.job) as io:
            return self.body(io)

    @property
    def record(self) -> dict[str, Any]:
        return read_manifest(self.job / "06_asr")


@pytest.fixture
def world(job: Path) -> World:
    Path("audio.wav").write_text("one two")
    return World(job)


def in_a_block(world: World) -> Decision:
    return world.run()


def as_the_original(world: World) -> Decision:
    io = StageIO("asr", world.job)
    decision = world.body(io)
    io.finalize(status="success")
    return decision


def as_a_function(world: World) -> Decision:
    @stage("asr", world.job)
    def transcribe(io: StageIO) -> Decision:
        return world.body(io)

    return transcribe()  # type: ignore[call-arg]


def as_a_coroutine(world: World) -> Decision:
    @stage("asr", world.job)
    async def transcribe(io: StageIO) -> Decision:
        return world.body(io)

    return asyncio.run(transcribe())  # type: ignore[call-arg]


def in_a_pipeline(world: World) -> Decision:
    with Pipeline("subtitles", world.job) as run, run.stage("asr") as io:
        return world.body(io)


STYLES = [in_a_block, as_the_original, as_a_function, as_a_coroutine, in_a_pipeline]


@pytest.fixture(params=STYLES, ids=[style.__name__ for style in STYLES])
def style(request: pytest.FixtureRequest) -> Callable[[World], Decision]:
    return request.param  # type: ignore[no-any-return]


# -- the table -------------------------------------------------------------------------------------------------------


def _same_size(path: Path, content: str) -> None:
    before = path.stat()
    path.write_text(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def _set(**values: Any) -> Callable[[World], Any]:
    def change(world: World) -> None:
        for name, value in values.items():
            setattr(world, name, value)

    return change


def _new_copy(path: Path) -> None:
    shutil.copyfile(path, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def _add_words(world: World) -> None:
    Path("words").write_text("x")
    world.inputs.append("words")


AUDIO = Path("audio.wav")
OUTPUT = "06_asr/segments.json"
TABLE: dict[str, tuple[Callable[[World], Any], str]] = {
    "nothing": (lambda _: None, ONCE_MORE),
    "input touched": (lambda _: os.utime(AUDIO, (1, 1)), ONCE_MORE),
    "input written anew with the same bytes": (lambda _: _new_copy(AUDIO), ONCE_MORE),
    "input changed": (
        lambda _: AUDIO.write_text("three"),
        f"input changed: audio.wav (sha256 {sha('one two')}→{sha('three')})",
    ),
    "input changed, size and time as before": (
        lambda _: _same_size(AUDIO, "one TWO"),
        f"input changed: audio.wav (sha256 {sha('one two')}→{sha('one TWO')})",
    ),
    "input deleted": (lambda _: AUDIO.unlink(), "input missing: audio.wav"),
    "output touched": (lambda w: os.utime(w.output, (1, 1)), ONCE_MORE),
    "output deleted": (lambda w: w.output.unlink(), f"output missing: {OUTPUT}"),
    "output truncated": (
        lambda w: w.output.write_text("ONE"),
        f"output changed: {OUTPUT} (sha256 {sha('ONE TWO')}→{sha('ONE')})",
    ),
    "output emptied": (
        lambda w: os.truncate(w.output, 0),
        f"output changed: {OUTPUT} (sha256 {sha('ONE TWO')}→{sha('')})",
    ),
    "output overwritten, size and time as before": (
        lambda w: _same_size(w.output, "one two"),
        f"output changed: {OUTPUT} (sha256 {sha('ONE TWO')}→{sha('one two')})",
    ),
    "parameter changed": (_set(params={"beam_size": 8}), "parameter beam_size 5→8"),
    "parameter of another type": (_set(params={"beam_size": "5"}), "parameter beam_size 5→5"),
    "parameter added": (
        _set(params={"beam_size": 5, "language": "en"}),
        "parameter language (not set)→en",
    ),
    "parameter removed": (_set(params={}), "parameter beam_size 5→(not set)"),
    "version changed": (_set(code="v2"), "code changed: version v1→v2"),
    "code no longer named": (_set(code=None), "code changed: version v1→(not set)"),
    "environment changed": (_set(env={"torch": "2.5"}), "environment torch (not set)→2.5"),
    "several things changed": (
        _set(params={"beam_size": 8, "language": "en"}, code="v2"),
        "code changed: version v1→v2 (and 2 more)",
    ),
    "input added": (_add_words, "input added: words"),
    "input no longer read": (lambda w: w.inputs.clear(), "input no longer read: audio.wav"),
}


@pytest.mark.parametrize("what", TABLE)
def test_the_decision_and_its_sentence(world: World, style: Callable[[World], Decision], what: str) -> None:
    change, sentence = TABLE[what]
    first = style(world)
    assert (bool(first), first.sentence) == (False, "never succeeded: it has not run before")
    change(world)
    decision = style(world)
    assert decision.sentence == sentence
    assert bool(decision) is sentence.startswith("unchanged")
    record = world.record
    assert record["status"] == ("skipped" if decision else "success")
    assert record["resume"]["sentence"] == sentence
    assert record["resume"]["skip"] is bool(decision)
    assert record["lost"] == {}
    assert len(record["attempts"]) == 1
    assert style(world)  # once it has run for that reason, the reason is gone


def test_a_reason_is_data_as_well(world: World) -> None:
    world.run()
    AUDIO.write_text("three")
    (reason,) = world.run().reasons
    assert (reason.kind, reason.name) == ("input", "audio.wav")
    assert reason.before == {"sha256": hashlib.sha256(b"one two").hexdigest()}
    assert reason.after == {"sha256": hashlib.sha256(b"three").hexdigest()}
    assert world.record["resume"]["reasons"][0]["after"] == reason.after


# -- how the last attempt ended --------------------------------------------------------------------------------------

PROGRAM = """
    import sys
    from pathlib import Path
    from otel_stageio import StageIO
    with StageIO("asr", sys.argv[1]) as io:
        io.track_input("audio.wav", "audio")
        if not io.up_to_date(params={"beam_size": 5}, code="v1"):
            io.get_output_path("segments.json").write_text("ONE TWO")
            io.track_output(io.get_output_path("segments.json"), "transcript")
        print("ready", flush=True)
        if sys.argv[2] == "wait":
            input()
        if sys.argv[2] == "fail":
            raise RuntimeError("no\\nmemory")
        if sys.argv[2] == "cancel":
            raise KeyboardInterrupt
"""


def program(tmp_path: Path) -> Path:
    return write_script(tmp_path / "program.py", PROGRAM)


@pytest.mark.parametrize("before", [False, True], ids=["never a success", "a success before"])
@pytest.mark.parametrize(
    ("how", "said"),
    [("fail", "failed: RuntimeError: no"), ("cancel", "was cancelled"), ("kill", "crashed: ")],
)
def test_after_an_attempt_without_success(world: World, tmp_path: Path, before: bool, how: str, said: str) -> None:
    if before:
        world.run()
    if how == "kill":
        AUDIO.write_text("one three")  # else it would have been skipped
        kill_after(start_python(program(tmp_path), world.job, "wait", cwd=Path.cwd()), 1)
    else:
        AUDIO.write_text("one three")
        run_python(program(tmp_path), world.job, how, cwd=Path.cwd())
    AUDIO.write_text("one two")
    decision = world.run()
    assert not decision
    assert decision.reasons[0].kind == ("last attempt" if before else "never succeeded")
    head = "the last attempt" if before else "never succeeded: the last attempt"
    assert decision.sentence.startswith(f"{head} {said}"), decision.sentence
    assert "\n" not in decision.sentence
    assert world.run()


def test_while_another_attempt_is_running(world: World, tmp_path: Path) -> None:
    process = start_python(program(tmp_path), world.job, "wait", cwd=Path.cwd())
    assert process.stdout is not None
    assert process.stdout.readline().endswith("before\n")
    assert process.stdout.readline() == "ready\n"
    decision = world.run()
    process.communicate("\n", timeout=LIMIT)
    assert decision.sentence == "never succeeded: the last attempt has no end"


def test_a_stage_that_skipped_itself_for_a_reason_of_its_own_runs(world: World) -> None:
    with StageIO("asr", world.job) as io:
        io.skip("no speech")
    assert world.run().sentence == "never succeeded: the last attempt was skipped: no speech"


def test_an_attempt_that_the_original_has_recorded(world: World) -> None:
    world.output.parent.mkdir(parents=True)
    world.output.write_text("ONE TWO")
    record = {"stage": "asr", "status": "success", "inputs": [{"type": "audio", "path": "audio.wav", "size_bytes": 7}],
              "outputs": [{"type": "transcript", "path": str(world.output), "size_bytes": 7}]}  # fmt: skip
    (world.job / "06_asr" / "manifest.json").write_text(json.dumps(record))
    assert world.run().sentence == "the last attempt was recorded by the original, which takes no digests"
    assert world.run()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\0" * 100, b"[]", b"null", b"7", b'{"stage": 7, "attempts": 3}', b'{"status": "success"}'],
)
def test_a_manifest_that_is_damaged(world: World, content: bytes) -> None:
    world.run()
    (world.job / "06_asr" / "manifest.json").write_bytes(content)
    decision = world.run()
    assert not decision
    assert "internal" not in decision.sentence
    assert world.run()


@pytest.mark.parametrize(
    "damage",
    [{"inputs": "audio.wav"}, {"inputs": [7, None]}, {"outputs": [{"path": 7}]}, {"outputs": {"a": 1}},
     {"resume": []}, {"resume": {"parameters": 7}}, {"resume": {"parameters": {}, "place": {"job": 1}}},
     {"resume": {"parameters": {}, "inputs": "x"}}, {"inputs": [{"path": "audio.wav", "digest": 7}]},
     {"outputs": [{"path": "../../../etc/passwd", "digest": {"sha256": 7}}]}, {"lost": 7}, {"trace": 3}],
    ids=str,
)  # fmt: skip
def test_a_manifest_of_the_right_form_with_the_wrong_content(
    world: World, as_in_production: None, damage: dict[str, Any]
) -> None:
    world.run()
    path = world.job / "06_asr" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    assert not world.run()
    assert world.output.read_text() == "ONE TWO"


# -- what is declared ------------------------------------------------------------------------------------------------


def transcribe() -> None:
    """For code=."""


def test_code_is_compared_by_content(world: World, tmp_path: Path) -> None:
    world.code = write_script(tmp_path / "asr.py", "beam = 5")
    world.run()
    os.utime(world.code, (1, 1))
    assert world.run()
    world.code.write_text("beam = 8")
    assert world.run().sentence == "code changed: asr.py"
    moved = tmp_path / "elsewhere" / "asr.py"
    moved.parent.mkdir()
    world.code = Path(shutil.move(world.code, moved))
    assert world.run()
    moved.unlink()
    with pytest.raises(TypeError, match="there is no such file"):
        world.run()


@pytest.mark.parametrize(
    "code",
    [transcribe, World, shutil, [transcribe, "v1"], __file__, Path(__file__)],
    ids=["function", "class", "module", "several", "file", "path"],
)
def test_code_may_be_many_things(world: World, code: Any) -> None:
    world.code = code
    world.run()
    assert world.run()
    world.code = [code, "v2"]
    assert world.run().sentence.startswith("code changed: version ")


def test_a_functions_code_is_its_file(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = write_script(tmp_path / "my_asr.py", "def transcribe(): return 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_asr  # type: ignore[import-not-found]

    world.code = my_asr.transcribe
    world.run()
    assert world.run()
    script.write_text("def transcribe(): return 2\n")
    assert world.run().sentence == "code changed: my_asr.py"


@pytest.mark.parametrize("code", [len, 7, "gone.py", Path("gone"), {"a": 1}], ids=str)
def test_what_has_no_source_file_is_the_callers_mistake(world: World, code: Any) -> None:
    world.code = code
    with pytest.raises(TypeError):
        world.run()


def test_a_function_of_a_notebook_has_no_file_to_compare(world: World) -> None:
    namespace: dict[str, Any] = {}
    exec(compile("def cell(): return 1", "/tmp/ipykernel_1/123.py", "exec"), namespace)
    world.code = namespace["cell"]
    with pytest.raises(TypeError, match="source file"):
        world.run()


def test_of_several_versions_each_counts(world: World) -> None:
    world.code = ["model-3", "prompt-7"]
    world.run()
    assert world.run()
    world.code = ["model-4", "prompt-7"]
    assert world.run().sentence == "code changed: version model-3, prompt-7→model-4, prompt-7"


def test_environment_variables_by_name(world: World) -> None:
    os.environ["OMP_NUM_THREADS"] = "4"
    world.env = ["OMP_NUM_THREADS", "CUDA_HOME"]
    world.run()
    assert world.run()
    os.environ["CUDA_HOME"] = "/opt/cuda"
    assert world.run().sentence == "environment CUDA_HOME (not set)→/opt/cuda"


def test_what_set_config_has_said_counts(world: World) -> None:
    def run(threshold: float) -> Decision:
        with StageIO("asr", world.job) as io:
            io.set_config({"threshold": threshold})
            return world.body(io)

    run(0.5)
    assert run(0.5).sentence == ONCE_MORE.replace("1 parameter", "2 parameters")
    assert run(0.6).sentence == "parameter threshold 0.5→0.6"


def _long(end: str) -> str:
    return "y" * 150_000 + end


@pytest.mark.parametrize(
    ("before", "after"),
    [(_long("a"), _long("b")), ([*range(20_000), 1], [*range(20_000), 2]), ({1: "a", "b": {2, 3}}, {1: "a", "b": {2}}),
     (b"\0" * 200_000 + b"a", b"\0" * 200_000 + b"b"), ({str(n): n for n in range(20_000)}, {})],
    ids=["a prompt", "a list", "a mapping", "bytes", "many"],
)  # fmt: skip
def test_parameters_are_compared_whole(world: World, before: Any, after: Any) -> None:
    world.params = {"value": before}
    world.run()
    assert world.run()
    world.params = {"value": after}
    assert not world.run()
    assert world.run()
    Manifest.load(world.job / "06_asr")


def test_arrays_are_compared_by_what_is_in_them(world: World) -> None:
    numpy = pytest.importorskip("numpy")
    weights = numpy.zeros(5000)
    world.params = {"weights": weights, "rate": numpy.float32(0.5)}
    world.run()
    assert world.run()
    weights[2500] = 1  # not in its repr
    assert world.run().sentence.startswith("parameter weights sha256:")


def test_many_parameters(world: World) -> None:
    world.params = {f"parameter_{number}": number for number in range(15_000)}
    world.run()
    assert world.run()
    world.params["parameter_14999"] = -1
    assert not world.run()


@pytest.mark.parametrize("value", [None, object(), lambda: None, float("nan"), ["x"] * 3, (1, 2), Path("x"), {1, 2}])
def test_parameters_of_any_kind_are_no_error(world: World, value: Any) -> None:
    world.params = {"value": value}
    world.run()
    assert world.record["status"] == "success"
    assert isinstance(bool(world.run()), bool)


def test_parameters_have_to_be_a_mapping(world: World) -> None:
    world.params = [1]  # type: ignore[assignment]
    with pytest.raises(TypeError, match="mapping"):
        world.run()


# -- what is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [("OTEL_STAGEIO_FORCE", "asr", "forced: OTEL_STAGEIO_FORCE names it"),
     ("OTEL_STAGEIO_FORCE", "mux, 06_asr", "forced: OTEL_STAGEIO_FORCE names it"),
     ("OTEL_STAGEIO_FORCE", "all", "forced: OTEL_STAGEIO_FORCE names it"),
     ("OTEL_STAGEIO_FORCE", "mux,,//", ""),
     ("OTEL_STAGEIO_FROM", "asr", "forced: to run from asr on"),
     ("OTEL_STAGEIO_FROM", "demux", "forced: it comes after demux, from which on is to be run"),
     ("OTEL_STAGEIO_FROM", "mux", ""),
     ("OTEL_STAGEIO_FROM", "unheard_of", ""),
     ("OTEL_STAGEIO_RESUME", "off", "OTEL_STAGEIO_RESUME is off"),
     ("OTEL_STAGEIO_RESUME", "on", "")],
)  # fmt: skip
def test_a_stage_that_is_to_run_in_any_case(world: World, name: str, value: str, sentence: str) -> None:
    def run() -> Decision:
        with Pipeline("subtitles", world.job) as pipeline:
            with pipeline.stage("demux"):
                pass
            with pipeline.stage("asr") as io:
                decision = world.body(io)
            with pipeline.stage("mux"):
                pass
        return decision

    run()
    os.environ[name] = value
    decision = run()
    assert decision.sentence == (sentence or ONCE_MORE)
    assert bool(decision) is not bool(sentence)


# -- what cannot be verified -----------------------------------------------------------------------------------------


def test_a_stage_without_outputs_cannot_be_verified(world: World) -> None:
    for _ in range(2):
        with StageIO("asr", world.job) as io:
            io.track_input("audio.wav")
            decision = io.up_to_date()
    assert decision.sentence == "attempt 1 recorded no output that could be verified"


def test_an_attempt_that_declared_nothing(world: World) -> None:
    with StageIO("asr", world.job) as io:
        io.track_input("audio.wav")
        io.track_output(io.save_json({}, "segments.json"))
    assert world.run().sentence == "attempt 1 did not say what its result depends on"


def test_an_output_that_never_was(world: World) -> None:
    def run() -> Decision:
        with StageIO("asr", world.job) as io:
            decision = io.up_to_date()
            io.track_output("gone.json")
        return decision

    run()
    assert run().sentence == "output missing: gone.json"


def test_an_input_that_was_not_there_and_is_now(world: World) -> None:
    world.inputs.append("hints.txt")
    world.run()
    assert world.run().sentence == ONCE_MORE.replace("1 input", "2 inputs")
    Path("hints.txt").write_text("x")
    assert world.run().sentence == "input was not there, and is now: hints.txt"


@pytest.mark.parametrize(
    ("tier", "touched"),
    [("sha256", ONCE_MORE), ("quick", ONCE_MORE), ("stat", "input changed: audio.wav (by its times)"),
     ("off", "input cannot be verified: audio.wav (no digest was recorded)")],
)  # fmt: skip
def test_each_tier_verifies_what_it_can(world: World, tier: str, touched: str) -> None:
    os.environ["OTEL_STAGEIO_DIGEST"] = tier
    world.run()
    assert bool(world.run()) is (tier != "off")
    os.utime(AUDIO, (1, 1))
    assert world.run().sentence == touched.replace("attempt 2", "attempt 1")
    AUDIO.write_text("three")
    assert not world.run()
    assert world.output.read_text() == "THREE"


def test_a_record_is_verified_by_the_algorithm_that_it_has(world: World) -> None:
    world.run()
    for tier in ("quick", "stat", "off", "sha256"):
        os.environ["OTEL_STAGEIO_DIGEST"] = tier
        assert world.run()
        assert list(world.record["inputs"][0]["digest"]) == ["sha256"]


def test_where_there_was_no_time_for_a_digest_the_times_have_to_do(world: World) -> None:
    os.environ["OTEL_STAGEIO_DIGEST_BUDGET"] = "0"
    AUDIO.write_text("x" * (2 << 20))
    world.run()
    assert world.run()
    os.utime(AUDIO, (1, 1))
    sentence = world.run().sentence
    assert sentence.startswith(
        "input cannot be verified: audio.wav (it was touched, and its digest had not been computed"
    )


def test_an_input_that_changed_while_the_stage_ran(world: World) -> None:
    with StageIO("asr", world.job) as io:
        world.body(io)
        AUDIO.write_text("three, and nobody has read it")
    assert world.run().sentence == "input changed while attempt 1 ran: audio.wav"
    assert world.output.read_text() == "THREE, AND NOBODY HAS READ IT"


def test_a_record_that_is_not_whole_is_no_proof(world: World) -> None:
    world.run()
    path = world.job / "06_asr" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lost": {"journal": 2}}))
    assert world.run().sentence == "2 entries of the last attempt's record were lost"


# -- where things lie ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["job", "renamed"])
@pytest.mark.parametrize("old", ["moved", "copied"])
def test_a_job_that_was_moved_or_copied(world: World, tmp_path: Path, name: str, old: str) -> None:
    first = World(world.job, inputs=["audio.wav"])
    with StageIO("demux", world.job) as io:
        io.track_output(io.save_json("inner", "words.json"))
    first.inputs.append(str(world.job / "01_demux" / "words.json"))
    first.run()
    there = tmp_path / "elsewhere" / name
    there.parent.mkdir()
    if old == "moved":
        shutil.move(world.job, there)
    else:
        shutil.copytree(world.job, there, symlinks=True)
    moved = World(there, inputs=["audio.wav", str(there / "01_demux" / "words.json")])
    assert moved.run().sentence == "unchanged since attempt 1: 2 inputs, 1 output, 1 parameter verified"
    (there / "01_demux" / "words.json").write_text("changed")
    assert moved.run().sentence.startswith("input changed: 01_demux/words.json (")
    assert "CHANGED" in moved.output.read_text()
    if old == "copied":
        assert first.run(), first.run().sentence  # the old one goes its own way


def test_an_input_outside_whose_path_names_the_job(tmp_path: Path, job: Path) -> None:
    """A film in media/film, its job in out/film: the job's own audio.wav is another file."""
    world = World(tmp_path / "out" / "film", inputs=[str(tmp_path / "media" / "film" / "audio.wav")])
    film = Path(world.inputs[0])
    film.parent.mkdir(parents=True)
    film.write_text("one")
    world.run()
    (world.job / "audio.wav").write_text("one")
    assert world.run()
    film.write_text("two")
    assert world.run().sentence == f"input changed: {film} (sha256 {sha('one')}→{sha('two')})"


def test_an_input_that_is_the_output_of_another_job(tmp_path: Path) -> None:
    first = World(tmp_path / "a")
    AUDIO.write_text("one")
    first.run()
    second = World(tmp_path / "b", inputs=[str(first.output)])
    second.run()
    assert second.run()
    AUDIO.write_text("two")
    first.run()
    assert second.run().sentence.startswith(f"input changed: {first.output} (")
    assert second.output.read_text() == "TWO"


def test_a_stage_that_shares_its_directory(world: World) -> None:
    with StageIO("asr", world.job):
        pass
    assert world.run("hallucination_removal").sentence == "never succeeded: it has not run before"
    assert world.run("hallucination_removal")
    assert not world.run("asr")


def test_thousands_of_inputs(world: World) -> None:
    for number in range(1200):
        Path(f"segment_{number:05d}_with_a_long_name_for_a_segment.json").write_text(str(number))
    world.inputs = sorted(map(str, Path().glob("segment_*")))
    world.run()
    assert world.run().sentence == ONCE_MORE.replace("1 input", "1200 inputs")
    for path in world.inputs:
        Path(path).write_text("changed")
    decision = world.run()
    assert decision.sentence.endswith("(and 1199 more)")
    assert len(Manifest.load(world.job / "06_asr").inputs) == 1200


# -- the record of a skip --------------------------------------------------------------------------------------------


def span_of(job: Path, name: str, attempt: int) -> dict[str, Any]:
    lines = decode.Lines(Job(job).journal(name, attempt, "spans"))
    (found,) = [span for span in decode.spans(lines) if span["name"] == name]
    return found


def _mapping(attributes: Any) -> dict[str, Any]:
    return attributes if isinstance(attributes, dict) else decode.mapping(attributes)


def links_of(job: Path, name: str, attempt: int) -> list[tuple[str, str, str]]:
    links = span_of(job, name, attempt).get("links", [])
    return [(link["traceId"], link["spanId"], _mapping(link["attributes"])["stageio.link"]) for link in links]


def test_a_skip_stands_for_the_attempt_that_made_the_outputs(world: World, style: Callable[[World], Decision]) -> None:
    style(world)
    made = world.record
    for attempt in (2, 3, 4):
        style(world)
        record = world.record
        assert record["status"] == "skipped"
        assert record["attempt"] == attempt
        assert record["reason"] == ONCE_MORE
        assert record["inputs"] == made["inputs"]
        assert record["outputs"] == made["outputs"]
        assert record["outputs"][0]["words"] == 7
        assert record["resume"]["source"]["attempt"] == 1
        assert record["resume"]["source"]["span_id"] == made["trace"]["span_id"]
        link = (made["trace"]["trace_id"], made["trace"]["span_id"], "made the outputs")
        assert link in links_of(world.job, "asr", attempt)
        attributes = span_of(world.job, "asr", attempt)["attributes"]
        assert attributes["cicd.pipeline.task.run.result"] == "skip"
    assert world.ran == 1


def test_the_stage_after_a_skip_finds_its_inputs(world: World) -> None:
    def run() -> tuple[Path, list[Path], Decision]:
        with Pipeline("subtitles", world.job) as pipeline:
            with pipeline.stage("asr") as io:
                world.body(io)
            with pipeline.stage("alignment") as io:
                path = io.track_input(io.get_input_path("segments.json", from_stage="asr"))
                found = io.get_all_inputs()
                decision = io.up_to_date()
                if not decision:
                    io.track_output(io.save_json(path.read_text(), "aligned.json"))
        return path, found, decision

    first, second = run(), run()
    assert first[:2] == second[:2]
    assert second[0].read_text() == "ONE TWO"
    assert second[2]


def test_a_change_after_the_decision_is_not_made_good_by_the_skip(world: World) -> None:
    world.run()
    with StageIO("asr", world.job) as io:
        assert world.body(io)
        world.output.write_text("tampered with")
        AUDIO.write_text("changed")
    assert world.run().sentence.startswith("input changed: audio.wav (sha256 ")
    world.output.write_text("tampered with")
    assert not world.run()


def test_a_skip_in_the_middle_of_which_the_process_dies_is_no_success(world: World, tmp_path: Path) -> None:
    world.run()
    kill_after(start_python(program(tmp_path), world.job, "wait", cwd=Path.cwd()), 2)
    assert world.run().sentence.startswith("the last attempt crashed")
    assert world.ran == 2


def test_the_answer_is_logged_and_the_console_stays_as_it_was_set(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with StageIO("asr", world.job) as io:
        io.get_stage_logger("ERROR")
        world.body(io)
        io.get_stage_logger("ERROR").info("more")
    assert "has to run" not in capsys.readouterr().out
    assert "has to run: never succeeded: it has not run before" in (world.job / "06_asr" / "stage.log").read_text()
    world.run()
    assert f"[stage.asr] [INFO] skipped: {ONCE_MORE}" in capsys.readouterr().out


def test_a_stage_that_asks_and_then_fails(world: World) -> None:
    world.run()
    with pytest.raises(RuntimeError), StageIO("asr", world.job) as io:
        assert world.body(io)
        raise RuntimeError("after the skip")
    assert world.record["status"] == "failed"
    assert not world.run()


def test_a_bug_in_ours_makes_the_stage_run(
    world: World, as_in_production: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.run()

    def broken(*_: Any, **__: Any) -> Decision:
        raise ZeroDivisionError

    monkeypatch.setattr("otel_stageio.stages.up_to_date.decide", broken)
    assert not world.run()
    assert world.record["status"] == "success"


# -- programs --------------------------------------------------------------------------------------------------------


def by_command(job: Path, words: list[Any], **how: Any) -> tuple[str, str]:
    with Pipeline("subtitles", job) as run:
        result = run.command("asr", words, **{"resume": True, **how})
    record = read_manifest(job / "06_asr")
    assert record["lost"] == {}
    return result.status, record["resume"]["sentence"]


COPY = ["sh", "-c", "tr a-z A-Z < audio.wav > upper.txt; echo run >> runs"]
FILES: dict[str, Any] = {"inputs": ["audio.wav"], "outputs": ["upper.txt"]}

COMMANDS: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "nothing": (lambda: None, {}, ONCE_MORE),
    "input touched": (lambda: os.utime(AUDIO, (1, 1)), {}, ONCE_MORE),
    "input changed": (lambda: AUDIO.write_text("three"), {},
                      f"input changed: audio.wav (sha256 {sha('one two')}→{sha('three')})"),
    "output deleted": (lambda: Path("upper.txt").unlink(), {}, "output missing: upper.txt"),
    "output truncated": (lambda: os.truncate("upper.txt", 0), {},
                         f"output changed: upper.txt (sha256 {sha('ONE TWO')}→{sha('')})"),
    "version": (lambda: None, {"code": "v2"}, "code changed: version (not set)→v2"),
    "environment": (lambda: None, {"env": {"THREADS": "4"}}, "environment THREADS (not set)→4"),
    "input added": (lambda: Path("words").write_text("x"), {"inputs": ["audio.wav", "words"]}, "input added: words"),
}  # fmt: skip


@pytest.mark.parametrize("what", COMMANDS)
def test_a_program_that_knows_nothing_of_this(job: Path, what: str) -> None:
    AUDIO.write_text("one two")
    change, how, sentence = COMMANDS[what]
    assert by_command(job, COPY, **FILES) == ("success", "never succeeded: it has not run before")
    change()
    skipped = sentence == ONCE_MORE
    assert by_command(job, COPY, **{**FILES, **how}) == ("skipped" if skipped else "success", sentence)
    assert Path("runs").read_text().count("run") == (1 if skipped else 2)


def test_a_program_in_another_directory(job: Path) -> None:
    AUDIO.write_text("one two")
    by_command(job, COPY, **FILES)
    status, sentence = by_command(job, COPY, cwd=".", **FILES)
    assert status == "success"
    assert sentence.startswith("parameter directory (not set)→")


def test_a_program_is_skipped_only_where_that_was_asked_for(job: Path) -> None:
    AUDIO.write_text("one two")
    by_command(job, COPY, **FILES)
    with Pipeline("subtitles", job) as run:
        assert run.command("asr", COPY, inputs=["audio.wav"], outputs=["upper.txt"]).status == "success"
    assert by_command(job, COPY, **FILES)[1] == "attempt 2 did not say what its result depends on"


def test_other_arguments(job: Path) -> None:
    AUDIO.write_text("one two")
    by_command(job, COPY, **FILES)
    status, sentence = by_command(job, [*COPY, "--beam", "8"], **FILES)
    assert status == "success"
    assert sentence.startswith("parameter arguments ")


def test_a_script_among_the_arguments_is_code(job: Path, tmp_path: Path) -> None:
    script = write_script(tmp_path / "copy.sh", "cp audio.wav copy.txt")
    words: list[Any] = ["sh", script]
    files: dict[str, Any] = {"inputs": ["audio.wav"], "outputs": ["copy.txt"]}
    AUDIO.write_text("one")
    by_command(job, words, **files)
    assert by_command(job, words, **files)[0] == "skipped"
    script.write_text("cp audio.wav copy.txt; echo >> copy.txt")
    assert by_command(job, words, **files) == ("success", "code changed: copy.sh")


def test_code_that_is_named_stands_beside_the_script(job: Path, tmp_path: Path) -> None:
    script = write_script(tmp_path / "copy.sh", "cp audio.wav copy.txt")
    words: list[Any] = ["sh", script]
    how: dict[str, Any] = {"inputs": ["audio.wav"], "outputs": ["copy.txt"], "code": "v1"}
    AUDIO.write_text("one")
    by_command(job, words, **how)
    assert by_command(job, words, **how)[0] == "skipped"
    assert by_command(job, words, **{**how, "code": "v2"}) == ("success", "code changed: version v1→v2")
    script.write_text("cp audio.wav copy.txt; echo >> copy.txt")
    assert by_command(job, words, **{**how, "code": "v2"}) == ("success", "code changed: copy.sh")


def test_a_program_that_failed_or_could_not_be_started(job: Path) -> None:
    AUDIO.write_text("one two")
    assert by_command(job, ["sh", "-c", "exit 3"], check=False, **FILES)[0] == "failed"
    status, sentence = by_command(job, COPY, **FILES)
    assert status == "success"
    assert sentence.startswith("never succeeded: the last attempt failed: sh exited with code 3")
    assert by_command(job, COPY, **FILES)[0] == "skipped"


def test_a_pipeline_that_resumes_asks_for_each_command(job: Path) -> None:
    AUDIO.write_text("one two")
    for expected in ("success", "skipped"):
        with Pipeline("subtitles", job, resume=True) as run:
            assert run.command("asr", COPY, inputs=["audio.wav"], outputs=["upper.txt"]).status == expected
            assert run.command("mux", ["true"], resume=False).status == "success"


JOINING = """
    import os, sys
    from pathlib import Path
    from otel_stageio import StageIO
    with StageIO("asr", sys.argv[1]) as io:
        io.track_input("audio.wav")
        io.save_json(Path("audio.wav").read_text().upper(), "segments.json")
        io.track_output(io.get_output_path("segments.json"), "transcript")
        with open("runs", "a") as file:
            file.write("run")
"""


def test_a_program_that_opens_the_stage_itself(job: Path, tmp_path: Path) -> None:
    words: list[Any] = [sys.executable, write_script(tmp_path / "asr.py", JOINING), job]
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    AUDIO.write_text("one")
    assert by_command(job, words)[0] == "success"
    made = read_manifest(job / "06_asr")
    assert made["outputs"][0]["digest"]
    assert by_command(job, words) == ("skipped", ONCE_MORE)
    skipped = read_manifest(job / "06_asr")
    assert (skipped["inputs"], skipped["outputs"]) == (made["inputs"], made["outputs"])
    link = (made["trace"]["trace_id"], made["trace"]["span_id"], "made the outputs")
    assert link in links_of(job, "asr", 2)
    AUDIO.write_text("two")
    assert by_command(job, words)[0] == "success"
    (job / "06_asr" / "segments.json").unlink()
    assert by_command(job, words) == ("success", "output missing: 06_asr/segments.json")
    Path(words[1]).write_text(Path(words[1]).read_text() + "\n")
    assert by_command(job, words) == ("success", "code changed: asr.py")
    assert Path("runs").read_text().count("run") == 4


def test_a_program_that_asks_for_itself_is_started_for_it(job: Path, tmp_path: Path) -> None:
    asking = JOINING.replace(
        'io.track_input("audio.wav")',
        'io.track_input("audio.wav"); beam = os.environ.get("BEAM", "5")\n'
        '        if io.up_to_date(params={"beam": beam}, code=__file__): sys.exit()',
    )
    words: list[Any] = [sys.executable, write_script(tmp_path / "asr.py", asking), job]
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    AUDIO.write_text("one")
    assert by_command(job, words)[0] == "success"
    assert by_command(job, words) == ("skipped", ONCE_MORE)
    os.environ["BEAM"] = "8"  # which only the program knows
    assert by_command(job, words) == ("success", "parameter beam 5→8")
    assert by_command(job, words) == ("skipped", ONCE_MORE.replace("attempt 1", "attempt 3"))
    assert Path("runs").read_text().count("run") == 2


def test_ctrl_c_while_it_is_decided_cancels_the_stage(world: World, tmp_path: Path) -> None:
    world.run()
    os.utime(AUDIO, (1, 1))
    slow = """
        from otel_stageio.resume import digest

        def slow(path, stop=None, most=0):
            print("reading", flush=True)
            while True:
                pass

        digest.file_sha256 = slow
    """
    script = write_script(tmp_path / "program.py", slow)
    script.write_text(script.read_text() + write_script(tmp_path / "rest.py", PROGRAM).read_text())
    process = start_python(script, world.job, "go on", cwd=Path.cwd())
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGINT
    assert world.record["status"] == "cancelled"
    assert world.run().sentence.startswith("the last attempt was cancelled")
