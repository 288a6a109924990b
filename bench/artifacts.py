"""Tracked files, against a list that is written once at the end; and ten times as many must not cost more each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from otel_stageio import StageIO

from .measure import Result, Scale, take_turns
from .scratch import new_job


def artifacts(where: Path, scale: Scale) -> Iterator[Result]:
    outputs = where / "outputs"
    outputs.mkdir()
    paths = [outputs / f"segment_{number:05d}.json" for number in range(scale.files)]
    for path in paths:
        path.write_text("{}\n")
    endings: dict[int, list[float]] = {}

    def track(count: int) -> float:
        io = StageIO("asr", new_job(where))
        started = time.perf_counter()
        for path in paths[:count]:
            io.track_output(path, "segment")
        tracked = time.perf_counter()
        io.finalize()
        endings.setdefault(count, []).append((time.perf_counter() - started) / count)
        return (tracked - started) / count

    def listed(count: int) -> float:
        manifest = where / "listed.json"
        found = []
        started = time.perf_counter()
        for path in paths[:count]:
            found.append({"type": "segment", "path": str(path), "size_bytes": path.stat().st_size})
        with manifest.open("w") as file:
            json.dump({"outputs": found}, file, indent=2)
        return (time.perf_counter() - started) / count

    many, few = scale.files, scale.files // 10
    seconds = take_turns(
        {"many": lambda: track(many), "few": lambda: track(few), "listed": lambda: listed(many)},
        max(3, scale.repetitions // 6),
    )
    names = f"{many:,} tracked outputs, each", f"{few:,}, each"
    yield Result("track", names[0], names[1], seconds["many"], seconds["few"], 1.3)
    yield Result("track-list", names[0], "a list, its sizes, one json.dump", seconds["many"], seconds["listed"], 1.5)
    yield Result(
        "track-end", "with the stage's end: sizes, digests", names[1], endings[many][1:], endings[few][1:], 1.3
    )
