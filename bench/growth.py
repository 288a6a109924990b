"""How the cost of one grows with how many there are: flat is what is wanted."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from otel_stageio import StageIO

from .jobs import make_jobs, status_of
from .measure import Scale, each
from .recovery import recovery_of
from .report import report_of
from .scratch import new_job


@dataclass(frozen=True)
class Curve:
    """Seconds for one of so many, by how many there were."""

    name: str
    measured: str
    points: dict[int, float]

    @property
    def growth(self) -> float:
        """What one costs among the most, over what it costs among the fewest."""
        return self.points[max(self.points)] / self.points[min(self.points)]


def growth(where: Path, scale: Scale) -> Iterator[Curve]:
    times = 3 if scale.files > 1000 else 1
    most = scale.files

    def curve(name: str, measured: str, counts: tuple[int, ...], cost: Callable[[int], float]) -> Curve:
        """Args: cost: seconds for one of so many."""
        return Curve(name, measured, {count: cost(count) for count in counts})

    def in_turns(name: str, measured: str, counts: tuple[int, ...], cost: Callable[[Path, int], float]) -> Curve:
        """As :func:`curve`; a machine that slows down under load must not look like growth."""
        rounds = [{count: cost(where, count) for count in counts} for _ in range(times)]
        return Curve(name, measured, {count: statistics.median(took[count] for took in rounds) for count in counts})

    os.environ["OTEL_STAGEIO_CONSOLE"] = "off"
    tens = (most // 10, most, most * 10)
    yield in_turns("log line", "a log line of a stage with so many", tens, _lines)
    yield in_turns("inner span", "an inner span of a stage with so many", tens, _spans)
    yield in_turns("tracked output", "a tracked output, with its digest", tens[:2], _files)
    yield in_turns("attempt", "an attempt at a stage, the newest of so many", (1, 10, 100), _attempts)
    yield curve(
        "log line recovered", "a log line recovered, of twelve dead stages", (most // 10, most, most * 5),
        lambda count: statistics.median(recovery_of(where, count, times).ours) / 12 / count,
    )  # fmt: skip
    yield curve(
        "log line in a report", "a log line in a report of twelve stages", (most // 5, most * 2, most * 10),
        lambda count: statistics.median(report_of(where, count, times).ours) / 12 / count,
    )  # fmt: skip
    yield curve("job in status", "a job in a status of so many", tens[:2], lambda count: _status(where, count, scale))


def _lines(where: Path, count: int) -> float:
    with StageIO("asr", new_job(where)) as io:
        log = io.get_stage_logger("ERROR")
        return each(lambda number: log.info("decoded chunk %d of 500 in %.2f s", number, 0.25), count)


def _spans(where: Path, count: int) -> float:
    with StageIO("asr", new_job(where)) as io:

        def step(number: int) -> None:
            with io.span("transcribe", chunk=number):
                pass

        return each(step, count)


def _files(where: Path, count: int) -> float:
    job = new_job(where)
    paths = [job / f"{number}.json" for number in range(count)]
    for path in paths:
        path.write_text("{}\n")
    began = time.perf_counter()
    with StageIO("asr", job) as io:
        for path in paths:
            io.track_output(path, "segment")
    return (time.perf_counter() - began) / count


def _attempts(where: Path, count: int) -> float:
    job = new_job(where)
    seconds = 0.0
    for _ in range(count):
        began = time.perf_counter()
        with StageIO("asr", job):
            pass
        seconds = time.perf_counter() - began
    return seconds


def _status(where: Path, count: int, scale: Scale) -> float:
    root = where / f"jobs{count}" / "out"
    if not root.exists():
        root.mkdir(parents=True)
        make_jobs(root, count)
    return statistics.median(status_of("status", root, "", scale, 0).ours) / count
