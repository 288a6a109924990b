"""Capture: whatever a stage hands over becomes strict JSON and clean text, and nothing is raised for it."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import math
import os
import re
import unicodedata
import uuid
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_stageio import StageIO
from otel_stageio import semconv as sc
from otel_stageio.capture import Capture
from otel_stageio.capture.paths import PathPolicy
from otel_stageio.capture.text import clean, one_record
from otel_stageio.capture.values import MAX_DEPTH, MAX_ITEMS, MAX_STRING
from otel_stageio.events import Event, config_attributes, iso
from otel_stageio.layout import Job, directory_name, inside, safe_name
from otel_stageio.otlp import encode
from otel_stageio.record.fold import fold
from otel_stageio.stages.fit import LARGEST_RECORD, shrink
from otel_stageio.testing import Records

INT64 = 1 << 63

# -- values of every kind --------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "rot"
    PATH = Path("/x")
    NOTHING = None


class Level(enum.IntEnum):
    HIGH = 3


class Word(str, enum.Enum):
    HELLO = "hello"


@dataclasses.dataclass
class Settings:
    beam: int = 5
    where: Any = None


Pair = namedtuple("Pair", "left right")


class Refusing:
    """Has neither a text nor a representation."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class NotEvenAClass(Refusing):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Endless:
    """Every attribute is there and can be called, as mocks have it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda: Endless()


class WrongText:
    def __str__(self) -> Any:
        return 7


class Shouting(str):
    """A str that behaves like none."""

    def __len__(self) -> int:
        raise RuntimeError("no")

    def isprintable(self) -> bool:
        raise RuntimeError("no")

    def __getitem__(self, _: Any) -> Any:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")


class Lying(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise RuntimeError("no")


class NoItems(UserDict):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        raise RuntimeError("no")


class Slippery(list):  # type: ignore[type-arg]
    def __getitem__(self, _: Any) -> Any:
        raise RuntimeError("no")

    def __iter__(self) -> Any:
        raise RuntimeError("no")


class Number(int):
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class Never:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = object.__hash__


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-INT64, INT64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=8)
)
ODDITIES: dict[str, Any] = {
    str(position): item
    for position, item in enumerate(
        [
            Path("a/b"), Path("/x\udcff"), b"bytes \xff", bytearray(b"x"), memoryview(b"abc"), math.nan, math.inf,
            -math.inf, 2**63, -(2**63) - 1, 2**5000, -(2**100_000), "\ud800", "a\x00b\x1bc", "\u2028\u2029\x85", "\r\n",
            1j, datetime.datetime(2025, 11, 27, 10, 11, tzinfo=datetime.timezone.utc), datetime.date(2025, 1, 1),
            datetime.time(1, 2), datetime.timedelta(1), Colour.RED, Colour.PATH, Colour.NOTHING, Level.HIGH, Word.HELLO,
            Settings(), Settings(where=Settings(where=b"x")), Settings, Pair(1, {2}), Refusing(),
            Endless(), WrongText(), Shouting("shout"), Lying(a=1), NoItems(a=1), Slippery([1]), Number(7), Never(),
            OrderedDict(a=1), UserDict(a=1), range(3), iter([1]), (x for x in [1]), print, type, object(), ...,
            NotImplemented, decimal.Decimal("NaN"), fractions.Fraction(1, 3), uuid.UUID(int=1), re.compile("x"),
            ValueError("x"), np.float64(1.5), np.float32(0.1), np.float16("nan"), np.int8(-1), np.uint64(2**64 - 1),
            np.bool_(True), np.str_("text"), np.bytes_(b"x"), np.complex128(1j), np.datetime64("2025-11-27"),
            np.timedelta64(3, "s"), np.longdouble(1), np.array(5), np.arange(3), np.zeros((2, 2)),
            np.array([Refusing()], dtype=object), np.ma.masked,
        ]
    )
}  # fmt: skip
ODD = st.sampled_from(list(ODDITIES)).map(
    lambda number: ODDITIES[number]
)  # by number: not even hypothesis can print them all
ODD_KEYS = dict(
    enumerate([1, "1", None, True, 1.5, b"k", ("a", 1), Level.HIGH, Refusing(), Shouting("k"), "\ud800", ""])
)
KEYS = st.text(max_size=6) | st.sampled_from(list(ODD_KEYS)).map(lambda number: ODD_KEYS[number])
ANYTHING = st.recursive(
    PLAIN | ODD | st.text(st.characters(), max_size=6) | st.binary(max_size=6) | st.floats() | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.tuples(inner, inner)
        | st.builds(Settings, where=inner)
        | st.sets(st.text(max_size=3) | st.integers(), max_size=4)
        | st.frozensets(KEYS, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip


def assert_plain(value: Any) -> None:
    """Exactly the types that JSON and OTLP both hold without loss; strict JSON, and UTF-8."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            assert type(key) is str
            assert_plain(item)
    elif kind is list:
        for item in value:
            assert_plain(item)
    elif kind is int:
        assert -INT64 <= value < INT64
    elif kind is float:
        assert math.isfinite(value)
    else:
        assert kind in (str, bool, type(None)), kind
        if kind is str:
            assert clean(value) == value
            value.encode()


def capture() -> Capture:
    return Capture(Job("/somewhere/job"))


@given(ANYTHING)
@settings(max_examples=600)
def test_anything_becomes_strict_json_and_what_was_changed_is_counted(value: Any) -> None:
    taken = capture()
    plain = taken.plain(value)
    assert_plain(plain)
    json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()
    redactions, changed = taken.counts()
    if not (redactions or changed):
        assert is_json(value)
        assert plain == as_lists(value)


@given(ANYTHING)
@settings(max_examples=300)
def test_what_is_plain_stays_as_it_is(value: Any) -> None:
    plain = capture().plain(value)
    again = capture()
    assert again.plain(plain) == plain
    assert again.counts() == (0, 0)


def test_not_even_a_class_is_needed() -> None:
    for value in (NotEvenAClass(), [NotEvenAClass()], {"x": NotEvenAClass(), "y": 1}, {1: {NotEvenAClass()}}):
        taken = capture()
        assert_plain(taken.plain(value))
        assert_plain(taken.mapping({"x": value}))
        assert taken.counts()[1] > 0
        assert "[unprintable NotEvenAClass]" in json.dumps(taken.plain(value))


def is_json(value: Any) -> bool:
    """JSON holds it without loss; whether a list was a tuple, or a dict was ordered, is none."""
    if isinstance(value, (list, tuple)):
        return all(map(is_json, value))
    if isinstance(value, Mapping):
        return all(type(key) is str and is_json(item) for key, item in value.items())
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is int:
        return -INT64 <= value < INT64
    if type(value) is str:
        return clean(value) == value
    return value is None or type(value) is bool


def as_lists(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [as_lists(item) for item in value]
    if isinstance(value, Mapping):
        return {key: as_lists(item) for key, item in value.items()}
    return value


@given(ANYTHING)
def test_anything_can_be_a_message_an_attribute_or_a_configuration(value: Any) -> None:
    taken = capture()
    text = taken.string(value)
    assert_plain(text)
    assert type(text) is str
    known = taken.attributes({"key": 1}) and taken.attributes({"key": value})  # a name that was seen before is quicker
    for plain in (known, taken.attributes({"key": value}), taken.mapping({"key": value}), taken.mapping(value)):
        assert type(plain) is dict
        assert_plain(plain)
    assert_plain(config_attributes(taken.mapping(value)))


KEPT: list[tuple[Any, Any]] = [
        (Path("a/b"), "a/b"),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ((1, (2, 3)), [1, [2, 3]]),
        (b"caf\xc3\xa9 \xff", "café \\xff"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (2**63, str(2**63)),
        (2**5000, "[int of 5001 bits]"),
        (datetime.datetime(2025, 11, 27, 10, 11, 12), "2025-11-27T10:11:12"),
        (datetime.date(2025, 11, 27), "2025-11-27"),
        ("a\x1b[31m\ud800", "a\\x1b[31m\\ud800"),
        (Colour.RED, "rot"),
        (Level.HIGH, 3),
        (Word.HELLO, "hello"),
        (Settings(where=Path("x")), {"beam": 5, "where": "x"}),
        (Number(7), 7),
        (Shouting("shout"), "shout"),
        (np.float64(1.5), 1.5),
        (np.int8(-1), -1),
        (np.bool_(True), True),
        (np.array(5), 5),
        (np.arange(3), "[0 1 2]"),
        (np.float64("nan"), "nan"),
        (Refusing(), "[unprintable Refusing]"),
        ({1: "a", "1": "b"}, {"1": "a", "1 (1)": "b"}),
        ({None: 1, (1, 2): 2}, {"None": 1, "(1, 2)": 2}),
        (decimal.Decimal("1.10"), "1.10"),
        (range(3), "range(0, 3)"),
    ]  # fmt: skip


@pytest.mark.parametrize(("value", "plain"), KEPT, ids=[str(number) for number in range(len(KEPT))])
def test_odd_values_are_kept_in_the_nearest_form_that_json_has(value: Any, plain: Any) -> None:
    taken = capture()
    assert taken.plain(value) == plain
    assert type(taken.plain(value)) is type(plain)
    # A tuple is JSON's list, and loses nothing.
    assert (taken.counts()[1] > 0) is not (type(value) is tuple)


def test_a_cycle_is_cut_where_it_closes() -> None:
    loop: dict[str, Any] = {"name": "x"}
    loop["self"] = [loop]
    assert capture().plain(loop) == {"name": "x", "self": ["[cycle]"]}
    ring: list[Any] = []
    ring.append({"ring": ring})
    assert capture().plain(ring) == [{"ring": "[cycle]"}]
    one = Settings()
    one.where = Settings(where=one)
    assert capture().plain(one) == {"beam": 5, "where": {"beam": 5, "where": "[cycle]"}}
    # The same value twice is no cycle.
    shared = [1]
    assert capture().plain([shared, shared]) == [[1], [1]]


def test_depth_has_an_end() -> None:
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = [deep]
    plain = capture().plain(deep)
    assert json.dumps(plain).count("[") == MAX_DEPTH + 1
    assert "[too deep]" in json.dumps(plain)


def test_a_billion_laughs_are_not_written_out() -> None:
    laughs: Any = "ha" * 10
    for _ in range(20):
        laughs = [laughs] * 10
    taken = capture()
    assert len(json.dumps(taken.plain({"joke": laughs, "model": "large-v3"}))) < 3_000_000
    assert taken.plain({"joke": laughs, "model": "large-v3"})["model"] == "large-v3"
    assert len(json.dumps(taken.plain(["x" * 10_000_000] * 5_000))) < 5_000_000


@pytest.mark.parametrize("length", [MAX_STRING - 1, MAX_STRING, MAX_STRING + 1, MAX_STRING + 300, 10_000_000])
@pytest.mark.parametrize("character", ["x", "ä", "\x1b", "\n", "password=y "])
def test_long_strings_are_cut_and_say_how_long_they_were(character: str, length: int) -> None:
    text = (character * (length // len(character) + 1))[:length]
    taken = capture()
    plain = taken.plain(text)
    assert len(plain) <= MAX_STRING
    assert capture().plain(plain) == plain
    if length > MAX_STRING:
        assert plain.endswith(f"… [cut: {length} characters in all]")
        assert taken.counts()[1] > 0
    elif character in "xä\n":
        assert plain == text
        assert taken.counts() == (0, 0)


def test_long_collections_are_cut_and_say_how_long_they_were() -> None:
    for size in (MAX_ITEMS, MAX_ITEMS + 1, 50_000):
        listed, mapped = capture().plain(list(range(size))), capture().plain({str(n): n for n in range(size)})
        assert len(listed) == len(mapped) == MAX_ITEMS
        assert capture().plain(listed) == listed
        assert capture().plain(mapped) == mapped
        if size > MAX_ITEMS:
            assert listed[-1] == mapped["…"] == f"[cut: {size} items in all]"


# -- text ------------------------------------------------------------------------------------------------------------

any_text = st.text(st.characters(), max_size=30) | st.text(
    st.sampled_from("[]\n\r\t\x0b\x0c\x1c\x1e\x85\u2028\u2029\x00\x1b\ud800 a"), max_size=20
)


@given(any_text)
@settings(max_examples=400)
def test_clean_text_has_no_control_characters(text: str) -> None:
    cleaned = clean(text)
    assert not [c for c in cleaned if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t"]
    assert cleaned.splitlines() == re.split("\n", cleaned)[: len(cleaned.splitlines())]
    assert clean(cleaned) == cleaned
    cleaned.encode()
    if not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        assert cleaned == text


@given(st.lists(any_text, min_size=1, max_size=20))
@settings(max_examples=25)
def test_a_log_has_as_many_records_as_were_logged(
    tmp_path_factory: pytest.TempPathFactory, messages: list[str]
) -> None:
    job = tmp_path_factory.mktemp("job")
    with StageIO("asr", job) as io:
        log = io.get_stage_logger("CRITICAL")
        for message in messages:
            log.info("%s", message)
    (pipeline_log,) = (job / "logs").iterdir()
    raw = (job / "06_asr" / "stage.log").read_bytes()
    assert pipeline_log.read_bytes() == raw
    lines = raw.decode().splitlines()
    assert lines == raw.decode()[:-1].split("\n")
    heads = [line for line in lines if line.startswith("[")]
    assert len(heads) == len(messages)
    assert all(re.match(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[stage\.asr\] \[INFO\] ", head) for head in heads)


@given(any_text)
@example("\n[2025-11-27 10:11:12] [stage.asr] [ERROR] forged")
@example("x\r\n[2025-11-27 10:11:12] [stage.asr] [ERROR] forged")
def test_a_further_line_never_looks_like_a_record(text: str) -> None:
    assert not [line for line in one_record(clean(text)).split("\n")[1:] if line.startswith("[")]


def test_what_was_escaped_can_still_be_read() -> None:
    assert clean("a\x00b\x1b[31mc\x7fd\u2028e\r\nf\tg\rh") == "a\\x00b\\x1b[31mc\\x7fd\\u2028e\nf\tg\\x0dh"


# -- names and paths -------------------------------------------------------------------------------------------------

names = st.text(st.characters(), max_size=40) | st.text(
    st.sampled_from("./\\\0\n \u202e\ud800ab~$*?[]'\"é漢"), max_size=300
)


@given(names)
@example("../../x")
@example("a" * 5_000)
@example("漢" * 5_000)
@example("asr.1")
@example("CON")
@settings(max_examples=600)
def test_a_stage_name_is_safe_or_refused(name: str) -> None:
    try:
        safe = safe_name(name)
    except ValueError:
        assert not any(character.isalnum() for character in name)
        return
    assert safe_name(safe) == safe
    assert safe == safe.strip()
    assert safe.isprintable()
    assert not set(safe) & set("/\\\0*?[]\"'$~")
    assert safe not in (".", "..")
    assert not safe.startswith(".")
    job = Job("/base/job")
    directory = directory_name(safe)
    decorated = [
        job.stage_dir(safe),
        job.manifest(safe),
        job.directory_lock(safe),
        job.journal(safe, 10**6, "metrics"),
        f"{job.temporary}/{directory}.manifest.json.4194304.{'f' * 16}",
        f"{job.machinery}/{directory}.manifest.json.damaged-{'f' * 16}",
    ]
    for path in decorated:
        assert os.path.normpath(path) == path
        assert Path(path).is_relative_to(job.root)
        assert len(os.fsencode(os.path.basename(path))) <= 255


def test_a_job_may_lie_at_the_root() -> None:
    job = Job("/")
    assert (job.spool, job.manifest("asr"), job.logs) == ("/.stageio/spool", "/06_asr/manifest.json", "/logs")


def test_long_names_stay_apart() -> None:
    assert len({safe_name("a" * 200 + str(n)) for n in range(100)}) == 100


@pytest.mark.parametrize("name", [None, 5, b"asr", ["asr"], Path("asr")])
def test_a_stage_name_is_a_str(name: Any) -> None:
    with pytest.raises(TypeError, match="stage name"):
        safe_name(name)


@given(names)
@example("/etc/passwd")
@example("a/../../b")
@example("a/..")
@example("")
@settings(max_examples=400)
def test_a_file_name_stays_inside_or_is_refused(name: str) -> None:
    directory = Path("/job/06_asr")
    try:
        path = inside(directory, name)
    except ValueError:
        return
    resolved = os.path.abspath(path)
    assert resolved == str(directory) or resolved.startswith(f"{directory}/")
    assert "\0" not in resolved


HOME = "/home/ann"
JOB = "/home/ann/out/job"


def policy(kind: str, monkeypatch: pytest.MonkeyPatch, job: str = JOB) -> PathPolicy:
    monkeypatch.setenv("HOME", HOME)
    return PathPolicy(Job(job), {"OTEL_STAGEIO_PATHS": kind})


@pytest.mark.parametrize(
    ("path", "job", "name", "absolute"),
    [
        (f"{JOB}/06_asr/a.wav", "06_asr/a.wav", "a.wav", f"{JOB}/06_asr/a.wav"),
        (JOB, ".", "job", JOB),
        (f"{JOB}2/a.wav", "a.wav", "a.wav", f"{JOB}2/a.wav"),
        ("/films/A Film.mkv", "A Film.mkv", "A Film.mkv", "/films/A Film.mkv"),
        (f"{JOB}/../other/a.wav", "a.wav", "a.wav", "/home/ann/out/other/a.wav"),
        (f"{JOB}/x/", "x", "x", f"{JOB}/x"),
    ],
)
def test_how_a_path_leaves(path: str, job: str, name: str, absolute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert policy("job", monkeypatch).relative(path) == job
    assert policy("name", monkeypatch).relative(path) == name
    assert policy("absolute", monkeypatch).relative(path) == absolute
    assert policy("no such policy", monkeypatch).relative(path) == job


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"reading {JOB}/06_asr/a.wav now", "reading 06_asr/a.wav now"),
        (f"in {JOB}", "in ."),
        (f"in {JOB}/", "in ."),
        (f'File "{HOME}/x.py", line 3', 'File "~/x.py", line 3'),
        (f"{HOME} is home; {HOME}.", "~ is home; ~."),
        (f"PATH=/bin:{HOME}/bin:{JOB}", "PATH=/bin:~/bin:."),
        (f"file://{HOME}/x", "file://~/x"),
        (f"('{JOB}/a', '{HOME}/b')", "('a', '~/b')"),
        # Another path is left alone, however alike.
        (f"{JOB}2/x {JOB}.bak/x", "~/out/job2/x ~/out/job.bak/x"),
        (f"/mnt{JOB}/x /mnt{HOME}/x", f"/mnt{JOB}/x /mnt{HOME}/x"),
        (f"{HOME}bel/x", f"{HOME}bel/x"),
        ("no path at all", "no path at all"),
    ],
)
def test_how_a_path_in_text_leaves(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert policy("job", monkeypatch).text(text) == shown
    assert policy("name", monkeypatch).text(text) == shown
    assert policy("absolute", monkeypatch).text(text) == text
    assert policy("job", monkeypatch).text(shown) == shown


@pytest.mark.parametrize("job", ["/", "/a", "relative/job", "/with space/and (brackets)+"])
def test_odd_job_directories_spoil_no_text(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "see https://example.org/a/b and a/b"
    assert policy("job", monkeypatch, job).text(text) == text
    assert policy("job", monkeypatch, job).text(f"{Path(job).absolute()}/x") in ("x", "//x", f"{job}x")


def test_a_job_behind_a_link_is_known_by_both_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    text = PathPolicy(Job(tmp_path / "link"), {}).text
    assert text(f"{tmp_path}/link/a {os.path.realpath(tmp_path)}/real/b") == "a b"


# -- fit -------------------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=5).map(lambda key: f"user.{key}"),
        st.integers(0, 400_000).map(lambda n: "😀" * n)
        | st.integers(0, 30_000).map(lambda n: ["x" * 20] * n)
        | st.integers(),
        max_size=6,
    ),
    st.integers(0, 60_000),
)
@settings(max_examples=6)
def test_an_event_of_any_size_fits_and_keeps_what_the_manifest_is_made_of(user: dict[str, Any], number: int) -> None:
    config = {f"setting {n}": n for n in range(number)} | {"model": "large-v3"}
    attributes = {
        **user,
        **config_attributes(config),
        sc.TASK_NAME: "asr",
        sc.STAGE_ATTEMPT: 7,
        sc.LOCAL_TRACE: {"trace_id": "ab"},
        sc.LOCAL_CONFIG: config,
        sc.LOCAL_METADATA: dict(user),
        sc.LOCAL_TRACEBACK: "\n" * number,
    }
    for name in (sc.EVENT_STARTED, sc.EVENT_CONFIG, sc.EVENT_ARTIFACT, sc.EVENT_EXCEPTION, "n" * 200_000):
        event = Event(name, 1, dict(attributes), "body " * number)
        shrink(event)
        record = encode.event_record(event, "INFO", encode.record_ids(1, 1))
        assert len(record) < LARGEST_RECORD * 1.1
        manifest = fold([event])  # whatever was cut, the fold can read
        if name == sc.EVENT_STARTED:
            assert (manifest["stage"], manifest["attempt"], manifest["trace"]) == ("asr", 7, {"trace_id": "ab"})
        if name == sc.EVENT_CONFIG:
            assert manifest["config"]
            assert (
                len(manifest["config"]) == len(config)
                or manifest["config"]["…"] == f"[cut: {len(config)} items in all]"
            )
        assert manifest["sanitised"] == 1


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_directorys_size_is_that_of_its_files_and_nobody_waits_for_a_huge_one(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = records.job / "tree"
    for number in range(30):
        (tree / f"d{number}").mkdir(parents=True)
        (tree / f"d{number}" / "file").write_bytes(b"x" * 10)
    (tree / "link").symlink_to(tree)
    with StageIO("asr", records.job) as io:
        io.track_output(tree)
    with StageIO("mux", records.job) as io:
        monkeypatch.setattr("otel_stageio.stages.artifacts._MOST_ENTRIES", 20)
        io.track_output(tree)
    (entry,) = records.manifest("asr")["outputs"]
    assert entry["size_bytes"] == 300 + (tree / "link").lstat().st_size
    (entry,) = records.manifest("mux")["outputs"]
    assert "size_bytes" not in entry
    assert "exists" not in entry


@pytest.mark.parametrize("moment", [0, -1, 10**18, 10**30, -(10**30)])
def test_any_moment_can_be_written(moment: int) -> None:
    assert isinstance(iso(moment), str)
