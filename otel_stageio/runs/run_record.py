"""The schema of ``.stageio/run.json``, and of ``.stageio/runs/<attempt>.json``."""

from __future__ import annotations

import os
from contextlib import suppress

from pydantic import Field

from ..layout import Job
from ..record.manifest import ManifestError, Open, checked
from .run_file import finished_attempts


class Owner(Open):
    pid: int = 0
    host: str = ""
    boot_id: str = ""


class StageEntry(Open):
    """A stage attempt of a run; its journal is ``spool/<stage>.<attempt>.logs.jsonl``."""

    stage: str
    attempt: int
    pid: int = Field(0, description="The process that opened it.")
    parent_pid: int = Field(0, description="The process that started that one.")
    host: str = ""
    boot_id: str = ""


class Reference(Open):
    run_id: str
    trace_id: str
    root_span_id: str


class RunBase(Open):
    """One run of a job."""

    run_id: str
    attempt: int = Field(description="1 for the job's first run.")
    pipeline: str
    implicit: bool = Field(description="No Pipeline owned it: its stages found each other.")
    detached: bool = Field(False, description="A scheduler's script began it, and ends it: begin_run, end_run.")
    trace_id: str = Field(description="32 hex digits.")
    root_span_id: str = Field(description="16 hex digits; the root span is written when the run is over.")
    parent_span_id: str | None = Field(None, description="A span outside under which the run happened.")
    previous: Reference | None = Field(None, description="The run before.")
    pipeline_log: str = Field(description="Relative to the job.")
    started_at: str
    started_ns: int
    ended_at: str | None = None
    status: str
    owner: Owner = Field(default_factory=Owner)
    stages: list[StageEntry] = Field(default_factory=list)
    planned: list[str] = Field(default_factory=list)
    lost: dict[str, int] = Field(default_factory=dict, description="What the owner itself could not write, by sink.")


class RunRecord(RunBase):
    """``run.json``: the newest run. The earlier ones are files of their own, once they are over."""

    kind: str
    schema_version: int
    stage_attempts: dict[str, int] = Field(default_factory=dict, description="Attempts so far, by stage.")
    earlier: list[RunBase] = Field(
        default_factory=list,
        description="Oldest first. In the file only those that are not over; the others are in runs/<attempt>.json.",
    )

    @classmethod
    def load(cls, job_dir: str | os.PathLike[str]) -> RunRecord:
        """Read a job's run record, with all its earlier runs.

        Raises:
            ManifestError: if the job has none (the original wrote none), or it is damaged. An earlier run that is
                damaged is left out.

        Example:
            >>> RunRecord.load(job).attempt
            1
        """
        job = Job(job_dir)
        record: RunRecord = checked(cls, job.run_record, "run record")
        found = []
        for path in former_runs(job):
            with suppress(ManifestError):
                found.append(checked(RunBase, path, "run record"))
        record.take_in(found)
        return record

    def take_in(self, finished: list[RunBase]) -> None:
        """Add the runs that have files of their own to ``earlier``."""
        # A kill between two writes leaves one here and there: as its own file has it, it is over.
        runs = {run.run_id: run for run in (*self.earlier, *finished) if run.run_id != self.run_id}
        self.earlier = sorted(runs.values(), key=lambda run: run.attempt)


def former_runs(job: Job) -> list[str]:
    """The files of the runs that are over, oldest first."""
    return [job.former_run(number) for number in sorted(finished_attempts(job))]
