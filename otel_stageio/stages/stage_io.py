"""StageIO: one stage's life, and the original's whole interface.

Every name, parameter, default and return value of CP-WhisperX's StageIO (Stage Logging & Manifest Architecture v1.0)
keeps working; what is new is the context manager, :meth:`StageIO.span`, :meth:`StageIO.event`,
:meth:`StageIO.progress` and :meth:`StageIO.skip`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace

from .. import ambient
from .. import semconv as sc
from ..capture.log_handler import StageHandler, StageLogger
from ..capture.root_logging import RootCapture
from ..held import held_signals
from ..layout import Job, canonical, directory_name, stage_number
from ..levels import console_level
from ..runtime import never_raises, runtime
from . import lifecycle
from .ending import ending_of, is_success
from .recorder import Recorder, open_recorder
from .stage_manifest import StageManifest
from .stage_paths import StagePaths
from .step import Step

if TYPE_CHECKING:
    from pathlib import Path

    from ..resume.decide import Decision

PathT = TypeVar("PathT", bound="str | os.PathLike[str]")


class StageIO(StagePaths):
    """One attempt at one stage of a job: its span, its logs, its manifest, its paths.

    Construction opens the stage: the manifest says ``running``, the log files exist. As a context manager it ends the
    stage by itself: leaving is ``success``, an exception ``failed`` (recorded once and raised again), Ctrl-C and
    SIGTERM ``cancelled``. Without ``with``, call :meth:`finalize`; what was never finalized is closed at exit as
    ``incomplete``.

    Args:
        stage_name: a name from the table (``asr``), or any other, which is numbered 99.
        output_base: the job directory; by default that of the run that was joined, ``OUTPUT_DIR`` or ``out``.
        enable_manifest: write ``manifest.json``; ``manifest`` is None otherwise.
        attributes: further attributes of the stage's span.
        capture_logging: send the root logger's INFO and above, and ``warnings``, to ``stage.log`` as well. By default
            inside a ``with`` block only.

    Raises:
        TypeError, ValueError: if no safe name can be made of ``stage_name``.

    Example:
        >>> with StageIO("asr", output_base=job) as io:
        ...     log = io.get_stage_logger()
        ...     with io.span("transcribe", chunks=41):
        ...         log.info("transcribing")
        ...     _ = io.save_json({"text": "…"}, "segments.json")
    """

    def __init__(
        self,
        stage_name: str,
        output_base: str | os.PathLike[str] | None = None,
        enable_manifest: bool = True,
        *,
        attributes: Mapping[str, Any] | None = None,
        capture_logging: bool | None = None,
    ) -> None:
        self.stage_name: str = canonical(stage_name)
        self.stage_number: int = stage_number(self.stage_name)
        if output_base is None:
            joined = ambient.handed()
            output_base = joined.job if joined is not None else os.environ.get(sc.ENV_OUTPUT_DIR, "out")
        self._job = Job(os.fspath(output_base))
        self.output_base: Path = self._job.base
        self.stage_dir: Path = self.output_base / directory_name(self.stage_name)
        self.stage_log: Path = self.stage_dir / "stage.log"
        self.logs_dir: Path = self.output_base / "logs"
        self.enable_manifest = enable_manifest
        self.manifest_path: Path = self.stage_dir / "manifest.json"
        self._capture_logging = capture_logging
        self._root_capture: RootCapture | None = None
        self._handler: StageHandler | None = None
        self._warned = False
        self._token: Any = None
        self._skip: str | None = None
        self._up_to_date = False
        self._pipeline = pipeline = ambient.open_pipelines.get(self._job.key)
        waiting = lifecycle.logger_only.pop((self._job.key, self.stage_name), None)
        if waiting is not None and not waiting._recorder.ended:
            # The stage was opened a moment ago for its logger: it is this one.
            recorder = waiting._recorder
            self._handler = waiting._handler
            lifecycle.closed(waiting)
        else:
            recorder = open_recorder(
                self._job,
                self.stage_name,
                manifest=enable_manifest,
                attributes=attributes,
                handed=pipeline.run_id if pipeline is not None else None,
            )
        self._recorder: Recorder = recorder
        self.manifest: StageManifest | None = None
        if enable_manifest:
            self.manifest = StageManifest(self.stage_name, self.stage_number, voice=self._recorder)
        lifecycle.opened(self)
        if pipeline is not None:
            pipeline._stage_started(self.stage_name)
        if capture_logging:
            self._root_capture = RootCapture.begin()

    # -- logging -----------------------------------------------------------------------------------------------------

    def get_stage_logger(self, log_level: str | int = "INFO") -> logging.Logger:
        """The stage's logger, named ``stage.<name>``.

        ``stage.log`` gets everything, the pipeline log INFO and above; ``log_level`` decides what is printed as well,
        and when left at INFO, ``LOG_LEVEL`` and ``DEBUG_MODE`` do. A word that is no level means INFO, with one
        warning.
        """
        return self._get_logger(log_level)

    def _get_logger(self, log_level: str | int, stage_name: str | None = None) -> logging.Logger:
        if self._handler is None:
            self._handler = StageHandler(self._recorder)
        logger = StageLogger(f"stage.{stage_name or self.stage_name}", self._handler)
        self._handler.console_level, unknown = console_level(log_level)
        if unknown and not self._warned:
            self._warned = True
            logger.warning("unknown log level %r; using INFO (a name like DEBUG, or a number)", log_level)
        return logger

    # -- what the stage did ------------------------------------------------------------------------------------------

    def track_input(self, file_path: PathT, file_type: str = "file", **metadata: Any) -> PathT:
        """Record a file that the stage reads. Returns ``file_path``, so that it can stand where the path is used."""
        self._recorder.track("input", file_path, file_type, metadata)
        return file_path

    def track_output(self, file_path: PathT, file_type: str = "file", **metadata: Any) -> PathT:
        """Record a file that the stage writes; its size is taken at the end. Returns ``file_path``."""
        self._recorder.track("output", file_path, file_type, metadata)
        return file_path

    def track_intermediate(self, file_path: PathT, retained: bool = False, reason: str = "") -> PathT:
        """Record a file that is not a result, and whether it is kept. Returns ``file_path``."""
        how = {sc.ARTIFACT_RETAINED: retained, sc.ARTIFACT_REASON: reason}
        self._recorder.track("intermediate", file_path, "intermediate", {}, how)
        return file_path

    def add_config(self, key: str, value: Any) -> None:
        self._recorder.config({key: value})

    def set_config(self, config_dict: Mapping[str, Any]) -> None:
        """Record configuration. It stays in the manifest; of it only numbers and well-known words go over the wire."""
        self._recorder.config(config_dict)

    def set_resources(self, **resources: Any) -> None:
        self._recorder.resources(resources)

    def add_warning(self, message: str) -> None:
        self._recorder.warning(message)

    def add_error(self, message: str, exception: BaseException | None = None) -> None:
        """Record an error that the stage survived, or is about to fail with."""
        self._recorder.error(message, exception)

    def event(self, name: str, **attributes: Any) -> None:
        """Record something that happened, as an OpenTelemetry event on the stage's span."""
        self._recorder.user_event(name, attributes)

    def progress(self, done: float, total: float | None = None, unit: str = "") -> None:
        """Say how far the stage is; call it as often as you like, about one a second is recorded."""
        self._recorder.progress(done, total, unit)
        if self._pipeline is not None:
            self._pipeline._stage_at(self.stage_name, self._recorder.record)

    def span(self, name: str, **attributes: Any) -> Step:
        """A child span around a piece of work: ``with io.span("transcribe", chunks=41) as span: ...``"""
        return Step(self._recorder, name, attributes)

    @property
    def otel_span(self) -> trace.Span:
        """The stage's own OpenTelemetry span."""
        return self._recorder.span

    @property
    def trace_id(self) -> str:
        """32 hex digits, as Jaeger wants them."""
        return f"{self._recorder.trace_id:032x}"

    # -- the end -----------------------------------------------------------------------------------------------------

    def finalize(self, status: str = "success", save_manifest: bool = True, **kwargs: Any) -> None:
        """End the stage. Only the first call counts.

        Args:
            status: ``success``, ``failed``, ``skipped`` …; another word is kept as given and never counts as success.
            save_manifest: False leaves a manifest that claims no success.
            **kwargs: further top-level keys of the manifest (``error=``, ``reason=``, ``exit_code=``).
        """
        if self._up_to_date and status == "success":  # it has been skipped, which its caller need not tell apart
            if not self._recorder.ended:
                self._end("skipped", extra={"reason": self._skip})
            return
        word = self._recorder.capture.string(status)
        if word == "running":  # an ended stage does not run; that is all its caller has said
            word = "incomplete"
        self._end(word, extra=kwargs, save=save_manifest)

    def finalize_stage_manifest(self, exit_code: int = 0, **kwargs: Any) -> None:
        """A later caller's :meth:`finalize`: 0 is success."""
        self.finalize("success" if exit_code == 0 else "failed", exit_code=exit_code, **kwargs)

    def up_to_date(
        self,
        params: Mapping[str, Any] | None = None,
        code: Any = None,
        env: Mapping[str, Any] | Iterable[str] | None = None,
    ) -> Decision:
        """Whether the stage may be skipped, because its last attempt succeeded and all that it depends on is as it was.

        If so, the stage *is* skipped: its record takes over inputs and outputs, with a link to the attempt that made
        them, and all that is left to do is to leave the block. Files are compared by content. Ask when everything that
        the stage is going to read has been tracked.

        Args:
            params: what the result depends on beside files; what :meth:`set_config` has recorded counts too. What is
                masked as a secret is not compared.
            code: what the result depends on: a path, module, function, a version, or a list of these.
            env: versions and the like as a mapping, or names of environment variables.

        Raises:
            TypeError: if ``code`` has no source file.

        Example:
            >>> with StageIO("asr", output_base=job) as io:
            ...     audio = io.track_input(io.get_input_path("audio.wav", from_stage="demux"), "audio")
            ...     if not io.up_to_date(params={"beam_size": 5}, code=__file__):
            ...         _ = io.track_output(io.save_json({"text": "…"}, "segments.json"), "transcript")
        """
        from .up_to_date import ask

        return ask(self, params or {}, code, env)

    def skip(self, reason: str) -> None:
        """The stage has nothing to do, and why. In a ``with`` block it ends when the block does."""
        if self._token is not None:
            self._skip = self._recorder.capture.string(reason)  # None is a reason too
        else:
            self._end("skipped", extra={"reason": reason})

    def _end(self, status: str, **how: Any) -> None:
        first = not self._recorder.ended and os.getpid() == self._recorder.pid
        impatience: BaseException | None = None
        if first and status in sc.GOOD_STATUSES:
            try:
                self._recorder.examine()
            except BaseException as error:  # Ctrl-C and SIGTERM end the reading; the stage has succeeded all the same
                impatience = error
        try:
            with held_signals():
                self._recorder.end(status, **how)
        finally:
            if self._recorder.ended or not first:  # else a signal came before it, and the exit hook ends the stage
                self._release()
        if first and self._pipeline is not None:
            why = how.get("message") or self._recorder.record.get("reason")
            self._pipeline._stage_ended(self.stage_name, status, self._recorder.elapsed_ns / 1e9, why)
        if impatience is not None:
            raise impatience

    @never_raises()
    def _release(self) -> None:
        if self._root_capture is not None:
            self._root_capture.end()
            self._root_capture = None
        lifecycle.closed(self)

    def _close_at_exit(self, uncaught: BaseException | None) -> None:
        """The process ends and nobody has finalized the stage."""
        if self._recorder.ended:
            return
        if lifecycle.was_terminated():
            self._end("cancelled", error_type="SIGTERM", attributes={sc.SIGNAL: "SIGTERM"})
        elif self._skip is not None:
            self._end("skipped", extra={"reason": self._skip})
        elif uncaught is not None:
            self._end_with(uncaught)
        else:
            self._end("incomplete")

    def _end_with(self, error: BaseException) -> None:
        ending = ending_of(error)
        if ending.record:
            self._recorder.exception(error)
        self._end(ending.status, error_type=ending.error_type, message=ending.message, attributes=ending.attributes)

    # -- with --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> StageIO:
        self._token = otel_context.attach(self._recorder.context)
        if self._capture_logging is None:
            self._root_capture = RootCapture.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        token, self._token = self._token, None
        try:
            if os.getpid() == self._recorder.pid and not self._recorder.ended:
                self._leave(error)
        except Exception:
            runtime.internal_error("StageIO.__exit__")
        finally:
            otel_context.detach(token)

    def _leave(self, error: BaseException | None) -> None:
        if error is not None and not is_success(error):
            self._end_with(error)
        elif self._skip is not None:
            self._end("skipped", extra={"reason": self._skip})
        else:
            self._end("success")
