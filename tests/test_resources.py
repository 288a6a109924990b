"""What a stage used: its processes, its memory, its time, as the kernel's own counts say."""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers import cli, environment, run_command, run_python, write_script
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.semconv._incubating.metrics import hw_metrics, process_metrics

from otel_stageio import Pipeline, StageFailed, StageIO, recover
from otel_stageio import semconv as sc
from otel_stageio.delivery import wire
from otel_stageio.layout import Job
from otel_stageio.reading.text import count
from otel_stageio.resources import gpu_sampler
from otel_stageio.resources.cgroup import Group
from otel_stageio.resources.gpu import Device, Gpus, Reading
from otel_stageio.resources.out_of_memory import lack_of_memory
from otel_stageio.resources.sampler import Sampler, interval
from otel_stageio.testing import FixedClock, Records, SequentialIds, fixed


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "job"


def used(job: Path, stage: str = "asr") -> dict[str, Any]:
    found: dict[str, Any] = Records(job).manifest(stage)["resources"]
    return found


def near(expected: float, share: float = 0.05) -> Any:
    return pytest.approx(expected, rel=share)


# -- processes -------------------------------------------------------------------------------------------------------

GRANDCHILD = """
    import subprocess, sys
    subprocess.run([sys.executable, "-c", "block = bytearray(1 << 30); import time; time.sleep(2)"], check=True)
"""


def test_the_memory_of_a_grandchild_is_the_stages(tmp_path: Path, job: Path) -> None:
    script = write_script(tmp_path / "stage.py", GRANDCHILD)
    with Pipeline("films", job) as run:
        run.command("asr", [sys.executable, script])
    assert used(job)["peak_memory_bytes"] == near(1 << 30)
    assert used(job)["processes_max"] == 2
    (span,) = (span for span in Records(job).spans("asr") if span["name"] == "asr")
    assert span["attributes"]["stageio.process.memory.peak"] == used(job)["peak_memory_bytes"]


SHORT_LIVED = """
    import json, os, resource, subprocess, sys

    work = "import os, sys; sum(range(1_500_000)); file = open(sys.argv[1], 'wb', 0); "
    work += "file.write(bytes(1 << 20)); os.fsync(file.fileno())"

    def tree():
        for number in range(50):
            path = f"{sys.argv[2]}/block{number}"
            subprocess.run([sys.executable, "-S", "-c", work, path], check=True)

    def counted():
        found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return (sum(one.ru_utime + one.ru_stime for one in found), sum(one.ru_oublock * 512 for one in found))
"""


@pytest.mark.parametrize("how", ["in this process", "as a program"])
def test_processor_time_and_bytes_of_fifty_short_processes_are_what_the_kernel_says(
    tmp_path: Path, job: Path, how: str
) -> None:
    if how == "as a program":
        script = write_script(tmp_path / "stage.py", SHORT_LIVED + "\n    tree()\n    print(json.dumps(counted()))\n")
        with Pipeline("films", job) as run:
            run.command("asr", [sys.executable, script, job, tmp_path])
        said = (job / "06_asr" / "stage.log").read_text().rpartition("] ")[2]
    else:
        source = """
    from otel_stageio import StageIO

    before = counted()
    with StageIO("asr", sys.argv[1]):
        tree()
    print(json.dumps([now - then for now, then in zip(counted(), before)]))
"""
        done = run_python(write_script(tmp_path / "stage.py", SHORT_LIVED + source), job, tmp_path)
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()[-1]
    seconds, written = json.loads(said)
    assert used(job)["cpu_seconds"] == near(seconds)
    assert used(job)["disk_written_bytes"] == near(written)


def test_a_program_that_is_a_stage_of_its_own_does_not_count_for_the_stage_beside_it(job: Path) -> None:
    source = "block = bytearray(200 << 20); sum(range(20_000_000))"
    with Pipeline("films", job) as run, run.stage("mux"):
        run.command("asr", [sys.executable, "-c", source])
    assert used(job)["cpu_seconds"] > 0.2
    assert used(job, "mux")["cpu_seconds"] < used(job)["cpu_seconds"] / 2


def test_a_program_with_a_stage_of_the_same_name_leaves_looking_to_its_parent(tmp_path: Path, job: Path) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys
        from otel_stageio import StageIO

        with StageIO("asr", sys.argv[1]) as io:
            io.set_resources(peak_memory_bytes=1)
            sum(range(10_000_000))
        """,
    )
    with Pipeline("films", job) as run:
        run.command("asr", [sys.executable, script, job])
    assert used(job)["peak_memory_bytes"] == 1  # what a stage says itself stands above what was measured
    assert used(job)["cpu_seconds"] > 0.1
    assert used(job)["sampler"]["cpu_seconds"] >= 0


def test_a_stage_that_ends_at_once_has_its_numbers_but_no_series(job: Path) -> None:
    with StageIO("asr", job):
        pass
    assert {"cpu_seconds", "peak_memory_bytes", "threads_max"} <= used(job).keys()
    assert not list((job / ".stageio" / "spool").glob("*.metrics.jsonl"))


def test_what_the_media_took_is_set_against_its_length(job: Path) -> None:
    clock = FixedClock()
    with fixed(clock, SequentialIds()), StageIO("asr", job, attributes={"media.duration": 60}):
        clock.advance(15)
    assert used(job)["realtime_factor"] == 0.25
    (span,) = Records(job).spans("asr")
    assert span["attributes"]["stageio.realtime_factor"] == 0.25


# -- the sampler -----------------------------------------------------------------------------------------------------

DEVICE = Device("GPU-1", 0, "NVIDIA Test", 40 << 30, "550.54", None)


def reading(**given: Any) -> Reading:
    numbers: dict[str, Any] = {
        "utilization": 0.5, "memory_used": 10 << 30, "power": 200.0, "energy": 1000.0, "temperature": 60.0,
        "throttled": (), "ecc_errors": 0, "process_memory": 8 << 30, "confidence": "exact",
    }  # fmt: skip
    return Reading(DEVICE, **{**numbers, **given})


class FakeGpus(Gpus):
    def __init__(self, wait: threading.Event | None = None) -> None:
        self.asked: list[bool] = []
        self.confidence = "exact"
        self.wait = wait

    def read(self, tree: Any, *, processes: bool) -> list[Reading]:
        self.asked.append(processes)
        if self.wait is not None:
            self.wait.wait()
        return [reading(energy=1000.0 + 200 * len(self.asked))]

    def close(self) -> None:
        pass


def test_it_looks_once_a_second_for_ten_minutes_and_then_every_five(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus()
    monkeypatch.setattr(gpu_sampler, "open_gpus", lambda visible, order="": gpus)
    clock = FixedClock()
    with fixed(clock, SequentialIds()):
        sampler = Sampler()
        for _ in range(600):
            clock.advance(1.0)
            sampler.look()
            sampler.look_at_gpus()
        assert len(gpus.asked) == 600
        assert sum(gpus.asked) == 60  # which processes it serves is asked every ten seconds
        for _ in range(100):
            clock.advance(1.0)
            sampler.look()
            sampler.look_at_gpus()
        assert len(gpus.asked) == 620
        assert sampler.usage()["sampler"]["looks"] == 620


@pytest.mark.parametrize("broken", ["look", "usage", "finish", "points", "__init__"])
def test_an_error_in_looking_costs_the_numbers_and_nothing_else(
    job: Path, broken: str, monkeypatch: pytest.MonkeyPatch, as_in_production: None
) -> None:
    monkeypatch.setattr(Sampler, broken, lambda *_, **__: 1 / 0)
    clock = FixedClock()
    with fixed(clock, SequentialIds()), StageIO("asr", job) as io:
        clock.advance(2.0)
        io._recorder.beat()
    assert "stageio.heartbeat" in {event.name for event in Records(job).events("asr")}
    assert Records(job).manifest("asr")["status"] == "success"


@pytest.mark.parametrize(("value", "looks"), [("", 20), ("5", 4), ("soon", 20), ("-1", 20), ("nan", 20)])
def test_how_often_can_be_said(value: str, looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_STAGEIO_SAMPLE_INTERVAL", value)
    clock = FixedClock()
    with fixed(clock, SequentialIds()):
        sampler = Sampler(seconds=interval())
        for _ in range(20):
            clock.advance(1.0)
            sampler.look()
        assert sampler.usage()["sampler"]["looks"] == looks


def test_it_can_be_switched_off(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_STAGEIO_SAMPLE_INTERVAL", "0")
    with StageIO("asr", job):
        pass
    with Pipeline("films", job) as run:
        run.command("mux", ["true"])
    assert used(job) == used(job, "mux") == {}


def test_a_driver_that_never_answers_keeps_no_stage_from_ending(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    gpus = FakeGpus(never)
    monkeypatch.setattr(gpu_sampler, "open_gpus", lambda visible, order="": gpus)
    with StageIO("asr", job) as io:
        sampler = io._recorder.usage._sampler
        assert sampler is not None
        sampler._gpus_due = True
        asking = threading.Thread(target=sampler.look_at_gpus, daemon=True)
        asking.start()
        while not gpus.asked:
            pass
    assert Records(job).manifest("asr")["status"] == "success"
    assert used(job)["cpu_seconds"] >= 0
    never.set()
    asking.join()


def busy(job: Path, monkeypatch: pytest.MonkeyPatch, seconds: int = 3) -> None:
    monkeypatch.setattr(gpu_sampler, "open_gpus", lambda visible, order="": FakeGpus())
    clock = FixedClock()
    with fixed(clock, SequentialIds()), StageIO("asr", job) as io:
        for _ in range(seconds):
            clock.advance(1.0)
            io._recorder.beat()
            io._recorder.look_at_gpus()


def test_the_series_are_otlp_with_names_units_and_kinds_of_the_conventions(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(job, monkeypatch)
    kinds: dict[str, tuple[str, str]] = {}
    for line in Path(Job(job).journal("asr", 1, "metrics")).read_text().splitlines():
        message: Any = wire.request("metrics", json.loads(line))
        assert isinstance(message, ExportMetricsServiceRequest)
        for resource in message.resource_metrics:
            for scope in resource.scope_metrics:
                assert {pair.key for pair in scope.scope.attributes} >= {sc.TASK_NAME, sc.PIPELINE_RUN_ID}
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    if kind == "sum":
                        assert metric.sum.aggregation_temporality == 2
                        kind = "counter" if metric.sum.is_monotonic else "updowncounter"
                    kinds[metric.name] = (kind, metric.unit)
    ours = {name for name in kinds if name.startswith("stageio.")}
    assert ours == {"stageio.gpu.process.memory.usage"}
    assert kinds.keys() - ours <= {name for module in (process_metrics, hw_metrics) for name in vars(module).values()
                                   if isinstance(name, str)}  # fmt: skip
    assert kinds == {
        "process.cpu.time": ("counter", "s"),
        "process.cpu.utilization": ("gauge", "1"),
        "process.memory.usage": ("updowncounter", "By"),
        "process.thread.count": ("updowncounter", "{thread}"),
        "process.disk.io": ("counter", "By"),
        "hw.gpu.utilization": ("gauge", "1"),
        "hw.gpu.memory.usage": ("updowncounter", "By"),
        "hw.gpu.memory.limit": ("updowncounter", "By"),
        "hw.gpu.memory.utilization": ("gauge", "1"),
        "hw.energy": ("counter", "J"),
        "hw.power": ("gauge", "W"),
        "hw.temperature": ("gauge", "Cel"),
        "stageio.gpu.process.memory.usage": ("updowncounter", "By"),
    }


def test_what_the_gpus_did_is_in_the_manifest_and_on_the_span(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy(job, monkeypatch)
    found = used(job)
    assert found["gpu_memory_peak_bytes"] == 10 << 30
    assert found["gpu_process_memory_peak_bytes"] == 8 << 30
    assert found["gpus"][0]["uuid"] == "GPU-1"
    (span,) = Records(job).spans("asr")
    assert span["attributes"]["stageio.gpu.memory.peak"] == 10 << 30
    assert span["attributes"]["stageio.gpu.energy"] == found["gpu_energy_joules"] == 600.0


def test_without_a_driver_it_says_so_in_a_word(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sampler, "open_gpus", lambda visible, order="": "no driver")
    clock = FixedClock()
    with fixed(clock, SequentialIds()), StageIO("asr", job) as io:
        clock.advance(1.0)
        io._recorder.beat()
        io._recorder.look_at_gpus()
    assert used(job)["gpu"] == "not available (no driver)"
    assert "gpus" not in used(job)


# -- a control group of its own --------------------------------------------------------------------------------------


def group(tmp_path: Path, members: str, parents: dict[int, int]) -> Group | None:
    directory = tmp_path / "cgroup" / "job.scope"
    directory.mkdir(parents=True)
    (directory / "cgroup.procs").write_text(members)
    (directory / "cpu.stat").write_text("usage_usec 1000000\nthrottled_usec 500000\n")
    (directory / "memory.peak").write_text("4096\n")
    (directory / "memory.max").write_text("max\n")
    for pid, parent in parents.items():
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
        (tmp_path / "proc" / str(pid) / "cgroup").write_text("0::/job.scope\n")
        (tmp_path / "proc" / str(pid) / "stat").write_text(f"{pid} (a ) b) S {parent} 1 1")
    return Group.of(10, tmp_path / "cgroup", tmp_path / "proc")


def test_a_group_that_a_stage_has_to_itself_tells_what_it_used_and_how_long_it_was_held_back(tmp_path: Path) -> None:
    own = group(tmp_path, "10\n11\n12\n", {10: 1, 11: 10, 12: 11})
    assert own is not None
    (tmp_path / "cgroup" / "job.scope" / "cpu.stat").write_text("usage_usec 3000000\nthrottled_usec 700000\n")
    assert own.used() == {"cpu_seconds": 2.0, "throttled_seconds": 0.2, "memory_peak_bytes": 4096}


def test_a_group_that_others_are_in_is_not_the_stages(tmp_path: Path) -> None:
    assert group(tmp_path, "10\n7\n", {10: 1, 7: 1}) is None


# -- not enough memory -----------------------------------------------------------------------------------------------

TEXTS = [
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 40 GiB",
     ("GPU", "2.00 GiB")),
    ("RuntimeError: CUDA failed with error out of memory", ("GPU", "")),
    ("RuntimeError: CUDA error: out of memory", ("GPU", "")),
    ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", ("GPU", "")),
    ("onnxruntime: Failed to allocate memory for requested buffer of size 268435456", ("GPU", "268435456 bytes")),
    ("jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes",
     ("GPU", "8 bytes")),
    ("MemoryError", ("host", "")),
    ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB for an array", ("host", "7.45 GiB")),
    ("terminate called after throwing an instance of 'std::bad_alloc'", ("host", "")),
    ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.",
     ("host", "99 bytes")),
    ("OSError: [Errno 12] Cannot allocate memory", ("host", "")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_not_enough_memory_is_recognised_in_the_words_of_many_libraries(text: str, expected: tuple[str, str]) -> None:
    assert lack_of_memory(text) == expected


@pytest.mark.parametrize("text", ["", "using 3 GiB of memory", "allocated 4 buffers", "CUDA is available", "memory ok"])
def test_talk_of_memory_is_no_lack_of_it(text: str) -> None:
    assert lack_of_memory(text) is None


def test_a_stage_that_ran_out_of_gpu_memory_says_so_with_the_peaks(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sampler, "open_gpus", lambda visible, order="": FakeGpus())
    clock = FixedClock()
    with fixed(clock, SequentialIds()), pytest.raises(RuntimeError), StageIO("asr", job) as io:
        clock.advance(1.0)
        io._recorder.beat()
        io._recorder.look_at_gpus()
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    manifest = Records(job).manifest("asr")
    assert manifest["cause"].startswith("out of GPU memory (2.00 GiB more was wanted); at most ")
    assert "10.0 GiB of 40.0 GiB on NVIDIA Test" in manifest["cause"]
    (span,) = Records(job).spans("asr")
    assert span["attributes"]["stageio.oom"] is True


def test_a_program_that_ran_out_of_memory_says_so_through_its_output(job: Path) -> None:
    source = "import sys; print('terminate called: std::bad_alloc', file=sys.stderr); print('bye'); sys.exit(3)"
    with pytest.raises(StageFailed), Pipeline("films", job) as run:
        run.command("asr", [sys.executable, "-c", source])
    assert Records(job).manifest("asr")["cause"].startswith("out of memory")


def test_a_stage_that_survived_it_is_not_called_out_of_memory(job: Path) -> None:
    with StageIO("asr", job) as io:
        io.add_warning("CUDA out of memory; trying a smaller batch")
    assert "cause" not in Records(job).manifest("asr")
    assert recover(job) == []


# -- what a person sees ----------------------------------------------------------------------------------------------


def test_show_says_what_a_stage_used_in_a_few_lines(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy(job, monkeypatch)
    shown = run_command(cli("show", job, "asr"), cwd=job, env=environment(COLUMNS="160")).stdout
    used_section = shown.partition("Used\n")[2]
    assert "NVIDIA Test: 50 % busy (1.0 s), 10.0 GiB of 40.0 GiB in use at most, 8.0 GiB of it this stage's" in (
        used_section.replace("50%", "50 %")
    )
    assert "600 J" in used_section
    # This process, and the servers that other tests have started in it.
    counted = used(job)
    numbers = f"{count(counted['processes_max'], 'process')}, {count(counted['threads_max'], 'thread')}"
    assert re.search(rf"memory +\d+\.\d MiB at most, {numbers}\n", used_section)
    assert "Resources" not in shown  # nothing is said twice


@pytest.mark.parametrize(
    "resources",
    [{"gpus": 2, "gpu": "RTX"}, {"peak_memory_bytes": "much"}, {"gpus": [{"uuid": 1, "name": None, "xids": 7}]},
     {"cpu_seconds": float("inf")}, {"cgroup": 3, "sampler": "x"},
     {"gpus": [{"uuid": "x", "throttled_seconds": {"a": "b"}}]}],
)  # fmt: skip
def test_what_a_stage_said_of_its_resources_in_its_own_way_is_shown_as_it_is(
    job: Path, resources: dict[str, Any]
) -> None:
    with StageIO("asr", job) as io:
        io.set_resources(**resources)
    done = run_command(cli("show", job, "asr"), cwd=job, env=environment(COLUMNS="160"))
    assert (done.returncode, done.stderr) == (0, "")
