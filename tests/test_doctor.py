"""``otel-stageio doctor``: what a person learns of a machine before a job runs there, or after one went wrong."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from helpers import clean_environment, cli, environment, run_command
from receiver import Receiver

from otel_stageio.capture.redaction import Redactor
from otel_stageio.cli.health import environment as environment_checks
from otel_stageio.cli.health import files as files_checks
from otel_stageio.cli.health import gpu as gpu_checks
from otel_stageio.cli.health import locks as locks_checks
from otel_stageio.cli.health import redaction as redaction_checks
from otel_stageio.cli.health.settings import settings
from otel_stageio.runtime import runtime
from otel_stageio.testing import FixedClock

__all__ = ["clean_environment"]


def doctor(cwd: Path, *args: object, **env: str) -> subprocess.CompletedProcess[str]:
    done = run_command(cli("doctor", *args), cwd=cwd, env=environment(COLUMNS="80", **env))
    assert "Traceback" not in done.stderr
    return done


def checks_of(cwd: Path, *args: object, **env: str) -> dict[str, dict[str, dict[str, str]]]:
    """Section -> name -> check."""
    document = json.loads(doctor(cwd, *args, "--json", **env).stdout)
    return {section: {check["name"]: check for check in checks} for section, checks in document["checks"].items()}


def named(checks: list[Any], name: str) -> Any:
    (found,) = [check for check in checks if check.name == name]
    return found


def test_a_machine_on_which_all_is_well_without_any_endpoint(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    headings = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert headings[:-1] == ["Environment", "Settings", "Files", "Redaction", "GPU", "Endpoint"]
    assert "none is set: everything stays in the job directory" in done.stdout
    assert "→ to send as well, set OTEL_EXPORTER_OTLP_ENDPOINT" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert os.listdir(tmp_path) == ["cwd"]  # nothing is left behind


def test_one_document_for_programs_has_every_check_and_every_endpoint(tmp_path: Path) -> None:
    with Receiver() as receiver:
        done = doctor(tmp_path, "--json", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    document = json.loads(done.stdout)
    assert (done.returncode, document["good"]) == (0, True)
    assert list(document["checks"]) == ["environment", "settings", "files", "redaction", "gpu"]
    for checks in document["checks"].values():
        for check in checks:
            assert check["state"] in ("ok", "warning")
            assert check["said"]
    assert [found["signal"] for found in document["endpoints"]] == ["traces", "logs", "metrics"]
    assert document["place"] == str(tmp_path)


def test_an_endpoint_that_is_wrong_is_an_error(tmp_path: Path) -> None:
    done = doctor(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert done.returncode == 1
    assert "nothing listens on port 1" in done.stdout
    assert "3 errors" in done.stdout.splitlines()[-1]


# -- environment -----------------------------------------------------------------------------------------------------


def test_versions_that_are_too_old_or_missing_are_flagged_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"pydantic": "2.6.4", "grpcio": None, "nvidia-ml-py": None}
    real = environment_checks._version
    monkeypatch.setattr(environment_checks, "_version", lambda name: versions.get(name, real(name)))
    monkeypatch.setattr(environment_checks.nvml, "has_driver", lambda: False)
    found = environment_checks.environment()
    old = named(found, "pydantic")
    assert (old.state, old.said) == ("warning", "2.6.4; 2.7 is the oldest supported")
    assert old.advice == "pip install --upgrade 'pydantic>=2.7'"
    assert named(found, "grpcio").state == "error"
    gpu = named(found, "extra gpu")
    assert (gpu.state, gpu.advice) == ("ok", "pip install 'otel-stageio[gpu]'")  # no driver: nothing is missed
    monkeypatch.setattr(environment_checks.nvml, "has_driver", lambda: True)
    assert named(environment_checks.environment(), "extra gpu").state == "warning"


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said", "advice"),
    [
        ("OTEL_STAGEIO_DELIVERY", "sel", "sel is ignored", "use auto, self or off"),
        ("OTEL_STAGEIO_PATHS", "relative", "relative is ignored", "use job, name or absolute"),
        ("OTEL_STAGEIO_EXIT_BUDGET", "1s", "1s is ignored", "give a number of seconds, without a unit"),
        ("OTEL_STAGEIO_SAMPLE_INTERVAL", "often", "often is ignored", "give a number of seconds, without a unit"),
        ("OTEL_STAGEIO_SPOOL_MAX", "a lot", "a lot is ignored", "give a size such as 512MiB or 2GB"),
        ("OTEL_STAGEIO_OTLP_LEVEL", "loud", "loud is ignored", "use DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ("OTEL_SDK_DISABLED", "1", "1 is ignored", "use true or false"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s", "10s is ignored", "give a number of seconds, without a unit"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "zstd is ignored", "use gzip, deflate or none"),
        ("TRACEPARENT", "00-1-2", "00-1-2 is ignored", "it is no W3C traceparent: 00-<32 hex>-<16 hex>-01"),
        ("OTEL_STAGEIO_DELIVRY", "self", "self; this is no variable of otel_stageio",
         "did you mean OTEL_STAGEIO_DELIVERY?"),
        ("OTEL_EXPORTER_OTLP_ENDPONT", "http://x:4318",
         "http://x:4318; this is no variable known to OpenTelemetry's SDK or to otel_stageio",
         "did you mean OTEL_EXPORTER_OTLP_ENDPOINT?"),
    ],
)  # fmt: skip
def test_what_is_mistyped_or_ignored_is_named(name: str, value: str, said: str, advice: str) -> None:
    (check,) = settings({name: value, "HOME": "/root"})
    assert (check.name, check.state, check.said, check.advice) == (name, "warning", said, advice)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_STAGEIO_DELIVERY", "Self"),
        ("OTEL_STAGEIO_EXIT_BUDGET", "0"),
        ("OTEL_STAGEIO_SAMPLE_INTERVAL", "0"),
        ("OTEL_STAGEIO_SPOOL_MAX", "2GB"),
        ("OTEL_STAGEIO_CONSOLE", "plain"),
        ("OTEL_STAGEIO_OTLP_LEVEL", "debug"),
        ("OTEL_STAGEIO_DURABILITY", ""),
        ("OTEL_SERVICE_NAME", "subtitles"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5000"),
        ("OTEL_PYTHON_LOG_CORRELATION", "true"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://x:4318/v1/logs"),
        ("LOG_LEVEL", "warning"),
        ("TRACEPARENT", f"00-{'1' * 32}-{'2' * 16}-01"),
    ],
)
def test_what_is_obeyed_is_fine(name: str, value: str) -> None:
    assert [check.state for check in settings({name: value})] == ["ok"]


def test_every_variable_of_the_documentation_is_known() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`(OTEL_STAGEIO_\w+)`", text))
    assert len(names) > 8
    assert not [check for check in settings(dict.fromkeys(names, "1")) if "no variable" in check.said]


def test_secrets_in_settings_are_masked(tmp_path: Path) -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://anna:hunter22@127.0.0.1:1/?key=hunter22",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-team=hunter22,Authorization=Bearer%20hunter22",
        "OTEL_RESOURCE_ATTRIBUTES": "api_key=hunter22,team=media",
        "OTEL_STAGEIO_REDACT": "hunter22",
    }
    for args in ((), ("--json",)):
        done = doctor(tmp_path, *args, **env)
        assert "hunter22" not in done.stdout + done.stderr
        assert "http://127.0.0.1:1" in done.stdout


# -- files -----------------------------------------------------------------------------------------------------------


def test_the_file_system_of_a_job_is_looked_at_and_left_as_it_was(tmp_path: Path) -> None:
    job = tmp_path / "out" / "job1"
    (job / ".stageio").mkdir(parents=True)
    found = checks_of(tmp_path, job)["files"]
    assert found["directory"]["said"] == str(job)
    for name in ("file system", "space", "writable", "locks", "byte locks", "atomic rename", "fsync", "clock"):
        assert found[name]["state"] == "ok", found[name]
    assert "work between processes" in found["locks"]["said"]
    assert [path.name for path in job.rglob("*")] == [".stageio"]


def test_a_job_that_is_not_there_yet_is_looked_at_where_it_will_be(tmp_path: Path) -> None:
    found = checks_of(tmp_path, OUTPUT_DIR="out/film/7")["files"]
    assert found["directory"]["said"] == f"{tmp_path}/out/film/7 is not there yet; looked at {tmp_path}"
    assert found["writable"]["state"] == "ok"
    assert not (tmp_path / "out").exists()


def test_a_directory_that_refuses_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files_checks.tempfile, "mkdtemp", refuse)
    _, found = files_checks.files(str(tmp_path))
    writable = named(found, "writable")
    assert (writable.state, writable.said.startswith("no: Permission denied")) == ("error", True)
    assert found[-1] is writable  # nothing else could be tried


def test_a_full_disk_and_few_inodes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = SimpleNamespace(f_bavail=1, f_frsize=4096, f_blocks=1 << 20, f_files=1 << 20, f_favail=12)
    monkeypatch.setattr(files_checks.os, "statvfs", lambda _: about)
    _, found = files_checks.files(str(tmp_path))
    assert named(found, "space").state == "error"
    assert "otel-stageio prune" in named(found, "space").advice
    assert (named(found, "inodes").state, named(found, "inodes").said) == ("warning", "12 further files can be made")
    about.f_bavail, about.f_files = 1000, 0
    _, found = files_checks.files(str(tmp_path))
    assert "512 MiB" in named(found, "space").said
    assert "inodes" not in [check.name for check in found]


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "lustre"])
def test_a_network_file_system_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mounts = [SimpleNamespace(mountpoint="/", fstype="ext4"), SimpleNamespace(mountpoint=str(tmp_path), fstype=kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    _, found = files_checks.files(str(tmp_path))
    check = named(found, "file system")
    assert (check.state, check.said) == ("warning", f"{kind}, mounted at {tmp_path}: a network file system")


def test_a_file_system_whose_clock_differs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FixedClock(start_ns=(tmp_path.stat().st_mtime_ns // 1_000_000_000 - 600) * 1_000_000_000)
    monkeypatch.setattr(runtime, "clock", clock)
    _, found = files_checks.files(str(tmp_path))
    assert named(found, "clock").state == "warning"
    assert "10 min 0" in named(found, "clock").said
    assert "ahead of this host's" in named(found, "clock").said


def test_locks_that_nobody_has_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        locks_checks, "_HOLDER", "import sys; print('No locks available\\nlockf', flush=True); sys.stdin.read()"
    )
    (tmp_path / "flock").touch()
    (tmp_path / "lockf").touch()
    checks = locks_checks.locks(tmp_path)
    assert (checks[0].state, checks[0].said) == ("warning", "not to be had here: No locks available")
    # It says that it holds a byte lock, and does not: as on a file system where locks are a formality.
    assert (checks[1].state, checks[1].said) == ("warning", "two processes held the same one at once")


def test_locks_that_keep_nobody_out_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    check = locks_checks.locks(tmp_path)[0]
    assert (check.state, check.said) == ("error", "two processes held the same one at once")


# -- redaction -------------------------------------------------------------------------------------------------------


def test_a_secret_is_really_sent_through_the_redactor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [check.state for check in redaction_checks.redaction()] == ["ok", "ok"]
    monkeypatch.setattr(Redactor, "text", lambda self, text: text)
    (secrets, _) = redaction_checks.redaction()
    assert secrets.state == "error"
    assert "in a message" in secrets.said
    assert not [name for name in os.environ if "CANARY" in name]


def test_further_patterns_are_counted_and_those_that_are_none_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_STAGEIO_REDACT", "proj-\\d+,(oops")
    (_, patterns) = redaction_checks.redaction()
    assert patterns.state == "warning"
    assert patterns.said == "2 further ones in force; no regular expression, and taken literally: number 2"


# -- GPU -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "state", "advice"),
    [
        ("no driver", "ok", ""),
        ("CUDA_VISIBLE_DEVICES is empty", "ok", ""),
        ("AMD GPUs are not supported yet", "ok", ""),
        ("nvidia-ml-py is not installed", "warning", "pip install 'otel-stageio[gpu]'"),
        ("no such device", "warning", "correct CUDA_VISIBLE_DEVICES"),
        ("the driver does not answer: Unknown Error", "warning", "look at `nvidia-smi`"),
    ],
)
def test_why_there_are_no_numbers_of_gpus(
    monkeypatch: pytest.MonkeyPatch, answer: str, state: str, advice: str
) -> None:
    monkeypatch.setattr(gpu_checks, "open_gpus", lambda _: answer)
    (check,) = gpu_checks.gpu()
    assert (check.state, check.said, check.advice) == (state, f"{answer}: no numbers of GPUs", advice)


def test_gpus_are_named_with_their_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(index=3, name="NVIDIA H100", memory_bytes=80 << 30, uuid="GPU-1", driver="570.1")
    gpus = SimpleNamespace(devices=[device], confidence="inferred", close=lambda: None)
    monkeypatch.setattr(gpu_checks, "open_gpus", lambda _: gpus)
    checks = gpu_checks.gpu()
    assert [check.said for check in checks] == [
        "driver 570.1; 1 device seen",
        "the GPUs differ, and CUDA counts them by speed",
        "NVIDIA H100, 80.0 GiB, GPU-1",
    ]
