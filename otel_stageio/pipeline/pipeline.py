"""Pipeline: one run of a job, its stages and its child processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanContext

from .. import ambient, delivery
from .. import semconv as sc
from ..capture import Capture
from ..layout import Job
from ..otlp import carrier, encode
from ..otlp.built_span import context as span_context
from ..recovery.recover import close_dead
from ..runs import run as runs
from ..runs import run_end, run_file
from ..runtime import never_raises, runtime
from ..sinks import pipeline_log
from ..sinks.console import Console
from ..sinks.files import AppendFile
from ..stages import lifecycle, pulse
from ..stages.ending import ending_of, is_success
from ..stages.stage_io import StageIO
from ..units import duration
from .command import CommandResult, resume_is_on, run_command
from .handover import environment_of
from .meter import Meter


class StageFailed(Exception):
    """A command of a pipeline did not succeed.

    Attributes:
        result: the :class:`CommandResult`.
    """

    def __init__(self, result: CommandResult) -> None:
        super().__init__(f"stage {result.stage}: {result.message or result.status}")
        self.result = result
        self.stage: str = result.stage


class Pipeline:
    """Owns one run of a job: the root span, the run's id and pipeline log, and the child processes.

    Args:
        name: the pipeline's name; the root span is ``RUN <name>``.
        job_dir: the job directory; made if it is not there.
        stages: names of the stages that are to come, for ``status``.
        attributes: further attributes of the root span.
        resume: what ``command(resume=)`` is where it is not given; ``OTEL_STAGEIO_RESUME=on`` says so too.

    Example:
        >>> with Pipeline("subtitles", job) as run:
        ...     result = run.command("demux", ["true"])
        ...     with run.stage("mux") as io:
        ...         io.add_config("container", "mkv")
        >>> result.status
        'success'
    """

    def __init__(
        self,
        name: str,
        job_dir: str | os.PathLike[str],
        *,
        stages: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"a pipeline needs a name, not {name!r}")
        self.job_dir: str = os.fspath(job_dir)
        self._job = Job(job_dir)
        self._capture = Capture(self._job)
        self.name: str = self._capture.string(name)
        self._planned = [self._capture.string(stage) for stage in stages or ()]
        self._attributes = self._capture.attributes(attributes or {})
        self._resume = resume or resume_is_on()
        self._run: run_file.Run | None = None
        self._pid = 0
        #: How it ended, as a status word; None until it has.
        self.status: str | None = None
        self._failure: str | None = None
        self._ended: dict[str, str] = {}
        #: Of the stages in this process.
        self._meters: dict[str, Meter] = {}
        self._console = Console()

    # -- the run -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Pipeline:
        if self._run is not None:
            raise RuntimeError("this Pipeline has been used: make a new one for each run")
        self._pid = os.getpid()
        close_dead(self._job)
        handed = run_file.find(run_file.load(self._job), os.environ.get(sc.ENV_RUN_ID, ""))
        #: Started by another Pipeline for this very job, or for a run that a scheduler's script has begun: part of
        #: that run, not a run of its own.
        handed = run_file.open_detached(self._job) or handed
        busy = runs.has_owner(self._job, handed or run_file.load(self._job))
        self._nested = handed is not None and busy
        self._lock = None if self._nested else runs.OwnerLock(self._job)
        outside = trace.get_current_span().get_span_context()
        parent = outside if outside.is_valid else carrier.extract()
        if handed is not None and self._nested:
            self._run = run_file.Run(handed)
            self._root = parent or span_context(self._run.trace_id, self._run.root_span_id)
        else:
            self._run = runs.begin(self._job, self.name, parent, self._planned, self._attributes)
            self._root = span_context(self._run.trace_id, self._run.root_span_id)
        self._log = AppendFile(self._job.root / self._run.pipeline_log)
        self._outer = ambient.open_pipelines.get(self._job.key)
        ambient.open_pipelines[self._job.key] = self
        self._deliver()
        self._token = otel_context.attach(trace.set_span_in_context(trace.NonRecordingSpan(self._root)))
        self._say(f"{self.name}: run {self.attempt} of {self._job.root.name} started")
        if busy and not self._nested:
            self._say("another pipeline is at work on this job; both go on, each with its own run", "WARNING")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        otel_context.detach(self._token)
        if os.getpid() != self._pid:
            return
        self._finish(error)
        if ambient.open_pipelines.get(self._job.key) is self:
            del ambient.open_pipelines[self._job.key]
        if self._outer is not None:
            ambient.open_pipelines[self._job.key] = self._outer
        if self._lock is not None:
            self._lock.release()
        self._log.close()

    @never_raises()
    def _deliver(self) -> None:
        lifecycle.install_hooks()
        pulse.start()
        delivery.attend(self._job, owner=not self._nested)

    @never_raises()
    def _finish(self, error: BaseException | None) -> None:
        run = self._opened
        status = None
        if error is not None and not is_success(error):
            status = ending_of(error).status
        if status is None and self._failure is not None:
            status = "failed"
            if not self._nested:
                self._say(self._failure, "ERROR")
        if status is None:
            records = []
            with suppress(OSError):
                records = run_end.stage_records(self._job, run_file.find(run_file.load(self._job), run.run_id) or {})
            known = {record["stage"] for record in records if record["status"] != "running"}
            # What this process saw itself counts, even where the disk would not take or give a record of it.
            seen = [{"stage": stage, "status": word} for stage, word in self._ended.items() if stage not in known]
            status = run_end.result_of([*records, *seen])
        self.status = status
        if self._nested:  # what it comes to is for its owner to say
            return
        seconds = (runtime.clock.wall_ns() - run.started_ns) / 1e9
        self._say_ended(f"{self.name}: {status} after {duration(seconds)}", status)
        run_end.close(self._job, run.run_id, status, error, lost_lines=self._log.failed)

    def _beat(self) -> None:
        """From :mod:`otel_stageio.stages.pulse`: an owner whose stages are elsewhere is to be heard of as well."""
        if os.getpid() == self._pid and self._lock is not None:
            self._lock.beat()
        if self._outer is not None:
            self._outer._beat()

    @property
    def _opened(self) -> run_file.Run:
        if self._run is None:
            raise RuntimeError("the run begins with the block: use `with Pipeline(...) as run:`")
        return self._run

    @property
    def run_id(self) -> str:
        return self._opened.run_id

    @property
    def trace_id(self) -> str:
        """32 hex digits, as Jaeger wants them."""
        return f"{self._root.trace_id:032x}"

    @property
    def span_context(self) -> SpanContext:
        """The root span, as a parent for spans elsewhere."""
        return self._root

    @property
    def environment(self) -> dict[str, str]:
        """What a program, or a task on another host, has to be given to be a part of this run; see :func:`join_run`.

        Example:
            >>> with Pipeline("subtitles", job) as run:
            ...     sorted(run.environment)
            ['OTEL_STAGEIO_RUN_ID', 'OUTPUT_DIR', 'TRACEPARENT']
        """
        return environment_of(self._job, self._opened, self._root)

    def fail(self, reason: str) -> None:
        """The run has failed, whatever its stages say; the block goes on."""
        self._failure = reason

    @property
    def attempt(self) -> int:
        """1 for the job's first run."""
        return self._opened.attempt

    def _after_fork(self) -> None:
        """In a forked child: the run is the parent's, and must not look alive when the parent is dead."""
        if self._lock is not None:
            self._lock.abandon()
        self._log.abandon()

    # -- stages ------------------------------------------------------------------------------------------------------

    def stage(self, name: str, **kwargs: Any) -> StageIO:
        """A stage in this process: ``with run.stage("mux") as io: ...``. Takes what :class:`StageIO` takes."""
        _ = self._opened
        return StageIO(name, self.job_dir, **kwargs)

    def command(
        self,
        stage: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        check: bool = True,
        resume: bool | None = None,
        inputs: Sequence[str | os.PathLike[str]] = (),
        outputs: Sequence[str | os.PathLike[str]] = (),
        code: Any = None,
    ) -> CommandResult:
        """Run any program as a stage, in a process group of its own; its output goes line by line to the stage's log.

        If the program opens ``StageIO`` with the same stage name and job, it is the same stage and the same attempt.

        Args:
            argv: program and arguments; no shell.
            timeout: seconds, after which the whole group gets SIGTERM, and SIGKILL ten seconds later.
            env: added to this process's environment.
            check: raise unless the stage succeeded or was skipped.
            resume: skip it if its last attempt succeeded with these arguments, and inputs, outputs and code are what
                they were, by content. A program that opens ``StageIO`` has said what it reads and writes.
            inputs: files that it reads, of a program that does not say so itself.
            outputs: files that it writes, likewise.
            code: what the result depends on, beside the scripts among the arguments; see
                :meth:`StageIO.up_to_date`.

        Raises:
            StageFailed: if ``check`` and the stage did not succeed.
            TypeError, ValueError: for an ``argv`` that is no list of words.

        Example:
            >>> with Pipeline("demo", job) as run:
            ...     run.command("vad", ["sh", "-c", "exit 3"], check=False).returncode
            3
        """
        _ = self._opened
        words = command_words(argv)
        if timeout is not None and timeout <= 0:
            raise ValueError(f"timeout must be positive, not {timeout!r}")
        io = StageIO(stage, self.job_dir)
        recorder = io._recorder
        journal = None if recorder.silent else self._job.journal(recorder.stage, recorder.attempt)
        meter = Meter(io.stage_name, self._console, self._show, journal)
        try:
            result = run_command(
                io,
                words,
                timeout=timeout,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                resume=self._resume if resume is None else resume,
                code=code,
                inputs=inputs,
                outputs=outputs,
                meter=meter,
            )
        except BaseException as error:
            io._end_with(error)
            raise
        if check and result.status not in sc.GOOD_STATUSES:
            raise StageFailed(result)
        return result

    def _stage_started(self, stage: str) -> None:
        """Say that a stage of this run has begun."""
        self._meters[stage] = Meter(stage, self._console, self._show)
        self._say(f"{stage} started")

    def _stage_at(self, stage: str, record: Mapping[str, Any]) -> None:
        """A stage in this process has got further."""
        if stage in self._meters and os.getpid() == self._pid:
            self._meters[stage].tell(record)

    def _stage_ended(self, stage: str, status: str, seconds: float, why: str | None = None) -> None:
        """Say how a stage of this run ended."""
        self._ended[stage] = status
        self._meters.pop(stage, None)
        detail = f": {why}" if why and status != "success" else ""
        self._say_ended(f"{stage}: {status} after {duration(seconds)}{detail}", status)

    def _say_ended(self, text: str, status: str) -> None:
        self._say(text, "INFO" if status in sc.GOOD_STATUSES else "ERROR", status)

    @never_raises()
    def _say(self, text: str, level: str = "INFO", result: str = "") -> None:
        """Write one line, as the pipeline itself, to the pipeline log and the console.

        Args:
            result: the status word in it, for the console's colours.
        """
        line = self._line(text, level)
        self._log.write(encode.to_bytes(line))
        self._console.write(line, result)

    def _show(self, text: str) -> None:
        """Write one line to the console alone: it tells of what the stage has recorded itself."""
        self._console.write(self._line(text, "INFO"))

    def _line(self, text: str, level: str) -> str:
        return pipeline_log.line(self._capture, "pipeline", level, text)


def command_words(argv: Sequence[str | os.PathLike[str]]) -> list[str]:
    """``argv`` as a list of str.

    Raises:
        TypeError, ValueError: saying what was expected instead.
    """
    if isinstance(argv, (str, bytes)):
        raise TypeError(f"argv must be a list of words, not {argv!r}; for a shell command use ['sh', '-c', command]")
    words = [os.fspath(word) for word in argv]
    if not words:
        raise ValueError("argv is empty; give a program and its arguments")
    for word in words:
        if not isinstance(word, str) or "\0" in word:
            raise ValueError(f"argv must be words without NUL bytes, not {word!r}")
    return words
