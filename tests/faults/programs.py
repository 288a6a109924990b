"""Stages as a user writes them. Between them they use everything of the public API that writes a file.

``mine()`` stands around what the stage itself writes: the disk is healthy for that, because what a fault does to the
program's own files is the program's business, and only what it does to ours is in question.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from otel_stageio import Pipeline, StageIO, recover

LIBRARY = ctypes.CDLL(os.environ["FAULTY_LIBRARY"])
LIBRARY.faulty_site.restype = ctypes.c_char_p


@contextlib.contextmanager
def mine() -> Iterator[None]:
    LIBRARY.faulty_off(1)
    try:
        yield
    finally:
        LIBRARY.faulty_off(0)


def work(io: StageIO) -> None:
    log = io.get_stage_logger("ERROR")
    audio = io.get_input_path("audio.wav", "demux")
    io.track_input(audio, "audio")
    io.set_config({"model": "large-v3", "title": "a film"})
    io.add_config("beam_size", 5)
    io.set_resources(gpu=1)
    log.debug("for the stage's own log")
    log.info("reading %s", audio.name)
    logging.getLogger("library").info("loading")
    with io.span("transcribe", chunks=3):
        io.progress(1, 3, "chunks")
        log.warning("slow")
        with io.span("decode"):
            io.event("loaded", seconds=1.5)
    io.add_warning("careful")
    io.add_error("survived", ValueError("one chunk was silent"))
    log.error("one chunk was silent")
    with mine():
        result = io.get_output_path("segments.txt")
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text("what the stage is for")
        time.sleep(0.05)  # a tick of the file system's clock, within which a digest is not kept: one call more or less
    io.track_output(result, "transcript")
    io.track_intermediate(io.get_output_path("chunks"), retained=False, reason="large")
    for save in (lambda: io.save_json({"text": "…"}, "segments.json"), lambda: io.save_metadata({"chunks": 3})):
        try:
            save()
        except OSError:  # its own file: for the stage to deal with, and this one does
            pass


def stage(job: Path) -> None:
    """Leaves by its own exit code; the stage is a success."""
    with StageIO("asr", job, attributes={"film": 7}) as io:
        work(io)
    print("the work is done")
    sys.exit(5)


def failing(job: Path) -> None:
    with StageIO("asr", job) as io:
        work(io)
        print("the work is done")
        raise RuntimeError("no speech")


def original(job: Path) -> None:
    """The original's style, and a stage that never says how it ended; the exit hook closes it."""
    io = StageIO("asr", job)
    work(io)
    io.finalize(status="success", exit_code=0)
    sub = StageIO("hallucination_removal", job)
    sub.add_warning("left open")
    print("the work is done")
    sys.exit(5)


def pipeline(job: Path) -> None:
    with Pipeline("subtitles", job, stages=["demux", "asr", "mux"]) as run:
        run.command("demux", ["sh", "-c", "echo from the child; echo on stderr >&2"])
        with run.stage("asr") as io:
            work(io)
        print("mux:", run.command("mux", ["sh", "-c", "exit 3"], check=False).returncode)
    print("the work is done")
    sys.exit(5)


def killed(job: Path) -> None:
    with StageIO("asr", job) as io:
        work(io)
        with io.span("cut off"):
            os.kill(os.getpid(), signal.SIGKILL)


def recovering(job: Path) -> None:
    recover(job)
    print("the work is done")
    sys.exit(5)


PROGRAMS: dict[str, Callable[[Path], None]] = {
    program.__name__: program for program in (stage, failing, original, pipeline, killed, recovering)
}
