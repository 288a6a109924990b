"""Stages for tests/test_ray.py: functions of a module that Ray's workers import, as those of a real pipeline are."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from typing import Any

from otel_stageio import StageIO

RAN = "ran.txt"


def note(io: StageIO) -> None:
    """That the work of a stage was really done, in a file of the job."""
    with open(io.output_base / RAN, "a", encoding="utf-8") as file:
        file.write(f"{io.stage_name}\n")


def write(io: StageIO) -> None:
    note(io)
    io.get_stage_logger().info("writing on %s", io.stage_name)
    io.track_output(io.save_json({"of": io.stage_name}, f"{io.stage_name}.json"), "result")


def read(io: StageIO, model: str = "small") -> None:
    note(io)
    io.track_input(io.get_input_path("demux.json", from_stage="demux"), "result")
    io.set_config({"model": model})
    io.track_output(io.save_json({"model": model}, f"{io.stage_name}.json"), "result")


def leave_marks(io: StageIO) -> None:
    """One when it begins, and one when it has finished: by hand, so that the record can be held against them."""
    mark = f"{io.stage_name}.{io._recorder.attempt}"
    (io.output_base / "began").mkdir(exist_ok=True)
    (io.output_base / "finished").mkdir(exist_ok=True)
    (io.output_base / "began" / mark).touch()
    with io.span("work"):
        for number in range(5):
            io.get_stage_logger().info("part %d", number)
            time.sleep(0.02)
    io.track_output(io.save_json({"by": mark}, f"{io.stage_name}.json"), "result")
    (io.output_base / "finished" / mark).touch()


def log_in_a_thread(io: StageIO) -> None:
    thread = threading.Thread(target=logging.getLogger("model").warning, args=("from a thread",))
    thread.start()
    thread.join()


def die_once(io: StageIO) -> None:
    note(io)
    io.get_stage_logger().info("about to die")
    if io._recorder.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def be_told_to_end_once(io: StageIO) -> None:
    if io._recorder.attempt == 1:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)


def die(io: StageIO) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(io: StageIO) -> None:
    note(io)
    raise ValueError("no GPU")


def fail_once(io: StageIO) -> None:
    note(io)
    if io._recorder.attempt == 1:
        raise ValueError("no GPU")


def leave(io: StageIO) -> None:
    sys.exit(0)


def skip(io: StageIO) -> None:
    io.skip("nothing to do")


def go_on(io: StageIO) -> None:
    """Until it is interrupted."""
    note(io)
    while True:
        time.sleep(0.01)


def wait_for_ever(io: StageIO) -> None:
    """In C, where no exception comes."""
    note(io)
    threading.Event().wait()


def spans_of(io: StageIO) -> None:
    with io.span("inner") as span:
        span.set_attribute("demo.pid", os.getpid())


class Foreign:
    """A stage that a worker cannot load: it needs a module that is not there."""

    def __call__(self, io: StageIO) -> None: ...

    def __reduce__(self) -> Any:
        return __import__, ("no_such_module",)
