"""Random pipelines and random edits: what runs again is what a reference says that keeps all contents in memory and
always compares everything; and the outputs are always those of a run from scratch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import clean_environment as clean_environment
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_stageio import Pipeline, StageIO
from otel_stageio.layout import Job, directory_name

SOURCES = ("film", "lexicon", "voices")
MOST_STAGES = 6

#: (whose, name): ``("", "film")`` is a source, ``("s1", "0.out")`` an output of the stage s1.
File = tuple[str, str]


@dataclass
class Stage:
    name: str
    outputs: int
    reads: list[File]
    parameter: int = 0
    version: int = 0

    @property
    def makes(self) -> list[File]:
        return [(self.name, f"{number}.out") for number in range(self.outputs)]

    def work(self, contents: list[bytes | None]) -> list[bytes]:
        """Its outputs: of few different contents, so that other inputs often give the same ones."""
        said = repr((self.name, self.parameter, self.version // 2, contents)).encode()
        digest = hashlib.sha256(said).digest()
        return [b"%s %d: %d" % (self.name.encode(), number, digest[number] % 3) for number in range(self.outputs)]


@dataclass
class Reference:
    """What each stage's last run saw and made, whole."""

    seen: dict[str, tuple[Any, dict[File, bytes | None], dict[File, bytes | None]]] = field(default_factory=dict)

    def runs(self, stage: Stage, now: Callable[[File], bytes | None]) -> bool:
        says = (stage.parameter, stage.version, sorted(set(stage.reads)))
        if stage.name not in self.seen:
            return True
        said, read, made = self.seen[stage.name]
        return said != says or any(now(file) != content for file, content in (*read.items(), *made.items()))

    def ran(self, stage: Stage, now: Callable[[File], bytes | None]) -> None:
        says = (stage.parameter, stage.version, sorted(set(stage.reads)))
        read, made = ({file: now(file) for file in files} for files in (stage.reads, stage.makes))
        self.seen[stage.name] = (says, read, made)


class World:
    def __init__(self, place: Path, stages: list[Stage]) -> None:
        self.place, self.stages = place, stages
        self.job = place / "job"
        self.reference = Reference()
        for number, name in enumerate(SOURCES):
            (place / name).write_bytes(b"source %d" % number)

    def path(self, file: File) -> Path:
        whose, name = file
        return self.job / directory_name(whose) / name if whose else self.place / name

    def now(self, file: File) -> bytes | None:
        try:
            return self.path(file).read_bytes()
        except FileNotFoundError:
            return None

    def run(self) -> None:
        """Run all; compare with the reference, and with a run from scratch."""
        ran, expected = [], []
        scratch: dict[File, bytes | None] = {("", name): self.now(("", name)) for name in SOURCES}
        with Pipeline("random", self.job) as run:
            for stage in self.stages:
                should = self.reference.runs(stage, self.now)
                with run.stage(stage.name) as io:
                    did = self._stage(stage, io)
                if should:
                    expected.append(stage.name)
                if did:
                    ran.append(stage.name)
                    self.reference.ran(stage, self.now)
                scratch.update(zip(stage.makes, stage.work([scratch[file] for file in stage.reads]), strict=True))
        assert ran == expected
        assert {file: self.now(file) for file in scratch} == scratch

    def _stage(self, stage: Stage, io: StageIO) -> bool:
        for file in stage.reads:
            io.track_input(self.path(file))
        if io.up_to_date(params={"parameter": stage.parameter}, code=f"v{stage.version}"):
            return False
        for file, content in zip(stage.makes, stage.work([self.now(file) for file in stage.reads]), strict=True):
            self.path(file).write_bytes(content)
            io.track_output(self.path(file))
        return True

    # -- edits -------------------------------------------------------------------------------------------------------

    def edit(self, what: str, which: int, value: int) -> None:
        stage = self.stages[which % len(self.stages)]
        files = [("", name) for name in SOURCES] + [file for one in self.stages for file in one.makes]
        path = self.path(files[which % len(files)])
        if what == "change":
            path.write_bytes(b"changed %d" % value)
        elif what == "change, size and time as before" and path.exists():
            before = path.stat()
            content = path.read_bytes()
            path.write_bytes(content[:-1] + b"%d" % value if content else content)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif what == "touch" and path.exists():
            os.utime(path, (value, value))
        elif what == "write anew" and path.exists():
            shutil.copyfile(path, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
        elif what == "delete":
            path.unlink(missing_ok=True)
        elif what == "truncate" and path.exists():
            os.truncate(path, value)
        elif what == "parameter":
            stage.parameter = value
        elif what == "version":
            stage.version = value
        elif what == "other input":
            earlier = [file for one in self.stages[: self.stages.index(stage)] for file in one.makes]
            offered = [("", name) for name in SOURCES] + earlier
            file = offered[value % len(offered)]
            if file in stage.reads:
                stage.reads.remove(file)
            else:
                stage.reads.append(file)
        elif what == "move the job":
            there = self.place / (f"moved{value}" if value else "job")
            if there != self.job:
                shutil.rmtree(there, ignore_errors=True)  # of an old copy
                self.job = self.job.replace(there)
        elif what == "copy the job":
            there = self.place / f"copy{value}"
            if there != self.job:
                shutil.rmtree(there, ignore_errors=True)
                self.job = Path(shutil.copytree(self.job, there, symlinks=True))
        elif what == "forget the digests":
            Path(Job(self.job).digests).unlink(missing_ok=True)


_EDITS = st.tuples(
    st.sampled_from(
        ["change", "change", "change, size and time as before", "touch", "write anew", "delete", "truncate",
         "parameter", "version", "other input", "move the job", "copy the job", "forget the digests"]
    ),
    st.integers(0, 20),
    st.integers(0, 3),
)  # fmt: skip


@st.composite
def _pipelines(draw: st.DrawFn) -> list[Stage]:
    stages: list[Stage] = []
    for number in range(draw(st.integers(2, MOST_STAGES))):
        offered = [("", name) for name in SOURCES] + [file for stage in stages for file in stage.makes]
        reads = draw(st.lists(st.sampled_from(offered), max_size=3, unique=True))
        stages.append(Stage(f"s{number}", draw(st.integers(1, 2)), reads))
    return stages


@settings(max_examples=25)
@given(stages=_pipelines(), rounds=st.lists(st.lists(_EDITS, max_size=3), min_size=1, max_size=3))
def test_what_runs_again_is_what_has_to_and_nothing_is_ever_stale(
    tmp_path_factory: pytest.TempPathFactory, stages: list[Stage], rounds: list[list[tuple[str, int, int]]]
) -> None:
    os.environ["OTEL_STAGEIO_CONSOLE"] = "off"
    world = World(tmp_path_factory.mktemp("world"), stages)
    world.run()
    for edits in rounds:
        for edit in edits:
            world.edit(*edit)
        world.run()
    shutil.rmtree(world.place)
