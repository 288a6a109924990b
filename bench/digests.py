"""Digests: as fast as ``sha256sum``, and free where nothing has changed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from otel_stageio import StageIO
from otel_stageio.layout import Job
from otel_stageio.resume.digest import Digests, file_sha256

from .measure import Result, Scale, take_turns
from .scratch import new_job

_LARGE, _QUICK = 1 << 30, 16 << 20
_MOST, _FEWER = 20_000, 2_000


def digests(where: Path, scale: Scale) -> Iterator[Result]:
    full = scale.files > 1000
    yield from _one_large_file(where, _LARGE if full else _QUICK, max(3, scale.repetitions // 8))
    yield from _many_small_files(where, *((_MOST, _FEWER) if full else (200, 20)), max(3, scale.repetitions // 8))


def _processor_seconds(work: Callable[[], object]) -> float:
    """Of this process, since the files lie in memory: a busy machine would show in what takes ten times as long."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _one_large_file(where: Path, size: int, repetitions: int) -> Iterator[Result]:
    film = where / "film"
    with film.open("wb") as file:
        for number in range(size >> 20):
            file.write(hashlib.sha256(b"%d" % number).digest() * (1 << 15))
    time.sleep(0.1)  # else it could be written to again without that showing in its times
    named = f"a file of {size >> 20:,} MiB"
    contenders = {
        "ours": lambda: _seconds(lambda: file_sha256(film)),
        "again": lambda: _seconds(lambda: known.of(str(film))),
        "hashlib": lambda: _seconds(lambda: _hashlib(film)),
    }
    program = shutil.which("sha256sum")
    if program is not None:
        command = [program, str(film)]
        contenders["sha256sum"] = lambda: _seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    known = Digests(Job(where / "known"))
    known.of(str(film))
    known.save()
    seconds = take_turns(contenders, repetitions)
    if program is not None:
        yield Result("digest", named, "sha256sum", seconds["ours"], seconds["sha256sum"], 1.1)
    yield Result("digest-hashlib", named, "hashlib.file_digest", seconds["ours"], seconds["hashlib"], 1.1)
    yield Result("digest-again", "the second look at it", "the first", seconds["again"], seconds["ours"], 0.01)
    film.unlink()


def _hashlib(path: Path) -> str:
    """``hashlib.file_digest``, which Python 3.10 has not."""
    digest = hashlib.sha256()
    buffer = bytearray(1 << 18)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()


def _many_small_files(where: Path, many: int, few: int, repetitions: int) -> Iterator[Result]:
    folder = where / "files"
    folder.mkdir()
    paths = [folder / f"segment_{number:05d}.json" for number in range(many)]
    for path in paths:
        path.write_text(f'{{"text": "{path.name}"}}\n')
    time.sleep(0.1)
    names = [str(path) for path in paths]
    jobs = {count: Job(where / f"{count}") for count in (many, few)}
    for count, job in jobs.items():
        first = Digests(job)
        for name in names[:count]:
            first.of(name)
        first.save()

    def check(count: int) -> float:
        digests = Digests(jobs[count])  # as a new process has it: what is known is on disk
        return _processor_seconds(lambda: [digests.of(name) for name in names[:count]]) / count

    def read(count: int) -> float:
        digests = Digests(Job(where / "nothing"))
        return _processor_seconds(lambda: [digests.of(name) for name in names[:count]]) / count

    def stage(count: int, tier: str) -> float:
        io = StageIO("asr", new_job(where))
        io._recorder.artifacts.digests.tier = tier
        for path in paths[:count]:
            io.track_output(path, "segment")
        return _seconds(io.finalize) / count

    def ask(count: int) -> float:
        with StageIO("asr", asked) as io:
            io.get_stage_logger("ERROR")
            for path in paths[:count]:
                io.track_input(path, "segment")
            return _seconds(lambda: io.up_to_date(code="v1")) / count

    contenders: dict[str, Callable[[], float]] = {
        "check many": lambda: check(many),
        "check few": lambda: check(few),
        "read many": lambda: read(many),
        "read few": lambda: read(few),
        "end": lambda: stage(few, "sha256"),
        "end without": lambda: stage(few, "off"),
    }
    seconds = take_turns(contenders, repetitions)
    unchanged = f"{many:,} unchanged files checked"
    whole = [second * many for second in seconds["check many"]]
    yield Result("check", unchanged, "read", whole, [second * many for second in seconds["read many"]], limit=1.0)
    yield Result("check-each", "one of them", f"one of {few:,}", seconds["check many"], seconds["check few"], 1.3)
    yield Result(
        "read-each", f"one of {many:,} read", f"one of {few:,}", seconds["read many"], seconds["read few"], 1.3
    )
    yield Result("end", "a stage's end, each output", "without digests", seconds["end"], seconds["end without"])
    asked = new_job(where)
    with StageIO("asr", asked) as io:
        io.get_stage_logger("ERROR")
        io.track_output(io.save_json({}, "segments.json"))
        for path in paths[:few]:
            io.track_input(path, "segment")
        io.up_to_date(code="v1")
    seconds = take_turns({"ask": lambda: ask(few), "read": lambda: read(few)}, repetitions)
    yield Result("ask", f"up_to_date() with {few:,} inputs, each", "read", seconds["ask"], seconds["read"])
