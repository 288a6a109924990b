"""What docs/SCHEDULERS.md says, and the examples that it points to, run as they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import prefect_environment
import pytest
import yaml
from conftest import IN_CI, needs
from helpers import ROOT, cli, environment, read_manifest, write_script

from otel_stageio import RunRecord, semconv
from otel_stageio.layout import Job
from otel_stageio.otlp import decode

EXAMPLES = ROOT / "examples" / "schedulers"
STAGES = {"demux": "01_demux", "asr": "06_asr", "mux": "12_mux"}

#: What stands for the user's programs. What one of them is to do in a job, a file in it says, once: see `fate`.
PROGRAM = """\
#!/bin/bash
fate=$1/$(basename "$0").fate
if [[ -e $fate ]]; then
    how=$(<"$fate")
    rm "$fate"
    eval "$how"
fi
declare -A makes=([extract-audio]=audio.wav [transcribe]=words.json [mux-film]=film.mkv)
echo "$(basename "$0") of $1" >"$1/${makes[$(basename "$0")]}"
"""
LIMIT = 300  # seconds for a whole example: a safety net, no test waits for it


class World:
    """A directory with an example in it, and the programs that it calls.

    Attributes:
        place: where the example's files are.
        env: its environment.
    """

    def __init__(self, tmp_path: Path, example: str) -> None:
        self.place = tmp_path / "example"
        shutil.copytree(EXAMPLES / example, self.place)
        self.bin = tmp_path / "bin"
        self.program("otel-stageio", f'#!/bin/bash\nexec {" ".join(map(repr, cli()))} "$@"\n')
        for name in ("extract-audio", "transcribe", "mux-film"):
            self.program(name, PROGRAM)
        self.env = environment(PATH=f"{self.bin}:{os.environ['PATH']}")
        self.out = tmp_path / "all films"

    def program(self, name: str, text: str) -> None:
        write_script(self.bin / name, text).chmod(0o755)

    def jobs(self, number: int) -> list[Path]:
        """So many directories, and ``jobs.txt`` that lists them. Half of them are there already; all have a space."""
        jobs = [self.out / f"film {n}" for n in range(number)]
        for job in jobs[::2]:
            job.mkdir(parents=True)
        (self.place / "jobs.txt").write_text("".join(f"{job}\n" for job in jobs))
        return jobs

    def fate(self, job: Path, program: str, how: str) -> None:
        write_script(job / f"{program}.fate", how)

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.place,
            env={**self.env, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            start_new_session=True,
            check=False,
        )


def stages_of(job: Path) -> dict[str, str]:
    """How each stage of a job stands, by its manifest."""
    return {
        stage: read_manifest(job / directory)["status"]
        for stage, directory in STAGES.items()
        if (job / directory / "manifest.json").exists()
    }


def spans_of(job: Path) -> list[dict[str, Any]]:
    return [span for path in Job(job).spool.glob("*.spans.jsonl") for span in decode.spans(decode.Lines(path))]


def is_one_trace(job: Path) -> None:
    """Its run, ended, and every attempt at a stage: one trace, one root, and nothing below anything else."""
    found = spans_of(job)
    record = RunRecord.load(job)
    (root,) = [span for span in found if span["name"] == f"RUN {record.pipeline}"]
    assert {span["traceId"] for span in found} == {record.trace_id}
    below = [span for span in found if span["name"] in STAGES]
    assert {span["parentSpanId"] for span in below} <= {root["spanId"]}
    assert len(below) == len(record.stages)


GOOD = dict.fromkeys(STAGES, "success")


# -- Slurm ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path: Path) -> World:
    """The example, and the stand-in for Slurm in tests/slurm."""
    world = World(tmp_path, "slurm")
    for name in ("sbatch", "srun", "sacct", "slurm-fate"):
        (world.bin / name).symlink_to(ROOT / "tests" / "slurm" / "standin.py")
    state = tmp_path / "slurm"
    state.mkdir()
    world.env["SLURM_STANDIN"] = str(state)
    return world


def test_an_array_of_eight_jobs_on_slurm(slurm: World) -> None:
    jobs = slurm.jobs(8)
    slurm.fate(jobs[1], "transcribe", "exit 3")
    slurm.fate(jobs[2], "transcribe", "slurm-fate NODE_FAIL")  # is requeued
    slurm.fate(jobs[3], "mux-film", "slurm-fate NODE_FAIL")  # is not
    slurm.fate(jobs[4], "extract-audio", "slurm-fate OUT_OF_MEMORY")
    slurm.fate(jobs[5], "transcribe", "slurm-fate TIMEOUT\nsleep 60")
    done = slurm.run("./submit.sh", "jobs.txt", "4")
    assert (done.returncode, done.stderr) == (0, "")
    (end,) = slurm.place.glob("logs/end-*.out")
    for job in jobs:
        is_one_trace(job)
    for job in (jobs[0], jobs[6], jobs[7]):
        assert (RunRecord.load(job).status, stages_of(job)) == ("success", GOOD)
    # failed: what comes after it did not run
    assert (RunRecord.load(jobs[1]).status, stages_of(jobs[1])) == ("failed", {"demux": "success", "asr": "failed"})
    # its node failed, and it was requeued
    assert (RunRecord.load(jobs[2]).status, stages_of(jobs[2])) == ("success", GOOD)
    asr = read_manifest(jobs[2] / "06_asr")
    assert [(each["status"], each["cause"]) for each in asr["attempts"]] == [("crashed", "slurm: requeued (restart 1)")]
    # its node failed for good
    assert RunRecord.load(jobs[3]).status == "crashed"
    assert read_manifest(jobs[3] / "12_mux")["cause"] == "slurm: NODE_FAIL"
    assert stages_of(jobs[4]) == {"demux": "crashed"}
    assert read_manifest(jobs[4] / "01_demux")["cause"] == "slurm: OUT_OF_MEMORY"
    # the time was up: the stage says that it was ended, Slurm knows why
    assert (RunRecord.load(jobs[5]).status, stages_of(jobs[5])["asr"]) == ("timeout", "cancelled")
    # and the end says how each of them went, last
    said = [line.rsplit("  ", 1)[1] for line in end.read_text().splitlines()[-8:]]
    assert said == ["success", "failed", "success", "crashed", "crashed", "timeout", "success", "success"]


# -- GNU parallel and xargs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["parallel", "xargs"])
def test_a_list_of_jobs_under(program: str, tmp_path: Path) -> None:
    needs(program)
    world = World(tmp_path, "parallel")
    jobs = world.jobs(4)
    world.fate(jobs[1], "transcribe", "exit 3")
    world.fate(jobs[2], "extract-audio", "kill -KILL $$")
    done = world.run(f"./with-{program}.sh", "jobs.txt")
    assert done.returncode == 123  # as xargs says that not all of them ended well
    said = [line.rsplit("  ", 1)[1] for line in done.stdout.splitlines()[-4:]]
    assert said == ["success", "failed", "crashed", "success"]
    for job, word in zip(jobs, said, strict=True):
        is_one_trace(job)
        assert RunRecord.load(job).status == word
    assert stages_of(jobs[1]) == {"demux": "success", "asr": "failed"}
    assert "SIGKILL" in read_manifest(jobs[2] / "01_demux")["errors"][-1]["message"]
    if program == "parallel":
        _, *lines = (world.place / "joblog.txt").read_text().splitlines()
        codes = {
            line.split("\t")[8].split("/")[-1].strip("'\\").replace("\\ ", " "): line.split("\t")[6] for line in lines
        }
        assert codes == {"film 0": "0", "film 1": "3", "film 2": "137", "film 3": "0"}


# -- Kubernetes -------------------------------------------------------------------------------------------------------

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


# -- Prefect ----------------------------------------------------------------------------------------------------------

#: Any connection that is not to this machine is noted, and refused.
HERE_ONLY = """\
import os, sys

def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in ("127.0.0.1", "::1", "localhost"):
        with open(os.environ["CALLED_OUTSIDE"], "a") as file:
            print(args[1], file=file)
        raise ConnectionRefusedError(f"{args[1]} is outside")

sys.addaudithook(watch)
"""

#: The flow in a program that has an SDK of its own; it prints every span's name and parent, by its id.
TRACED = """\
import json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
import flow

flow.subtitles(sys.argv[1:])
of = lambda context: context and f"{context.span_id:016x}"
print(json.dumps({of(span.context): [span.name, of(span.parent)] for span in exporter.get_finished_spans()}))
"""


def prefect_settings(tmp_path: Path) -> dict[str, str]:
    """A home of its own, a server that is there while the flow is, nobody told; and what shows that nobody was."""
    write_script(tmp_path / "here_only" / "sitecustomize.py", HERE_ONLY)
    return {
        "PYTHONPATH": f"{tmp_path / 'here_only'}:{ROOT}",
        "PYTHONWARNINGS": "default",
        "CALLED_OUTSIDE": str(tmp_path / "called.txt"),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(LIMIT),
    }


@pytest.fixture(scope="module")
def prefect_python() -> str:
    if reason := prefect_environment.missing():
        if IN_CI:
            pytest.fail(f"{reason}; CI is to have everything", pytrace=False)
        pytest.skip(reason)
    return str(prefect_environment.python())


def test_a_flow_of_prefect(prefect_python: str, tmp_path: Path) -> None:
    world = World(tmp_path, "prefect")
    jobs = world.jobs(4)
    world.fate(jobs[1], "transcribe", "exit 3")  # fails once, and is retried
    world.fate(jobs[2], "mux-film", "exit 3")  # fails for good
    done = world.run(
        prefect_python,
        "flow.py",
        *map(str, jobs),
        **prefect_settings(tmp_path),
    )
    assert done.returncode == 1
    assert "not every job has succeeded" in done.stderr
    words = ["success", "success", "failed", "success"]
    assert [line.rsplit(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith(str(world.out))] == words
    for job, word in zip(jobs, words, strict=True):
        is_one_trace(job)
        assert RunRecord.load(job).status == word
        assert stages_of(job) == {**GOOD, "mux": word}
    assert [each["status"] for each in read_manifest(jobs[1] / "06_asr")["attempts"]] == ["failed"]
    assert not (tmp_path / "called.txt").exists()


def test_the_spans_of_prefect_are_around_the_runs_and_the_stages(prefect_python: str, tmp_path: Path) -> None:
    world = World(tmp_path, "prefect")
    (job,) = world.jobs(1)
    write_script(world.place / "traced.py", TRACED)
    done = world.run(prefect_python, "traced.py", str(job), **prefect_settings(tmp_path))
    assert done.returncode == 0, done.stderr
    parents = json.loads(done.stdout.splitlines()[-1])
    (flow,) = [span for span, (_, parent) in parents.items() if parent is None]
    tasks = {span: name for span, (name, parent) in parents.items() if parent == flow and name not in STAGES}
    below = {str(span["name"]): span["parentSpanId"] for span in spans_of(job)}
    assert below.pop("RUN subtitles") == flow
    assert {stage: tasks[below[stage]].split("-")[0] for stage in STAGES} == {stage: stage for stage in STAGES}


# -- the page ---------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "SCHEDULERS.md").read_text(encoding="utf-8")
#: A block, and whether a comment before it says why it is not run.
BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?```(console|python)\n(.*?)```", re.DOTALL)


def test_what_the_page_says_runs(tmp_path: Path) -> None:
    world = World(tmp_path, ".")
    for not_run, kind, text in BLOCK.findall(PAGE):
        if not_run:
            continue
        if kind == "python":
            assert world.run(sys.executable, "-c", text).stdout.strip() == "success"
            continue
        commands = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
        done = [world.run("bash", "-c", command) for command in commands]
        assert [each.returncode for each in done] == [0] * len(commands), done
        said = "".join(f"$ {command}\n{each.stdout}" for command, each in zip(commands, done, strict=True))
        assert [line for line in text.splitlines() if line not in said.splitlines()] == []
    assert (world.place / "out" / "film3" / "06_asr" / "manifest.json").exists()


def test_what_the_page_points_to_is_there() -> None:
    for place in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / place).exists(), place
    names = set(re.findall(r"`(OTEL_STAGEIO_[A-Z_]+)`", PAGE))
    assert names <= {value for name, value in vars(semconv).items() if name.startswith("ENV_")}
