"""The files that put the collector on Kubernetes and on bare hosts.

What Helm makes of the values cannot be seen here without the chart (README.md beside them says what was seen by hand).
Here they are held against the collector's own files: a variable, a file or a version that is not there does nothing.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import needs
from helpers import environment
from receiver import Receiver
from stack import wait_until

from otel_stageio import Pipeline

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "collector/config"
K8S = ROOT / "collector/k8s"
UNITS = sorted((ROOT / "collector/systemd").iterdir())
KINDS = ("agent", "gateway")


def config(kind: str) -> tuple[str, dict[str, str]]:
    """(text, what each variable is by default) of the collector's configuration; an unset one has no default."""
    text = (CONFIG / f"{kind}.yaml").read_text()
    return text, dict(re.findall(r"\$\{env:(\w+)(?::-([^}]*))?\}", text))


@pytest.mark.parametrize("page", sorted((ROOT / "collector").rglob("*.md")), ids=lambda path: path.name)
def test_what_a_page_points_at_is_there(page: Path) -> None:
    pointed = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert pointed
    assert [place for place in pointed if not (page.parent / place).exists()] == []


# -- Kubernetes ------------------------------------------------------------------------------------------------------


def values(kind: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((K8S / f"{kind}-values.yaml").read_text())
    return loaded


def settings(kind: str) -> dict[str, str]:
    """Of the collector in its pod."""
    return {**config(kind)[1], **{item["name"]: item["value"] for item in values(kind)["extraEnvs"]}}


@pytest.mark.parametrize("kind", KINDS)
def test_every_variable_is_one_that_the_configuration_reads(kind: str) -> None:
    known = {*config(kind)[1], "OTEL_RESOURCE_ATTRIBUTES"}
    assert {item["name"] for item in values(kind)["extraEnvs"]} <= known


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_that_the_collector_reads_or_writes_is_mounted(kind: str) -> None:
    mounts = {mount["mountPath"]: mount for mount in values(kind)["extraVolumeMounts"]}
    files = {value for value in settings(kind).values() if value.startswith("/")}
    assert any(value.endswith("/token") for value in files)
    for file in files:
        (place,) = (place for place in mounts if file.startswith(f"{place}/"))
        assert mounts[place].get("readOnly", False) == (not file.endswith("/queue"))
        assert "subPath" not in mounts[place]  # such a mount never sees a secret that was changed
    volumes = {volume["name"] for volume in values(kind)["extraVolumes"]}
    templates = values(kind).get("statefulset", {}).get("volumeClaimTemplates", ())
    assert {mount["name"] for mount in mounts.values()} == volumes | {item["metadata"]["name"] for item in templates}


@pytest.mark.parametrize("kind", KINDS)
def test_secrets_are_referred_to_and_never_written_down(kind: str) -> None:
    secrets = [volume["secret"] for volume in values(kind)["extraVolumes"] if "secret" in volume]
    assert secrets
    assert all(set(secret) == {"secretName", "defaultMode"} and secret["defaultMode"] == 0o440 for secret in secrets)
    for name, value in ((item["name"], item["value"]) for item in values(kind)["extraEnvs"]):
        assert not re.search(r"TOKEN|PASSWORD|SECRET|KEY", name) or value.startswith("/")
    readme = (K8S / "README.md").read_text()
    named = {secret["secretName"] for secret in secrets}
    named |= {volume["configMap"]["name"] for volume in values(kind)["extraVolumes"] if "configMap" in volume}
    named.add(values(kind)["configMap"]["existingName"])
    for name in named:
        assert re.search(rf"create (secret generic|configmap) {name} ", readme), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_gets_what_it_asks_for_and_its_limits_are_within(kind: str) -> None:
    resources = values(kind)["resources"]
    assert resources["requests"] == resources["limits"]
    number, unit = re.fullmatch(r"(\d+)([MG])i", resources["limits"]["memory"]).groups()  # type: ignore[union-attr]
    memory = int(number) * (1 if unit == "M" else 1024)
    assert values(kind)["useGOMEMLIMIT"]  # 80 % of the limit
    assert int(settings(kind)["MEMORY_LIMIT_MIB"]) <= 0.8 * memory


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_is_confined_and_runs_the_version_that_the_tests_run(kind: str) -> None:
    given = values(kind)
    manifest = yaml.safe_load((ROOT / "collector/build/otelcol/builder-config.yaml").read_text())
    assert given["image"]["tag"] == manifest["dist"]["version"]
    confined = given["securityContext"]
    assert confined["runAsNonRoot"]
    assert confined["readOnlyRootFilesystem"]
    assert confined["capabilities"]["drop"] == ["ALL"]
    assert given["networkPolicy"]["enabled"]
    assert {name for name, port in given["ports"].items() if not port["enabled"]} == {
        "jaeger-compact", "jaeger-thrift", "jaeger-grpc", "zipkin",
    }  # fmt: skip
    assert all(port.get("hostPort") is None for port in given["ports"].values())


def test_the_volume_of_a_gateway_has_room_for_its_queues() -> None:
    given = values("gateway")
    (template,) = given["statefulset"]["volumeClaimTemplates"]
    room = int(template["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) << 30
    queues = config("gateway")[0].count("*queue") + config("gateway")[0].count("&queue")
    assert int(settings("gateway")["QUEUE_BYTES"]) * queues * 1.25 <= room
    assert given["podDisruptionBudget"] == {"enabled": True, "maxUnavailable": 1}
    assert given["replicaCount"] >= 3
    assert settings("gateway")["COLLECTOR_NAME"] == "$(OTEL_K8S_POD_NAME)"


# -- systemd ---------------------------------------------------------------------------------------------------------


def commands() -> dict[str, list[str]]:
    found = {path.name: re.findall(r"^ExecStart=(.+)$", path.read_text(), re.MULTILINE) for path in UNITS}
    return {name: shlex.split(lines[0]) for name, lines in found.items() if lines}


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    needs("systemd-analyze")
    for unit in UNITS:  # it also asks whether the programs are there
        (tmp_path / unit.name).write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text()))
    verify = ["systemd-analyze", "verify", "--man=no"]
    done = subprocess.run([*verify, *sorted(tmp_path.iterdir())], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    wrong = tmp_path / "wrong.service"
    wrong.write_text("[Service]\nExecStart=/bin/true\nProtectSytem=strict\n")
    done = subprocess.run([*verify, wrong], capture_output=True, text=True, check=False)
    assert "'ProtectSytem'" in done.stderr


def test_a_unit_starts_its_collector_within_its_memory_and_with_its_queue() -> None:
    for kind in KINDS:
        text = (ROOT / f"collector/systemd/otelcol-{kind}.service").read_text()
        assert commands()[f"otelcol-{kind}.service"][1:] == [f"--config=/etc/otelcol/{kind}.yaml"]
        limit = int(config(kind)[1]["MEMORY_LIMIT_MIB"])
        assert f"GOMEMLIMIT={limit * 8 // 10}MiB" in text
        bound = re.search(r"MemoryMax=(\d+)([MG])", text)
        assert bound is not None
        assert int(bound[1]) * (1 if bound[2] == "M" else 1024) > limit
        assert "StateDirectory=otelcol\n" in text
        assert config(kind)[1]["COLLECTOR_QUEUE"].startswith("/var/lib/otelcol/")
        assert {"Restart=always", "NoNewPrivileges=yes", "ProtectSystem=strict"} <= set(text.splitlines())


def test_the_library_does_what_its_units_ask_for(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    with Pipeline("films", jobs / "one") as run, run.stage("demux"):
        pass

    def command(unit: str) -> list[str]:
        program, *words = commands()[unit]
        assert program.endswith("/bin/otel-stageio")
        return [
            sys.executable,
            "-m",
            "otel_stageio",
            *(word.replace("/var/lib/pipelines", str(jobs)) for word in words),
        ]

    done = subprocess.run(command("stageio-recover.service"), env=environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    with Receiver() as receiver:
        env = environment(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        process = subprocess.Popen(command("stageio-push.service"), env=env, stderr=subprocess.PIPE)
        try:
            wait_until(lambda: any(span.name == "demux" for span in receiver.spans), what="the stage")
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


def test_what_writes_into_jobs_may_and_all_look_in_one_place() -> None:
    for name in ("stageio-push.service", "stageio-recover.service"):
        text = (ROOT / "collector/systemd" / name).read_text()
        jobs = commands()[name][-1]
        assert f"ReadWritePaths={jobs}\n" in text
        assert config("agent")[1]["STAGE_LOGS"].startswith(f"{jobs}/")
