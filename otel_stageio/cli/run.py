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
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip what succeeded, where nothing that it depends on has changed.")
    ] = False,
    force: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Run it in any case; may be repeated; all is every stage.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Run it and what comes after it in any case.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Run nothing: say what would run, and why.")] = False,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", metavar="FILE", help="With --stage: a file that the command reads.")
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output", metavar="FILE", help="With --stage: a file that the command writes.")
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

      otel-stageio run out/job1 --stage asr --resume --input audio.wav --output out.srt -- ./asr.sh
    """
    job, words = _split(command, job_needed=drop_in is None or stage is not None)
    if (inputs or outputs) and stage is None:
        raise typer.BadParameter("--input and --output go with --stage")
    if explain and job is not None:
        _explain(job)
    _ask_for(resume, force or [], start)
    if drop_in is not None:
        from ..compat.drop_in import drop_in_environment

        try:
            os.environ.update(drop_in_environment(drop_in))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    if job is None or not words:
        _replace_process(words)
    if stage is None:
        raise typer.Exit(_run_all(job, name, words))
    raise typer.Exit(_run_stage(job, stage, words, timeout, inputs or [], outputs or []))


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


def _explain(job: str) -> NoReturn:
    from .commands.common import answering

    with answering():
        from ..reading.job import read_job
        from .terminal import Terminal
        from .why import answers_of, show_answers

        show_answers(answers_of(read_job(job, steps=False), None), Terminal())
    raise typer.Exit


def _ask_for(resume: bool, force: list[str], start: str | None) -> None:
    """What the command's own stages find in their environment."""
    from ..semconv import ENV_FORCE, ENV_FROM, ENV_RESUME

    if resume:
        os.environ[ENV_RESUME] = "on"
    if force:
        os.environ[ENV_FORCE] = ",".join(force)
    if start is not None:
        os.environ[ENV_FROM] = start


def _run_stage(
    job: str, stage: str, words: list[str], timeout: float | None, inputs: list[str], outputs: list[str]
) -> int:
    from ..pipeline.command import resume_is_on, run_command
    from ..sinks.console import Passthrough
    from ..stages.stage_io import StageIO

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
            resume=resume_is_on(),
            inputs=inputs,
            outputs=outputs,
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

    from ..pipeline.pipeline import Pipeline
    from ..semconv import ENV_OUTPUT_DIR

    with Pipeline(name or os.path.basename(os.path.abspath(job)), job) as pipeline:
        environment = {**os.environ, **pipeline.environment}
        environment[ENV_OUTPUT_DIR] = os.environ.get(ENV_OUTPUT_DIR, environment[ENV_OUTPUT_DIR])
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
