"""A stage that does everything at random, and says on a pipe what it has finished: of that, nothing may be missing."""

from __future__ import annotations

import os
from random import Random
from typing import Any

from otel_stageio import StageIO

STAGES = ("asr", "hallucination_removal", "mux", "song_bias_injection")


class Busy:
    """Args: ``seed`` makes every text unique, ``pipe`` is a descriptor to announce on."""

    def __init__(self, job: str, seed: int, pipe: int) -> None:
        self.job, self.seed, self.pipe = job, seed, pipe
        self.random = Random(seed)
        self.number = 0

    def announce(self, what: str, name: str = "") -> None:
        os.write(self.pipe, f"{what} {name}\n".encode())

    def run(self, stage: str, steps: int) -> None:
        with StageIO(stage, self.job) as io:
            self.announce("started", stage)
            self.log = io.get_stage_logger("CRITICAL")
            for _ in range(steps):
                self.step(io, depth=0)
        self.announce("ended")

    def step(self, io: Any, depth: int) -> None:
        kinds = ["line", "debug", "line", "warning", "output", "config", "event", "progress", "error"]
        kind = self.random.choice([*kinds, *["span"] * (4 if depth < 3 else 0)])
        self.number += 1
        name = f"{self.seed}-{self.number}"
        if kind == "span":
            with io.span(f"span {name}", number=self.number):
                for _ in range(self.random.randrange(4)):
                    self.step(io, depth + 1)
        elif kind == "line":
            self.log.info("line %s %s", name, "x" * self.random.choice((0, 10, 3000)))
        elif kind == "debug":
            self.log.debug("debug %s", name)
        elif kind == "warning":
            io.add_warning(f"warning {name}")
        elif kind == "error":
            io.add_error(f"error {name}")
        elif kind == "output":
            path = io.get_output_path(f"{name}.txt")
            try:
                path.write_text("text")
            except OSError:
                return  # a full disk: the stage's own trouble, which it survives
            io.track_output(path, "text", number=self.number)
        elif kind == "config":
            io.add_config(f"key {name}", self.number)
        elif kind == "event":
            io.event(f"event {name}", number=self.number)
        elif kind == "progress":
            io.progress(self.number)
        self.announce(kind, name)
