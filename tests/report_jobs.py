"""Jobs in every state that a report has to tell of, each written by the code that writes such jobs.

``big`` writes its log lines past the logger, and ``half_written`` and ``hostile`` are spoiled by hand afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from otel_stageio import Pipeline, StageIO
from otel_stageio.levels import severity_of
from otel_stageio.otlp import encode
from otel_stageio.semconv import LOGGER_NAME

ROOT = Path(__file__).resolve().parent.parent
_LIMIT = 300  # seconds that a program may take: a safety net


def _environment(**more: str) -> dict[str, str]:
    ours = ("OTEL_", "TMDB_", "TRACEPARENT", "TRACESTATE", "OUTPUT_DIR", "LOG_LEVEL", "DEBUG_MODE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**clean, "PYTHONPATH": str(ROOT), "OTEL_STAGEIO_CONSOLE": "off", **more}


# -- jobs that went well, or did not ---------------------------------------------------------------------------------


def demo(job: Path) -> None:
    """The demo pipeline on its film, as ``make demo`` runs it."""
    argv = [sys.executable, "-m", "examples.subtitles", "--job-dir", str(job)]
    done = subprocess.run(argv, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=_LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr


def _transcribe(left: int) -> None:
    if left:
        _transcribe(left - 1)
        return
    try:
        raise MemoryError("CUDA out of memory. Tried to allocate 2.50 GiB (GPU 0; 23.69 GiB total)")
    except MemoryError as error:
        raise RuntimeError("chunk 12 of 41 could not be transcribed") from error


def _work(hundredths: int) -> None:
    """Real time, since spans are timed by the SDK."""
    time.sleep(hundredths / 100)


def _subtitles(job: Path, config: dict[str, Any], *, fails: bool) -> None:
    film = job.parent / "film.mkv"
    film.write_bytes(b"film" * 4096)
    with Pipeline("subtitles", job, stages=["demux", "asr", "translation", "mux"]) as run:
        with run.stage("demux") as io:
            io.track_input(film, "video")
            io.get_stage_logger().info("demuxing %s", film.name)
            _work(12)
            audio = io.get_output_path("audio.wav")
            audio.write_bytes(b"riff" * 60_000)
            io.track_output(audio, "audio", sample_rate=16000)
            io.track_intermediate(io.save_json({}, "probe.json"), retained=True, reason="for the next run")
        _work(25)  # in which nothing runs
        with run.stage("asr") as io:
            log = io.get_stage_logger()
            io.track_input(audio, "audio", duration_seconds=120.0)
            io.set_config(config)
            with io.span("load model"):
                log.debug("reading weights")
                _work(20)
            log.warning("language not given, detecting it")
            io.add_warning("the first 30 s are silence")
            with io.span("transcribe", chunks=41):
                for chunk in range(3):
                    with io.span(f"chunk {chunk}"):
                        log.info("chunk %d of 41", chunk)
                        _work(5)
                io.progress(12, 41, "chunks")
                log.error("the device is full")
                if fails:
                    _transcribe(4)
            io.track_output(io.save_json({"text": "…"}, "segments.json"), "transcript")
        with run.stage("translation") as io:
            io.skip("no target language")
        _work(2)
        with run.stage("mux") as io:
            io.track_input(job / "06_asr" / "segments.json", "transcript")
            _work(6)


def failed(job: Path) -> None:
    """A run that succeeded, and the next, with another configuration, which failed at asr."""
    job.parent.mkdir(parents=True, exist_ok=True)
    before = {"model": "medium", "beam_size": 5, "language": "en", "api_key": "sk-live-0123456789abcdef0123"}
    _subtitles(job, before, fails=False)
    with contextlib.suppress(RuntimeError):
        _subtitles(job, {**before, "model": "large-v3", "beam_size": 10}, fails=True)


_KILLED = """
    import os, signal, sys, time
    from otel_stageio import Pipeline

    with Pipeline("subtitles", sys.argv[1], stages=["demux", "asr", "mux"]) as run:
        with run.stage("demux"):
            time.sleep(0.05)
        with run.stage("asr") as io:
            io.set_config({"model": "large-v3"})
            with io.span("load model"):
                time.sleep(0.05)
            with io.span("transcribe"):
                with io.span("chunk 1"):
                    time.sleep(0.05)
                with io.span("chunk 2"):
                    io.progress(2, 41, "chunks")
                    io.get_stage_logger().info("chunk 2 of 41")
                    time.sleep(0.05)
                    os.kill(os.getpid(), signal.SIGKILL)
"""


def crashed(job: Path) -> None:
    """A real process, killed in the middle of a span of a span."""
    program = [sys.executable, "-c", textwrap.dedent(_KILLED), str(job)]
    done = subprocess.run(program, env=_environment(), timeout=_LIMIT, check=False)
    assert done.returncode == -signal.SIGKILL


_RUNNING = """
    import sys
    from otel_stageio import Pipeline

    with Pipeline("subtitles", sys.argv[1], stages=["demux", "asr", "mux"]) as run:
        with run.stage("demux"):
            pass
        with run.stage("asr") as io, io.span("transcribe"):
            with io.span("chunk 1"):
                pass
            with io.span("chunk 2"):
                io.get_stage_logger().info("chunk 2 of 41")
                io.progress(2, 41, "chunks")
                print("ready", flush=True)
                sys.stdin.readline()
"""


@contextlib.contextmanager
def running(job: Path) -> Iterator[None]:
    """A real process that stands in a stage, in a span of a span, for as long as the block takes."""
    argv = [sys.executable, "-c", textwrap.dedent(_RUNNING), str(job)]
    process = subprocess.Popen(argv, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        process.communicate("go\n", timeout=_LIMIT)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def empty(job: Path) -> None:
    """A directory in which a run is announced and nothing has begun."""
    with Pipeline("subtitles", job, stages=["demux", "asr"]):
        pass


# -- jobs of others ----------------------------------------------------------------------------------------------------


def original(job: Path) -> None:
    """As the original leaves it: no ``.stageio``, several manifest dialects, a stage that only logged."""

    def write(path: str, content: Any) -> None:
        (job / path).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        (job / path).write_text(text, encoding="utf-8")

    def log(stage: str, *lines: tuple[str, str]) -> str:
        return "".join(f"[2025-11-27 10:11:{n:02d}] [stage.{stage}] [{level}] {text}\n"
                       for n, (level, text) in enumerate(lines, 12))  # fmt: skip

    write("logs/99_pipeline_20251127_101112.log", "[2025-11-27 10:11:12] [pipeline] [INFO] starting\n")
    write("01_demux/audio.wav", "riff" * 500)
    write("01_demux/manifest.json", {
        "stage": "demux", "stage_number": 1, "timestamp": "2025-11-27T10:10:40.000001", "status": "success",
        "inputs": [{"type": "video", "path": "film.mkv", "size_bytes": 123_456_789}],
        "outputs": [{"type": "audio", "path": str(job / "01_demux/audio.wav"), "size_bytes": 2000}],
        "intermediate_files": [], "config": {"rate": 16000}, "resources": {}, "errors": [], "warnings": [],
        "duration_seconds": 30.25, "completed_at": "2025-11-27T10:11:10.250001",
    })  # fmt: skip
    write("01_demux/stage.log", log("demux", ("INFO", "Starting demux"), ("INFO", "Done")))
    write("06_asr/manifest.json", {
        "stage": "asr", "stage_number": 6, "timestamp": "2025-11-27T10:11:12.345678", "status": "failed",
        "inputs": [{"type": "audio", "path": "out/job/01_demux/audio.wav", "size_bytes": 44}], "outputs": [],
        "intermediate_files": [], "config": {"model": "large-v3"}, "resources": {},
        "errors": [{"timestamp": "2025-11-27T10:12:00", "message": "CUDA out of memory"}],
        "warnings": [{"timestamp": "2025-11-27T10:11:59", "message": "low volume"}],
        "duration_seconds": 93.5, "completed_at": "2025-11-27T10:12:45.845678", "error": "CUDA",
    })  # fmt: skip
    lines = [
        ("DEBUG", "reading weights"),
        ("INFO", "listening"),
        ("WARNING", "low volume"),
        ("ERROR", 'CUDA out of memory\nTraceback (most recent call last):\n  File "asr.py", line 7\nRuntimeError'),
    ]
    write("06_asr/stage.log", log("asr", *lines))
    write("07_alignment/stage_manifest.json", {
        "stage_name": "alignment", "inputs": [], "outputs": ["a.json"], "exit_code": 0, "duration": 1.5,
    })  # fmt: skip
    write("08_lyrics_detection/stage.log", log("lyrics_detection", ("INFO", "la")))
    write("manifest.json", {"job_id": "20251127-user-1", "workflow": "subtitle", "status": "failed", "stages": [
        {"name": "demux", "status": "completed", "duration_seconds": 30.25},
        {"name": "tmdb", "status": "completed", "start_time": "2025-11-27T10:11:00", "end_time": "2025-11-27T10:11:10"},
        {"name": "asr", "status": "failed"}, {"name": "mux", "status": "pending"},
    ]})  # fmt: skip


def half_written(job: Path) -> None:
    """What a full disk or a careless copy leaves: each kind of file cut short, or filled with something else."""
    failed(job)
    asr, demux, spool = job / "06_asr", job / "01_demux", job / ".stageio" / "spool"
    manifest = asr / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:700])
    (demux / "manifest.json").write_bytes(b"")
    for journal in spool.glob("*.jsonl"):
        raw = journal.read_bytes()
        journal.write_bytes(b"\xff\xfe{no json\n" + raw[: len(raw) - 90])
    (spool / "asr.2.metrics.jsonl").write_bytes(b'{"resourceMetrics": [{"scopeMetrics": 7}]}\n{"resourceMetr')
    with (asr / "stage.log").open("ab") as log:
        log.write(bytes(range(256)) * 8 + b"[2025-11-27 11:12:13] [stage.asr] [INF")
    record = job / ".stageio" / "run.json"
    record.write_bytes(record.read_bytes()[:300])
    (job / "12_mux" / "manifest.json").write_bytes(b"[" * 100_000)


# -- hostile text ------------------------------------------------------------------------------------------------------

#: Sets ``window.__pwned`` or asks for a file if any page takes it for more than text.
HOSTILE = (
    (
        "</script><script>window.__pwned=1;alert(1)</script></style></title></textarea></svg></template>"
        "--><img src=x onerror=window.__pwned=2><svg onload=window.__pwned=3><!--<script>"
        "<a href='javascript:window.__pwned=4'>x</a> javascript:window.__pwned=5 "
        '"\'` onfocus=window.__pwned=6 autofocus x=" {{7*7}} {% raw %} ${7*7} &lt;b&gt; ]]> \\u003cb\\u003e '
        "\x1b[31m\x1b]0;title\x07 \u202etxet\u2066 \u2028\u2029\x85\x00 \ud83d\udca5 "
        "\r\n[2025-11-27 10:11:12] [stage.asr] [ERROR] forged"
    )
    .encode("utf-16", "surrogatepass")
    .decode("utf-16")
)
_IN_A_NAME = "<img src=x onerror=window.__pwned=7>{{7*7}}'\""


def hostile(job: Path) -> None:
    """Hostile text in every field: as far as our own writers let it through, and beyond that by hand."""
    with contextlib.suppress(RuntimeError), Pipeline(HOSTILE, job, stages=[HOSTILE, "mux"]) as run:
        for stage in ("demux", _IN_A_NAME, "asr"):
            with run.stage(stage) as io:
                _speak(io)
                if stage == "asr":
                    raise RuntimeError(HOSTILE) from ValueError(HOSTILE)
    # Whoever writes the files by hand is not bound to what our capture lets through.
    free = ("message", "traceback", "cause", "exception_detail", "exception_type", "last_lines", "type", "path",
            "reason", "unit", "config", "resources", "metadata", "note", "digest", "lost")  # fmt: skip
    _forge(job / "06_asr" / "manifest.json", lambda key: key in free)
    _forge(job / "01_demux" / "manifest.json", lambda key: True)
    (forged,) = job.glob("99_*/manifest.json")
    _forge(forged, lambda key: key in (*free, "status", "stage"))
    _forge(job / ".stageio" / "run.json", lambda key: key in ("pipeline", "planned", "host", "pipeline_log", "lost"))
    elsewhere = job / f"42_{_IN_A_NAME}"
    elsewhere.mkdir()
    made = {"stage": _IN_A_NAME, "status": HOSTILE, "timestamp": HOSTILE, "inputs": [HOSTILE], HOSTILE: HOSTILE,
            "attempts": [{"status": HOSTILE, "timestamp": HOSTILE, "errors": [HOSTILE]}],
            "warnings": [HOSTILE], "resources": {"gpus": [{"name": HOSTILE, "driver": HOSTILE, "attribution": {
                "reason": HOSTILE}}], "realtime_factor": HOSTILE}}  # fmt: skip
    (elsewhere / "manifest.json").write_text(json.dumps(made), encoding="utf-8")
    said = "".join(
        f"[2025-11-27 10:11:12] [stage.{HOSTILE}] [{level}] {HOSTILE}\n" for level in ("INFO", "<B>", "ERROR")
    )
    for log in (elsewhere / "stage.log", job / "06_asr" / "stage.log"):
        with log.open("ab") as file:
            file.write(said.encode() + b"\xff\x00\x1b[2J</pre><script>window.__pwned=8</script>\n")
    for journal in (job / ".stageio" / "spool").glob("*.jsonl"):
        lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
        forged_lines = [json.dumps(_spoiled(line, _in_journal), ensure_ascii=False) for line in lines]
        journal.write_text("".join(f"{line}\n" for line in forged_lines), encoding="utf-8", newline="\n")
    _metrics(job)


def _speak(io: StageIO) -> None:
    io.set_config({HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}, "model": HOSTILE})
    io.set_resources(**{HOSTILE: HOSTILE})
    io.track_input(HOSTILE, HOSTILE, note=HOSTILE)
    io.track_output(io.save_json({}, "a<img src=x onerror=window.__pwned=9>.json"), HOSTILE, **{HOSTILE: HOSTILE})
    io.track_intermediate("t", reason=HOSTILE)
    io.add_warning(HOSTILE)
    io.add_error(HOSTILE, ValueError(HOSTILE))
    io.progress(1, 2, HOSTILE)
    io.get_stage_logger().error(HOSTILE)
    with io.span(HOSTILE, text=HOSTILE), contextlib.suppress(ValueError), io.span(HOSTILE):
        _work(1)
        raise ValueError(HOSTILE)


def _in_journal(key: str) -> bool:
    """Whatever in a line of OTLP is neither an id nor a key that a reader looks for."""
    return key in ("stringValue", "name", "message", "schemaUrl", "severityText", "version", "traceState")


def _forge(path: Path, chosen: Callable[[str], bool]) -> None:
    content = _spoiled(json.loads(path.read_bytes()), chosen)
    path.write_text(json.dumps({**content, HOSTILE: {HOSTILE: HOSTILE}}), encoding="utf-8")


def _spoiled(value: Any, chosen: Callable[[str], bool], inside: bool = False) -> Any:
    """The same with hostile text after every string below a chosen key."""
    if isinstance(value, dict):
        return {key: _spoiled(item, chosen, inside or chosen(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_spoiled(item, chosen, inside) for item in value]
    return f"{value}{HOSTILE}" if inside and isinstance(value, str) else value


def _metrics(job: Path) -> None:
    """Curves of devices with hostile names."""
    devices = [encode.attributes({"hw.id": f"{number}{HOSTILE}", "hw.name": HOSTILE}) for number in range(2)]
    start = time.time_ns()
    points = ",".join(
        f'{{"timeUnixNano":"{start + n * 1_000_000}","asDouble":0.5,"attributes":[{device}]}}'
        for n in range(9)
        for device in devices
    )
    metric = f'{{"name":"hw.gpu.utilization","gauge":{{"dataPoints":[{points}]}}}}'
    line = encode.Envelope("metrics", "{}", "{}").line(metric)
    (job / ".stageio" / "spool" / "asr.1.metrics.jsonl").write_bytes(line)


# -- a large one -------------------------------------------------------------------------------------------------------

BIG_STAGES = ("demux", "tmdb", "glossary_load", "source_separation", "pyannote_vad", "asr", "alignment",
              "lyrics_detection", "export_transcript", "translation", "subtitle_generation", "mux")  # fmt: skip
_BLOCK = 500  # lines that are written at once


def big(job: Path, *, lines: int = 100_000, spans: int = 20_000, files: int = 5_000) -> None:
    """Twelve stages of so many log lines each; one of them with many spans, one with many files."""
    with Pipeline("subtitles", job, stages=BIG_STAGES) as run:
        for stage in BIG_STAGES:
            with run.stage(stage) as io:
                io.get_stage_logger()
                for number in range(0, lines, _BLOCK):
                    _say(io, number)
                if stage == "asr":
                    for number in range(spans):
                        with io.span("decode", chunk=number):
                            pass
                if stage == "source_separation":
                    for number in range(files):
                        path = io.get_output_path(f"stem_{number:05d}.wav")
                        path.write_bytes(b"riff" * (number % 97))
                        io.track_output(path, "audio")


def _say(io: StageIO, first: int) -> None:
    """A block of log lines, as the logger writes them but without a call for each."""
    recorder: Any = io._recorder
    now = time.time_ns()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now // 1_000_000_000))
    logger = f"stage.{io.stage_name}"
    known = encode.attributes({LOGGER_NAME: logger})
    every, shown = [], []
    for number in range(first, first + _BLOCK):
        level = (
            "ERROR" if number % 5_000 == 7 else "WARNING" if number % 500 == 3 else "DEBUG" if number % 4 else "INFO"
        )
        text = f"chunk {number} decoded: 12 tokens in 0.25 s, temperature 0.0, average log probability -0.31"
        line = f"[{stamp}] [{logger}] [{level}] {text}\n"
        every.append(line)
        if level != "DEBUG":
            shown.append(line)
            severity = severity_of({"INFO": 20, "WARNING": 30, "ERROR": 40}[level])
            recorder.spool_line(encode.log_record(now, severity, level, text, known, recorder.ids), now)
    recorder.stage_log.write("".join(every).encode())
    recorder.pipeline_log.write("".join(shown).encode())


# -- GPUs --------------------------------------------------------------------------------------------------------------

_ON_GPU = """
    import math, os, sys
    from nvml import GIB, Driver
    from otel_stageio import Pipeline
    from otel_stageio.testing import FixedClock, fixed

    driver, clock, energy = Driver(os.environ["NVML_STUB"]), FixedClock(), 1000.0

    def use(io, seconds, busy):
        global energy
        for second in range(seconds):
            share = busy * (0.75 + 0.25 * math.sin(second / 3))
            energy += 80 + 270 * share
            driver.set([{"utilization": round(share, 2), "memory_used": round((2 + 38 * share) * GIB),
                         "processes": [("self", round(30 * share * GIB))], "power": 80 + 270 * share,
                         "energy": energy, "temperature": 40 + round(35 * share)}])
            clock.advance(1)
            io._recorder.beat()
            io._recorder.look_at_gpus()

    with fixed(clock):
        driver.set([{}])
        with Pipeline("subtitles", sys.argv[1]) as run:
            for stage, seconds, busy in (("demux", 8, 0.0), ("asr", 60, 1.0), ("alignment", 20, 0.6)):
                with run.stage(stage) as io:
                    use(io, seconds, busy)
                clock.advance(5)
"""


def gpu(job: Path, libraries: Path) -> None:
    """Three stages beside a GPU, whose driver is the stub that ``nvml.build`` made in ``libraries``."""
    from nvml import Driver

    driver = Driver(job.parent / "driver")
    driver.set([{}])
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**_environment(), **driver.env(libraries), "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", textwrap.dedent(_ON_GPU), str(job)], env=env, timeout=_LIMIT, check=True)
