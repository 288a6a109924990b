"""The example for Kubernetes: its manifests against the API's schemas, its containers' commands as they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import needs
from helpers import read_manifest
from schedulers import EXAMPLES, GOOD, World, is_one_trace, stages_of

from otel_stageio import RunRecord

#: Of whose API the manifests are.
KUBERNETES = "1.34"
ORDER = ["begin", "demux", "asr", "mux", "end"]


def manifest_of(name: str) -> dict[str, Any]:
    (document,) = yaml.safe_load_all((EXAMPLES / "kubernetes" / f"{name}.yaml").read_text())
    return document


@pytest.mark.parametrize("name", ["volume", *ORDER])
def test_the_manifests_are_what_the_api_of_kubernetes_takes(name: str) -> None:
    validator = needs("kubernetes_validate")
    manifest = manifest_of(name)
    assert manifest["metadata"]["name"] in (name, "films")
    validator.validate(manifest, KUBERNETES, strict=True)
    manifest["spec"]["backoffLimitPerIndices"] = 1
    with pytest.raises(validator.ValidationError):
        validator.validate(manifest, KUBERNETES, strict=True)


class Cluster:
    """A stand-in for the Job controller: runs a pod's container here, again as often as its manifest allows."""

    def __init__(self, world: World, size: int) -> None:
        """``size``: of so many jobs, instead of those that the manifests name."""
        self.world = world
        self.size = size
        self.pods = 0

    def apply(self, name: str) -> list[int]:
        """Run a Job to its end. Returns the exit code of the last pod of each index."""
        spec = manifest_of(name)["spec"]
        return [self.index(spec, index) for index in range(self.size if "completions" in spec else 1)]

    def index(self, spec: dict[str, Any], index: int) -> int:
        given_up = [
            code
            for rule in spec.get("podFailurePolicy", {}).get("rules", ())
            for code in rule.get("onExitCodes", {}).get("values", ())
        ]
        for _ in range(spec.get("backoffLimitPerIndex", 0) + 1):
            code = self.pod(spec["template"]["spec"], index)
            if code == 0 or code in given_up:
                break
        return code

    def pod(self, spec: dict[str, Any], index: int) -> int:
        (container,) = spec["containers"]
        (mount,) = container["volumeMounts"]
        words = [word.replace(mount["mountPath"], str(self.world.place)) for word in container["command"]]
        words += [word.replace(mount["mountPath"], str(self.world.place)) for word in container["args"]]
        variables = {"JOB_COMPLETION_INDEX": str(index)}
        self.pods += 1
        for each in container.get("env", ()):
            assert each["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"
            variables[each["name"]] = f"node-{self.pods}"  # no two pods on one: as hard as it gets
        return self.world.run(*words, **variables).returncode


def test_a_job_for_each_stage_on_kubernetes(tmp_path: Path) -> None:
    world = World(tmp_path, "kubernetes")
    jobs = world.jobs(4)
    world.fate(jobs[1], "transcribe", "exit 3")  # fails once, and is retried
    world.fate(jobs[2], "transcribe", "kill -KILL 0")  # its pod is killed, and replaced
    world.fate(jobs[3], "extract-audio", "echo 'exit 4' >\"$fate\"; exit 4")  # fails, and fails again
    cluster = Cluster(world, len(jobs))
    assert [cluster.apply(name) for name in ORDER] == [
        [0],
        [0, 0, 0, 4],
        [0, 0, 0, 42],
        [0, 0, 0, 42],
        [123],
    ]
    for job in jobs:
        is_one_trace(job)
        failed = job == jobs[3]
        assert RunRecord.load(job).status == ("failed" if failed else "success")
        assert stages_of(job) == ({"demux": "failed"} if failed else GOOD)
    attempts = [read_manifest(job / "06_asr").get("attempts", []) for job in jobs[:3]]
    assert [[each["status"] for each in former] for former in attempts] == [[], ["failed"], ["crashed"]]
    assert attempts[2][0]["cause"] == "kubernetes: its pod is gone"
