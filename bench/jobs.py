"""``status ROOT`` over ten thousand jobs, and over a thousand of forty hosts: one of each kind is made by real stages,
and the others are copies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from otel_stageio import Pipeline, recover
from otel_stageio.layout import STAGES, find_jobs
from otel_stageio.semconv import ENV_HOST_ID

from .measure import Result, Scale

#: Kind -> how many of a hundred jobs are of it; the others ended well and were closed.
_SHARES = {"failed": 3, "crashed": 2, "open": 15}
#: The same where a fifth is on other hosts: ``remote`` runs there, as far as anybody knows, ``lost`` was closed so.
_FLEET_SHARES = {"failed": 3, "crashed": 2, "remote": 10, "lost": 10}
_HOSTS = 40
#: Seconds for each of many jobs.
A_JOB = 0.001
_REMOTE = "gpu-000"
#: Jobs that really run meanwhile.
_RUNNING = 20
_TEMPLATE = """
import os, sys
from otel_stageio import Pipeline, StageIO

kind, job, stages = sys.argv[1], sys.argv[2], sys.argv[3:]

def work(stage, io):
    log = io.get_stage_logger()
    for number in range(10):
        log.info("line %d", number)
    io.set_config({"model": "large-v3", "beam_size": 5})
    io.track_output(io.save_json({"text": "x" * 1000}, "segments.json"), "transcript")
    if kind == "failed" and stage == "asr":
        raise RuntimeError("CUDA out of memory")
    if kind in ("crashed", "remote", "lost") and stage == "asr":
        os.kill(os.getpid(), 9)

if kind == "open":  # nobody owned the run, and nobody has found it idle
    for stage in stages:
        with StageIO(stage, job) as io:
            work(stage, io)
    os.kill(os.getpid(), 9)
with Pipeline("subtitles", job, stages=stages) as run:
    for stage in stages:
        with run.stage(stage) as io:
            work(stage, io)
"""


def make_jobs(root: Path, number: int, shares: Mapping[str, int] = _SHARES) -> None:
    """So many jobs of twelve stages below ``root``. Only what differs is a file of its own: it has to be quick."""
    templates = root.parent / "templates"
    for kind in ("closed", *shares):
        words = [sys.executable, "-c", _TEMPLATE, kind, str(templates / kind), *STAGES]
        host = {ENV_HOST_ID: _REMOTE} if kind in ("remote", "lost") else {}
        quiet = {**os.environ, "OTEL_STAGEIO_CONSOLE": "off", **host}
        subprocess.run(words, env=quiet, stderr=subprocess.DEVNULL, check=False)
        if kind == "lost":
            recover(templates / kind, lost_after=0)
    kinds = [kind for kind, share in shares.items() for _ in range(share)]
    for at in range(number):
        kind = kinds[at % 100] if at % 100 < len(kinds) else "closed"
        job = root / f"{at // 1000:02d}" / f"job{at:05d}"
        shutil.copytree(templates / kind, job, copy_function=_copy)
        if kind in ("remote", "lost"):
            _move(job / ".stageio/spool/asr.1.logs.jsonl", f"gpu-{at % _HOSTS:03d}")


def _move(journal: Path, host: str) -> None:
    content = journal.read_bytes().replace(_REMOTE.encode(), host.encode())
    journal.unlink()
    journal.write_bytes(content)


def _copy(source: str, target: str) -> None:
    if source.endswith("run.json"):
        shutil.copy(source, target)
    else:
        os.link(source, target)


@contextmanager
def running(root: Path) -> Iterator[None]:
    os.environ["OTEL_STAGEIO_CONSOLE"] = "off"
    with ExitStack() as stack:
        for number in range(_RUNNING):
            run = stack.enter_context(Pipeline("subtitles", root / f"running{number}", stages=STAGES))
            stack.enter_context(run.stage("asr")).progress(number, _RUNNING, "chunks")
        yield


def jobs(where: Path, scale: Scale) -> Iterator[Result]:
    many, fleet = (where / name / "out" for name in ("many", "fleet"))
    for root in (many, fleet):
        root.mkdir(parents=True)
    make_jobs(many, scale.files)
    make_jobs(fleet, scale.files // 10, _FLEET_SHARES)
    what = f"status of a directory with {scale.files:,} jobs"
    yield status_of("status", many, what, scale, scale.files * A_JOB)
    what = f"status of {scale.files // 10:,} jobs, a fifth of them on {_HOSTS} other hosts"
    yield status_of("status-hosts", fleet, what, scale, 2.0)


def status_of(name: str, root: Path, what: str, scale: Scale, limit: float) -> Result:
    words = [sys.executable, "-m", "otel_stageio", "status", str(root)]
    ours, theirs = [], []
    with running(root):
        for _ in range(min(scale.repetitions, 7)):
            began = time.perf_counter()
            subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            for path in find_jobs(str(root)):
                (Path(path) / ".stageio" / "run.json").read_bytes()
            theirs.append(time.perf_counter() - began)
    return Result(name, what, "finding them, reading run.json", ours, theirs, limit=limit)
