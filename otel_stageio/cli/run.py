"""``otel-stageio run``: any command as a stage, or as a whole run; transparent to who calls it."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer


def run(
    command: Annotated[
        list[str], typer.Argument(metavar="[JOB] -- COMMAND...", help="Job directory, then the command.")
    ],
    stage: Annotated[
        str | None, typer.Option("--stage", "-s", help="The stage that the command is; without it, it is a whole run.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The pipeline's name, for a whole run.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds, after which the command is ended.")] = None,
    drop_in: Annotated[
        str | None,
        typer.Option("--drop-in", metavar="PACKAGE", help="PACKAGE's stage_utils, logger and stage_manifest are ours."),
    ] = None,
) -> None:
    """Run a command as a stage of a job, without touching its code.

    Output, standard input and exit code pass through (128 + n for a signal, 127 if there is no such command);
    everything it prints is in the stage's log as well. Without --stage the command is a whole run: the stages that it
    opens, in Python or by further calls of `otel-stageio run`, are one trace.

    \b
    Examples:
      otel-stageio run out/job1 --stage asr -- ./asr.sh audio.wav
      otel-stageio run out/job1 -- ./pipeline.sh film.mkv
      otel-stageio run --drop-in shared -- python scripts/asr.py
    """
    job, words = _split(command, job_needed=drop_in is None or stage is not None)
    if drop_in is not None:
        from ..compat.drop_in import drop_in_environment

        try:
            os.environ.update(drop_in_environment(drop_in))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    if job is None or not words:
        _replace_process(words)
    raise typer.Exit(_run_stage(job, stage, words, timeout) if stage else _run_all(job, name, words))


def _split(command: list[str], *, job_needed: bool) -> tuple[str | None, list[str]]:
    """``[JOB] -- COMMAND``. Click has eaten the ``--``: it stands in ``sys.argv``."""
    arguments = sys.argv[1:]
    after = len(arguments) - arguments.index("--") - 1 if "--" in arguments else None
    before = command[: len(command) - after] if after is not None else command[:1]
    words = command[len(before) :]
    if len(before) > 1 or not words or (job_needed and not before):
        raise typer.BadParameter("expected: otel-stageio run JOB --stage NAME -- COMMAND...")
    return (before[0] if before else None), words


def _replace_process(words: list[str]) -> NoReturn:
    try:
        os.execvp(words[0], words)
    except OSError as error:
        sys.stderr.write(f"otel-stageio: cannot run {words[0]}: {error.strerror}\n")
        raise typer.Exit(127 if isinstance(error, FileNotFoundError) else 126) from error


def _run_stage(job: str, stage: str, words: list[str], timeout: float | None) -> int:
    from ..command import run_command
    from ..sinks.console import Passthrough
    from ..stage_io import StageIO

    try:
        io = StageIO(stage, job)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--stage") from error
    # The terminal sends Ctrl-C to the command as well, and it is the command's to answer. A function, not SIG_IGN,
    # which the command would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        result = run_command(
            io,
            words,
            timeout=timeout,
            own_group=timeout is not None and not sys.stdin.isatty(),
            passthrough=Passthrough(sys.stdout.buffer, sys.stderr.buffer),
        )
    except BaseException as error:
        io._end_with(error)
        raise
    if result.returncode in (126, 127) and result.message.startswith("cannot run"):
        sys.stderr.write(f"otel-stageio: {result.message}\n")
    return result.returncode if result.returncode >= 0 else 128 - result.returncode


def _run_all(job: str, name: str | None, words: list[str]) -> int:
    """Own a run while the command lives: the stages that it opens join it."""
    import subprocess

    from ..otlp import carrier
    from ..pipeline import Pipeline
    from ..semconv import ENV_RUN_ID

    with Pipeline(name or os.path.basename(os.path.abspath(job)), job) as pipeline:
        environment = {**os.environ, ENV_RUN_ID: pipeline.run_id, **carrier.inject(pipeline.span_context)}
        environment.setdefault("OUTPUT_DIR", os.path.abspath(job))
        signal.signal(signal.SIGINT, lambda *_: None)
        try:
            process = subprocess.Popen(words, env=environment)
        except OSError as error:
            sys.stderr.write(f"otel-stageio: cannot run {words[0]}: {error.strerror}\n")
            pipeline.fail(f"cannot run {words[0]}")
            return 127 if isinstance(error, FileNotFoundError) else 126
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if code:
            pipeline.fail(f"{os.path.basename(words[0])} ended with {code}")
    return code if code >= 0 else 128 - code
