"""``--watch`` where nothing can be drawn over: a line, or a JSON document on a line, for each change."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from ..events import iso
from ..reading.jobs import Closer, JobSummary
from ..reading.text import clock, duration, one_line, plain
from ..reading.view import JobView, StageView
from ..runtime import runtime
from ..units import amount, percent, seconds_left, share
from .jobs import Jobs, document_of, show_jobs
from .terminal import Terminal, document

#: Seconds between two lines about the progress of a stage.
_PROGRESS = 10.0


class Lines:
    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._reason = ""
        self._run: int | None = None
        #: (stage, attempt) -> its state
        self._states: dict[tuple[str, int], str] = {}
        #: The same -> how far it was when that was said, and when.
        self._progress: dict[tuple[str, int], tuple[float | None, float]] = {}
        self._jobs: dict[str, str] | None = None

    def waiting(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            self._say(None, f"waiting: {plain(reason)}")

    def job(self, job: JobView, *, over: bool) -> None:
        run = job.run
        if run is not None and run.number != self._run:
            self._run = run.number
            self._say(run.started_at, f"{one_line(run.pipeline)}: run {run.number} of {plain(job.path)} started")
        for stage in job.stages:
            self._stage(stage)
        if over:
            name, seconds = (run.pipeline, run.seconds) if run is not None else (job.name, None)
            self._ended(run.ended_at if run is not None else None, name, job.state, seconds, "")

    def _stage(self, stage: StageView) -> None:
        key = (stage.name, stage.attempt)
        before = self._states.get(key)
        self._states[key] = stage.state
        if before is None and stage.started_at:
            again = f", attempt {stage.attempt}" if stage.attempt > 1 else ""
            self._say(stage.started_at, f"{one_line(stage.name)} started{again}")
            self._progress[key] = (None, self._now())
        if stage.state != "running" and stage.state != before:
            self._ended(stage.ended_at, stage.name, stage.state, stage.seconds, stage.message)
        progress = stage.progress
        if stage.state == "running" and progress is not None and progress.done is not None:
            done, since = self._progress.get(key, (None, 0.0))
            if progress.done != done and (done is None or self._now() - since >= _PROGRESS):
                self._progress[key] = (progress.done, self._now())
                self._say(None, f"{one_line(stage.name)}: {_how_far(stage, progress.done, progress.total)}")

    def jobs(self, jobs: Jobs) -> None:
        states = {job.path: job.state for job, _ in jobs.rows}
        if self._jobs is None:
            show_jobs(jobs, self._terminal)
        else:
            for job, closer in reversed(jobs.rows):
                if self._jobs.get(job.path) != job.state:
                    self._changed(job, closer)
        self._jobs = {**(self._jobs or {}), **states}

    def _changed(self, job: JobSummary, closer: Closer) -> None:
        if job.state == "running":
            self._say(job.started_at, f"{plain(job.path)} started")
            return
        why = ", ".join(f"{stage.name}: {stage.message or stage.state}" for stage in closer.stages)
        self._ended(job.ended_at, job.path, job.state, closer.seconds, why)

    def _ended(self, when: str | None, name: str, state: str, seconds: float | None, why: str) -> None:
        after = f" after {duration(seconds)}" if seconds is not None else ""
        reason = f": {one_line(why)}" if why and state != "success" else ""
        self._say(when, one_line(name), ": ", self._terminal.state(state), f"{after}{reason}")

    def _say(self, when: str | None, *parts: Text | str) -> None:
        """Args: ``when`` it was; without one, now."""
        self._terminal.line(f"[{clock(when or iso(runtime.clock.wall_ns()))}] ", *parts)

    @staticmethod
    def _now() -> float:
        return runtime.clock.monotonic_ns() / 1e9

    def close(self) -> None:
        pass


def _how_far(stage: StageView, done: float, total: float | None) -> str:
    said = [amount(done, total, one_line(stage.progress.unit) if stage.progress else "")]
    part = share(done, total)
    if part is not None:
        said.append(percent(part))
    left = seconds_left(done, total, stage.seconds)
    if left is not None:
        said.append(f"{duration(left)} left")
    return ", ".join(said)


class Documents:
    """JSON lines: ``{"waiting": …}``, or the document that ``--json`` gives."""

    def __init__(self) -> None:
        self._written: Any = None

    def waiting(self, reason: str) -> None:
        self._write({"waiting": reason}, reason)

    def job(self, job: JobView, *, over: bool) -> None:
        content = job.document(records=False)
        self._write(content, _lasting(content))

    def jobs(self, jobs: Jobs) -> None:
        content = document_of(jobs)
        self._write(content, _lasting(content))

    def _write(self, content: Any, lasting: Any) -> None:
        if lasting != self._written:
            self._written = lasting
            document(content, indent=None)

    def close(self) -> None:
        pass


def _lasting(content: Any) -> Any:
    """What does not change by itself as time goes by."""
    if isinstance(content, dict):
        running = content.get("state") == "running"
        if content.get("silent_seconds") is not None:
            content = {**content, "silent_seconds": True}
        passing = {"seconds_ago", *(("seconds",) if running else ())}
        return {key: _lasting(item) for key, item in content.items() if key not in passing}
    return [_lasting(item) for item in content] if isinstance(content, list) else content
