"""GPUs as a stage meets them: a driver of our own (tests/nvml) says what is there, real processes ask it."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import needs
from helpers import run_python, write_script
from hypothesis import given
from hypothesis import strategies as st
from nvml import (
    DRIVER_NOT_LOADED,
    FUNCTION_NOT_FOUND,
    GIB,
    GPU_IS_LOST,
    NO_PERMISSION,
    RESET_REQUIRED,
    UNKNOWN,
    Driver,
    build,
    uuid,
)

from otel_stageio.resources.gpu import Device, Reading
from otel_stageio.resources.gpu_pids import Share, share
from otel_stageio.resources.gpu_use import GpuUse
from otel_stageio.resources.torch_peaks import framework_peaks
from otel_stageio.resources.visible import sure_of_order, visible

SECOND = 1_000_000_000
NOBODY = 4_194_305  # a pid above the greatest that Linux gives: one of another namespace

PRELUDE = f"""
import dataclasses, json, os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from nvml import *
from otel_stageio.resources.gpu import open_gpus
driver = Driver(os.environ.get("NVML_STUB", "none"))
def show(value):
    line = json.dumps(value, default=dataclasses.asdict)
    os.write(1, f"{{line}}\\n".encode())  # whole, beside a forked child's
def read(gpus, tree=(), processes=True):
    return gpus.read(frozenset(tree), processes=processes)
"""

Ask = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("pynvml")
    return build(tmp_path_factory.mktemp("nvml"), needs("cc"))


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path / "driver")


@pytest.fixture
def ask(tmp_path: Path, libraries: Path, driver: Driver) -> Ask:
    """Runs a program beside that driver; what it shows."""

    def run(source: str, **changes: str) -> list[Any]:
        script = write_script(tmp_path / "program.py", PRELUDE + source)
        env = {**driver.env(libraries), **changes}
        done = run_python(script, cwd=None, **env)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


OPEN = "show(open_gpus(os.environ.get('CUDA_VISIBLE_DEVICES')))"
READ = "gpus = open_gpus(None)\nshow(read(gpus, {os.getpid()}))"


# -- what there is ---------------------------------------------------------------------------------------------------


def test_without_a_driver_the_reason_is_that(ask: Ask, driver: Driver, tmp_path: Path) -> None:
    broken = tmp_path / "none" / "libnvidia-ml.so.1"
    broken.parent.mkdir()
    broken.write_text("")  # found before any real one
    assert ask(OPEN, LD_LIBRARY_PATH=str(broken.parent)) == ["no driver"]
    driver.set(init=DRIVER_NOT_LOADED)
    assert ask(OPEN) == ["no driver"]
    driver.set(init=18)
    assert ask(OPEN) == ["the driver does not answer: RM has detected an NVML/RM version mismatch."]


def test_without_the_module_the_reason_is_that(ask: Ask) -> None:
    assert ask("sys.modules['pynvml'] = None\n" + OPEN) == ["nvidia-ml-py is not installed"]


def test_gpus_of_other_makers_are_named(ask: Ask, driver: Driver) -> None:
    driver.set(init=DRIVER_NOT_LOADED)
    assert ask(OPEN, HIP_VISIBLE_DEVICES="0") == ["AMD GPUs are not supported yet"]
    driver.set([{}])
    assert ask("print(len(open_gpus(None).devices))", HIP_VISIBLE_DEVICES="0") == [1]
    assert ask("sys.platform = 'darwin'\n" + OPEN) == ["Apple GPUs are not supported yet"]


def test_a_driver_without_gpus_and_a_program_that_is_to_see_none(ask: Ask, driver: Driver) -> None:
    driver.set([])
    assert ask(OPEN) == ["no devices"]
    driver.set([{}])
    assert ask(OPEN, CUDA_VISIBLE_DEVICES="") == ["CUDA_VISIBLE_DEVICES is empty"]
    assert ask(OPEN, CUDA_VISIBLE_DEVICES="-1") == ["no such device"]
    assert ask(OPEN, CUDA_VISIBLE_DEVICES="7") == ["no such device"]


def test_one_gpu_is_read_with_all_its_numbers(ask: Ask, driver: Driver) -> None:
    gpu = {"memory_used": 3 * GIB, "utilization": 0.5, "power": 321.5, "energy": 12.5, "temperature": 61,
           "throttled": 0x1 | 0x4 | 0x20, "ecc": 2, "xids": [31, 79], "processes": [("self", 2 * GIB)]}  # fmt: skip
    driver.set([gpu], driver="570.1")
    [[reading], again] = ask(READ + "\nshow(read(gpus, processes=False)); gpus.close(); gpus.close()")
    assert reading == {
        "device": {
            "uuid": uuid(0),
            "index": 0,
            "name": "NVIDIA H100 80GB HBM3",
            "memory_bytes": 80 * GIB,
            "driver": "570.1",
            "parent": None,
        },
        "utilization": 0.5,
        "memory_used": 3 * GIB,  # without what the driver keeps for itself
        "power": 321.5,
        "energy": 12.5,
        "temperature": 61.0,
        "throttled": ["power_cap", "thermal_slowdown"],
        "ecc_errors": 2,
        "process_memory": 2 * GIB,
        "confidence": "exact",
        "reason": "",
        "xids": [31, 79],
    }
    assert again == [{**reading, "process_memory": None, "confidence": "", "xids": []}]
    assert driver.calls()["nvmlDeviceGetComputeRunningProcesses_v3"] == 2  # its length, and the list
    assert driver.calls()["nvmlShutdown"] == driver.calls()["nvmlInitWithFlags"] == 1


def test_of_eight_gpus_a_program_has_those_that_it_sees(ask: Ask, driver: Driver) -> None:
    driver.set([{"memory_used": number * GIB} for number in range(8)])
    show = "gpus = open_gpus(os.environ.get('CUDA_VISIBLE_DEVICES'))\nshow([r.device.index for r in read(gpus)])"
    assert ask(show) == [list(range(8))]
    assert ask(show, CUDA_VISIBLE_DEVICES="6,2") == [[6, 2]]
    assert ask(show, CUDA_VISIBLE_DEVICES=f"{uuid(3)},{uuid(1)[:12]}") == [[3, 1]]


def test_a_number_is_only_a_guess_where_gpus_differ_and_cuda_sorts_them_by_speed(ask: Ask, driver: Driver) -> None:
    driver.set([{}, {"name": "NVIDIA T4"}])
    show = "show(open_gpus(os.environ.get('CUDA_VISIBLE_DEVICES')).confidence)"
    assert ask(show, CUDA_VISIBLE_DEVICES="1") == ["inferred"]
    assert ask(show, CUDA_VISIBLE_DEVICES="1", CUDA_DEVICE_ORDER="PCI_BUS_ID") == ["exact"]
    assert ask(show, CUDA_VISIBLE_DEVICES=uuid(1)) == ["exact"]
    assert ask(show) == ["exact"]


def test_mig_instances_stand_for_their_gpu(ask: Ask, driver: Driver) -> None:
    small = {"name": "NVIDIA H100 MIG 1g.10gb", "memory_total": 10 * GIB, "memory_used": 2 * GIB}
    parts = [{**small, "processes": [("self", None)]}, {**small, "xids": [43]}]
    driver.set([{}, {"mig": parts, "xids": [94]}])
    [devices, readings] = ask("gpus = open_gpus(None)\nshow(gpus.devices)\nshow(read(gpus, {os.getpid()}))")
    first, second = uuid(10, "MIG"), uuid(11, "MIG")
    assert [(device["uuid"], device["index"], device["parent"]) for device in devices] == [
        (uuid(0), 0, None),
        (first, 1, uuid(1)),
        (second, 1, uuid(1)),
    ]
    instance = readings[1]
    assert instance["memory_used"] == 2 * GIB
    assert instance["device"]["memory_bytes"] == 10 * GIB
    assert (instance["utilization"], instance["power"], instance["energy"]) == (None, None, None)
    assert (instance["process_memory"], instance["confidence"]) == (None, "device")
    assert instance["reason"] == "the driver does not say how much memory a process has"
    assert (readings[2]["process_memory"], readings[2]["confidence"]) == (0, "exact")
    # An Xid of one instance is that one's; one of the board is everybody's.
    assert [reading["xids"] for reading in readings] == [[], [94], [43, 94]]
    names = "show([d.uuid for d in open_gpus(os.environ['CUDA_VISIBLE_DEVICES']).devices])"
    assert ask(names, CUDA_VISIBLE_DEVICES=second) == [[second]]
    assert ask(names, CUDA_VISIBLE_DEVICES=f"MIG-{uuid(1)}/2/0") == [[second]]


# -- a driver that fails ---------------------------------------------------------------------------------------------


def test_calls_that_a_gpu_does_not_know_are_made_once(ask: Ask, driver: Driver) -> None:
    names = ["nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetUtilizationRates",
             "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetTemperature",
             "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons",
             "nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetComputeRunningProcesses_v3",
             "nvmlDeviceGetComputeRunningProcesses_v2", "nvmlDeviceRegisterEvents",
             "nvmlSystemGetDriverVersion", "nvmlDeviceGetMigMode"]  # fmt: skip
    driver.set([{"temperature": 50}], unsupported=names)
    readings = ask(READ + "\nfor _ in range(3): show(read(gpus))")
    assert len(readings) == 4
    for [reading] in readings:
        assert reading["reason"] == "the driver does not list processes: Not Supported"
        assert {reading[key] for key in ("utilization", "memory_used", "power", "energy", "temperature")} == {None}
        assert reading["device"]["memory_bytes"] is None
    calls = driver.calls()
    # Its older form is also asked for the size of the memory, once.
    assert {name: calls[name] for name in names} == {**dict.fromkeys(names, 1), "nvmlDeviceGetMemoryInfo": 2}


def test_older_drivers_are_asked_in_their_own_words(ask: Ask, driver: Driver) -> None:
    new = ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses_v3",
           "nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetCurrentClocksEventReasons"]  # fmt: skip
    gpu = {"memory_used": 2 * GIB, "throttled": 0x8, "processes": [("self", GIB)], "graphics": [("self", GIB)]}
    driver.set([gpu], fail=dict.fromkeys(new, FUNCTION_NOT_FOUND))
    [[reading], [again]] = ask(READ + "\nshow(read(gpus, {os.getpid()}))")
    assert reading == again
    assert reading["memory_used"] == 2 * GIB + 80 * GIB // 128
    assert reading["throttled"] == ["hw_slowdown"]
    assert (reading["process_memory"], reading["confidence"]) == (GIB, "exact")  # once, though in two lists
    assert [driver.calls()[name] for name in new] == [1, 1, 1, 1]


@pytest.mark.parametrize("code", [GPU_IS_LOST, DRIVER_NOT_LOADED, RESET_REQUIRED, UNKNOWN])
def test_a_driver_that_dies_in_mid_run_leaves_readings_without_numbers(code: int, ask: Ask, driver: Driver) -> None:
    driver.set([{}, {}])
    died = f"driver.set([{{}}, {{}}], dead={code})\n"
    [alive, dead, *more] = ask(READ + f"\n{died}for _ in range(20): show(read(gpus))\ngpus.close()")
    assert [reading["memory_used"] for reading in alive] == [GIB, GIB]
    assert len(more) == 19
    for reading in [*dead, *(reading for readings in more for reading in readings)]:
        assert reading["memory_used"] is reading["power"] is reading["process_memory"] is None
        assert reading["reason"].startswith("the driver does not answer: ")
        assert reading["throttled"] == []
    # Asked for the first number, or two, and after some readings no more.
    assert driver.calls()["nvmlDeviceGetUtilizationRates"] == 2 + 2 * 5
    assert driver.calls()["nvmlDeviceGetMemoryInfo_v2"] <= 2 + 2 * 5
    assert driver.calls()["nvmlDeviceGetPowerUsage"] == 2


def test_one_lost_gpu_does_not_hide_the_others_and_may_come_back(ask: Ask, driver: Driver) -> None:
    driver.set([{}, {}])
    source = (
        f"\ndriver.set([{{'lost': {GPU_IS_LOST}}}, {{}}])\nshow(read(gpus))\ndriver.set([{{}}, {{}}])\nshow(read(gpus))"
    )
    [_, lost, back] = ask(READ + source)
    assert [reading["power"] for reading in lost] == [None, 100.0]
    assert lost[0]["reason"] == "the driver does not answer: GPU is lost"
    assert [reading["power"] for reading in back] == [100.0, 100.0]
    driver.set([{"lost": GPU_IS_LOST}, {}])
    assert ask("show([d.index for d in open_gpus(None).devices])") == [[1]]
    driver.set([{"lost": GPU_IS_LOST}])
    assert ask(OPEN) == ["the driver does not answer: GPU is lost"]


def test_a_single_failure_costs_a_single_number(ask: Ask, driver: Driver) -> None:
    driver.set([{}], fail={"nvmlDeviceGetPowerUsage": UNKNOWN, "nvmlDeviceGetComputeRunningProcesses_v3": NO_PERMISSION,
                           "nvmlDeviceGetComputeRunningProcesses_v2": NO_PERMISSION})  # fmt: skip
    [[reading], [later]] = ask(READ + "\ndriver.set([{}])\nshow(read(gpus))")
    assert (reading["power"], reading["energy"], later["power"]) == (None, 1000.0, 100.0)
    assert reading["reason"] == "the driver does not list processes: Insufficient Permissions"


def test_a_program_that_shuts_nvml_down_does_not_blind_us_for_long(ask: Ask, driver: Driver) -> None:
    driver.set([{}])
    [_, blind, again] = ask(READ + "\nimport pynvml; pynvml.nvmlShutdown()\nfor _ in range(2): show(read(gpus))")
    assert blind[0]["power"] is None
    assert again[0]["power"] == 100.0


def test_a_forked_child_asks_the_driver_itself_and_its_parent_goes_on(ask: Ask, driver: Driver) -> None:
    driver.set([{"processes": [("self", GIB)]}])
    source = """
pid = os.fork()
show(read(gpus, {os.getpid()}))
gpus.close()
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
"""
    [first, *both] = ask(READ + source)
    assert both == [first, first]
    assert (first[0]["process_memory"], first[0]["confidence"]) == (GIB, "exact")
    assert driver.calls()["nvmlInitWithFlags"] == driver.calls()["nvmlShutdown"] == 2


def test_a_fork_in_the_middle_of_a_hanging_call_ends_and_the_child_leaves_the_driver_alone(
    ask: Ask, driver: Driver
) -> None:
    driver.set([{}])
    source = """
from otel_stageio.resources.gpu import _driver
_driver.acquire(1)  # as a thread would have it that waits for the driver
pid = os.fork()
if not pid:
    show(read(gpus)[0].reason)
    show(open_gpus(None))
    os._exit(0)
os.waitpid(pid, 0)
show(read(gpus)[0].reason)
_driver.release()
show(read(gpus)[0].reason)
"""
    [_, *said] = ask(READ + source)
    assert said == [
        "the driver does not answer: the process was forked in the middle of a call",
        "the driver does not answer: the process was forked in the middle of a call",
        "the driver does not answer: an earlier call has not come back",
        "",
    ]


def test_after_the_end_nothing_is_asked(ask: Ask, driver: Driver) -> None:
    driver.set([{}])
    assert ask("gpus = open_gpus(None); gpus.close(); show(read(gpus)[0].reason)") == ["closed"]


# -- whose memory ----------------------------------------------------------------------------------------------------


def test_memory_of_the_tree_by_its_own_pids() -> None:
    assert share({}, {7}) == Share(0, "exact")
    assert share({7: 100, 8: 50, 9: 1}, {7, 8}) == Share(150, "exact")
    assert share({7: 100, 8: None}, {7, 8}).memory is None


def test_memory_of_others_whom_we_can_see_is_not_ours() -> None:
    assert share({os.getppid(): 100}, {os.getpid()}) == Share(0, "exact")
    assert share({1: 100, os.getppid(): 5}, {os.getpid()}) == Share(0, "exact")


def test_pids_of_a_container_are_found_by_what_they_are_inside() -> None:
    assert share({12: 100, 1: 5}, {4000}, inner_pids=lambda pid: [12]) == Share(100, "inferred")


def test_pids_of_the_host_leave_a_guess_or_a_reason() -> None:
    assert share({NOBODY: 100}, {os.getpid()}) == Share(100, "inferred")
    assert share({NOBODY: None}, {os.getpid()}).confidence == "device"
    several = share({NOBODY: 100, NOBODY + 1: 100}, {os.getpid()})
    assert several == Share(None, "device", "pids of another namespace, 2 processes on the device")


def test_pids_of_the_host_as_a_program_sees_them(ask: Ask, driver: Driver) -> None:
    driver.set([{"processes": [(NOBODY, GIB)]}, {"processes": [(NOBODY, GIB), (NOBODY + 1, None)]}])
    [readings] = ask(READ)
    assert [(r["process_memory"], r["confidence"]) for r in readings] == [(GIB, "inferred"), (None, "device")]


# -- CUDA_VISIBLE_DEVICES --------------------------------------------------------------------------------------------

A, B, C = "GPU-aaaa1111-0", "GPU-aaaa2222-0", "GPU-bbbb3333-0"
M, N = "MIG-cccc4444-0", "MIG-cccc5555-0"
MACHINE: list[tuple[str, list[str]]] = [(A, []), (B, []), (C, [M, N])]
NONE = "no such device"


@pytest.mark.parametrize(
    ("value", "sees"),
    [
        (None, [A, B, M, N]),
        ("", "CUDA_VISIBLE_DEVICES is empty"),
        (" ", "CUDA_VISIBLE_DEVICES is empty"),
        ("-1", NONE),
        ("NoDevFiles", NONE),
        ("none", NONE),
        ("0", [A]),
        ("1,0", [B, A]),
        (" 1 , 0 ", [B, A]),
        ("+1", [B]),
        ("1st,0th", [B, A]),
        ("2", [M, N]),
        ("0,-1,1", [A]),
        ("0,9,1", [A]),
        ("0,,1", [A]),
        ("0,1,", [A, B]),
        ("0,0", NONE),
        ("1,0,1", NONE),
        ("9,0", NONE),
        ("99999999999999999999", NONE),
        (A, [A]),
        ("GPU-aaaa1", [A]),
        ("GPU-AAAA1", [A]),
        ("GPU-aaaa", NONE),  # of two
        ("GPU-", NONE),
        ("GPU-b", [M, N]),
        ("GPU-aaaa2,GPU-aaaa1", [B, A]),
        ("GPU-aaaa1,GPU-zzzz,GPU-aaaa2", [A]),
        ("GPU-aaaa1,GPU-aaaa11", NONE),
        ("GPU-aaaa1,1", [A]),
        ("1,GPU-aaaa1", [B]),
        (M, [M]),
        ("MIG-cccc5", [N]),
        ("MIG-cccc", NONE),
        (f"{N},{M}", [N, M]),
        (f"{N},0", [N]),
        (f"MIG-{C}/1/0", [M]),
        (f"MIG-{C}/2/0", [N]),
        (f"MIG-{C}/3/0", NONE),
        (f"MIG-{A}/1/0", NONE),
    ],
)
def test_a_program_sees_what_cuda_shows_it(value: str | None, sees: list[str] | str) -> None:
    assert visible(value, MACHINE, instances={M: (1, 0), N: (2, 0)}) == sees


def test_a_machine_without_devices_shows_none() -> None:
    assert visible(None, []) == visible("0", []) == "no devices"


def test_old_mig_names_are_uuids_on_old_drivers() -> None:
    old = f"MIG-{C}/1/0"
    assert visible(old, [(C, [old])]) == [old]


def test_numbers_are_sure_where_all_gpus_are_alike() -> None:
    assert sure_of_order("0", ["H100", "H100"], None)
    assert not sure_of_order("0", ["H100", "T4"], None)
    assert not sure_of_order("0", ["H100", "T4"], "FASTEST_FIRST")


ENTRIES = st.sampled_from(
    [A, B, C, M, N, "GPU-", "GPU-aaaa", "MIG-", f"MIG-{C}/1/0", "0", "1", "2", "-1", "", " 0", "x"]
)
VALUES = st.none() | st.text() | st.lists(ENTRIES | st.text(max_size=4)).map(",".join)
UUIDS = st.sampled_from([A, B, C]) | st.text(max_size=3)
MACHINES = st.lists(st.tuples(UUIDS, st.lists(st.sampled_from([M, N, ""]), max_size=2)), max_size=4)


@given(VALUES, MACHINES | st.just(MACHINE))
def test_whatever_the_variable_says_no_device_is_made_up_or_seen_twice(
    value: str | None, machine: list[tuple[str, list[str]]]
) -> None:
    found = visible(value, machine)
    if isinstance(found, str):
        assert found
    else:
        assert found
        assert len(set(found)) == len(found)
        assert set(found) <= {one for gpu, parts in machine for one in (parts or [gpu])}


# -- numbers of a stage ----------------------------------------------------------------------------------------------

DEVICE = Device("GPU-1", 0, "H100", 80 * GIB, "570", None)


def reading(device: Device = DEVICE, **numbers: Any) -> Reading:
    known: dict[str, Any] = dict.fromkeys(
        ("utilization", "memory_used", "power", "energy", "temperature", "ecc_errors")
    )
    return Reading(device, **{**known, "throttled": (), **numbers})


def use_of(*readings: tuple[float, Reading]) -> dict[str, Any]:
    use = GpuUse()
    for seconds, one in readings:
        use.add(int(seconds * SECOND), [one])
    [record] = use.record()
    json.dumps(record, allow_nan=False)
    return record


def test_a_reading_stands_for_the_time_before_it() -> None:
    record = use_of(
        (10, reading(utilization=0.9, power=700.0, temperature=40.0, memory_used=GIB)),  # of the time before the stage
        (11, reading(utilization=0.5, power=300.0, temperature=60.0, memory_used=5 * GIB, throttled=("power_cap",))),
        (15, reading(utilization=1.0, power=200.0, temperature=50.0, memory_used=2 * GIB, throttled=("power_cap",))),
        (16, reading(memory_used=GIB)),
        (18, reading(utilization=0.0, power=100.0, throttled=("hw_slowdown",))),
    )
    assert record == {
        "uuid": "GPU-1",
        "name": "H100",
        "index": 0,
        "driver": "570",
        "memory_bytes": 80 * GIB,
        "utilization_mean": round((0.5 * 1 + 1.0 * 4 + 0.0 * 2) / 7, 4),
        "utilization_max": 1.0,
        "busy_seconds": 4.5,
        "memory_peak_bytes": 5 * GIB,
        "power_max_watts": 700.0,
        "power_mean_watts": round((300 * 1 + 200 * 4 + 100 * 2) / 7, 3),
        "energy_joules": 300.0 * 1 + 200.0 * 4 + 100.0 * 2,
        "energy_from": "power",
        "temperature_max": 60.0,
        "throttled_seconds": {"power_cap": 5.0, "hw_slowdown": 2.0},
    }


def test_one_reading_is_a_mean_but_no_sum() -> None:
    record = use_of((5, reading(utilization=0.5, power=100.0, energy=7.0, ecc_errors=1)))
    assert (record["utilization_mean"], record["power_mean_watts"]) == (0.5, 100.0)
    assert not {"busy_seconds", "energy_joules", "energy_from", "ecc_errors"} & record.keys()


def test_energy_is_what_the_counter_grew_by() -> None:
    record = use_of(
        *((at, reading(energy=e, power=1.0)) for at, e in ((0, 1000.0), (1, 1250.5), (2, None), (9, 1300.0)))
    )
    assert (record["energy_joules"], record["energy_from"]) == (300.0, "counter")
    assert "energy_resets" not in record


def test_a_counter_that_starts_again_is_counted_from_there() -> None:
    counters = ((1000.0, 5), (1100.0, 7), (20.0, 0), (50.0, 1))
    record = use_of(*((at, reading(energy=energy, ecc_errors=n)) for at, (energy, n) in enumerate(counters)))
    assert (record["energy_joules"], record["energy_resets"], record["ecc_errors"]) == (130.0, 1, 3)


def test_a_counter_that_is_reset_in_mid_run_as_the_driver_shows_it(ask: Ask, driver: Driver) -> None:
    driver.set([{"energy": 1000.0}])
    source = """
from otel_stageio.resources.gpu_use import GpuUse
use, gpus = GpuUse(), open_gpus(None)
for second, energy in enumerate((1000.0, 1500.0, 3.0, 10.0)):
    driver.set([{"energy": energy, "utilization": 0.25, "processes": [("self", second * GIB)]}])
    use.add(second * 10**9, read(gpus, {os.getpid()}))
driver.set([{}], dead=GPU_IS_LOST)
use.add(4 * 10**9, read(gpus))
show(use.record()); show(use.peak())
"""
    [[record], peak] = ask(source)
    assert (record["energy_joules"], record["energy_resets"], record["busy_seconds"]) == (507.0, 1, 0.75)
    assert (record["process_memory_peak_bytes"], peak) == (3 * GIB, 3 * GIB)
    assert record["attribution"] == {"confidence": "exact", "reason": ""}
    assert record["trouble"] == "the driver does not answer: GPU is lost"


def test_the_peak_is_that_of_all_devices_at_one_moment() -> None:
    use = GpuUse()
    other = Device("GPU-2", 1, "H100", None, "570", None)
    for now, first, second in ((0, 5, 1), (1, None, None), (2, 1, 3)):
        use.add(now, [reading(process_memory=first, confidence="exact" if first else ""),
                      reading(other, process_memory=second, confidence="exact" if second else "")])  # fmt: skip
    assert use.peak() == 6
    assert [record["process_memory_peak_bytes"] for record in use.record()] == [5, 3]
    assert GpuUse().peak() is None
    assert GpuUse().record() == []


def test_the_weakest_knowledge_of_whose_memory_it_was_is_told() -> None:
    why = "pids of another namespace, 2 processes on the device"
    nothing_yet = reading(process_memory=0, confidence="exact")
    unknown = reading(confidence="device", reason=why, memory_used=GIB)
    record = use_of((0, nothing_yet), (10, unknown))
    assert record["attribution"] == {"confidence": "device", "reason": why}
    assert "process_memory_peak_bytes" not in record  # nothing when it could be seen: no peak
    record = use_of((0, nothing_yet), (10, reading(process_memory=GIB, confidence="inferred")), (20, nothing_yet))
    assert record["attribution"] == {"confidence": "inferred", "reason": ""}
    assert record["process_memory_peak_bytes"] == GIB


def test_xids_are_told_once_each() -> None:
    assert use_of((0, reading(xids=(79, 31))), (1, reading(xids=(31, 13))))["xids"] == [79, 31, 13]


NUMBERS = st.none() | st.floats(0, 1e12)
READINGS = st.builds(
    reading,
    utilization=st.none() | st.floats(0, 1),
    power=NUMBERS,
    energy=NUMBERS,
    temperature=NUMBERS,
    memory_used=st.none() | st.integers(0, 1 << 50),
    ecc_errors=st.none() | st.integers(0, 1 << 40),
    throttled=st.sampled_from([(), ("power_cap",)]),
    process_memory=st.none() | st.integers(0, 1 << 40),
    confidence=st.sampled_from(["", "exact", "inferred", "device"]),
)


@given(st.lists(st.tuples(st.floats(0, 1e6), READINGS), min_size=1, max_size=8))
def test_sums_stay_within_what_was_read(readings: list[tuple[float, Reading]]) -> None:
    record = use_of(*readings)
    assert record.get("energy_joules", 0) >= 0
    assert 0 <= record.get("utilization_mean", 0) <= record.get("utilization_max", 0) + 1e-4 <= 1 + 1e-3
    assert record.get("power_mean_watts", 0) <= record.get("power_max_watts", 0) * (1 + 1e-9) + 1e-3


# -- PyTorch ---------------------------------------------------------------------------------------------------------


class Cuda:
    """As much of torch.cuda as is asked for; touching anything else is an error."""

    def __init__(self, begun: bool, uuids: list[Any]) -> None:
        self.begun, self.uuids = begun, uuids

    def is_initialized(self) -> bool:
        return self.begun

    def device_count(self) -> int:
        return len(self.uuids)

    def max_memory_allocated(self, number: int) -> int:
        return 10 * number

    def max_memory_reserved(self, number: int) -> int:
        return 20 * number

    def get_device_properties(self, number: int) -> Any:
        if self.uuids[number] is None:
            return types.SimpleNamespace(name="H100")
        return types.SimpleNamespace(name="H100" if number < 3 else "H100 MIG 1g.10gb", uuid=self.uuids[number])


def test_pytorch_is_asked_for_its_peaks_only_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert framework_peaks() is None
    assert "torch" not in sys.modules
    torch = types.ModuleType("torch")
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert framework_peaks() is None  # half imported
    torch.cuda = Cuda(False, ["x"])  # type: ignore[attr-defined]
    assert framework_peaks() is None
    torch.cuda = Cuda(True, ["unused", "aaaa", None, "cccc"])  # type: ignore[attr-defined]
    assert framework_peaks() == {
        "GPU-aaaa": {"allocated": 10, "reserved": 20},
        "cuda:2": {"allocated": 20, "reserved": 40},
        "MIG-cccc": {"allocated": 30, "reserved": 60},
    }


# -- a whole stage ---------------------------------------------------------------------------------------------------

#: Five seconds: utilization, memory used, of which ours, watts.
SCRIPT = [(0.0, 1, 0, 80.0), (1.0, 30, 28, 350.0), (0.5, 41, 40, 300.0), (0.25, 12, 10, 120.0), (0.0, 1, 0, 80.0)]

STAGE = """
from otel_stageio import StageIO
from otel_stageio.testing import FixedClock, SequentialIds, fixed

script, topology, job = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]

def gpu(step, number):
    share, used, ours, watts = script[step]
    energy = 5000.0 + sum(item[3] for item in script[1 : step + 1])
    return {"utilization": share, "memory_used": used * GIB, "processes": [("self", ours * GIB)] if ours else [],
            "power": watts, "energy": energy, "temperature": 40 + 10 * step, "throttled": 4 if share == 1.0 else 0}

def state(step):
    if topology == "mig":
        parts = [{"memory_total": 40 * GIB, "memory_used": 3 * GIB, "processes": [("self", 2 * GIB)]}, {}]
        return driver.set([{**gpu(step, 0), "mig": parts}])
    driver.set([gpu(step, number) for number in range(int(topology))])

state(0)
clock = FixedClock()
with fixed(clock, SequentialIds()), StageIO("asr", job) as io:
    for step in range(len(script)):
        state(step)
        clock.advance(1.0)
        io._recorder.beat()
        io._recorder.look_at_gpus()
"""


def resources(ask: Ask, job: Path, topology: str) -> dict[str, Any]:
    source = STAGE.replace("sys.argv[1]", repr(json.dumps(SCRIPT))).replace("sys.argv[2]", repr(topology))
    ask(source.replace("sys.argv[3]", repr(str(job))))
    found: dict[str, Any] = json.loads((job / "06_asr" / "manifest.json").read_text())["resources"]
    return found


@pytest.mark.parametrize("count", [1, 8])
def test_the_numbers_of_a_stage_are_the_scripts_arithmetic(ask: Ask, tmp_path: Path, count: int) -> None:
    found = resources(ask, tmp_path / "job", str(count))
    busy, energy = sum(step[0] for step in SCRIPT[1:]), sum(step[3] for step in SCRIPT[1:])
    assert [device["uuid"] for device in found["gpus"]] == [uuid(number) for number in range(count)]
    for device in found["gpus"]:
        assert device["busy_seconds"] == busy
        assert device["energy_joules"] == energy
        assert device["utilization_mean"] == round(busy / 4, 4)
        assert device["power_mean_watts"] == energy / 4
        assert device["memory_peak_bytes"] == 41 * GIB
        assert device["temperature_max"] == 80
        assert device["throttled_seconds"] == {"power_cap": 1.0}
        # Whose it is was asked at the first look, and ten seconds later, and at the end: it had gone by then.
        assert device["attribution"]["confidence"] == "exact"
    assert found["gpu_busy_seconds"] == count * busy
    assert found["gpu_energy_joules"] == count * energy
    assert found["gpu_memory_peak_bytes"] == count * 41 * GIB


def test_a_stage_on_mig_instances_has_their_memory_and_no_made_up_energy(ask: Ask, tmp_path: Path) -> None:
    found = resources(ask, tmp_path / "job", "mig")
    first, second = found["gpus"]
    assert (first["uuid"], first["parent"]) == (uuid(0, "MIG"), uuid(0))
    assert (first["memory_peak_bytes"], first["process_memory_peak_bytes"]) == (3 * GIB, 2 * GIB)
    assert second["process_memory_peak_bytes"] == 0
    assert "energy_joules" not in first
    assert "gpu_energy_joules" not in found


def test_a_stage_is_told_where_numbers_may_mean_other_gpus(ask: Ask, driver: Driver, tmp_path: Path) -> None:
    source = """
from otel_stageio import StageIO
from otel_stageio.testing import FixedClock, SequentialIds, fixed

driver.set([{"name": "NVIDIA A100"}, {"name": "NVIDIA L4"}])
clock = FixedClock()
with fixed(clock, SequentialIds()), StageIO("asr", JOB) as io:
    clock.advance(1.0)
    io._recorder.beat()
    io._recorder.look_at_gpus()
"""
    for number, (order, told) in enumerate([("", True), ("PCI_BUS_ID", False)]):
        job = tmp_path / f"job{number}"
        ask(source.replace("JOB", repr(str(job))), CUDA_VISIBLE_DEVICES="1", CUDA_DEVICE_ORDER=order)
        found = json.loads((job / "06_asr" / "manifest.json").read_text())["resources"]
        assert ("gpu_order" in found) == told
        assert [device["name"] for device in found["gpus"]] == ["NVIDIA L4"]


def test_a_stage_beside_a_driver_without_gpus_says_so_in_a_word(ask: Ask, tmp_path: Path) -> None:
    assert resources(ask, tmp_path / "job", "0")["gpu"] == "not available (no devices)"


def test_a_stage_on_a_machine_without_a_driver_is_silent_but_for_a_word(tmp_path: Path) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys, time
        from otel_stageio import StageIO

        with StageIO("asr", sys.argv[1]):
            time.sleep(1.6)
        print(sorted({"pynvml", "torch"} & sys.modules.keys()))
        """,
    )
    done = run_python(script, tmp_path / "job")
    assert (done.stdout.splitlines()[-1], done.stderr) == ("[]", "")
    found = json.loads((tmp_path / "job" / "06_asr" / "manifest.json").read_text())["resources"]
    assert found["gpu"] == "not available (no driver)"


PROGRAM = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from nvml import GIB, Driver
Driver(os.environ["NVML_STUB"]).set([{"memory_used": 30 * GIB, "processes": [(os.getpid(), 20 * GIB)]}])
time.sleep(2.6)
"""

PIPELINE = """
from otel_stageio import Pipeline

with Pipeline("films", JOB) as run:
    run.command("asr", [sys.executable, PROGRAM, TESTS])
"""


def test_a_program_under_a_pipeline_has_its_gpu_looked_at_from_outside(
    ask: Ask, driver: Driver, tmp_path: Path
) -> None:
    """The program knows nothing of us; its memory is found by the pids of its tree."""
    driver.set([{"utilization": 0.5, "memory_used": 30 * GIB}])
    program = write_script(tmp_path / "asr.py", PROGRAM)
    words = {"JOB": tmp_path / "job", "PROGRAM": program, "TESTS": Path(__file__).parent}
    source = PIPELINE
    for word, path in words.items():
        source = source.replace(word, repr(str(path)))
    ask(source, OTEL_STAGEIO_CONSOLE="off")
    found = json.loads((tmp_path / "job" / "06_asr" / "manifest.json").read_text())["resources"]
    assert found["gpu_process_memory_peak_bytes"] == 20 * GIB
    assert found["gpus"][0]["attribution"]["confidence"] == "exact"
