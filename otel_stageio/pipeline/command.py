"""Any program as a stage: its output in the stage's log, its end in the stage's record."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from .. import semconv as sc
from ..otlp import carrier
from ..otlp.provider import tracer
from ..resources.out_of_memory import lack_of_memory
from ..sinks.console import Passthrough, relay, relayed
from ..stages.voice import type_name
from .child import NOT_EXECUTABLE, NOT_FOUND, Child, signal_name

if TYPE_CHECKING:
    from ..stages.stage_io import StageIO
    from .meter import Meter


@dataclass(frozen=True)
class CommandResult:
    """How a command ended.

    Attributes:
        returncode: exit code; negative for a signal, as in :mod:`subprocess`; 127 if there was no such program.
        status: the stage's status word.
        duration: seconds.
    """

    stage: str
    returncode: int
    status: str
    duration: float
    message: str = ""


def resume_is_on() -> bool:
    """``OTEL_STAGEIO_RESUME``: whether programs are skipped where nobody has said."""
    return os.environ.get(sc.ENV_RESUME, "").strip().lower() == "on"


def run_command(
    io: StageIO,
    argv: Sequence[str],
    *,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    own_group: bool = True,
    stdin: int | None = None,
    passthrough: Passthrough | None = None,
    meter: Meter | None = None,
    resume: bool = False,
    code: Any = None,
    inputs: Sequence[str | os.PathLike[str]] = (),
    outputs: Sequence[str | os.PathLike[str]] = (),
    tied: bool = False,
) -> CommandResult:
    """Run a program as the stage that ``io`` has opened, and end the stage as the program ended.

    Args:
        resume: do not, if its last attempt succeeded and all that it depends on is as it was.
        code: what it depends on, beside the scripts that its arguments name.
        inputs, outputs: files that it reads and is going to write, as far as it does not say so itself.
        passthrough: where a wrapper passes the program's output on; without one, its lines go to the console.
        meter: shows how far the program is.
        tied: if this process is killed, so is the program.
    """
    recorder = io._recorder
    words = [os.fspath(word) for word in argv]
    for path in inputs:
        io.track_input(path)
    if resume:
        from ..stages.up_to_date import ask_for_command

        decision = ask_for_command(io, words, cwd, env, code)
        if decision:
            return CommandResult(io.stage_name, 0, "skipped", recorder.elapsed_ns / 1e9, decision.sentence)
    # What the program is told in secret must not come back in what it says.
    recorder.capture.redactor.learn(env or {}, words)
    executable = os.path.basename(words[0])
    name = recorder.capture.string(executable)
    about = {sc.PROCESS_EXECUTABLE: name}
    span = tracer().start_span(name, context=recorder.context, kind=trace.SpanKind.CLIENT, attributes=about)
    recorder.spans.began(span, name, about)
    nonce = secrets.token_hex(8)
    logger = io.get_stage_logger()
    last_words = ""

    def on_line(stream: str, line: str) -> None:
        nonlocal last_words
        said_itself = relayed(line, nonce)
        if said_itself is not None:  # the program's own StageIO has logged it
            if passthrough is None:
                recorder.console.write(said_itself + "\n")
            return
        last_words = line.strip() or last_words
        if lack_of_memory(line) is not None:
            recorder.usage.said_out_of_memory = line
        recorder.lines.write(
            logging.INFO,
            "INFO",
            logger.name,
            line,
            console_level=None if passthrough is not None or io._handler is None else io._handler.console_level,
        )

    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {}), **_hand_over(io, span, nonce)}
    child: Child | None = None
    returncode = NOT_FOUND
    message = ""
    try:
        on_data = passthrough.writer(nonce) if passthrough is not None else None
        argv = _tied(words, environment) if tied else words
        child = Child(argv, on_line, env=environment, cwd=cwd, own_group=own_group, stdin=stdin, on_data=on_data,
                      on_beat=meter.beat if meter is not None else None)  # fmt: skip
        span.set_attribute(sc.PROCESS_PID, child.pid)
        recorder.usage.program(child.pid, environment)
        returncode = child.wait(timeout)
        recorder.usage.program_ended(child.used, child.memory_peak)
    except OSError as error:
        if child is not None:
            raise
        returncode = NOT_EXECUTABLE if isinstance(error, PermissionError) else NOT_FOUND
        message = f"cannot run {words[0]}: {error.strerror or error}"
    except BaseException as error:
        _end_span(span, None, type_name(error), "the pipeline was stopped")
        raise
    finally:
        if meter is not None:
            meter.close()
    recorder.refresh()
    tracked = {os.path.abspath(entry["path"]) for entry in recorder.record["outputs"]}
    for path in outputs:
        if os.path.abspath(path) not in tracked:
            io.track_output(path)
    said = recorder.record["status"]
    status, error_type, explanation = _verdict(executable, returncode, child, timeout, said)
    message = message or explanation
    errors = recorder.record["errors"]
    if status == "failed" and (errors or last_words):
        message = f"{message}: {errors[-1]['message'] if errors else recorder.capture.text(last_words)}"
    _end_span(span, returncode, error_type, message)
    attributes: dict[str, Any] = {sc.PROCESS_EXIT_CODE: returncode}
    if returncode < 0:
        attributes[sc.SIGNAL] = signal_name(returncode)
    if child is not None and child.oom_killed:
        attributes[sc.OOM] = True
        attributes[sc.CAUSE] = "out of memory: the kernel killed a process for it (its control group's counter rose)"
    if status not in sc.GOOD_STATUSES and not errors:
        recorder.error(message)
    io._end(status, extra={"exit_code": returncode}, error_type=error_type, message=message or None,
            attributes=attributes)  # fmt: skip
    return CommandResult(io.stage_name, returncode, status, recorder.elapsed_ns / 1e9, message)


def _tied(words: list[str], environment: Mapping[str, str]) -> list[str]:
    """With what makes the kernel kill the program when its parent dies (prctl(2), PR_SET_PDEATHSIG), where that is to
    be had: util-linux, on Linux. It replaces itself by the program, which keeps its process id. One that is not there
    is for the caller to find.
    """
    setpriv = shutil.which("setpriv", path=environment.get("PATH"))
    if (
        setpriv is None
        or not sys.platform.startswith("linux")
        or not shutil.which(words[0], path=environment.get("PATH"))
    ):
        return words
    return [setpriv, "--pdeathsig", "KILL", "--", *words]


def _hand_over(io: StageIO, span: trace.Span, nonce: str) -> dict[str, str]:
    """What a child needs to find its run, its stage and its parent span."""
    recorder = io._recorder
    if recorder.silent:
        return {}
    environment = {
        sc.ENV_RUN_ID: recorder.run.run_id,
        sc.ENV_STAGE: f"{recorder.stage}.{recorder.attempt}",
        sc.ENV_JOB: os.path.realpath(recorder.job.root),
        sc.ENV_CONSOLE: relay(nonce),
        sc.ENV_OUTPUT_DIR: str(recorder.job.root),
    }
    context = span.get_span_context()
    if context.is_valid:
        environment.update(carrier.inject(context))
    return environment


def _verdict(
    executable: str, returncode: int, child: Child | None, timeout: float | None, said: str
) -> tuple[str, str | None, str]:
    """(status, error type, sentence). ``said`` is what the program's own StageIO recorded, or ``running``."""
    if child is None:
        return (
            "failed",
            "NotFound" if returncode == NOT_FOUND else "NotExecutable",
            f"{executable} could not be started",
        )
    if child.timed_out:
        return "timeout", "timeout", f"{executable} took longer than {timeout:g} s and was ended"
    if returncode == -signal.SIGINT:
        return "cancelled", "SIGINT", f"{executable} was interrupted (Ctrl-C)"
    if returncode < 0:
        name = signal_name(returncode)
        why = " (out of memory)" if child.oom_killed else ""
        return "crashed", name, f"{executable} was killed by {name}{why}"
    if returncode == 0:
        # The program's own word stands, except where it ended without one: the exit code is its word then.
        if said in ("running", "incomplete", "success"):
            return "success", None, ""
        return said, None if said in sc.GOOD_STATUSES else said, f"{executable} ended its stage as {said}"
    if said == "cancelled":
        return "cancelled", "cancelled", f"{executable} was stopped (exit code {returncode})"
    why = " (the kernel killed a process for lack of memory meanwhile)" if child.oom_killed else ""
    return "failed", str(returncode), f"{executable} exited with code {returncode}{why}"


def _end_span(span: trace.Span, returncode: int | None, error_type: str | None, message: str) -> None:
    if returncode is not None:
        span.set_attribute(sc.PROCESS_EXIT_CODE, returncode)
    if returncode != 0:
        span.set_attribute(sc.ERROR_TYPE, error_type or sc.ERROR_OTHER)
        span.set_status(trace.Status(trace.StatusCode.ERROR, message or None))
    span.end()
