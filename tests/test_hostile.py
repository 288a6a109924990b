"""Whatever a stage hands over, by any call: nothing is raised, nothing is written elsewhere, the record stays sound."""

from __future__ import annotations

import functools
import json
import logging
import os
import random
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_capture import ODDITIES, Endless, Never, Number, Refusing, Shouting

from otel_stageio import Manifest, ManifestError, Pipeline, RunRecord, StageIO, StageManifest, stage
from otel_stageio.layout import Job
from otel_stageio.otlp import decode
from otel_stageio.record.fold import RESERVED, RESERVED_ENTRY, fold
from otel_stageio.runtime import runtime
from otel_stageio.testing import Records

# -- values ----------------------------------------------------------------------------------------------------------

LARGE = ("größer\n" * 1_400_000, b"\xff" * 3_000_000, list(range(50_000)), {"k" * 3_000_000: 1})
WORDS = (
    "", "asr", "..", "../x", "/etc/passwd", "a/b", "a/../../x", "\0", "x\0y", "x\ny", "\u202exyz", "\ud800", "\x1b[31m",
    "x" * 300, "漢" * 100, " ", ".hidden", "~", "%s %d", "segments.json", "e\u0301", "\u2028", "[2025] [x] forged",
)  # fmt: skip
PARAMETERS = {"self", "file_path", "file_type", "name", "status", "save_manifest", "exception", "message"}
OURS = sorted(
    {*RESERVED, *RESERVED_ENTRY, "type", "retained", "reason", "role", "error", "exit_code"}
    | {"stageio.redactions", "stageio.sanitised", "stageio.lost.x", "stageio.local.path", "stageio.local.trace"}
    | {"cicd.pipeline.task.name", "stageio.stage.status", "exception.type", "error.type", "message", "body", "…", ""}
)


class Hostile(random.Random):
    """Makes up arguments; the same seed makes up the same."""

    def word(self) -> str:
        if self.random() < 0.5:
            return self.choice(WORDS)
        return "".join(chr(self.choice((self.randrange(0x80), self.randrange(0x3000), self.randrange(0x110000))))
                       for _ in range(self.randrange(12)))  # fmt: skip

    def value(self, depth: int = 3) -> Any:
        kind = self.random()
        if kind < 0.005:
            return self.choice(LARGE)
        if kind < 0.5:
            return self.choice(list(ODDITIES.values()))
        if kind < 0.6:
            return self.word()
        if kind < 0.7 or not depth:
            return self.choice((self.getrandbits(70) - 2**69, self.gauss(0, 1e300), self.random(), True, None))
        inner = [self.value(depth - 1) for _ in range(self.randrange(4))]
        if kind < 0.8:
            return inner
        if kind < 0.85:
            return tuple(inner)
        if kind < 0.9:
            loop: dict[str, Any] = {"inner": inner}
            inner.append(loop)
            return loop
        return self.some(depth)

    def some(self, depth: int = 3) -> dict[str, Any]:
        keys = {self.choice(OURS) if self.random() < 0.4 else self.word() for _ in range(self.randrange(5))}
        return {key: self.value(depth - 1) for key in sorted(keys - PARAMETERS)}

    def path(self) -> Any:
        word = self.word()
        return self.choice((word, Path(word.replace("\0", "")), word.encode("utf-8", "ignore")))

    def exception(self) -> Any:
        made = self.choice((ValueError, KeyError, OSError, Exception))(self.value())
        return made if self.random() < 0.8 else self.value()

    def level(self) -> Any:
        return self.choice(("debug", "²", "9" * 5_000, "-1", "INFO\n", True, 10**30, self.value()))


# Outcomes that are documented. Anything else that is raised is a bug.
NAMES = (TypeError, ValueError)
FILES = (TypeError, ValueError, OSError)
JSON = (TypeError, ValueError, OSError, RuntimeError)  # what is no JSON, or has code of its own that raises
Call = tuple[Callable[[StageIO, Hostile], Any], tuple[type[Exception], ...]]
CALLS: dict[str, Call] = {
    "track_input": (lambda io, any_: io.track_input(any_.path(), any_.value(), **any_.some()), NAMES),
    "track_input of no path": (lambda io, any_: io.track_input(any_.value()), NAMES),
    "track_output": (lambda io, any_: io.track_output(any_.path(), any_.word(), **any_.some()), NAMES),
    "track_intermediate": (lambda io, any_: io.track_intermediate(any_.path(), any_.value(), any_.value()), NAMES),
    "add_config": (lambda io, any_: io.add_config(any_.word(), any_.value()), ()),
    "add_config of no word": (lambda io, any_: io.add_config(any_.value(), any_.value()), (TypeError,)),  # not hashable
    "set_config": (lambda io, any_: io.set_config(any_.some()), ()),
    "set_config of no mapping": (lambda io, any_: io.set_config(any_.value()), ()),
    "set_resources": (lambda io, any_: io.set_resources(**any_.some()), ()),
    "add_warning": (lambda io, any_: io.add_warning(any_.value()), ()),
    "add_error": (lambda io, any_: io.add_error(any_.value(), any_.exception()), ()),
    "event": (lambda io, any_: io.event(any_.value(), **any_.some()), ()),
    "progress": (lambda io, any_: io.progress(any_.value(), any_.value(), any_.value()), ()),
    "span": (lambda io, any_: in_a_span(io, any_.value(), any_.some()), ()),
    "log": (lambda io, any_: log(io, any_), ()),
    "get_output_path": (lambda io, any_: io.get_output_path(any_.path()), NAMES),
    "get_input_path": (lambda io, any_: io.get_input_path(any_.word(), any_.choice((None, any_.word()))), FILES),
    "get_log_path": (lambda io, any_: io.get_log_path(any_.word()), ()),
    "save_json": (lambda io, any_: io.save_json(any_.value(), any_.word()), JSON),
    "load_json": (lambda io, any_: io.load_json(any_.word(), any_.choice((None, any_.word()))), FILES),
    "save_metadata": (lambda io, any_: io.save_metadata(any_.some()), JSON),
    "load_metadata": (lambda io, any_: io.load_metadata(any_.word()), FILES),
    "copy_to_base": (lambda io, any_: io.copy_to_base(any_.word()), FILES),
    "compute_hash": (lambda io, any_: io.compute_hash(any_.path()), FILES),
    "get_all_inputs": (lambda io, any_: io.get_all_inputs(), ()),
    "manifest.add_input": (lambda io, any_: manifest(io).add_input(any_.path(), any_.value(), **any_.some()), NAMES),
    "manifest.add_config": (lambda io, any_: manifest(io).add_config(any_.word(), any_.value()), ()),
    "manifest.add_error": (lambda io, any_: manifest(io).add_error(any_.value(), any_.exception()), ()),
    "manifest.add_intermediate": (
        lambda io, any_: manifest(io).add_intermediate(any_.path(), any_.value(), any_.value()),
        NAMES,
    ),
    "manifest.to_dict": (lambda io, any_: manifest(io).to_dict(), ()),
}


def manifest(io: StageIO) -> StageManifest:
    assert io.manifest is not None
    return io.manifest


def in_a_span(io: StageIO, name: Any, attributes: dict[str, Any]) -> None:
    with io.span(name, **attributes) as span:
        span.set_attribute("n", 1)


def log(io: StageIO, any_: Hostile) -> None:
    logger = io.get_stage_logger(any_.level())
    logger.info(any_.value(), *any_.some().values())
    logger.debug("%s %d", any_.value(), any_.value())
    logger.error("failed", exc_info=ValueError(any_.value()))
    logging.getLogger("lib\nrary]").warning(any_.word())  # pytest's own handler has no mercy with other values


# -- soundness -------------------------------------------------------------------------------------------------------


def told(test: Callable[..., None]) -> Callable[..., None]:
    """Say what was raised and where, and no more: pytest cannot print values that refuse to be printed."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        said = ""
        try:
            test(*args, **kwargs)
        except (AssertionError, ManifestError) as raised:
            raise raised from None
        except Exception as raised:
            said = f"{type(raised).__name__} at {where(raised)}"
        if said:  # outside of the except block: its exception would be printed as the cause
            pytest.fail(said, pytrace=False)

    return run


@contextmanager
def leaves(error: Exception) -> Iterator[None]:
    """Like ``pytest.raises``, of this very exception, which pytest might not be able to print."""
    said = "nothing was raised"
    try:
        yield
    except Exception as raised:
        said = "" if raised is error else f"{type(raised).__name__} at {where(raised)}"
    if said:
        raise pytest.fail.Exception(said, pytrace=False) from None


def where(raised: Exception) -> str:
    """The last place in the library that an exception came through; its own text might raise."""
    frames = [
        frame for frame, _ in traceback.walk_tb(raised.__traceback__) if "otel_stageio" in frame.f_code.co_filename
    ]
    return f"{frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else "the test itself"


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


SEEDS, EACH = 45, 50


@pytest.mark.parametrize("seed", range(SEEDS))
@told
def test_nothing_is_raised_and_the_record_stays_sound(tmp_path: Path, seed: int) -> None:
    """45 stages, 50 calls each, about five hostile values a call."""
    any_, place = Hostile(seed), Place(tmp_path)
    try:
        io = StageIO(any_.word(), place.job, attributes=any_.some())
    except ValueError:
        io = StageIO("asr", place.job, attributes=any_.some())
    assert_sound(io)
    names = list(CALLS) * 2
    any_.shuffle(names)
    ending = any_.choice(("finalize", "skip", "raise", "leave", "exit code"))
    error = ValueError(any_.value())
    with leaves(error) if ending == "raise" else nullcontext(), io:
        for name in names[:EACH]:
            call, documented = CALLS[name]
            with suppress(*documented):
                call(io, any_)
            assert_sound(io)
        if ending == "finalize":
            io.finalize(any_.value(), **any_.some())
        elif ending == "exit code":
            io.finalize_stage_manifest(3, **{key: item for key, item in any_.some().items() if key != "exit_code"})
        elif ending == "skip":
            io.skip(any_.value())
        elif ending == "raise":
            raise error
    content = assert_sound(io)
    expected = {"skip": "skipped", "raise": "failed", "leave": "success", "exit code": "failed"}
    assert content["status"] == expected.get(ending, content["status"])
    assert_replays(place.job, io, 1, content)
    place.assert_untouched()
    assert RunRecord.load(place.job).run_id == content["trace"]["run_id"]
    strict((place.job / ".stageio" / "run.json").read_text())
    for line in (io.stage_dir / "stage.log").read_bytes().decode().splitlines():
        assert not line.startswith("[") or re.match(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[[^\n]*\] \[[A-Z]+\] ", line)


KEYS = [key for key in OURS if key not in PARAMETERS]


@pytest.mark.parametrize("key", KEYS)
@told
def test_keys_named_like_reserved_ones(records: Records, key: str) -> None:
    """Each with values of every type, because the schema has an opinion on its own keys."""
    with StageIO("asr", records.job, attributes={key: "x"}) as io:
        for item in ("text", 1, 1.5, None, True, [1], {"a": 1}, {}, float("nan"), -(2**70), b"x"):
            io.track_input("x", **{key: item})
            io.track_output("x", **{key: item})
            manifest(io).add_output("y", **{key: item})
            io.set_resources(**{key: item})
            io.event("x", **{key: item})
            io.add_config(key, item)
            in_a_span(io, "x", {key: item})
            assert_sound(io)
    content = assert_sound(io)
    assert (content["status"], content["stage"]) == ("success", "asr")
    assert_replays(records.job, io, 1, content)


@pytest.mark.parametrize("key", KEYS)
def test_final_keys_named_like_reserved_ones(records: Records, key: str) -> None:
    for number, item in enumerate(("text", 1, None, [1], {"a": 1}), 1):
        io = StageIO("asr", records.job)
        io.finalize("failed", **{key: item})
        content = assert_sound(io)
        assert (content["status"], content["stage"], content["attempt"]) == ("failed", "asr", number)
        assert_replays(records.job, io, number, content)


@pytest.mark.parametrize("number", sorted(ODDITIES, key=int))
@told
def test_each_oddity_by_each_call(records: Records, number: str) -> None:
    odd = ODDITIES[number]
    with StageIO("asr", records.job, attributes={"odd": odd}) as io:
        log = io.get_stage_logger(odd)
        log.info(odd)
        log.info("%s %r %d", odd, odd, odd)
        log.info("%(x)s", {"x": odd})
        log.warning("x", odd)
        with suppress(Exception):  # whether it is true is the first thing that logging itself asks
            assert odd
            log.error("x", exc_info=odd)
        io.set_config(odd)
        io.set_config({"odd": odd, "list": [odd]})
        with suppress(TypeError):  # a key that is not hashable
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


@pytest.mark.parametrize(
    ("code", "status"),
    [(None, "success"), (0, "success"), (False, "success"), (1, "failed"), (True, "failed"), (2**70, "failed"),
     ("text", "failed"), ("\ud800\x00", "failed"), ("x" * 10_000_000, "failed"), ([1], "failed"),
     (np.arange(3), "failed"), (ValueError("x"), "failed"), (Number(3), "failed")],
    ids=range(13),
)  # fmt: skip
@told
def test_an_exit_of_any_kind(records: Records, code: Any, status: str) -> None:
    with pytest.raises(SystemExit), StageIO("tmdb", records.job) as io, io.span("inner"):
        raise SystemExit(code)
    content = assert_sound(io)
    assert content["status"] == status
    assert_replays(records.job, io, 1, content)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Odd(type):
    def __str__(cls) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


OddlyNamed = type("Odd\n[name]\u202e", (Exception,), {"__module__": "a\nb\ud800"})


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
@told
def test_exceptions_that_are_hard_to_print(records: Records, error: Exception) -> None:
    with leaves(error), StageIO("asr", records.job) as io:
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
    with leaves(error), Pipeline("x", records.job) as run, run.stage("mux"):
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


@told
def test_in_production_nothing_of_this_is_an_internal_error_either(records: Records, as_in_production: None) -> None:
    with StageIO("asr", records.job) as io:
        for odd in ODDITIES.values():
            io.event("x", odd=odd)
            io.set_config(odd)
            io.add_error(odd, odd)
    assert runtime.internal_errors == {}
