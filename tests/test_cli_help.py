"""The help of every command: its examples are run as they stand, it fits a terminal, and the shell can complete it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from conftest import needs
from helpers import LIMIT, environment, run_command, run_python, write_script
from receiver import Receiver
from typer.testing import CliRunner

from otel_stageio.cli.app import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
#: Of DESIGN.md §8, as far as they exist by now, and what has come beside them.
DESIGNED = (
    "run", "status", "show", "logs", "trace", "diff", "report", "push", "recover", "validate", "schema", "doctor",
    "prune", "runs", "serve", "why", "lineage", "export", "begin", "end",
)  # fmt: skip

#: What goes on until it is told to stop; a watch or a log of a job that is over ends by itself.
ENDLESS = re.compile(r"^otel-stageio (push --watch|serve)")
#: What may answer with 1: that two things differ, that something would run, that the run has not ended well.
ANSWERS = re.compile(r"^otel-stageio (diff|why|status out/job1 --watch)\b[^|]*$")

JOBS = """
    import sys
    from otel_stageio import Pipeline, StageIO, begin_run, join_run

    def run(job, model, error=""):
        try:
            with Pipeline("subtitles", job, stages=["demux", "asr", "mux"]) as pipeline:
                with pipeline.stage("demux") as io:
                    io.track_output(io.save_json({}, "audio.json"), "audio")
                with pipeline.stage("asr") as io, io.span("transcribe", chunks=2):
                    io.set_config({"model": model})
                    io.get_stage_logger().warning("chunk 1 is silent")
                    io.track_output(io.save_json([], "segments.json"), "transcript")
                    if error:
                        raise RuntimeError(error)
                with pipeline.stage("mux"):
                    pass
        except RuntimeError:
            pass

    run("out/job1", "small")
    run("out/job1", "large-v3")
    run("out/job1", "large-v3", "no GPU")
    run("out/job2", "small")
    with join_run(begin_run("subtitles", "out/array_1")), StageIO("asr"):
        pass
"""
PROGRAMS = {
    "asr.sh": "#!/bin/sh\necho transcribing $1\n",
    "pipeline.sh": "#!/bin/sh\notel-stageio run out/job1 --stage asr -- ./asr.sh audio.wav\n",
    "scripts/asr.py": "from shared.stage_utils import StageIO\nStageIO('asr', 'out/job3').finalize()\nprint('done')\n",
}


def examples(command: str) -> list[str]:
    words = (COMMANDS[command].help or "").partition("Examples:")[2]
    return [line.strip() for line in words.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory as the examples take it for granted."""
    place = tmp_path_factory.mktemp("prepared")
    done = run_python(write_script(place / "jobs.py", JOBS), OTEL_STAGEIO_CONSOLE="off")
    assert (done.returncode, done.stderr) == (0, "")
    for name, content in PROGRAMS.items():
        write_script(place / name, content).chmod(0o755)
    commands = {"otel-stageio": f'exec {sys.executable} -m otel_stageio "$@"', "python": f'exec {sys.executable} "$@"'}
    for name, content in commands.items():
        write_script(place / "bin" / name, f"#!/bin/sh\n{content}\n").chmod(0o755)
    return place


@pytest.fixture
def place(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "place"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def as_at_a_prompt(place: Path, **changes: str) -> dict[str, str]:
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return environment(PATH=path, HOME=str(place), OTEL_STAGEIO_CONSOLE="auto", **changes)


def test_every_command_is_there() -> None:
    assert sorted(COMMANDS) == sorted(DESIGNED)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_examples_of_itself(command: str) -> None:
    assert examples(command)
    assert all(line.startswith(f"otel-stageio {command}") for line in examples(command))


@pytest.mark.parametrize("line", [line for command in COMMANDS for line in examples(command)])
def test_every_example_does_what_it_shows(place: Path, receiver: Receiver, line: str) -> None:
    if "jq " in line:
        needs("jq")
    typed = re.sub(r"https?://[\w.]+(:4318)?", receiver.url, line)
    process = subprocess.Popen(
        ["sh", "-c", typed],
        cwd=place,
        env=as_at_a_prompt(place, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url if "push" in line else ""),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    first = ""
    if ENDLESS.search(line):
        first = process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)
    assert err == ""
    if not ENDLESS.search(line):
        assert process.returncode in ((0, 1) if ANSWERS.search(line) else (0,))
    assert first + out or " > " in line
    if " > " in line:
        assert (place / line.rpartition(" > ")[2]).stat().st_size > 100


# -- on any terminal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *sorted(COMMANDS)])
def test_help_fits_and_is_plain_on_the_poorest_terminal(prepared: Path, command: str) -> None:
    poor = {"TERM": "dumb", "LC_ALL": "C", "NO_COLOR": "1", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    env = as_at_a_prompt(prepared, COLUMNS="80", **poor)
    done = run_command(["sh", "-c", f"otel-stageio {command} --help"], cwd=prepared, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert not [line for line in done.stdout.splitlines() if len(line) > 80 or not line.isprintable()]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_an_unknown_option_exits_2(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--bogus"])
    assert result.exit_code == 2
    assert "--bogus" in result.output


# -- completion ------------------------------------------------------------------------------------------------------


def completed(place: Path, *words: str) -> list[str]:
    """What is offered for the last of these words."""
    env = as_at_a_prompt(
        place,
        _OTEL_STAGEIO_COMPLETE="complete_bash",
        COMP_WORDS=" ".join(("otel-stageio", *words)),
        COMP_CWORD=str(len(words)),
    )
    done = run_command(["sh", "-c", "otel-stageio"], cwd=place, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("sta",), ["status"]),
        (("show", "o"), ["out/array_1", "out/job1", "out/job2"]),
        (("show", "out/job1"), ["out/job1"]),
        (("show", "nothing/"), []),
        (("show", "out/job1", ""), ["asr", "demux", "mux"]),
        (("logs", "out/job1", "a"), ["asr"]),
        (("diff", "out/job1@1", "out/job1@2", "d"), ["demux"]),
        (("show", "out/job9", ""), []),
        (("trace", "out/job1", "--fu"), ["--full"]),
        (("status", "b"), ["bin"]),
    ],
)
def test_tab_offers_commands_jobs_and_stages(prepared: Path, words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(prepared, *words) == offered


def test_bash_takes_the_script_and_completes_a_stage_with_it(place: Path) -> None:
    needs("bash")
    typed = """
        eval "$(otel-stageio --show-completion bash)"
        COMP_WORDS=(otel-stageio show out/job1 d) COMP_CWORD=3
        _otel_stageio_completion otel-stageio
        echo "${COMPREPLY[@]}"
    """
    done = run_command(["bash", "--norc", "-c", typed], cwd=place, env=as_at_a_prompt(place))
    assert (done.returncode, done.stdout, done.stderr) == (0, "demux\n", "")


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o default"), ("zsh", "#compdef"), ("fish", "--no-files")]
)
def test_there_is_a_script_for_every_shell(prepared: Path, shell: str, mark: str) -> None:
    env = as_at_a_prompt(prepared, _OTEL_STAGEIO_COMPLETE=f"source_{shell}")
    done = run_command(["sh", "-c", "otel-stageio"], cwd=prepared, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert mark in done.stdout
