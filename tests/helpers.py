"""What the contract tests share: a clean environment, real processes, strict reading of what lies on disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_stageio import StageIO
from otel_stageio.runtime import runtime
from otel_stageio.testing import FixedClock

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 60  # seconds that any child process may take: a safety net, no test waits for it

#: The head of one record: ``[2025-11-27 10:11:12] [stage.asr] [INFO] ``.
RECORD = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[(?P<name>[^\]]+)\] \[(?P<level>[A-Z]+)\] (?P<text>.*)")

_OURS = ("OTEL_", "TRACE", "OUTPUT_DIR", "LOG_LEVEL", "DEBUG_MODE", "BAGGAGE")


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable that the library reads, plain console, an empty working directory; internal errors are raised."""
    saved = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(_OURS):
            del os.environ[name]
    os.environ["OTEL_STAGEIO_CONSOLE"] = "plain"
    place = tmp_path / "cwd"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(runtime, "strict", True)
    yield
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "out" / "job"


@pytest.fixture
def stage(job: Path) -> Iterator[Callable[..., StageIO]]:
    """Opens stages as a user does, ``stage("asr")``, and closes what a test leaves open."""
    opened: list[StageIO] = []

    def open_stage(name: str, output_base: Any = job, *args: Any, **kwargs: Any) -> StageIO:
        io = StageIO(name, output_base, *args, **kwargs)
        opened.append(io)
        return io

    yield open_stage
    for io in opened:
        io.finalize()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FixedClock:
    """A clock that stands still until a test moves it."""
    standing = FixedClock()
    monkeypatch.setattr(runtime, "clock", standing)
    return standing


# -- reading ---------------------------------------------------------------------------------------------------------


def strict_json(text: str) -> Any:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def read_manifest(where: Path) -> dict[str, Any]:
    """The manifest of a stage directory (or at a path), read strictly."""
    path = where / "manifest.json" if where.is_dir() else where
    data = strict_json(path.read_text(encoding="utf-8"))
    assert isinstance(data, dict)
    return data


def pipeline_logs(job: Path) -> list[Path]:
    return sorted((job / "logs").glob("99_pipeline_*.log"))


def pipeline_log(job: Path) -> Path:
    (only,) = pipeline_logs(job)
    return only


def records(log: Path) -> list[tuple[str, str, str]]:
    """(logger, level, first line) of every record of a log file."""
    found = (RECORD.fullmatch(line) for line in log.read_text(encoding="utf-8").split("\n"))
    return [(match["name"], match["level"], match["text"]) for match in found if match]


def texts(log: Path) -> list[str]:
    return [text for _, _, text in records(log)]


def files_of(job: Path) -> list[Path]:
    """Every file of a job, our machinery included."""
    return [path for path in job.rglob("*") if path.is_file()]


# -- real processes --------------------------------------------------------------------------------------------------


def environment(**changes: str) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH", "")]))
    return {**env, "PYTHONWARNINGS": "error", "OTEL_STAGEIO_CONSOLE": "plain", **changes}


def write_script(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    return path


def start_python(script: Path, *args: object, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
    """A running Python process with pipes to all three of its streams."""
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, args)],
        cwd=cwd or script.parent,
        env=environment(**env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run_command(
    argv: list[str], *, cwd: Path, env: dict[str, str] | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd=cwd,
        env=environment() if env is None else env,
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LIMIT,
        check=False,
    )


def run_python(script: Path, *args: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return run_command([sys.executable, str(script), *map(str, args)], cwd=cwd or script.parent, env=environment(**env))


def run_together(script: Path, job: Path, names: list[str]) -> None:
    """The same script once per name, at the same moment: each says ``ready`` and waits for a line."""
    processes = [start_python(script, job, name) for name in names]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, stderr = process.communicate(timeout=LIMIT)
        assert (process.returncode, stderr) == (0, "")


def kill_after(process: subprocess.Popen[str], lines: int) -> None:
    """SIGKILL as soon as the process has printed so many lines."""
    assert process.stdout is not None
    for _ in range(lines):
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else "the process ended by itself"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGKILL


def cli(*args: object) -> list[str]:
    """``otel-stageio …`` of the interpreter that runs the tests, installed or not."""
    installed = shutil.which("otel-stageio", path=str(Path(sys.executable).parent))
    here = [sys.executable, "-c", "import sys; from otel_stageio.cli import main; sys.exit(main())"]
    return [*([installed] if installed else here), *map(str, args)]
