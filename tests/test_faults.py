"""Every call by which the library touches the file system fails once, and fails from then on; see ``faults/``.

Whatever fails: the stage's own output and exit code are what they would have been, what lies on disk can be read and
claims no more than was reached, what was lost is counted, and once the fault is gone the job goes on.

A clean run enumerates the calls. Of those that are made over and over (each event writes the manifest) the first two
and the last are taken, and the errnos take turns; ``STAGEIO_FAULTS=all`` takes each errno at each call.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from errno import EACCES, EDQUOT, EIO, EMFILE, ENOENT, ENOLCK, ENOSPC, EOPNOTSUPP, EROFS, errorcode
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest
from conftest import needs
from faults import (
    CLOSE,
    FOR_EVER,
    LINK,
    LOCK,
    MKDIR,
    OPEN,
    READ,
    RENAME,
    SHORT,
    SYNC,
    TRUNCATE,
    UNLINK,
    WRITE,
    Ran,
    Server,
    Site,
    build,
    copy,
)
from helpers import environment

#: What can be answered, and by which calls.
FAULTS = {
    ENOSPC: OPEN | WRITE | RENAME | MKDIR | LINK | TRUNCATE | SYNC | CLOSE,
    EROFS: OPEN | WRITE | RENAME | MKDIR | UNLINK | LINK | TRUNCATE,
    EIO: OPEN | READ | WRITE | RENAME | MKDIR | UNLINK | LINK | TRUNCATE | SYNC | LOCK | CLOSE,
    EDQUOT: OPEN | WRITE | RENAME | MKDIR | LINK | SYNC | CLOSE,
    EMFILE: OPEN | READ,
    ENOENT: OPEN | READ | RENAME | MKDIR | UNLINK,
    EACCES: OPEN | READ | RENAME | MKDIR | UNLINK,
    ENOLCK: LOCK,
    EOPNOTSUPP: LOCK,
    SHORT: WRITE,
}
EVERYTHING = os.environ.get("STAGEIO_FAULTS") == "all"
SERVERS = 2
STAMP = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]|after (?:<?[\d.]+ (?:ms|s|min|h) ?)+")


class Case(NamedTuple):
    site: Site
    number: int
    last: int

    @property
    def arm(self) -> tuple[int, int, int, int]:
        return self.site.number, self.last, self.number, FAULTS[self.number]

    def __str__(self) -> str:
        name = "SHORT" if self.number == SHORT else errorcode[self.number]
        return f"{name} at {self.site}{' and ever after' if self.last == FOR_EVER else ''}"


def cases(sites: list[Site]) -> list[Case]:
    """Each call once and for ever."""
    seen: dict[tuple[str, str], list[Site]] = {}
    for site in sites:
        seen.setdefault((site.name, re.sub(r"(\.[0-9a-f]+)+$|\d{6,}", "", site.path)), []).append(site)
    chosen = {site for same in seen.values() for site in (same if EVERYTHING else {*same[:2], same[-1]})}
    turns: Counter[int] = Counter()
    made = []
    for site in sorted(chosen, key=lambda site: site.number):
        possible = [number for number, kinds in FAULTS.items() if kinds & site.kind]
        for last in (site.number, FOR_EVER):
            turn = turns[site.kind] = turns[site.kind] + 1
            numbers = possible if EVERYTHING else [possible[turn % len(possible)]]
            made += [Case(site, number, last) for number in numbers]
    return made


class Bench:
    """A few fork servers, and a directory for each."""

    def __init__(self, place: Path, library: Path) -> None:
        self.place = place
        self._free: SimpleQueue[tuple[Server, Path]] = SimpleQueue()
        self._servers = [Server(library, environment(), "--checks") for _ in range(SERVERS)]
        for number, server in enumerate(self._servers):
            self._free.put((server, place / str(number)))
        self._count = 0

    def run(self, program: str, before: Path, case: Case | None = None) -> tuple[Ran, dict[str, Any]]:
        """Run a program on a copy of a job, and look at what it left."""
        server, place = self._free.get()
        try:
            job = self._job(place, before)
            ran = server.run(program, job, case.arm if case else (0, 0, 0, 0))
            return ran, server.check(job)
        finally:
            self._free.put((server, place))

    def make(self, name: str, *programs: str) -> Path:
        """A job in which these programs have run."""
        server, place = self._free.get()
        job = self.place / name / "job"
        job.parent.mkdir()
        for program in programs:
            server.run(program, job)
        # A run in the same second would have to look for a name for its log that is free: one call more or less.
        time.sleep(1)
        self._free.put((server, place))
        return job

    def _job(self, place: Path, before: Path) -> Path:
        self._count += 1
        directory = place / f"{before.parent.name}.{self._count}"
        directory.mkdir(parents=True)
        return copy(before, directory / "job")

    def close(self) -> None:
        for server in self._servers:
            server.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    place = tmp_path_factory.mktemp("faults")
    made = Bench(place, build(place, needs("gcc")))
    yield made
    made.close()


def attempts(manifest: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Every record of asr by its number."""
    newest = {key: item for key, item in manifest.items() if key not in ("attempts", "substages")}
    return {record["attempt"]: record for record in (*manifest.get("attempts", ()), newest)}


def plain(text: str) -> str:
    """Without times, and without the number of the run, which a run record that cannot be read does not tell."""
    return re.sub(r"run \d+ of", "run … of", STAMP.sub("…", text))


def missing(whole: list[str], found: list[str]) -> int:
    return sum((Counter(whole) - Counter(found)).values())


def own(lines: list[str]) -> list[str]:
    """Those of the stage that is looked at. What its pipeline says later, its record cannot count."""
    return [line for line in lines if not line.startswith(("[pipeline]", "[stage.demux]", "[stage.mux]"))]


#: How each program's stage ends, where its end could be written; what a death says instead is true as well.
ENDS = {"stage": "success", "original": "success", "pipeline": "success", "failing": "failed", "recovering": "crashed"}
NOT_SAID = ("running", "crashed", "incomplete")


def wrong(program: str, clean: tuple[Ran, dict[str, Any]], was: tuple[Ran, dict[str, Any]]) -> list[str]:
    """What of a run with a fault is not as it must be."""
    (ran_clean, good), (ran, found) = clean, was
    said = []

    def must(true: object, what: str) -> None:
        if not true:
            said.append(what)

    must(ran.hits, "the fault did not happen")
    must(ran.code == ran_clean.code, f"exit code {ran.code}: {ran.stderr[-1500:]}")
    must(plain(ran.stdout) == plain(ran_clean.stdout), f"output: {ran.stdout}")
    must(ran.stderr == ran_clean.stderr, f"stderr: {ran.stderr[-1500:]}")
    must(not ran.internal_errors, f"internal errors: {ran.internal_errors}")
    must(found["outputs"].get("segments.txt") == good["outputs"]["segments.txt"], "the stage's own output")
    must("broken" not in found, f"recover or the next attempt: {found.get('broken')}")
    if said:
        return said
    for when, state in (("at once", found), ("recovered", found["after"]), ("a further attempt", found["again"])):
        must(not state["unreadable"], f"{when}: unreadable: {state['unreadable']}")
        records = attempts(state["manifest"])
        must(records.get(1) == attempts(good["manifest"])[1], f"{when}: the earlier attempt is not as it was")
        # Where nothing at all could be written, the further attempt is the second.
        end = records.get(2, {}).get("status", "running") if 2 in attempts(found["after"]["manifest"]) else "running"
        must(end == ENDS[program] or end in NOT_SAID, f"{when}: attempt 2 is {end}")
    must(
        attempts(found["again"]["manifest"])[max(attempts(found["again"]["manifest"]))]["status"] == "success", "again"
    )
    must(not found["invalid"], f"validate: {found['invalid']}")
    record = attempts(found["after"]["manifest"]).get(2)
    if record is None:
        must(not any(name.startswith("asr.2.logs") and lines for name, lines in found["after"]["spool"].items()),
             "the journal has an attempt that the manifest has not")  # fmt: skip
        return said
    if record["status"] == ENDS[program] and program != "recovering":
        for file, name in (("stage_log", "stage_log"), ("pipeline_log", "pipeline_log")):
            gone = missing(own(good[file]), own(found[file]))
            counted = record["lost"].get(name, 0)
            must(gone <= counted, f"{gone} lines of the {file} are gone and {counted} counted")
        gone = missing(good["spool"]["asr.2.logs"], found["spool"].get("asr.2.logs", []))
        must(not gone or record["lost"].get("journal"), f"{gone} records are gone from the journal, none is counted")
    return said


@pytest.mark.parametrize("program", ["stage", "failing", "original", "pipeline", "recovering"])
def test_a_call_that_fails_anywhere_changes_nothing_but_the_record(bench: Bench, program: str) -> None:
    before = bench.make(program, "stage", *(["killed"] if program == "recovering" else []))
    clean = bench.run(program, before)
    assert clean[0].sites, clean[0].stderr
    assert not clean[1]["invalid"]
    assert attempts(clean[1]["manifest"])[2]["status"] == ENDS[program]
    bad = []
    with ThreadPoolExecutor(SERVERS) as pool:
        every = cases(clean[0].sites)
        for case, was in zip(every, pool.map(lambda case: bench.run(program, before, case), every), strict=True):
            bad += [f"{case}: {what}" for what in wrong(program, clean, was)]
    assert not bad, f"{len(bad)} of {len(every)} cases:\n" + "\n".join(bad)
