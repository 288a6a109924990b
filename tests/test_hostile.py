"""Whatever a stage hands over, by any call: nothing is raised, nothing is written elsewhere, the record stays sound."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_capture import ANYTHING, ODDITIES, Endless, Never, Refusing, Shouting, names

from otel_stageio import Manifest, Pipeline, RunRecord, StageIO, stage
from otel_stageio.fold import RESERVED, RESERVED_ENTRY, fold
from otel_stageio.layout import Job
from otel_stageio.otlp import decode
from otel_stageio.runtime import runtime
from otel_stageio.testing import Records

# -- values ----------------------------------------------------------------------------------------------------------

LARGE = {
    "text": "größer\n" * 1_400_000,
    "bytes": b"\xff" * 3_000_000,
    "list": list(range(50_000)),
    "key": {"k" * 3_000_000: 1},
}
value = ANYTHING | ANYTHING | ANYTHING | names | st.sampled_from(sorted(LARGE)).map(lambda name: LARGE[name])
word = names | st.sampled_from(
    ["", "asr", "..", "/etc/passwd", "a/b", "\0", "x\ny", "\u202exyz", "\ud800", "manifest", "a" * 300]
)
path = (
    word
    | word.filter(lambda text: "\ud800" not in text).map(Path)
    | word.map(lambda text: text.encode("utf-8", "ignore"))
)
PARAMETERS = {"self", "file_path", "file_type", "name", "status", "save_manifest", "exception", "message"}
OURS = sorted(
    {*RESERVED, *RESERVED_ENTRY, "type", "retained", "reason", "role", "error", "exit_code"}
    | {"stageio.redactions", "stageio.sanitised", "stageio.lost.x", "stageio.local.path", "stageio.local.trace"}
    | {"cicd.pipeline.task.name", "stageio.stage.status", "exception.type", "error.type", "message", "body", "…", ""}
)
some = st.dictionaries((st.sampled_from(OURS) | word).filter(lambda key: key not in PARAMETERS), value, max_size=4)
exception = (
    value | value.map(lambda item: ValueError(item)) | st.builds(KeyError, word) | st.just(OSError(2, "x", "\ud800"))
)
log_level = value | st.sampled_from(["debug", "²", "9" * 5_000, "-1", "INFO\n", True, 10**30])


# Outcomes that are documented. Anything else that is raised is a bug.
NAMES = (TypeError, ValueError)
FILES = (TypeError, ValueError, OSError)
CALLS: dict[str, tuple[Any, tuple[type[Exception], ...]]] = {
    "track_input": (st.tuples(path | value, value, some), NAMES),
    "track_output": (st.tuples(path, word | value, some), NAMES),
    "track_intermediate": (st.tuples(path, value, value), NAMES),
    "add_config": (st.tuples(word | value, value), ()),
    "set_config": (st.tuples(some | value), ()),
    "set_resources": (st.tuples(some), ()),
    "add_warning": (st.tuples(value), ()),
    "add_error": (st.tuples(value, exception), ()),
    "event": (st.tuples(word | value, some), ()),
    "progress": (st.tuples(value, value, value), ()),
    "span": (st.tuples(word | value, some), ()),
    "log": (st.tuples(log_level, value, st.lists(value, max_size=3), exception), ()),
    "get_output_path": (st.tuples(path), NAMES),
    "get_input_path": (st.tuples(word, word), FILES),
    "get_log_path": (st.tuples(word), ()),
    "save_json": (st.tuples(value, word), FILES),
    "load_json": (st.tuples(word, word), FILES),
    "save_metadata": (st.tuples(some), FILES),
    "load_metadata": (st.tuples(word), FILES),
    "copy_to_base": (st.tuples(word), FILES),
    "compute_hash": (st.tuples(path), FILES),
    "get_all_inputs": (st.tuples(), ()),
    "manifest.add_input": (st.tuples(path, value, some), NAMES),
    "manifest.add_config": (st.tuples(value, value), ()),
    "manifest.add_error": (st.tuples(value, exception), ()),
    "manifest.add_intermediate": (st.tuples(path, value, value), NAMES),
    "manifest.to_dict": (st.tuples(), ()),
}
TAKES_KEYWORDS = {"track_input", "track_output", "set_resources", "event", "span", "manifest.add_input"}
endings = st.sampled_from(["finalize", "finalize", "skip", "raise", "leave", "exit_code"])


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, tuple[Any, ...], dict[str, Any], tuple[type[Exception], ...]]:
    name = draw(st.sampled_from(sorted(CALLS)))
    arguments, expected = CALLS[name]
    drawn = draw(arguments)
    if name in TAKES_KEYWORDS:
        return name, drawn[:-1], drawn[-1], expected
    return name, drawn, {}, expected


def make(io: StageIO, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    if name == "log":
        level, message, rest, error = arguments
        log = io.get_stage_logger(level)
        log.info(message, *rest)
        log.debug("%s %d", *rest)
        log.error("failed", exc_info=error)
        logging.getLogger("lib\nrary]").warning(message)
    elif name == "span":
        with io.span(*arguments, **keywords):
            pass
    elif name == "save_json" and arguments[1] in ("manifest.json", "stage.log"):
        pass  # a stage that overwrites its own record has no record
    elif name.startswith("manifest."):
        getattr(io.manifest, name.removeprefix("manifest."))(*arguments, **keywords)
    else:
        getattr(io, name)(*arguments, **keywords)


# -- soundness -------------------------------------------------------------------------------------------------------


def strict(text: str) -> Any:
    """JSON as the standard has it: no NaN, and every string is Unicode."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(text, parse_constant=refuse)
    json.dumps(content, ensure_ascii=False).encode()
    return content


def assert_sound(io: StageIO) -> dict[str, Any]:
    content = strict(io.manifest_path.read_text(encoding="utf-8"))
    Manifest.load(io.manifest_path)
    assert (content["kind"], content["stage"]) == ("stageio.manifest", io.stage_name)
    assert isinstance(content, dict)
    return content


def assert_replays(job: Path, io: StageIO, attempt: int, content: dict[str, Any]) -> None:
    """The manifest is what its journal says, and nothing else."""
    lines = decode.Lines(Job(job).journal(io.stage_name, attempt))
    replayed = fold(decode.events(lines))
    assert lines.damaged == 0
    assert replayed == {key: item for key, item in content.items() if key not in ("attempts", "substages")}


def outside(parent: Path, job: Path) -> dict[str, bytes | None]:
    """Every file and directory beside the job."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in parent.rglob("*")
        if path != job and job not in path.parents
    }


class Place:
    """A job in a directory of its own, with files beside it that somebody might reach by ``..``."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self.job = parent / "out" / "job"
        self.cwd = parent / "cwd"
        for directory in (self.job, self.cwd):
            directory.mkdir(parents=True)
        for name in ("passwd", "x", "a", "out/x", "out/passwd"):
            (parent / name).write_text("not yours")
        os.chdir(self.cwd)
        self.before = outside(self.parent, self.job)

    def assert_untouched(self) -> None:
        assert outside(self.parent, self.job) == self.before


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OTEL_STAGEIO_CONSOLE", "off")
    here, levels = os.getcwd(), {name: logging.getLogger(name).level for name in ("opentelemetry",)}
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    yield
    os.chdir(here)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


made: Counter[str] = Counter()


@given(word, st.lists(calls(), min_size=30, max_size=80), endings, some, st.data())
@settings(max_examples=45)
def test_nothing_is_raised_and_the_record_stays_sound(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    sequence: list[Any],
    ending: str,
    more: dict[str, Any],
    data: st.DataObject,
) -> None:
    place = Place(tmp_path_factory.mktemp("place"))
    try:
        io = StageIO(name, place.job, attributes=data.draw(some))
    except ValueError:
        assert not any(character.isalnum() for character in name)
        io = StageIO("asr", place.job, attributes=data.draw(some))
    assert_sound(io)
    io.__enter__()
    error: Exception | None = None
    try:
        for call, arguments, keywords, expected in sequence:
            made[call] += 1
            try:
                make(io, call, arguments, keywords)
            except expected:
                pass
            assert_sound(io)
        if ending == "finalize":
            io.finalize(data.draw(word | value), **more)
        elif ending == "exit_code":
            io.finalize_stage_manifest(3, **{key: item for key, item in more.items() if key != "exit_code"})
        elif ending == "skip":
            io.skip(data.draw(value))
        elif ending == "raise":
            error = data.draw(exception.filter(lambda item: type(item) in (ValueError, KeyError, OSError)))
    finally:
        io.__exit__(type(error) if error else None, error, None)
    content = assert_sound(io)
    assert content["status"] != "running" or ending == "finalize"
    assert_replays(place.job, io, 1, content)
    place.assert_untouched()
    RunRecord.load(place.job)
    strict((place.job / ".stageio" / "run.json").read_text())
    for line in (io.stage_dir / "stage.log").read_bytes().decode().splitlines():
        assert not line.startswith("[") or line.startswith("[2")


def test_it_was_a_great_many_calls() -> None:
    if "test_nothing_is_raised" not in str(made) and not made:
        pytest.skip("runs after the test above, and counts what that has called")
    assert sum(made.values()) > 1_000
    assert set(made) == set(CALLS)


@pytest.mark.parametrize("method", sorted(TAKES_KEYWORDS))
@pytest.mark.parametrize("key", OURS)
def test_keys_named_like_reserved_ones(records: Records, method: str, key: str) -> None:
    """Each with values of every type, because the schema has an opinion on its own keys."""
    if key in PARAMETERS:
        pytest.skip("a parameter of that name")
    first = {
        "track_input": ("x",),
        "track_output": ("x",),
        "event": ("x",),
        "span": ("x",),
        "manifest.add_input": ("x",),
    }
    with StageIO("asr", records.job, attributes={key: "x"}) as io:
        for item in ("text", 1, 1.5, None, True, [1], {"a": 1}, {}, float("nan"), -(2**70), b"x"):
            make(io, method, first.get(method, ()), {key: item})
            make(io, "add_config", (key, item), {})
        assert_sound(io)
    content = assert_sound(io)
    assert content["status"] == "success"
    assert content["stage"] == "asr"
    assert_replays(records.job, io, 1, content)


@pytest.mark.parametrize("key", [key for key in OURS if key not in PARAMETERS])
def test_final_keys_named_like_reserved_ones(records: Records, key: str) -> None:
    for number, item in enumerate(("text", 1, 1.5, None, True, [1], {"a": 1}, b"x"), 1):
        io = StageIO("asr", records.job)
        io.finalize("failed", **{key: item})
        content = assert_sound(io)
        assert (content["status"], content["stage"], content["attempt"]) == ("failed", "asr", number)
        assert_replays(records.job, io, number, content)


@pytest.mark.parametrize("number", sorted(ODDITIES, key=int))
def test_each_oddity_by_each_call(records: Records, number: str) -> None:
    odd = ODDITIES[number]
    with StageIO("asr", records.job, attributes={"odd": odd}) as io:
        log = io.get_stage_logger(odd)
        log.info(odd)
        log.info("%s %r %d", odd, odd, odd)
        log.info("%(x)s", {"x": odd})
        log.warning("x", odd)
        log.error("x", exc_info=odd)
        io.set_config(odd)
        io.set_config({"odd": odd, "list": [odd]})
        io.add_config(odd, odd)
        io.set_resources(odd=odd)
        io.add_warning(odd)
        io.add_error(odd, odd)
        io.add_error(odd, ValueError(odd))
        io.event(odd, odd=odd)
        io.progress(odd, odd, odd)
        io.track_input("x", odd, odd=odd, retained=odd, reason=odd)
        io.track_intermediate("y", odd, odd)
        with io.span(odd, odd=odd):
            pass
        assert_sound(io)
        io.finalize(odd, True, odd=odd)
    assert_replays(records.job, io, 1, assert_sound(io))
    with StageIO("mux", records.job) as io:
        io.skip(odd)
    assert_sound(io)
    with pytest.raises(ValueError), StageIO("demux", records.job) as io, io.span("x"):
        raise ValueError(odd)
    assert assert_sound(io)["status"] == "failed"
    with pytest.raises(SystemExit), StageIO("tmdb", records.job) as io:
        raise SystemExit(odd)
    assert assert_sound(io)["status"] in ("failed", "success")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Odd(type):
    def __str__(cls) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


OddlyNamed = type("Odd\n[name]\u202e", (Exception,), {"__module__": "a\nb"})


@pytest.mark.parametrize(
    "error",
    [
        Unspeakable(),
        OddlyNamed("x"),
        ValueError("\ud800\x00\n[2025-11-27 10:11:12] [stage.asr] [INFO] forged"),
        SyntaxError("x", ("f", 1, 2, "text\ud800", 3, 4)),
        SyntaxError(Refusing()),
        OSError(2, "x", "\udcff"),
        UnicodeDecodeError("utf-8", b"\xff" * 1_000_000, 0, 1, "x"),
        Exception(),
        KeyError(Shouting("x")),
        ValueError("x" * 10_000_000),
    ],
    ids=range(10),
)
def test_exceptions_that_are_hard_to_print(records: Records, error: Exception) -> None:
    with pytest.raises(type(error)), StageIO("asr", records.job) as io:
        io.add_error("before", error)
        io.get_stage_logger().error("logged", exc_info=error)
        with io.span("inner"):
            raise error
    content = assert_sound(io)
    assert content["status"] == "failed"
    assert content["errors"]
    assert_replays(records.job, io, 1, content)
    text = (records.job / "06_asr" / "stage.log").read_text(encoding="utf-8")
    assert not [line for line in text.splitlines() if "forged" in line and line.startswith("[2025-11-27")]
    with pytest.raises(type(error)), Pipeline("x", records.job) as run, run.stage("mux"):
        raise error
    assert RunRecord.load(records.job).status == "failed"


@pytest.mark.parametrize(
    "name", ["..", ".", "", "/", "\0", "\n", "\u202e", "\ud800", "...", "../..", " ", "_", "-", "\u2028", "[]"]
)
def test_a_name_of_nothing_is_refused(records: Records, name: str) -> None:
    with pytest.raises(ValueError, match="stage name"):
        StageIO(name, records.job)
    with pytest.raises(ValueError, match="stage name"):
        stage(name, records.job)(lambda io: None)()
    assert not records.job.exists()


@pytest.mark.parametrize("name", [None, 7, b"asr", Path("asr"), Refusing(), Endless(), Never(), np.str_("")])
def test_a_name_that_is_none_is_refused(records: Records, name: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        StageIO(name, records.job)
    assert not records.job.exists()


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/etc/passwd",
        "a\0b",
        "a\nb",
        "\u202eabc",
        "a\ud800",
        "x" * 5_000,
        "漢" * 900,
        "..x..",
        "~root",
        "a/b/c",
    ],
)
def test_a_stage_of_any_name_stays_in_its_job(tmp_path: Path, name: str) -> None:
    place = Place(tmp_path)
    with StageIO(name, place.job) as io:
        io.get_stage_logger().info("hello")
        io.save_json({}, "x.json")
    assert io.stage_dir.parent == place.job
    assert assert_sound(io)["status"] == "success"
    with Pipeline(name, place.job, stages=[name], attributes={name: name}) as run:
        run.command(name, ["true"])
    assert RunRecord.load(place.job).status == "success"
    strict((place.job / ".stageio" / "run.json").read_text())
    place.assert_untouched()


@pytest.mark.parametrize("level", ["NO\n[2025-11-27 10:11:12] [x] [ERROR] forged", "A\x1b[31mB", "\u2028", "\ud800"])
def test_a_level_of_any_name_forges_no_line(records: Records, level: str) -> None:
    logging.addLevelName(35, level)
    try:
        with StageIO("asr", records.job) as io:
            io.get_stage_logger().log(35, "hello")
            logging.getLogger("x\n[2025-11-27 10:11:12] [x] [ERROR] forged").warning("hello")
    finally:
        logging.addLevelName(35, "Level 35")
    text = (records.job / "06_asr" / "stage.log").read_bytes().decode()
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "job", ["out\njob", "out\u202ejob", "sur\udcffrogate", "a" * 200, "üñï", "with space", "[2025]"]
)
def test_a_job_directory_of_any_name(tmp_path: Path, job: str) -> None:
    base = tmp_path / job
    with StageIO("asr", base) as io:
        io.get_stage_logger().info("in %s", base)
        io.track_output(io.get_output_path("x"))
        with io.span("x", path=str(base)):
            pass
    assert_replays(base, io, 1, assert_sound(io))
    strict((base / ".stageio" / "run.json").read_text())
    spans = Records(base).spans("asr")
    assert [span["name"] for span in spans] == ["x", "asr"]
    assert RunRecord.load(base).pipeline


def test_in_production_nothing_of_this_is_an_internal_error_either(records: Records, as_in_production: None) -> None:
    with StageIO("asr", records.job) as io:
        for odd in ODDITIES.values():
            io.event("x", odd=odd)
            io.set_config(odd)
            io.add_error(odd, odd)
    assert runtime.internal_errors == {}
