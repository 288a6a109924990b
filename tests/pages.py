"""The blocks of a page, run as a reader would: in their order, in one directory, in one shell's environment.

    ```python                    run; what it prints is compared with an ``output`` block right below it, or with the
                                 comments ``# → …`` in it, one for each line
    ```console                   each ``$`` line is run; output that stands below it is compared
    ```bash                      run as a script
    ```… title="film.py"         written to that file
    ```json, yaml, toml          read by a parser
    ```text                      a picture or a quotation: not code

An HTML comment on the line before a block says what is different about it:

    <!-- not run: needs a container engine -->         a reason, which ``tests/test_docs.py`` knows
    <!-- runs until stopped -->                         its last command is started, and stopped at the page's end
    <!-- soon -->                                       the commands are repeated until they print what is shown

``...`` in shown output stands for anything; times, durations and ids are compared by their form. A command that answers
with another exit code than 0 says so behind it: ``# exits with 1``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import yaml
from helpers import LIMIT, ROOT, environment
from stack import wait_until

from docs.generated import expand

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = None

RUN = ("python", "console", "bash")
DATA = ("json", "yaml", "toml")
PLAIN = ("text", "output", "dockerfile", "ini", "css")

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[a-z]*)(?P<rest>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_ENDLESS, _SOON = "<!-- runs until stopped -->", "<!-- soon -->"

#: What differs from run to run, and what is compared in its place.
_FORMS = [
    (re.compile(r"\b[0-9a-f]{32}\b"), "TRACE"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"), "TIME"),
    (re.compile(r"\b\d{8}_\d{6}\b"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d+)?\b"), "TIME"),
    (re.compile(r"TIME to TIME"), "TIME"),  # of what was over within the second
    (re.compile(r"\bin \d+\.\d+s\b( \(\d+:\d\d:\d\d\))?"), "in DURATION"),  # pytest's, twice if long
    (re.compile(r"<?\b\d+(\.\d+)? (ns|µs|ms|s|min|h)\b( \d+ (s|min)\b)?"), "DURATION"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" ?([─━]+)"), "─"),
]


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    file: str = ""  # it is written to
    not_run: str = ""  # why not
    endless: bool = False
    soon: bool = False

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    text = expand(path.read_text(encoding="utf-8"))
    page = path.relative_to(ROOT).as_posix()
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip("\n").rpartition("\n")[2].strip()
        reason = _NOT_RUN.fullmatch(before)
        title = re.search(r'title="([^"]+)"', match["rest"])
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start()) + 1,
                language=match["language"],
                text=textwrap.dedent(match["text"]),
                file=title[1] if title else "",
                not_run=reason[1] if reason else "",
                endless=before == _ENDLESS,
                soon=before == _SOON,
            )
        )
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a ``console`` block, each with what the page shows of its output."""
    found: list[tuple[str, str]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            assert found, f"{block.where}: output without a command"
            command, shown = found[-1]
            if command.endswith("\\"):
                found[-1] = (f"{command[:-1]}{line.strip()}", shown)
            else:
                found[-1] = (command, f"{shown}{line}\n")
    return found


class Session:
    """Args: ``where`` is the reader's directory, ``changes`` what is set in the environment, ``instead`` what a command
    gets in the place of a word of the page (a port that is free)."""

    def __init__(self, where: Path, changes: dict[str, str], instead: dict[str, str] | None = None) -> None:
        self.where = self.directory = where
        self.ran = 0
        self._instead = instead or {}
        self._environment = environment(**{"COLUMNS": "100", **changes})
        del self._environment["PYTHONWARNINGS"]
        self._state = where.parent / "environment"
        self._printed: str | None = None
        self._endless: list[subprocess.Popen[bytes]] = []

    def run(self, block: Block) -> None:
        if block.not_run:
            return
        if block.language == "output":
            assert self._printed is not None, f"{block.where}: nothing has been run before this output"
            compare(block.where, block.text, self._printed)
        elif block.file and not (ROOT / block.file).exists():  # else it is quoted from the repository
            path = self.directory / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            path.chmod(0o755)
        elif block.file:
            pass
        elif block.language == "console":
            told = commands(block)
            for number, (command, shown) in enumerate(told, 1):
                if block.endless and number == len(told):
                    self._start(block, command, shown)
                elif block.soon:
                    self._soon(block, command, shown)
                else:
                    self._command(block, command, shown)
        elif block.language == "bash":
            self._command(block, block.text, "")
        elif block.language == "python":
            self._printed = self._output(block, [sys.executable, "-c", block.text], 0)
            noted = re.findall(r"# → (.+)$", block.text, re.MULTILINE)
            if noted:
                compare(block.where, "\n".join(noted), self._printed)
        if block.language in DATA:
            read(block)

    def close(self) -> None:
        for process in self._endless:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        for process in self._endless:
            process.wait(LIMIT)

    def _command(self, block: Block, command: str, shown: str) -> None:
        code = re.search(r"# .*\bexits with (\d+)", command)
        script = f"set -a\n{self._typed(command)}\ncode=$?; env -0 > '{self._state}'; exit $code"
        printed = self._output(block, ["bash", "-c", script], int(code[1]) if code else 0)
        pairs = (pair.partition("=") for pair in self._state.read_text(encoding="utf-8").split("\0") if pair)
        left = {name: value for name, _, value in pairs if name not in ("SHLVL", "_", "OLDPWD", "code")}
        self.directory = Path(left.pop("PWD"))
        self._environment = left
        if shown.strip():
            compare(f"{block.where}: {command}", self._typed(shown), printed)

    def _soon(self, block: Block, command: str, shown: str) -> None:
        """Again and again, until it prints what the page shows."""
        said = ""

        def it_shows() -> bool:
            nonlocal said
            try:
                self._command(block, command, shown)
            except AssertionError as different:
                said = str(different)
                return False
            return True

        try:
            wait_until(it_shows, LIMIT)
        except AssertionError:
            raise AssertionError(said) from None

    def _start(self, block: Block, command: str, shown: str) -> None:
        """Started, and up when it has said what the page shows, or anything if it shows nothing."""
        log = self.where.parent / f"endless-{len(self._endless)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._typed(command)}"],
                cwd=self.directory, env=self._environment, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._endless.append(process)
        pattern = re.compile(_pattern(self._typed(shown)) if shown.strip() else r".+")

        def begun() -> bool:
            said = log.read_text(encoding="utf-8")
            assert process.poll() is None, f"{block.where}: {command} ended: {said}"
            return pattern.match(_form(said)) is not None

        wait_until(begun, LIMIT, f"{block.where}: what {command} shows")
        self.ran += 1

    def _output(self, block: Block, argv: list[str], expected: int) -> str:
        done = subprocess.run(
            argv, cwd=self.directory, env=self._environment, capture_output=True, text=True, encoding="utf-8",
            timeout=3 * LIMIT, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == expected, f"{block.where}: {argv[-1]}\n{done.stdout}{done.stderr}"
        self.ran += 1
        return done.stdout + done.stderr

    def _typed(self, command: str) -> str:
        for word, other in self._instead.items():
            command = command.replace(word, other)
        return command


def compare(where: str, shown: str, printed: str) -> None:
    assert re.fullmatch(_pattern(shown), _form(printed)), (
        f"{where}\n--- the page shows\n{_form(shown)}\n--- it prints\n{_form(printed)}\n--- as it is\n{printed}"
    )


def _form(text: str) -> str:
    for pattern, word in _FORMS:
        text = pattern.sub(word, text)
    return "\n".join(line.strip() for line in text.strip().splitlines()) + "\n"


def _pattern(shown: str) -> str:
    """A regular expression of the output: ``...`` or ``…`` alone on a line is any lines, within one anything."""
    lines = []
    for line in _form(shown).splitlines(keepends=True):
        if line.strip() in ("...", "…"):
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(re.escape(line).replace(r"\.\.\.", ".*").replace("…", ".*"))
    return "".join(lines)


def read(block: Block) -> None:
    """Raises what the parser raises."""
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "yaml":
        list(yaml.safe_load_all(block.text))
    elif tomllib is not None:
        tomllib.loads(block.text)
