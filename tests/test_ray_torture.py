"""Many jobs on a real cluster of three raylets: a worker is killed every second, and one raylet in the middle.

`make ray-torture` does it with two hundred jobs.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray_stages as work
from conftest import needs
from helpers import read_manifest
from stack import wait_until

from otel_stageio import Manifest, RunRecord
from otel_stageio.delivery.delivery import Delivery
from otel_stageio.delivery.settings import endpoints
from otel_stageio.delivery.shipper import push
from otel_stageio.layout import Job, spooled_attempts
from otel_stageio.testing import Records

needs("ray")

from ray_cluster import RayCluster  # noqa: E402

from otel_stageio.integrations.ray import JobResult, Progress, RayStage, run_jobs  # noqa: E402

JOBS = int(os.environ.get("STAGEIO_RAY_JOBS", "24"))
STAGES = ("demux", "asr", "alignment", "translation", "mux")

pytestmark = [
    pytest.mark.usefixtures("no_terminal"),
    # Ray leaves sockets and files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    saved = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(("OTEL_", "TRACE"))}
    cluster = RayCluster(3)
    cluster.connect()
    yield cluster
    cluster.stop()
    os.environ.update(saved)


class Killer:
    """SIGKILL for one of the workers that are at a stage, once a second; counts them.

    A worker that is alone is let be: on a slow machine, where a stage takes longer than a second, it would never end.
    """

    def __init__(self, cluster: RayCluster) -> None:
        self.killed = 0
        self._raylets = cluster.raylets
        self._over = threading.Event()
        self._random = random.Random(20261126)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(1):
            busy = [pid for pid, title in workers(self._raylets) if title in STAGES]
            if len(busy) > 1:
                self.killed += 1
                try:
                    os.kill(self._random.choice(busy), signal.SIGKILL)
                except ProcessLookupError:
                    self.killed -= 1


def workers(raylets: list[int]) -> list[tuple[int, str]]:
    """(pid, what it is at) of every worker of these raylets; Ray writes that into the process's title."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (title := (entry / "cmdline").read_bytes().strip(b"\0")).startswith(b"ray::"):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in raylets:
                    found.append((int(entry.name), title[5:].decode()))
        except (OSError, ValueError):
            continue
    return found


def marks(job: Path, kind: str) -> set[str]:
    """``stage.attempt`` of what a stage has left of itself, with nothing of ours."""
    return {path.name for path in (job / kind).glob("*")}


def attempts_of(job: Path) -> dict[str, str]:
    """``stage.attempt`` -> how it ended, as the manifests say."""
    found = {}
    for path in job.glob("*/manifest.json"):
        Manifest.load(path)
        manifest = read_manifest(path)
        for record in (*manifest.get("attempts", ()), manifest):
            found[f"{manifest['stage']}.{record['attempt']}"] = record["status"]
    return found


def test_every_job_ends_every_attempt_is_there_and_nothing_is_told_that_was_not(
    cluster: RayCluster, collector: Any, jaeger: Any, tmp_path: Path
) -> None:
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.http
    stages = [RayStage(name, work.leave_marks, num_cpus=1, max_retries=1000) for name in STAGES]
    jobs = [tmp_path / f"job{number:03}" for number in range(JOBS)]
    gone = threading.Event()

    def in_the_middle(progress: Progress) -> None:
        if not gone.is_set() and sum(progress.ended.values()) >= JOBS // 2:
            gone.set()
            cluster.kill(1)

    with Killer(cluster) as killer:
        results = run_jobs(jobs, "subtitles", stages, at_once=16, on_progress=in_the_middle)
    assert gone.is_set()
    assert [result for result in results if result.status != "success"] == []

    ended: Counter[str] = Counter()
    for job, result in zip(jobs, results, strict=True):
        attempts = attempts_of(job)
        ended.update(attempts.values())
        spooled = {f"{stage}.{number}" for stage, numbers in spooled_attempts(Job(job)).items() for number in numbers}
        assert attempts.keys() == spooled
        assert marks(job, "began") <= attempts.keys()
        assert {name for name, status in attempts.items() if status == "success"} <= marks(job, "finished")
        assert set(attempts.values()) <= {"success", "crashed"}
        record = RunRecord.load(job)
        assert (record.status, record.attempt, record.run_id) == ("success", 1, result.run_id)
        assert {f"{item.stage}.{item.attempt}" for item in record.stages} == attempts.keys()
        assert len(attempts) == result.attempts
    assert ended["success"] == JOBS * len(STAGES)
    assert 0 < ended["crashed"] <= killer.killed + 2  # and the two that were on the node
    print(f"{killer.killed} workers killed, {ended['crashed']} attempts crashed of {sum(ended.values())}")
    in_jaeger(jobs, results, collector.http, jaeger)


def in_jaeger(jobs: list[Path], results: list[JobResult], endpoint: str, jaeger: Any) -> None:
    """Each job is one trace there, with every span that is on disk, as it is there."""
    delivery = Delivery(endpoints(endpoint=endpoint, protocol="http/protobuf", headers={}))
    for job in jobs:
        assert push(Job(job), delivery).pending == {}
    delivery.close()
    for job, result in zip(jobs, results, strict=True):
        written = {span["spanId"]: span for span in Records(job).spans()}
        assert {span["traceId"] for span in written.values()} == {result.trace_id}
        arrived = partial(there, jaeger, result.trace_id, set(written))
        found = wait_until(arrived, what=f"trace {result.trace_id}")
        assert Counter(span["name"] for span in found.values())["RUN subtitles"] == 1
        failed = {name: span.get("status", {}).get("code") == 2 for name, span in found.items()}
        assert failed == {name: span.get("status", {}).get("code") == 2 for name, span in written.items()}
        crashed = [name for name, is_failed in failed.items() if is_failed and found[name]["name"] in STAGES]
        assert len(crashed) == result.attempts - len(STAGES)


def there(jaeger: Any, trace_id: str, wanted: set[str]) -> dict[str, dict[str, Any]] | None:
    found = {span["spanId"]: span for span in jaeger.spans(trace_id)}
    return found if found.keys() >= wanted else None
