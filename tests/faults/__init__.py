"""Faults injected at every call by which the library touches the file system; see ``faulty.c``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TESTS = HERE.parent

#: As in ``faulty.c``.
OPEN, READ, WRITE, RENAME, MKDIR, UNLINK, LINK, TRUNCATE, SYNC, LOCK, CLOSE = (1 << bit for bit in range(11))
SHORT = -1
FOR_EVER = 2**31 - 1
NOTHING = (0, 0, 0, 0)


def build(where: Path, gcc: str) -> Path:
    library = where / "faulty.so"
    subprocess.run(
        [gcc, "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o", library, HERE / "faulty.c", "-ldl"],
        check=True,
    )
    return library


class Site:
    """One call of a program that touches the file system."""

    def __init__(self, number: int, said: str) -> None:
        kind, self.name, self.path = said.split(" ", 2)
        self.number = number
        self.kind = int(kind)

    def __str__(self) -> str:
        return f"{self.number} ({self.name} {self.path})"


class Ran:
    """What became of a program. ``sites`` is empty where it did not get to say."""

    def __init__(self, code: int, place: Path) -> None:
        self.code = code
        self.stdout = (place / "stdout").read_text(encoding="utf-8")
        self.stderr = (place / "stderr").read_text(encoding="utf-8")
        report = json.loads((place / "report").read_text()) if (place / "report").exists() else {}
        self.sites = [Site(number, said) for number, said in enumerate(report.get("sites", ()), 1)]
        self.hits: int = report.get("hits", 0)
        self.internal_errors: dict[str, int] = report.get("internal_errors", {})


class Server:
    """A process that has imported the library and forks a child for each program it is asked to run."""

    def __init__(self, library: Path, environment: dict[str, str], *options: str) -> None:
        paths = os.pathsep.join((str(TESTS.parent), str(TESTS)))
        env = {**environment, "LD_PRELOAD": str(library), "FAULTY_LIBRARY": str(library), "PYTHONPATH": paths}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.server", *options],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, program: str, job: Path, arm: tuple[int, int, int, int] = NOTHING, **env: str) -> Ran:
        """Run a program of :mod:`faults.programs`, with the calls ``arm`` says failing below ``job``."""
        place = job.parent
        (place / "report").unlink(missing_ok=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"program": program, "job": str(job), "place": str(place), "arm": arm, "env": env}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the fork server is gone"
        return Ran(json.loads(answer), place)

    def check(self, job: Path) -> dict[str, Any]:
        """What :func:`faults.checks.examine` finds."""
        ran = self.run("check", job)
        assert (ran.code, ran.stderr) == (0, ""), ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def copy(job: Path, to: Path) -> Path:
    shutil.copytree(job, to, symlinks=True)
    return to
