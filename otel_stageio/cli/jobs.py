"""``otel-stageio status ROOT``: the jobs below a directory, as a table."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections import Counter
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from ..layout import Job
from ..reading.hosts import HostView, hosts_of, several
from ..reading.job import CannotAnswer, check_job, is_job
from ..reading.jobs import Closer, JobSummary, look_closer, summaries
from ..reading.text import clock, count, duration, one_line, plain
from ..reading.view import StageView
from ..runtime import host_name
from ..semconv import GOOD_STATUSES
from ..units import seconds_left
from .status import said_of
from .terminal import Terminal

#: Rows of the table, unless it is told otherwise.
ROWS = 30
_LONGEST_JOB, _LONGEST_PIPELINE, _LONGEST_HOST = 36, 20, 24
#: Lines for hosts, where there are so many jobs that some have no row; and their length, where nothing bounds it.
_HOSTS, _WIDTH = 8, 120
#: What is worth a look comes first.
_ORDER = ("running", "failed", "crashed", "lost", "timeout", "cancelled", "incomplete")


@dataclasses.dataclass
class Wanted:
    """Attributes:
    states: only jobs in one of these; empty for all.
    hosts: only those with a stage on one of these that is running or did not end well; empty for all.
    limit: show so many; 0 for all.
    """

    states: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    limit: int = ROWS

    def takes(self, job: JobSummary) -> bool:
        here = not self.hosts or any(stage.host in self.hosts for stage in job.stages)
        return here and (not self.states or job.state in self.states)

    def __str__(self) -> str:
        said = [" or ".join(sorted(self.states))] if self.states else []
        return " ".join([*said, *([f"on {' or '.join(sorted(self.hosts))}"] if self.hosts else [])])


@dataclasses.dataclass
class Jobs:
    """Attributes:
    counts: jobs by state, all of them.
    wanted: what was asked for.
    rows: those that are shown, the newest first; where not all have room, what a person has to see to comes before.
    left_out: how many more would be in the table.
    dead: how many have something that died and nobody has closed.
    hosts: who runs something or did not end it well; empty where it is this machine alone, or one other's past.
    """

    root: str
    counts: dict[str, int]
    wanted: Wanted
    rows: list[tuple[JobSummary, Closer]]
    left_out: int
    dead: int
    hosts: list[HostView]


def is_root(path: str) -> bool:
    """Whether a path is a directory, and no job itself, but has jobs below it."""
    job = Job(path)
    return "\0" not in path and job.root.is_dir() and not is_job(job) and next(summaries(path), None) is not None


def read_jobs(root: str, wanted: Wanted) -> Jobs:
    """
    Raises:
        CannotAnswer: if there is no job, with what is there instead.
    """
    found = list(summaries(root))
    if not found:
        check_job(Job(root), root)
        raise CannotAnswer(f"there is no job below {root}")
    counts = Counter(job.state for job in found)
    taken = sorted(filter(wanted.takes, found), key=lambda job: (-job.began, job.path))
    if wanted.limit and len(taken) > wanted.limit:
        taken.sort(key=lambda job: (not job.urgent, job.state in GOOD_STATUSES))
    shown = taken[: wanted.limit] if wanted.limit else taken
    rows = [(job, look_closer(job)) for job in shown]
    ordered = sorted(counts, key=_place)
    dead = sum(job.dead for job in found)
    hosts = _hosts(found)
    return Jobs(root, {state: counts[state] for state in ordered}, wanted, rows, len(taken) - len(shown), dead, hosts)


def _place(state: str) -> tuple[int, str]:
    return _ORDER.index(state) if state in _ORDER else len(_ORDER), state


def _hosts(jobs: list[JobSummary]) -> list[HostView]:
    stands = [stand for job in jobs for stand in job.stages]
    # Where all of it is on one other host, that has to be said of what runs there.
    asking = [host_name()] if any(stand.state == "running" for stand in stands) else []
    return hosts_of(stands) if several([*(stand.host for stand in stands), *asking]) else []


def document_of(jobs: Jobs) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "root": jobs.root,
        "jobs": [_row(jobs.root, job, closer) for job, closer in jobs.rows],
        "hosts": [dataclasses.asdict(host) for host in jobs.hosts],
        "left_out": jobs.left_out,
        "states": jobs.counts,
        "dead": jobs.dead,
    }


def _row(root: str, job: JobSummary, closer: Closer) -> dict[str, Any]:
    return {
        "job": job.path,
        "name": os.path.relpath(job.path, root),
        "pipeline": job.pipeline,
        "state": job.state,
        "started_at": job.started_at,
        "ended_at": job.ended_at if job.state != "running" else None,
        "seconds": closer.seconds,
        "stages": [
            {
                "name": stage.name,
                "state": stage.state,
                "host": stage.host or None,
                "silent_seconds": stage.silent_seconds,
                "message": stage.message,
                "progress": stage.progress.model_dump() if stage.progress else None,
            }
            for stage in closer.stages
        ],
        "next": closer.pending or None,
    }


def show_jobs(jobs: Jobs, terminal: Terminal) -> None:
    _summary(jobs, terminal)
    _show_hosts(jobs, terminal)
    table = _Table(jobs, terminal)
    for job, closer in jobs.rows:
        table.row(job, closer)
    if str(jobs.wanted) and not jobs.rows:
        terminal.line((f"  none of them is {plain(jobs.wanted)}", "dim"))
    if jobs.left_out:
        filtered = "" if jobs.wanted.states else ", --state failed those that failed"
        terminal.line((f"  {jobs.left_out:,} more; --limit 0 shows all{filtered}", "dim"))
    if jobs.dead:
        what = "1 job has died and is not closed" if jobs.dead == 1 else f"{jobs.dead:,} jobs have died, not closed yet"
        terminal.line(("!", "bold yellow"), f" {what}: otel-stageio recover {plain(shlex.quote(jobs.root))}")


def _summary(jobs: Jobs, terminal: Terminal) -> None:
    terminal.line(_counted(jobs.counts, terminal), ("  in ", "dim"), (plain(jobs.root), "dim"))


def _show_hosts(jobs: Jobs, terminal: Terminal) -> None:
    """``● gpu-7  3 running, 1 lost``: a line for each that has gone silent, the others beside each other."""
    lines = [[_host(host, terminal)] for host in jobs.hosts if host.silent_seconds]
    cells = [_host(host, terminal) for host in jobs.hosts[len(lines) :]]
    widest = max((cell.cell_len for cell in cells), default=0)
    beside = max((min(terminal.width, _WIDTH) - 2) // (widest + 2), 1)
    padded = [cell.append(" " * (widest - cell.cell_len)) for cell in cells]
    lines += [padded[at : at + beside] for at in range(0, len(padded), beside)]
    if jobs.left_out:
        del lines[_HOSTS:]
    for line in lines:
        terminal.line(terminal.fit(Text.assemble("  ", Text("  ").join(line)), terminal.width))
    rest = jobs.hosts[sum(map(len, lines)) :]
    if rest:
        total: Counter[str] = Counter()
        for host in rest:
            total.update(host.stages)
        terminal.line((f"  {count(len(rest), 'more host')}: ", "dim"), _counted(total, terminal))


def _host(host: HostView, terminal: Terminal) -> Text:
    state = "lost" if host.silent_seconds else min(host.stages, key=_place)
    name = terminal.fit(one_line(host.name), _LONGEST_HOST, "bold")
    cell = Text.assemble(terminal.glyph(state), " ", name, "  ")
    if host.silent_seconds:
        cell.append(f"silent for {duration(host.silent_seconds)}", "bold red").append(", ")
    return cell.append(_counted(host.stages, terminal))


def _counted(states: dict[str, int], terminal: Terminal) -> Text:
    """``7 running, 3 failed, 9,990 success``."""
    ordered = sorted(states, key=_place)
    return Text(", ").join(Text.assemble(f"{states[state]:,} ", terminal.state(state)) for state in ordered)


class _Table:
    def __init__(self, jobs: Jobs, terminal: Terminal) -> None:
        self._terminal = terminal
        self._root = jobs.root
        self._hosts = bool(jobs.hosts)
        names = [one_line(os.path.relpath(job.path, jobs.root)) for job, _ in jobs.rows]
        pipelines = {one_line(job.pipeline) for job, _ in jobs.rows if not self._named(job)}
        self._name = min(max(map(cell_len, names), default=0), _LONGEST_JOB)
        #: Where all have one name it says nothing.
        several = len(pipelines) > 1
        self._pipeline = min(max(map(cell_len, pipelines)), _LONGEST_PIPELINE) if several else 0
        self._state = max((terminal.state(job.state).cell_len for job, _ in jobs.rows), default=0)
        self._seconds = max((len(duration(closer.seconds)) for _, closer in jobs.rows), default=0)

    def _named(self, job: JobSummary) -> bool:
        """Whether its pipeline is called as its directory is: nobody has given it a name."""
        return job.pipeline == os.path.basename(job.path)

    def row(self, job: JobSummary, closer: Closer) -> None:
        terminal = self._terminal
        began = clock(job.started_at)
        parts = [
            self._column(Text(one_line(os.path.relpath(job.path, self._root)), "bold"), self._name),
            *([self._column(self._of(job), self._pipeline)] if self._pipeline else []),
            self._column(terminal.state(job.state), self._state),
            Text(f"{duration(closer.seconds):>{self._seconds}}"),
            Text(began[:-3] if len(began) == 19 else began, "dim"),
        ]
        head = Text.assemble(terminal.glyph(job.state), " ", Text("  ").join(parts))
        where = self._where(closer)
        if where and head.cell_len + 2 + where.cell_len <= terminal.width:
            terminal.line(head, "  ", where)
            return
        terminal.line(terminal.fit(head, terminal.width))
        if where:
            terminal.line(terminal.fit(Text.assemble("    ", where), terminal.width))

    def _of(self, job: JobSummary) -> Text:
        return Text("" if self._named(job) else one_line(job.pipeline), "dim")

    def _column(self, text: Text, width: int) -> Text:
        cut = self._terminal.fit(text, width)
        return Text.assemble(cut, " " * (width - cut.cell_len))

    def _where(self, closer: Closer) -> Text:
        if closer.pending:
            return Text.assemble("before ", (one_line(closer.pending), "bold"))
        return Text(", ").join(self._stand(stage) for stage in closer.stages)

    def _stand(self, stage: StageView) -> Text:
        said = Text.assemble((one_line(stage.name), "bold"))
        message = one_line(stage.message)
        if self._hosts and stage.host and f" on {one_line(stage.host)}" not in message:
            said.append(f" on {one_line(stage.host)}")
        if stage.state not in ("running", *GOOD_STATUSES):
            return said.append(f": {message}" if message else f": {one_line(stage.state)}", "red")
        if stage.silent_seconds:
            said.append(f", silent for {duration(stage.silent_seconds)}", "red")
        progress = stage.progress
        if progress is None or progress.done is None:
            return said
        said.append(f"  {said_of(progress)}")
        left = seconds_left(progress.done, progress.total, stage.seconds)
        return said.append(f"  {duration(left)} left") if left is not None else said
