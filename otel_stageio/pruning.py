"""Freeing the room that the machinery takes, once nobody needs what is in it.

What goes is old: the journals of attempts that were followed by others, the records of their runs, and what killed
processes have left half written. What stays: the outputs and logs of a job, its manifests, which are the record from
then on; the newest attempt at each stage and the newest runs; what is not over, not in a manifest, or not yet sent;
and ``refused.jsonl``, whose lines are nowhere else by then. Everything happens under the locks of those who write and
deliver, so a stage that begins meanwhile counts its attempts on from where they were.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .delivery.outbox import Outbox
from .delivery.settings import endpoints
from .layout import Job
from .record.fold import KIND
from .record.manifest import ManifestError, manifest_of
from .recovery import life
from .recovery.recover import close_dead, recover
from .runs import run_edit, run_file
from .runtime import runtime
from .sinks.files import open_to_lock

_JOURNAL = re.compile(r"(?P<stage>.+)\.(?P<attempt>\d+)\.(?:logs|spans|metrics)\.jsonl")
#: In place of a stage's name: the root span of a run; its attempt is the run's number.
_ROOT = "@run"
#: Nobody needs longer than that to complete a half-written file, in seconds.
_HALF_WRITTEN = 3600.0

_Key = tuple[str, int]


class _File(NamedTuple):
    name: str
    path: Path
    modified_ns: int
    size: int


@dataclass(frozen=True)
class Rules:
    """Attributes:
    older_than: seconds since something was last written to; what is younger stays.
    keep: so many of the newest runs stay, with all their attempts.
    spool: the journals of those and of the newest attempts may go as well.
    unsent: so may what has not been sent.
    """

    older_than: float
    keep: int = 1
    spool: bool = False
    unsent: bool = False


@dataclass
class Piece:
    """What goes together. ``size`` is what it takes on the disk."""

    what: str
    paths: list[Path]
    size: int


@dataclass
class Pruned:
    """Attributes:
    pieces: what went, or would go.
    kept: what would have gone by its age and stays all the same, with the reason.
    before: bytes that the machinery took.
    left_alone: why nothing was looked at; empty if something was.
    """

    pieces: list[Piece] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    before: int = 0
    left_alone: str = ""

    @property
    def freed(self) -> int:
        return sum(piece.size for piece in self.pieces)


def prune(path: str | os.PathLike[str], rules: Rules, *, delete: bool) -> Pruned:
    """Free what a job no longer needs.

    Args:
        delete: False only says what would go.
    """
    job = Job(path)
    if not os.path.isdir(job.machinery):
        return Pruned(left_alone="nothing of otel_stageio is in it")
    if any(os.path.islink(place) for place in (job.machinery, job.spool, job.former_runs, job.temporary)):
        return Pruned(left_alone="its .stageio is or has a symbolic link, and those are not followed")
    if not run_file.load(job):
        return Pruned(left_alone="its run record is missing or damaged: attempts could not be counted on")
    before = _size_of(job.machinery)
    if not delete:
        outbox = Outbox(job)
        outbox.load()
        found = _plan(job, outbox, run_file.load(job), rules)
    else:
        close_dead(job)
        if _is_idle(job, run_file.load(job), rules):
            recover(job.root)  # its root span is made of journals that may go now
        outbox = Outbox(job)
        with outbox.locked() as mine:
            if not mine:
                return Pruned(left_alone="another process is delivering it; try again")
            with run_edit.edit(job) as content:
                found = _plan(job, outbox, content, rules)
                _delete(found)
                _count_on(content, found)
            _forget(outbox, found)
    found.before = before
    return found


# -- what may go -----------------------------------------------------------------------------------------------------


def _plan(job: Job, outbox: Outbox, content: dict[str, Any], rules: Rules) -> Pruned:
    found = Pruned()
    spool = _spool(job)
    every_run = run_file.all_runs(job)
    kept_runs = {run["run_id"] for run in every_run[: max(rules.keep, 1)]}
    run_of = {(item.get("stage"), item.get("attempt")): run for run in every_run for item in run.get("stages", ())}
    run_of |= {(_ROOT, run["attempt"]): run for run in every_run}
    newest = _newest(content, spool)
    unsent = set() if rules.unsent else _unsent(outbox)
    ended = _Ended(job)
    stays: set[str] = set()  # ids of runs of which something stays
    # Root spans last: they stay as long as anything of their run does.
    for key in sorted(spool, key=lambda key: (key[0] == _ROOT, key)):
        files, run = spool[key], run_of.get(key)
        run_id = run["run_id"] if run else ""
        reason = ""
        by_rule = rules.spool or (newest.get(key[0]) != key[1] and run_id not in kept_runs)
        goes = by_rule and _is_old(files, rules.older_than) and (run is None or _is_over(job, run, rules))
        if goes and key[0] == _ROOT:
            goes = run_id not in stays
        elif goes and key[1] not in ended.of(key[0]):
            goes, reason = False, "its end is in no manifest: the journal is its only record"
        if goes and any(file.name in unsent for file in files):
            goes, reason = False, "not sent yet: `otel-stageio push` sends it, --unsent gives it up"
        if goes:
            found.pieces.append(Piece(_words(key), *_sum(files)))
        else:
            stays.add(run_id)
        if reason:
            found.kept.append((_words(key), reason))
    _plan_records(job, found, rules, kept_runs, stays, newest)
    half_written = [file for file in _files(job.temporary) if _is_old([file], _HALF_WRITTEN)]
    if half_written:
        found.pieces.append(Piece("half-written files", *_sum(half_written)))
    return found


def _plan_records(
    job: Job, found: Pruned, rules: Rules, kept_runs: set[str], stays: set[str], newest: dict[str, int]
) -> None:
    """Of runs of which nothing else is left, and to which no stage's newest attempt belongs."""
    records = {file.name: file for file in _files(job.former_runs)}
    for run in run_file.finished(job):
        file = records.get(f"{run['attempt']}.json")
        current = any(newest.get(item.get("stage")) == item.get("attempt") for item in run.get("stages", ()))
        if file is None or current or run["run_id"] in kept_runs or run["run_id"] in stays:
            continue
        if _is_old([file], rules.older_than):
            found.pieces.append(Piece(f"record of run {run['attempt']}", *_sum([file])))


def _spool(job: Job) -> dict[_Key, list[_File]]:
    spool: dict[_Key, list[_File]] = {}
    for file in _files(job.spool):
        if match := _JOURNAL.fullmatch(file.name):
            spool.setdefault((match["stage"], int(match["attempt"])), []).append(file)
    return spool


def _newest(content: dict[str, Any], spool: dict[_Key, list[_File]]) -> dict[Any, int]:
    """Stage -> its newest attempt."""
    newest = {stage: number for stage, number in content.get("stage_attempts", {}).items() if type(number) is int}
    for stage, attempt in spool:
        if stage != _ROOT:
            newest[stage] = max(newest.get(stage, 0), attempt)
    return newest


def _unsent(outbox: Outbox) -> set[str]:
    """Names of the journals that have something for a receiver that it has not accepted, where there is one."""
    parts = (outbox.state.get(name) for name in ("accepted", "refused", "trouble"))
    sent = {*endpoints(), *(signal for part in parts if isinstance(part, dict) for signal in part)}
    pending = (journal for journal in outbox.pending() if journal.signal in sent)
    # Half a line, which a killed process leaves, will never be sent.
    return {journal.name for journal in pending if outbox.read(journal, outbox.offset(journal)) is not None}


class _Ended:
    """The attempts at a stage that its manifest has with their end."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._known: dict[str, set[int]] = {}

    def of(self, stage: str) -> set[int]:
        if stage not in self._known:
            attempts: set[int] = set()
            if not os.path.isfile(self._job.manifest(stage)):
                return attempts
            with suppress(ManifestError):
                record = manifest_of(self._job, stage)
                both = (record, *record.attempts)
                attempts = {each.attempt for each in both if each.kind == KIND and each.completed_at}
            self._known[stage] = attempts
        return self._known[stage]


def _is_over(job: Job, run: dict[str, Any], rules: Rules) -> bool:
    return run.get("status") != "running" or _is_idle(job, run, rules)


def _is_idle(job: Job, run: dict[str, Any], rules: Rules) -> bool:
    """Whether nobody has come to a run without an owner for so long that nobody will."""
    if not run.get("implicit") or run.get("status") != "running" or _files(job.open):
        return False
    return _is_old(_files(job.spool), rules.older_than)


def _is_old(files: list[_File], seconds: float) -> bool:
    newest = max((file.modified_ns for file in files), default=0)
    return bool(runtime.clock.wall_ns() - newest >= seconds * 1e9)


def _words(key: _Key) -> str:
    return f"root span of run {key[1]}" if key[0] == _ROOT else f"journal of {key[0]}, attempt {key[1]}"


# -- files -----------------------------------------------------------------------------------------------------------


def _files(directory: str) -> list[_File]:
    """Regular files only: nothing that was planted is followed."""
    found = []
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # renamed under our hands, as a half-written file is
                about = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(about.st_mode):
                    found.append(_File(entry.name, Path(entry.path), about.st_mtime_ns, about.st_blocks * 512))
    return found


def _sum(files: list[_File]) -> tuple[list[Path], int]:
    # The log journal first: while it is there, an attempt counts as one that is there.
    paths = sorted((file.path for file in files), key=lambda path: (not path.name.endswith(".logs.jsonl"), path))
    return paths, sum(file.size for file in files)


def _size_of(directory: str) -> int:
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def _delete(found: Pruned) -> None:
    """What cannot be deleted moves to ``kept``, with the reason."""
    for piece in list(found.pieces):
        try:
            _delete_piece(piece)
        except OSError as error:
            found.pieces.remove(piece)
            found.kept.append((piece.what, error.strerror or type(error).__name__))


def _delete_piece(piece: Piece) -> None:
    fd = -1
    try:
        if piece.paths[0].name.endswith(".logs.jsonl"):
            fd = open_to_lock(piece.paths[0])
            if life.seize(fd) is False:  # somebody closes it, or it lives in spite of its end
                raise BlockingIOError(0, "a process holds its lock")
        for path in piece.paths:
            path.unlink(missing_ok=True)
    finally:
        if fd >= 0:
            os.close(fd)


def _count_on(content: dict[str, Any], found: Pruned) -> None:
    """A stage's attempts go on from those that are gone, even where the run record had lost count of them."""
    counters = content.setdefault("stage_attempts", {})
    for match in _journals(found):
        if match["stage"] != _ROOT:
            counters[match["stage"]] = max(counters.get(match["stage"], 0), int(match["attempt"]))


def _forget(outbox: Outbox, found: Pruned) -> None:
    outbox.forget([match[0] for match in _journals(found)])


def _journals(found: Pruned) -> Iterator[re.Match[str]]:
    for piece in found.pieces:
        yield from filter(None, (_JOURNAL.fullmatch(path.name) for path in piece.paths))
