"""StageIO: one stage's life, and the original's whole interface.

Every name, parameter, default and return value of CP-WhisperX's StageIO (Stage Logging & Manifest Architecture v1.0)
keeps working; what is new is the context manager, :meth:`StageIO.span`, :meth:`StageIO.event`,
:meth:`StageIO.progress` and :meth:`StageIO.skip`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from . import ambient, layout, lifecycle
from . import semconv as sc
from .capture.log_handler import StageHandler
from .capture.root_logging import RootCapture
from .digest import file_sha256
from .ending import ending_of
from .events import iso
from .layout import Job, canonical, directory_name, inside, stage_number
from .lines import level_number
from .recorder import Recorder, open_recorder
from .runtime import never_raises, runtime
from .sinks.files import replace
from .stage_manifest import StageManifest
from .step import Step


class StageIO:
    """One attempt at one stage of a job: its span, its logs, its manifest, its paths.

    Construction opens the stage: the manifest says ``running``, the log files exist. As a context manager it ends the
    stage by itself: leaving is ``success``, an exception ``failed`` (recorded once and raised again), Ctrl-C and
    SIGTERM ``cancelled``. Without ``with``, call :meth:`finalize`; what was never finalized is closed at exit as
    ``incomplete``.

    Args:
        stage_name: a name from the table (``asr``), or any other, which is numbered 99.
        output_base: the job directory; ``OUTPUT_DIR`` or ``out`` by default.
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
        self.stage_name = canonical(stage_name)
        self.stage_number = stage_number(self.stage_name)
        base = os.environ.get("OUTPUT_DIR", "out") if output_base is None else os.fspath(output_base)
        self._job = Job(base)
        self.output_base = self._job.base
        self.stage_dir = self.output_base / directory_name(self.stage_name)
        self.stage_log = self.stage_dir / "stage.log"
        self.logs_dir = self.output_base / "logs"
        self.enable_manifest = enable_manifest
        self.manifest_path = self.stage_dir / "manifest.json"
        self._capture_logging = capture_logging
        self._root_capture: RootCapture | None = None
        self._handler: StageHandler | None = None
        self._warned = False
        self._token: Any = None
        self._skip: str | None = None
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
            pipeline.say(f"{self.stage_name} started")
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
        logger = _StageLogger(f"stage.{stage_name or self.stage_name}", self._handler)
        self._handler.console_level, unknown = console_level(log_level)
        if unknown and not self._warned:
            self._warned = True
            logger.warning("unknown log level %r; using INFO (a name like DEBUG, or a number)", log_level)
        return logger

    # -- what the stage did ------------------------------------------------------------------------------------------

    def track_input(self, file_path: Any, file_type: str = "file", **metadata: Any) -> Any:
        """Record a file that the stage reads. Returns ``file_path``, so that it can stand where the path is used."""
        self._recorder.track("input", file_path, file_type, metadata)
        return file_path

    def track_output(self, file_path: Any, file_type: str = "file", **metadata: Any) -> Any:
        """Record a file that the stage writes; its size is taken at the end. Returns ``file_path``."""
        self._recorder.track("output", file_path, file_type, metadata)
        return file_path

    def track_intermediate(self, file_path: Any, retained: bool = False, reason: str = "") -> Any:
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
        word = self._recorder.capture.string(status)
        self._end(word, extra=kwargs, save=save_manifest)

    def finalize_stage_manifest(self, exit_code: int = 0, **kwargs: Any) -> None:
        """A later caller's :meth:`finalize`: 0 is success."""
        self.finalize("success" if exit_code == 0 else "failed", exit_code=exit_code, **kwargs)

    def skip(self, reason: str) -> None:
        """The stage has nothing to do, and why. In a ``with`` block it ends when the block does."""
        if self._token is not None:
            self._skip = reason
        else:
            self._end("skipped", extra={"reason": reason})

    def _end(self, status: str, **how: Any) -> None:
        first = not self._recorder.ended and os.getpid() == self._recorder.pid
        self._recorder.end(status, **how)
        self._release()
        if first and self._pipeline is not None:
            why = how.get("message") or self._recorder.record.get("reason")
            self._pipeline.stage_ended(self.stage_name, status, self._recorder.elapsed_ns / 1e9, why)

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
        if error is not None and not (isinstance(error, SystemExit) and error.code in (None, 0)):
            self._end_with(error)
        elif self._skip is not None:
            self._end("skipped", extra={"reason": self._skip})
        else:
            self._end("success")

    # -- paths and files ---------------------------------------------------------------------------------------------

    @property
    def output_dir(self) -> Path:
        return self.stage_dir

    @property
    def job_dir(self) -> Path:
        return self.output_base

    def get_input_path(self, filename: str, from_stage: str | None = None, required: bool = False) -> Path:
        """Where a former stage's file is: its directory, else the job's root if it is there; it may not exist.

        Args:
            from_stage: by default the stage with the number before this one.
            required: raise if there is no such file.

        Raises:
            FileNotFoundError: if ``required`` and the file is nowhere.
        """
        path = self._input_path(filename, from_stage)
        if required and not path.exists():
            raise FileNotFoundError(f"input file not found: {path}")
        return path

    def _input_path(self, filename: str, from_stage: str | None) -> Path:
        at_root = self.output_base / filename
        stage = self._previous_stage() if from_stage is None else canonical(from_stage)
        if stage is None:
            return at_root
        path = self.output_base / directory_name(stage) / filename
        if path.exists():
            return path
        if at_root.exists():
            return at_root
        if stage not in layout.NUMBERS and not path.parent.exists():
            # The original's answer for a stage that nobody knows and that has written nothing.
            return self.output_base / f"{self.stage_number - 1:02d}_{stage}" / filename
        return path

    def _previous_stage(self) -> str | None:
        return next((name for name, number in layout.NUMBERS.items() if number == self.stage_number - 1), None)

    def get_output_path(self, filename: str) -> Path:
        """``stage_dir / filename``.

        Raises:
            ValueError: for a name that leaves the stage's directory (absolute, or with ``..``).
        """
        return inside(self.stage_dir, filename)

    def save_json(self, data: Any, filename: str) -> Path:
        """Write JSON (UTF-8, indented, non-ASCII kept) to the stage's directory; the file is replaced as a whole.

        Raises:
            TypeError, ValueError: if ``data`` is no JSON; an earlier file is then still there.
        """
        path = self.get_output_path(filename)
        text = json.dumps(data, indent=2, ensure_ascii=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, text.encode("utf-8", "backslashreplace"), self._job.temporary)
        return path

    def load_json(self, filename: str, from_stage: str | None = None) -> Any:
        """Read JSON from a former stage (see :meth:`get_input_path`).

        Raises:
            FileNotFoundError: if there is no such file.
        """
        path = self.get_input_path(filename, from_stage, required=True)
        return json.loads(path.read_text(encoding="utf-8"))

    def save_metadata(self, metadata: Mapping[str, Any]) -> Path:
        """Write ``metadata.json`` with stage, number and time added. The caller's mapping is left as it is."""
        now = iso(runtime.clock.wall_ns())
        added = {"stage": self.stage_name, "stage_number": self.stage_number, "timestamp": now}
        return self.save_json({**metadata, **added}, "metadata.json")

    def load_metadata(self, from_stage: str | None = None) -> dict[str, Any]:
        """A former stage's ``metadata.json``; ``{}`` if it has none."""
        try:
            return self.load_json("metadata.json", from_stage)  # type: ignore[no-any-return]
        except FileNotFoundError:
            return {}

    def get_log_path(self, timestamp: str | None = None) -> Path:
        """``logs/NN_<stage>_<YYYYMMDD_HHMMSS>.log``, for a program that keeps a log of its own."""
        stamp = timestamp or time.strftime("%Y%m%d_%H%M%S")
        return self.logs_dir / f"{self.stage_number:02d}_{self.stage_name}_{stamp}.log"

    def copy_to_base(self, filename: str) -> Path:
        """Copy an output up to the job's root, if it is there. Returns the destination."""
        source, destination = self.get_output_path(filename), inside(self.output_base, filename)
        if source.exists():
            shutil.copy2(source, destination)
        return destination

    def get_all_inputs(self) -> list[Path]:
        """Every entry of the previous stage's directory; [] if there is none."""
        stage = self._previous_stage()
        directory = self.output_base / directory_name(stage) if stage else None
        return list(directory.iterdir()) if directory is not None and directory.is_dir() else []

    def compute_hash(self, file_path: str | os.PathLike[str]) -> str:
        """SHA-256 of a file, 64 hex digits.

        Raises:
            OSError: if it cannot be read.
        """
        return file_sha256(file_path)


class _StageLogger(logging.Logger):
    """A stage's own logger, so that two jobs with the same stage in one process do not share one.

    The registry's logger of the same name, which modules get from ``logging.getLogger("stage.asr")``, follows the stage
    that asked last.
    """

    def __init__(self, name: str, handler: StageHandler) -> None:
        super().__init__(name, logging.DEBUG)
        registered = logging.getLogger(name)
        for other in list(registered.handlers):
            registered.removeHandler(other)
            if not isinstance(other, StageHandler):  # a stage closes its own files
                other.close()
        for logger in (self, registered):
            logger.propagate = False
            logger.setLevel(logging.DEBUG)
            logger.addHandler(handler)

    def isEnabledFor(self, level: int) -> bool:
        # Not in the registry, so nothing would reset the base class's cache of levels.
        return level >= self.level and level > self.manager.disable and not self.disabled


def console_level(word: object) -> tuple[int, bool]:
    """What is printed, and whether ``word`` was no level at all.

    ``LOG_LEVEL`` and ``DEBUG_MODE``, which the original's orchestrator sets, count where the caller asked for no more
    than the default.
    """
    number = level_number(word)
    unknown = number is None
    if number is None or number == logging.INFO:
        if os.environ.get("DEBUG_MODE", "").strip().lower() in ("1", "true", "yes", "on"):
            number = logging.DEBUG
        else:
            number = level_number(os.environ.get("LOG_LEVEL", "INFO"))
    return (logging.INFO if number is None else number), unknown
