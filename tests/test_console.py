"""What a pipeline prints while it runs: on a terminal, on one that can do less, in a pipe, and where nobody reads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import LIMIT, environment, read_manifest, write_script
from terminals import CONTROL, GOLDEN, Terminal, same_as_golden

#: Time goes by only as the program says: the file ``seconds`` is as long as it has lasted.
TOLD = """
    import logging
    import os
    from otel_stageio.runtime import runtime
    from otel_stageio.testing import FixedClock, SequentialIds

    class Told(FixedClock):
        def __init__(self):
            super().__init__()
            self.began = self.wall, self.monotonic

        def passed(self):
            try:
                return os.stat("seconds").st_size * 1_000_000_000
            except OSError:
                return 0

        def wall_ns(self):
            return self.began[0] + self.passed()

        def monotonic_ns(self):
            return self.began[1] + self.passed()

    def go_on(seconds):
        with open("seconds", "ab") as file:
            file.write(b"." * seconds)

    def wait():
        with open("go", "rb") as file:
            file.read()

    def record(*args, **kwargs):
        made = logging.LogRecord(*args, **kwargs)
        made.created = runtime.clock.wall_ns() / 1e9
        return made

    runtime.clock, runtime.ids = Told(), SequentialIds()
    logging.setLogRecordFactory(record)
"""
PIPELINE = """
    import sys, threading
    import told
    from otel_stageio import Pipeline

    if "thread" in sys.argv:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    with Pipeline("subtitles", "job1") as run:
        run.command("asr", [sys.executable, "asr.py"])
        with run.stage("mux") as io:
            # On a terminal even half a line, as of a program that draws a bar of its own.
            print("the program's own words,", end=" " if sys.stdout.isatty() else "\\n", flush=True)
            for second in range(60):
                told.go_on(1)
                io.progress(second + 1, 60, "packets")
            print("and their end")
        run.command("subtitle_generation", ["sh", "-c", "echo no cue fits >&2; exit 3"], check=False)
"""
ASR = """
    import told
    from otel_stageio import StageIO

    with StageIO("asr") as io:
        log = io.get_stage_logger()
        log.info("loading the model")
        io.progress(3, 41, "chunks")
        told.go_on(4)
        told.wait()
        print("a word of the program's own")
        log.warning("chunk 4 is silent")
        told.wait()
        io.progress(12, 41, "chunks")
        told.go_on(8)
        told.wait()
        io.progress(40, 41, "chunks")
        told.go_on(30)
        told.wait()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_script(tmp_path / "told.py", TOLD)
    write_script(tmp_path / "pipeline.py", PIPELINE)
    write_script(tmp_path / "asr.py", ASR)
    os.mkfifo(tmp_path / "go")
    return tmp_path


def settings(**changes: str) -> dict[str, str]:
    usual = {"TERM": "xterm-256color", "TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8"}
    env = environment(**{**usual, **changes})
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        if name not in changes:
            env.pop(name, None)
    if "OTEL_STAGEIO_CONSOLE" not in changes:
        del env["OTEL_STAGEIO_CONSOLE"]
    return env


def go(place: Path) -> None:
    """Let the program go on that waits; it waits already, or will in a moment."""
    with open(place / "go", "wb"):
        pass


@pytest.fixture
def on_terminal(place: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*words: str, rows: int = 20, columns: int = 80, argv: list[str] | None = None, **env: str) -> Terminal:
        argv = argv or [sys.executable, "pipeline.py", *words]
        opened.append(Terminal(argv, rows=rows, columns=columns, cwd=place, env=settings(**env)))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def through(place: Path, terminal: Terminal, *, bar: bool = True) -> list[str]:
    """See a whole run. Returns the screen at each of its stations."""
    seen = []
    for texts in (("loading", "3 of 41"), ("silent", "3 of 41"), ("12 of 41",), ("40 of 41",)):
        terminal.wait_for(*(texts if bar else [text for text in texts if text != "3 of 41"]))
        seen.append(terminal.screen())
        go(place)
    assert terminal.end() == 0, terminal.screen()
    return [*seen, terminal.screen()]


def test_on_a_terminal_a_bar_shows_how_far_a_program_is_below_all_that_is_said(
    place: Path, on_terminal: Callable[..., Terminal]
) -> None:
    terminal = on_terminal()
    screens = through(place, terminal)
    same_as_golden("console-terminal.txt", "\n----\n\n".join(screens))
    raw = terminal.raw.decode()
    assert "asr: \x1b[32msuccess\x1b[0m after 42.0 s" in raw
    assert "subtitle_generation: \x1b[31mfailed\x1b[0m after" in raw
    assert "\x1b[33m[WARNING]\x1b[0m chunk 4 is silent" in raw


def test_in_a_pipe_there_are_lines_and_no_control_characters(place: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "pipeline.py"], cwd=place, env=settings(), stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout is not None
    said = ""
    for text in ("loading", "silent", "12 of 41", "40 of 41"):
        while text not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        go(place)
    said += process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 0
    assert not CONTROL.search(said)
    same_as_golden("console-pipe.txt", said)
    assert "40 of 41" not in (place / "job1" / "06_asr" / "stage.log").read_text()


@pytest.mark.parametrize("env", [{"OTEL_STAGEIO_CONSOLE": "plain"}, {"TERM": "dumb"}], ids=["plain", "dumb"])
def test_plain_and_dumb_terminals_have_what_a_pipe_has(
    env: dict[str, str], place: Path, on_terminal: Callable[..., Terminal]
) -> None:
    terminal = on_terminal(rows=40, columns=120, **env)
    through(place, terminal, bar=False)
    said = terminal.raw.decode().replace("\r\n", "\n").replace("words, and", "words,\nand")
    golden = (GOLDEN / "console-pipe.txt").read_text(encoding="utf-8").splitlines()
    assert said.splitlines() == [line for line in golden if "packets" not in line]  # nothing amidst a line of its own


def test_no_color_takes_the_colours_and_leaves_the_bar(place: Path, on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal(NO_COLOR="1")
    screens = through(place, terminal)
    assert "\x1b[" in terminal.raw.decode()
    assert not re.search(r"\x1b\[[\d;]*m", terminal.raw.decode())
    same_as_golden("console-terminal.txt", "\n----\n\n".join(screens))


def test_a_narrow_terminal_and_one_of_ascii_have_a_bar_that_they_can_show(
    place: Path, on_terminal: Callable[..., Terminal]
) -> None:
    terminal = on_terminal(columns=30, rows=40, PYTHONIOENCODING="ascii:backslashreplace")
    screens = through(place, terminal)
    (bar,) = [line for line in screens[0].splitlines() if "3 of 41" in line and line.startswith("asr")]
    assert bar == "asr  ........  3 of 41 chunks"
    assert "##" in screens[3]


def test_nothing_is_drawn_where_another_thread_might_print(place: Path, on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal("thread")
    through(place, terminal, bar=False)
    assert b"\x1b[K" not in terminal.raw
    assert "asr: 12 of 41 chunks, 29 %, 29.0 s left" in terminal.raw.decode()


def test_nothing_is_drawn_in_the_background(place: Path, on_terminal: Callable[..., Terminal]) -> None:
    command = f"set -m; {sys.executable} pipeline.py & wait"
    terminal = on_terminal(argv=["sh", "-c", command])
    through(place, terminal, bar=False)
    assert b"\x1b[K" not in terminal.raw


def test_off_prints_nothing_of_ours(place: Path) -> None:
    write_script(place / "asr.py", "import told\nfrom otel_stageio import StageIO\nStageIO('asr').finalize()\n")
    done = subprocess.run(
        [sys.executable, "pipeline.py"], cwd=place, env=settings(OTEL_STAGEIO_CONSOLE="off"), capture_output=True,
        encoding="utf-8", timeout=LIMIT, check=True,
    )  # fmt: skip
    assert done.stdout == "the program's own words,\nand their end\n"
    assert done.stderr == ""


def test_an_interrupted_pipeline_leaves_no_bar_behind(place: Path, on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal()
    terminal.wait_for("loading", "3 of 41")
    terminal.interrupt()
    assert terminal.end() != 0
    assert "━" not in terminal.screen()
    said = terminal.raw.decode()
    assert "asr: \x1b[33mcancelled\x1b[0m after 4.0 s" in said
    assert "ResourceWarning" not in said


# -- a console that is no good ---------------------------------------------------------------------------------------

TALKATIVE = """
    import sys
    from otel_stageio import Pipeline

    with Pipeline("subtitles", "job1") as run:
        run.command("demux", [sys.executable, "-c", "for n in range(3000): print('line', n)"])
        with run.stage("asr") as io:
            log = io.get_stage_logger()
            for number in range(3000):
                log.info("line %d नमस्ते", number)
"""


@pytest.mark.parametrize("what", ["closed", "full", "nobody reads", "would block", "ascii"])
def test_a_stage_is_not_broken_by_its_console(what: str, tmp_path: Path) -> None:
    script = write_script(tmp_path / "talkative.py", TALKATIVE)
    options: dict[str, Any] = {}
    env = settings(**({"PYTHONIOENCODING": "ascii"} if what == "ascii" else {}))
    read, write = os.pipe()
    argv = [sys.executable, str(script)]
    if what == "closed":
        argv = ["sh", "-c", f"exec {sys.executable} {script} >&-"]
    elif what == "full":
        options["stdout"] = os.open("/dev/full", os.O_WRONLY)
    elif what == "ascii":
        options["stdout"] = subprocess.DEVNULL
    else:
        options["stdout"] = write
        if what == "would block":
            os.set_blocking(write, False)
    process = subprocess.Popen(argv, cwd=tmp_path, env=env, stderr=subprocess.PIPE, encoding="utf-8", **options)
    os.close(write)
    if what == "nobody reads":
        os.close(read)
    stderr = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 0, stderr
    assert stderr == ""
    for stage in ("01_demux", "06_asr"):
        assert read_manifest(tmp_path / "job1" / stage)["status"] == "success"
        assert (tmp_path / "job1" / stage / "stage.log").read_text(encoding="utf-8").count("line ") == 3000
