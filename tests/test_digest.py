"""What a stage's record says of the content of its files, and that nothing goes wrong for the sake of it."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import LIMIT, kill_after, read_manifest, run_python, start_python, write_script
from helpers import clean_environment as clean_environment
from helpers import job as job
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_stageio import StageIO, recover
from otel_stageio.layout import Job
from otel_stageio.resume import digest, read_ahead
from otel_stageio.resume.digest import Digests, Identity, Stopped, file_sha256

MIB = 1 << 20


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def settle(*paths: Path) -> None:
    """Until a further write to any of these must show in its times."""
    while not all(Identity.of(os.stat(path)).settled(time.time_ns()) for path in paths):
        os.sched_yield()


def rewrite(path: Path, content: bytes) -> None:
    """Same size, and the old times put back, as far as anybody can."""
    before = path.stat()
    settle(path)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files that are read for their digests."""
    found: list[str] = []

    def counting(path: Any, *rest: Any, **more: Any) -> str:
        found.append(os.path.basename(path))
        return file_sha256(path, *rest, **more)

    monkeypatch.setattr(digest, "file_sha256", counting)
    return found


def one_stage(
    job: Path, inputs: list[Path] | None = None, outputs: list[Path] | None = None, stage: str = "asr"
) -> dict[str, Any]:
    """The record of a stage that reads and writes these."""
    with StageIO(stage, job) as io:
        for path in inputs or ():
            io.track_input(path)
        for path in outputs or ():
            io.track_output(path)
    return read_manifest(io.stage_dir)


def entry_of(record: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [entry for entry in record["inputs"] + record["outputs"] if entry["path"].endswith(name)]
    return found  # type: ignore[no-any-return]


# -- tiers and budget ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "kind"),
    [("", "sha256"), ("sha256", "sha256"), (" SHA256 ", "sha256"), ("quick", "quick"), ("stat", "stat"), ("off", None),
     ("nonsense", "sha256"), ("md5", "sha256")],
)  # fmt: skip
def test_the_environment_says_how_much_is_read(job: Path, tmp_path: Path, word: str, kind: str | None) -> None:
    os.environ["OTEL_STAGEIO_DIGEST"] = word
    film = tmp_path / "film"
    film.write_bytes(b"frames")
    entry = entry_of(one_stage(job, [film]), "film")
    assert list(entry.get("digest", {})) == ([kind] if kind else [])
    if kind == "sha256":
        assert entry["digest"] == {"sha256": sha256(b"frames")}
    if kind == "stat":
        status = film.stat()
        assert entry["digest"]["stat"] == f"{status.st_ino} 6 {status.st_mtime_ns} {status.st_ctime_ns}"


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 100_000])
def test_quick_reads_the_length_and_both_ends(job: Path, tmp_path: Path, size: int) -> None:
    os.environ["OTEL_STAGEIO_DIGEST"] = "quick"
    content = bytes(range(256)) * (size // 256 + 1)
    film = tmp_path / "film"
    film.write_bytes(content[:size])
    both = content[:size] if size <= 8192 else content[:4096] + content[size - 4096 : size]
    entry = entry_of(one_stage(job, [film]), "film")
    assert entry["digest"] == {"quick": sha256(f"{size}\n".encode() + both)}


def test_without_time_a_file_is_not_read_and_the_record_says_why(job: Path, tmp_path: Path) -> None:
    os.environ["OTEL_STAGEIO_DIGEST_BUDGET"] = "0"
    film = tmp_path / "film"
    film.write_bytes(bytes(5 * MIB))
    record = one_stage(job, [film])
    entry = entry_of(record, "film")
    assert record["status"] == "success"
    assert entry["digest"]["not_computed"].startswith(
        "it would have taken longer than the 0 s of OTEL_STAGEIO_DIGEST_B"
    )
    assert entry["digest"]["stat"].split()[1] == str(5 * MIB)
    assert entry["size_bytes"] == 5 * MIB
    assert record["lost"] == {}


def test_the_budget_holds_for_many_small_files_too(job: Path, tmp_path: Path, reads: list[str]) -> None:
    """On a disk over the network a small file costs milliseconds."""
    os.environ["OTEL_STAGEIO_DIGEST_BUDGET"] = "0"
    paths = [tmp_path / f"{number}.json" for number in range(50)]
    for path in paths:
        path.write_text("{}")
    record = one_stage(job, outputs=paths)
    assert all("not_computed" in entry["digest"] for entry in record["outputs"])
    assert reads == []


@pytest.mark.parametrize("word", ["", "-1", "nan", "inf", "soon", "1e99"])
def test_a_budget_that_is_none_is_the_default(word: str) -> None:
    os.environ["OTEL_STAGEIO_DIGEST_BUDGET"] = word
    assert digest.budget() == 10.0


def test_a_failing_stage_does_not_wait_for_digests(job: Path, tmp_path: Path, reads: list[str]) -> None:
    film = tmp_path / "film"
    film.write_bytes(bytes(5 * MIB))
    with pytest.raises(RuntimeError, match="bad"), StageIO("asr", job) as io:
        io.track_output(film)
        raise RuntimeError("bad")
    assert reads == []
    record = read_manifest(io.stage_dir)
    assert record["status"] == "failed"
    assert entry_of(record, "film")["size_bytes"] == 5 * MIB


# -- never the same bytes twice --------------------------------------------------------------------------------------


def test_a_second_look_does_not_read(job: Path, tmp_path: Path, reads: list[str]) -> None:
    film = tmp_path / "film"
    film.write_bytes(bytes(MIB))
    settle(film)
    first = one_stage(job, [film])
    second = one_stage(job, [film])
    assert first["inputs"][0]["digest"] == second["inputs"][0]["digest"] == {"sha256": sha256(bytes(MIB))}
    assert reads == ["film"]


def test_what_the_writing_stage_has_computed_the_reading_stage_has(job: Path, reads: list[str]) -> None:
    with StageIO("demux", job) as io:
        audio = io.track_output(io.get_output_path("audio.wav"))
        audio.write_bytes(bytes(9 * MIB))
    with StageIO("asr", job) as io:
        io.track_input(io.get_input_path("audio.wav", from_stage="demux"))
    assert reads == ["audio.wav"]


def test_the_digest_is_known_from_one_process_to_the_next(job: Path, tmp_path: Path, reads: list[str]) -> None:
    script = write_script(
        tmp_path / "writer.py",
        """
        import sys
        from otel_stageio import StageIO
        with StageIO("demux", sys.argv[1]) as io:
            io.get_output_path("audio.wav").write_bytes(bytes(9 << 20))
            io.track_output(io.get_output_path("audio.wav"))
        """,
    )
    done = run_python(script, job)
    assert (done.returncode, done.stderr) == (0, "")
    with StageIO("asr", job) as io:
        io.track_input(io.get_input_path("audio.wav", from_stage="demux"))
    assert reads == []
    assert read_manifest(io.stage_dir)["inputs"][0]["digest"] == {"sha256": sha256(bytes(9 * MIB))}


def test_a_process_takes_in_what_others_compute_meanwhile(job: Path, tmp_path: Path, reads: list[str]) -> None:
    film = tmp_path / "film"
    film.write_bytes(b"frames")
    settle(film)
    mine, others = Digests(Job(job)), Digests(Job(job))
    assert mine.known(Identity.of(film.stat())) is None
    others.of(str(film))
    others.save()
    assert mine.of(str(film)) == {"sha256": sha256(b"frames")}
    assert reads == ["film"]


def test_hard_links_are_read_once(job: Path, tmp_path: Path, reads: list[str]) -> None:
    film = tmp_path / "film"
    film.write_bytes(bytes(MIB))
    for number in range(5):
        os.link(film, tmp_path / f"link{number}")
    settle(film)
    record = one_stage(job, [film, *tmp_path.glob("link*")])
    assert {entry["digest"]["sha256"] for entry in record["inputs"]} == {sha256(bytes(MIB))}
    assert len(reads) == 1


def test_a_rewrite_with_the_old_time_put_back_is_noticed(job: Path, tmp_path: Path) -> None:
    film = tmp_path / "film"
    film.write_bytes(b"one")
    settle(film)
    assert one_stage(job, [film])["inputs"][0]["digest"] == {"sha256": sha256(b"one")}
    rewrite(film, b"two")
    assert one_stage(job, [film])["inputs"][0]["digest"] == {"sha256": sha256(b"two")}


@pytest.fixture
def coarse_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's clock for files stands still for some milliseconds. The newest kernels hide that from who looks."""

    def coarse(status: os.stat_result) -> Identity:
        tick = 10_000_000
        mtime, ctime = status.st_mtime_ns // tick * tick, status.st_ctime_ns // tick * tick
        return Identity(status.st_dev, status.st_ino, status.st_size, mtime, ctime)

    monkeypatch.setattr(Identity, "of", coarse)


def test_a_write_within_the_same_tick_of_the_clock_is_noticed(job: Path, tmp_path: Path, coarse_clock: None) -> None:
    film = tmp_path / "film"
    digests = Digests(Job(job))
    same = 0
    for number in range(300):
        film.write_bytes(b"%06d" % number)
        before = Identity.of(film.stat())
        digests.of(str(film))
        film.write_bytes(b"%06d" % (number + 500_000))
        same += Identity.of(film.stat()) == before
        assert digests.of(str(film)) == {"sha256": sha256(b"%06d" % (number + 500_000))}
    assert same  # else this has tested nothing


def test_an_input_overwritten_within_the_tick_in_which_it_was_read(
    job: Path, tmp_path: Path, coarse_clock: None
) -> None:
    film = tmp_path / "film"
    same = 0
    for number in range(20):
        with StageIO("asr", job) as io:
            film.write_bytes(b"one")
            before = Identity.of(film.stat())
            io.track_input(film)
            film.write_bytes(b"two")
            same += Identity.of(film.stat()) == before
        assert read_manifest(io.stage_dir)["inputs"][0]["changed"] is True, number
    assert same  # else this has tested nothing


def test_an_mtime_in_the_future_or_of_a_full_second_keeps_nothing_from_being_known(
    job: Path, tmp_path: Path, reads: list[str]
) -> None:
    for name, when in (("future", 4_000_000_000), ("archive", 1_000_000_000)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (when, when))
    digests = Digests(Job(job))
    settle(tmp_path / "future", tmp_path / "archive")
    for _ in range(3):
        digests.of(str(tmp_path / "future"))
        digests.of(str(tmp_path / "archive"))
    assert sorted(reads) == ["archive", "future"]


def test_files_of_two_file_systems_are_two_files(job: Path, tmp_path: Path) -> None:
    """The first file of each tmpfs has the same inode number, and two files written together have the same times."""
    film = tmp_path / "film"
    film.write_bytes(b"one")
    settle(film)
    digests = Digests(Job(job))
    digests.of(str(film))
    here = Identity.of(film.stat())
    assert digests.known(here) is not None
    assert digests.known(here._replace(device=here.device + 1)) is None


# -- files of all kinds ----------------------------------------------------------------------------------------------


def test_symlinks_stand_for_what_they_point_to(job: Path, tmp_path: Path) -> None:
    film, folder = tmp_path / "film", tmp_path / "folder"
    film.write_bytes(b"frames")
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    for name, target in (("to_film", film), ("to_folder", folder), ("to_nothing", tmp_path / "gone")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "to_itself").symlink_to("to_itself")
    record = one_stage(job, [tmp_path / name for name in ("to_film", "to_folder", "to_nothing", "to_itself", "folder")])
    assert record["status"] == "success"
    assert entry_of(record, "to_film")["digest"] == {"sha256": sha256(b"frames")}
    assert entry_of(record, "to_folder")["digest"] == entry_of(record, "/folder")["digest"]
    for name in ("to_nothing", "to_itself"):
        assert entry_of(record, name)["exists"] is False
        assert "sha256" not in entry_of(record, name).get("digest", {})


def test_a_sparse_file_is_a_file_of_zeros(job: Path, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(64 * MIB)
    zeros = hashlib.sha256()
    for _ in range(64):
        zeros.update(bytes(MIB))
    assert one_stage(job, [sparse])["inputs"][0]["digest"] == {"sha256": zeros.hexdigest()}


def test_a_growing_file_is_said_to_be_growing(job: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(bytes(16 * MIB))
    over = threading.Event()

    def grow() -> None:
        with log.open("ab", buffering=0) as file:
            while not over.is_set():
                file.write(b"x" * 1000)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        record = one_stage(job, outputs=[log])
        found = Digests(Job(job)).of(str(log))  # without a budget: it has to end by itself
    finally:
        over.set()
        thread.join()
    assert record["status"] == "success"
    assert record["outputs"][0]["digest"]["not_computed"] == "it was being written to while it was read"
    assert found["not_computed"] == "it was being written to while it was read"


def test_a_file_that_is_gone_at_the_end(job: Path, tmp_path: Path) -> None:
    for name in ("read", "made"):
        (tmp_path / name).write_bytes(b"x")
    with StageIO("asr", job) as io:
        io.track_input(tmp_path / "read")
        io.track_output(tmp_path / "made")
        (tmp_path / "read").unlink()
        (tmp_path / "made").unlink()
    record = read_manifest(io.stage_dir)
    assert record["status"] == "success"
    assert [entry.get("exists") for entry in record["inputs"] + record["outputs"]] == [False, False]
    assert record["inputs"][0]["changed"] is True
    assert not any("sha256" in entry.get("digest", {}) for entry in record["inputs"] + record["outputs"])


def _overwrite(path: Path) -> None:
    settle(path)
    path.write_bytes(b"two")


def _replace(path: Path) -> None:
    path.with_suffix(".new").write_bytes(b"two")
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("change", [_overwrite, _replace, lambda path: path.write_bytes(b"two"),
                                    lambda path: rewrite(path, b"two"), lambda path: path.write_bytes(b"longer")],
                         ids=["overwritten", "replaced", "at once", "with its old time", "grown"])  # fmt: skip
def test_an_input_that_changes_while_the_stage_runs(job: Path, tmp_path: Path, change: Callable[[Path], Any]) -> None:
    film = tmp_path / "film"
    film.write_bytes(b"one")
    with StageIO("asr", job) as io:
        io.track_input(film)
        change(film)
        io.track_input(film)  # to say it again does not make it unsaid
    entry = read_manifest(io.stage_dir)["inputs"][0]
    assert entry["changed"] is True
    assert entry["digest"]["not_computed"] == "it changed while the stage ran"


def test_a_file_changed_deep_in_a_directory_that_is_read(job: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_bytes(b"one")
    settle(folder / "deep" / "a")
    assert "changed" not in one_stage(job, [folder])["inputs"][0]
    with StageIO("asr", job) as io:
        io.track_input(folder)
        settle(folder / "deep" / "a")
        (folder / "deep" / "a").write_bytes(b"two")
    assert read_manifest(io.stage_dir)["inputs"][0]["changed"] is True


def test_an_input_that_is_linked_to_or_touched_has_not_changed_where_its_content_was_known(
    job: Path, tmp_path: Path
) -> None:
    film = tmp_path / "film"
    film.write_bytes(b"one")
    settle(film)
    one_stage(job, [film])
    with StageIO("asr", job) as io:
        io.track_input(film)
        os.link(film, tmp_path / "link")
        film.chmod(0o600)
        film.touch()
    entry = read_manifest(io.stage_dir)["inputs"][0]
    assert "changed" not in entry
    assert entry["digest"] == {"sha256": sha256(b"one")}


def test_what_cannot_be_read_says_so(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(digest, "file_sha256", refuse)
    film = tmp_path / "film"
    film.write_bytes(b"one")
    entry = one_stage(job, [film])["inputs"][0]
    assert entry["digest"]["not_computed"] == "it could not be read: Permission denied"
    assert "stat" in entry["digest"]


def test_devices_pipes_sockets_and_the_kernels_own_files(job: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        record = one_stage(job, [tmp_path / "pipe", tmp_path / "s", Path("/dev/zero"), Path("/proc/self/mem")])
    assert record["status"] == "success"
    assert [entry["digest"]["not_computed"] for entry in record["inputs"][:3]] == ["it is no regular file"] * 3
    assert "could not be read" in record["inputs"][3]["digest"]["not_computed"]


def test_names_of_all_kinds(job: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    names = [b"a\nb", b"a\\nb", "日本 – é".encode(), b"raw \xff\xfe", b"\x1b[31mred", b" ", b"-rf", b"tab\tbed"]
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(name)
    paths = [Path(os.fsdecode(os.fsencode(folder) + b"/" + name)) for name in names]
    record = one_stage(job, paths, [folder])
    assert [entry["digest"] for entry in record["inputs"]] == [{"sha256": sha256(name)} for name in names]
    assert "dirHash1" in record["outputs"][0]["digest"]


# -- directories -----------------------------------------------------------------------------------------------------


def dirhash(top: Path) -> str:
    """Go's ``dirhash.Hash1`` with an empty prefix, in hex: ``sha256sum $(find . -type f | sort) | sha256sum``."""
    names = sorted(os.fsencode(path.relative_to(top)) for path in top.rglob("*") if path.is_file())
    lines = [b"%s  %s\n" % (sha256((top / os.fsdecode(name)).read_bytes()).encode(), name) for name in names]
    return sha256(b"".join(lines))


def tree(top: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    return top


def test_a_directory_is_told_by_gos_definition(job: Path, tmp_path: Path) -> None:
    files = {f"{number % 7}/{number % 3}/{number:04d}.json": b"%d" % number for number in range(2000)}
    forwards = tree(tmp_path / "forwards", files)
    backwards = tree(tmp_path / "backwards", dict(reversed(files.items())))
    (tmp_path / "outside").write_bytes(b"outside")
    for folder in (forwards, backwards):
        (folder / "link").symlink_to(tmp_path / "outside")
        (folder / "empty").mkdir()
    record = one_stage(job, [forwards, backwards])
    assert [entry["digest"] for entry in record["inputs"]] == [{"dirHash1": dirhash(forwards)}] * 2
    listing = subprocess.run(
        "find . -type f -o -xtype f | sed 's|^./||' | LC_ALL=C sort | xargs sha256sum | sha256sum",
        shell=True, cwd=forwards, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert listing.stdout.split()[0] == dirhash(forwards)


def test_links_in_a_directory_are_followed_and_never_for_ever(job: Path, tmp_path: Path) -> None:
    outside = tree(tmp_path / "outside", {"shard/a": b"one"})
    folder = tree(tmp_path / "folder", {"own": b"own"})
    (folder / "shards").symlink_to(outside)
    (folder / "up").symlink_to(folder)
    (outside / "back").symlink_to(folder)
    (folder / "nowhere").symlink_to(tmp_path / "gone")
    (folder / "itself").symlink_to("itself")
    digests = Digests(Job(job))
    first = digests.of(str(folder))
    assert "dirHash1" in first
    (outside / "shard" / "a").write_bytes(b"another")
    assert digests.of(str(folder)) != first


def test_a_directory_of_a_million_ways(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_MOST_ENTRIES", 1000)
    above = tmp_path / "end"
    above.mkdir()
    for number in range(40):
        place = tmp_path / f"level{number}"
        place.mkdir()
        (place / "left").symlink_to(above)
        (place / "right").symlink_to(above)
        above = place
    assert Digests(Job(job)).of(str(above)) == {"not_computed": "it has more than 1,000 files"}


@pytest.mark.parametrize("kind", ["sha256", "quick", "stat"])
def test_each_tier_notices_a_write_to_a_file_in_a_directory(job: Path, tmp_path: Path, kind: str) -> None:
    folder = tree(tmp_path / "folder", {"deep/a": b"one"})
    settle(folder / "deep" / "a")
    digests = Digests(Job(job), kind)
    first = digests.of(str(folder))
    assert first == digests.of(str(folder))
    (folder / "deep" / "a").write_bytes(b"two")
    assert digests.of(str(folder)) != first


def test_a_directory_that_was_not_read_is_not_told_by_its_own_times(job: Path, tmp_path: Path) -> None:
    """These do not change when a file in it is written to."""
    os.environ["OTEL_STAGEIO_DIGEST_BUDGET"] = "0"
    folder = tree(tmp_path / "folder", {"a": b"one"})
    assert list(one_stage(job, [folder])["inputs"][0]["digest"]) == ["not_computed"]


# -- by chance -------------------------------------------------------------------------------------------------------

_SIZES = st.sampled_from([0, 1, 100, 65_535, 65_536, 65_537, MIB - 1, MIB, MIB + 1, MIB + 65_536, 2 * MIB, 2 * MIB + 7])


@given(seed=st.binary(min_size=1, max_size=64), size=_SIZES | st.integers(0, 200_000))
def test_a_digest_is_that_of_hashlib(tmp_path_factory: pytest.TempPathFactory, seed: bytes, size: int) -> None:
    content = (seed * (size // len(seed) + 1))[:size]
    path = tmp_path_factory.getbasetemp() / "content"
    path.write_bytes(content)
    assert file_sha256(path) == file_sha256(path, lambda: False) == file_sha256(path, None, size) == sha256(content)
    if size >= 3 * 65_536:
        with pytest.raises(Stopped):
            file_sha256(path, lambda: True)


_NAMES = st.sampled_from(["a", "b", "a\nb", "a\\nb", "\\", "\n", "é", "\udcff", "d/a", "d/e/a", "a  b"])
_TREES = st.dictionaries(_NAMES, st.sampled_from([b"", b"1", b"2", b"1\n"]), max_size=5)


@settings(max_examples=200)
@given(first=_TREES, second=_TREES)
def test_the_digest_of_a_directory_changes_if_a_name_or_content_does_and_only_then(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    place = tmp_path_factory.mktemp("trees")
    one, two = place / "one", place / "two"
    for top, files in ((one, first), (two, second)):
        top.mkdir()
        tree(top, files)
    digests = Digests(Job(place / "job"))
    assert (digests.of(str(one)) == digests.of(str(two))) == (first == second)
    if not any("\n" in name for name in first):
        assert digests.of(str(one)) == {"dirHash1": dirhash(one)}


# -- the cache -------------------------------------------------------------------------------------------------------


def _cached(job: Path, film: Path) -> Path:
    film.write_bytes(b"one")
    settle(film)
    one_stage(job, [film])
    return Path(Job(job).digests)


def test_a_torn_cache_is_used_as_far_as_it_goes(job: Path, tmp_path: Path, reads: list[str]) -> None:
    cache = _cached(job, tmp_path / "film")
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-30])
    assert one_stage(job, [tmp_path / "film"])["inputs"][0]["digest"] == {"sha256": sha256(b"one")}
    assert one_stage(job, [tmp_path / "film"])["inputs"][0]["digest"] == {"sha256": sha256(b"one")}
    assert reads == ["film", "film"]  # once more, after it was torn


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 10_000, b"\xff\xfe\n\t\n\t\t\n" * 100, b"sha256 1 2 3\t" + b"z" * 64 + b"\n", b"x" * (2 << 20)],
    ids=["empty", "zeros", "noise", "no digest", "one line"],
)
def test_a_cache_of_nonsense_is_none(job: Path, tmp_path: Path, content: bytes) -> None:
    _cached(job, tmp_path / "film").write_bytes(content)
    assert one_stage(job, [tmp_path / "film"])["inputs"][0]["digest"] == {"sha256": sha256(b"one")}


def test_a_value_that_is_no_digest_does_not_come_into_the_record(job: Path, tmp_path: Path) -> None:
    cache = _cached(job, tmp_path / "film")
    key = cache.read_text().partition("\t")[0]
    escape = "\x1b[31m".ljust(64, "z")
    cache.write_text(f"{key}\t{escape}\n")
    assert one_stage(job, [tmp_path / "film"])["inputs"][0]["digest"] == {"sha256": sha256(b"one")}


@pytest.mark.parametrize("plant", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")],
                         ids=["a pipe", "a directory", "a link"])  # fmt: skip
def test_something_else_in_the_place_of_the_cache(job: Path, tmp_path: Path, plant: Callable[[Path], None]) -> None:
    cache = _cached(job, tmp_path / "film")
    cache.unlink()
    plant(cache)
    script = write_script(
        tmp_path / "program.py",
        """
        import sys
        from otel_stageio import StageIO
        with StageIO("asr", sys.argv[1]) as io:
            io.track_input(sys.argv[2])
        """,
    )
    done = run_python(script, job, tmp_path / "film")  # a process, which can be given up if it waits
    assert (done.returncode, done.stderr) == (0, "")
    assert read_manifest(job / "06_asr")["inputs"][0]["digest"] == {"sha256": sha256(b"one")}


def test_a_cache_that_has_grown_too_large_is_cut(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setattr(digest, "_LARGEST_CACHE", 2000)
    paths = [tmp_path / f"{number}" for number in range(40)]
    for path in paths:
        path.write_bytes(path.name.encode())
    settle(*paths)
    for path in paths:
        record = one_stage(job, [path])
        assert record["inputs"][0]["digest"] == {"sha256": sha256(path.name.encode())}
    one_stage(job, [paths[-1]])
    assert Path(Job(job).digests).stat().st_size < 2400
    assert len(reads) == 40


def test_a_job_that_cannot_be_written_to(tmp_path: Path) -> None:
    """The stage's own work lies elsewhere, and does not suffer."""
    (tmp_path / "job").write_text("no directory")
    film = tmp_path / "film"
    film.write_bytes(b"one")
    with StageIO("asr", tmp_path / "job") as io:
        io.track_input(film)
        assert not io.up_to_date()
    assert io._recorder.record["inputs"][0]["digest"] == {"sha256": sha256(b"one")}


def test_a_full_disk_for_the_cache_is_no_loss(job: Path, tmp_path: Path) -> None:
    cache = _cached(job, tmp_path / "film")
    cache.unlink()
    cache.symlink_to("/dev/full")  # not followed; and /dev/full itself refuses every write
    (tmp_path / "other").write_bytes(b"two")
    settle(tmp_path / "other")
    record = one_stage(job, [tmp_path / "other"])
    assert (record["status"], record["lost"]) == ("success", {})
    assert record["inputs"][0]["digest"] == {"sha256": sha256(b"two")}


# -- beside the stage's own work -------------------------------------------------------------------------------------


def test_a_large_input_is_read_while_the_stage_works(job: Path, tmp_path: Path, reads: list[str]) -> None:
    film = tmp_path / "film"
    film.write_bytes(bytes(9 * MIB))
    settle(film)
    with StageIO("asr", job) as io:
        io.track_input(film)
        read_ahead.wait_for(Digests(Job(job)), time.monotonic())  # another stage's: does not wait for ours
        with read_ahead._changed:
            assert read_ahead._changed.wait_for(lambda: not read_ahead._waiting and not read_ahead._under_way, LIMIT)
        assert reads == ["film"]
    assert reads == ["film"]
    assert read_manifest(io.stage_dir)["inputs"][0]["digest"] == {"sha256": sha256(bytes(9 * MIB))}


def test_two_stages_at_once_each_get_their_digests(job: Path, tmp_path: Path) -> None:
    paths = {stage: tmp_path / stage for stage in ("demux", "asr", "mux")}
    for stage, path in paths.items():
        path.write_bytes(stage.encode() * (4 * MIB))

    def work(stage: str) -> None:
        with StageIO(stage, job) as io:
            for _ in range(3):
                io.track_input(paths[stage])

    threads = [threading.Thread(target=work, args=(stage,)) for stage in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    for stage, path in paths.items():
        record = read_manifest(next(job.glob(f"??_{stage}")))
        assert record["inputs"][0]["digest"] == {"sha256": sha256(path.read_bytes())}


FORKING = """
    import os, sys
    from otel_stageio import StageIO
    film = sys.argv[2]
    for number in range(20):
        with StageIO("asr", f"{sys.argv[1]}/{number}") as io:
            io.track_input(film)
            pid = os.fork()
            with open(film + ".copy", "wb") as file:
                file.write(b"x" * (9 << 20))
            if not pid:
                with StageIO("mux", f"{sys.argv[1]}/{number}") as inner:
                    inner.track_input(film)
                    inner.track_output(film + ".copy")
                os._exit(0)
            io.track_output(film)
            assert os.waitpid(pid, 0)[1] == 0
    print("done")
"""


def test_a_fork_while_files_are_read_ends_both_stages_well(job: Path, tmp_path: Path) -> None:
    film = tmp_path / "film"
    film.write_bytes(bytes(24 * MIB))
    done = run_python(write_script(tmp_path / "program.py", FORKING), job, film)
    assert (done.stdout.splitlines()[-1:], done.stderr) == (["done"], "")
    for number in range(20):
        for stage in ("06_asr", "12_mux"):
            record = read_manifest(job / str(number) / stage)
            assert record["status"] == "success"
            assert record["inputs"][0]["digest"] == {"sha256": sha256(bytes(24 * MIB))}


def test_files_of_forked_workers_get_their_digests(job: Path, tmp_path: Path) -> None:
    script = write_script(
        tmp_path / "program.py",
        """
        import multiprocessing, sys
        from otel_stageio import StageIO

        def work(number):
            io.track_output(io.save_json([number], f"{number}.json"))

        with StageIO("asr", sys.argv[1]) as io:
            with multiprocessing.get_context("fork").Pool(2) as pool:
                pool.map(work, range(8))
        """,
    )
    done = run_python(script, job)
    assert (done.returncode, done.stderr) == (0, "")
    outputs = read_manifest(job / "06_asr")["outputs"]
    assert len(outputs) == 8
    for entry in outputs:
        assert entry["digest"] == {"sha256": sha256(Path(entry["path"]).read_bytes())}


# -- being stopped ---------------------------------------------------------------------------------------------------

AT_THE_END = """
    import sys
    from otel_stageio import StageIO
    from otel_stageio.resume import digest

    def slow(path, stop=None, most=0):
        print("reading", flush=True)
        while not (stop and stop()):
            pass
        raise digest.Stopped

    digest.file_sha256 = slow
    with StageIO("asr", sys.argv[1]) as io:
        io.save_json({}, "a.json")
        io.track_output(io.get_output_path("a.json"))
        io.get_stage_logger("ERROR").info("the work is done")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_signal_at_the_end_ends_the_reading_and_not_the_success(
    job: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start_python(write_script(tmp_path / "program.py", AT_THE_END), job, OTEL_STAGEIO_DIGEST_BUDGET="50")
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    process.send_signal(number)
    process.communicate(timeout=LIMIT)
    assert process.returncode == code
    record = read_manifest(job / "06_asr")
    assert record["status"] == "success"
    assert record["outputs"][0]["size_bytes"] > 0
    assert "sha256" not in record["outputs"][0].get("digest", {})


def test_a_kill_at_the_end_leaves_a_stage_that_crashed(job: Path, tmp_path: Path) -> None:
    kill_after(start_python(write_script(tmp_path / "program.py", AT_THE_END), job, OTEL_STAGEIO_DIGEST_BUDGET="50"), 1)
    assert recover(job) == ["asr.1"]
    record = read_manifest(job / "06_asr")
    assert record["status"] == "crashed"
    assert record["outputs"][0]["path"].endswith("a.json")
    with StageIO("asr", job) as io:
        assert not io.up_to_date()


def test_the_end_waits_no_longer_than_the_budget(job: Path, tmp_path: Path) -> None:
    done = run_python(write_script(tmp_path / "program.py", AT_THE_END), job, OTEL_STAGEIO_DIGEST_BUDGET="0.2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "longer than the 0.2 s" in read_manifest(job / "06_asr")["outputs"][0]["digest"]["not_computed"]


def test_an_interpreter_ends_while_a_file_is_being_read(job: Path, tmp_path: Path) -> None:
    film = tmp_path / "film"
    with film.open("wb") as file:
        file.truncate(4 << 30)
    script = write_script(
        tmp_path / "program.py",
        """
        import sys
        from otel_stageio import StageIO
        io = StageIO("asr", sys.argv[1])
        io.track_input(sys.argv[2])
        """,
    )
    done = run_python(script, job, film)
    with suppress(OSError):
        film.unlink()
    assert (done.returncode, done.stderr) == (0, "")
    assert read_manifest(job / "06_asr")["status"] == "incomplete"
