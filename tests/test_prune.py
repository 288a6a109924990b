"""``otel-stageio prune``: frees what old records take, and nothing that anybody may still need."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import clean_environment, cli, environment, run_command, start_python, write_script
from receiver import Answer, Receiver

from otel_stageio import Manifest, Pipeline, RunRecord, StageIO
from otel_stageio.layout import Job
from otel_stageio.pruning import Rules, prune

__all__ = ["clean_environment"]

DAYS = 86400


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Three runs, sixty days ago: asr and mux, then asr alone, which failed, then asr and alignment."""
    root = tmp_path / "out" / "job1"
    run(root, "asr", "mux")
    with pytest.raises(RuntimeError, match="no GPU"):
        run(root, "asr", error="no GPU")
    run(root, "asr", "alignment")
    return age(root, 60)


def run(root: Path, *stages: str, error: str = "") -> None:
    with Pipeline("films", root) as pipeline:
        for name in stages:
            with pipeline.stage(name) as io, io.span("work"):
                io.get_stage_logger("CRITICAL").info("working")
                io.get_output_path("result.txt").write_text(name)
                if error:
                    raise RuntimeError(error)


def age(root: Path, days: float) -> Path:
    """As if all of it had been written so long ago."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            stamp = path.stat().st_mtime - days * DAYS
            os.utime(path, (stamp, stamp))
    return root


def ask(*args: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    done = run_command(cli(*args), cwd=cwd, env=environment(COLUMNS="80", **env))
    assert "Traceback" not in done.stderr
    return done


def spooled(root: Path) -> set[str]:
    return {path.name.rpartition(".")[0].rpartition(".")[0] for path in (root / ".stageio" / "spool").glob("*.jsonl")}


def everything(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def document(*args: object, cwd: Path, **env: str) -> dict[str, Any]:
    content = json.loads(ask("prune", *args, "--json", cwd=cwd, **env).stdout)
    assert isinstance(content, dict)
    return content


# -- what goes -------------------------------------------------------------------------------------------------------


def test_without_yes_it_says_what_would_go_and_touches_nothing(job: Path) -> None:
    before = everything(job)
    done = ask("prune", job.parent, cwd=job)
    assert (done.returncode, done.stderr) == (0, "")
    assert "journal of asr, attempt 1" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("could go from 1 job; nothing is deleted yet: --yes does it")
    assert everything(job) == before


def test_former_attempts_go_and_the_newest_of_every_stage_stay(job: Path) -> None:
    outputs = {path: content for path, content in everything(job).items() if ".stageio" not in path}
    done = ask("prune", job, "--yes", cwd=job)
    assert done.returncode == 0
    assert spooled(job) == {"asr.3", "alignment.1", "mux.1", "@run.3", "@run.1"}  # mux has run in run 1 only
    assert {path: content for path, content in everything(job).items() if ".stageio" not in path} == outputs
    assert "freed in 1 job" in done.stdout.splitlines()[-1]
    assert [run.attempt for run in RunRecord.load(job).earlier] == [1]
    again = ask("prune", job, "--yes", cwd=job)
    assert again.stdout.startswith("nothing to free in 1 job: the records take")


def test_what_is_young_stays(job: Path) -> None:
    run(job, "mux")
    assert document(job, cwd=job)["freed_bytes"] > 0
    assert document(job, "--older-than", "90d", cwd=job)["freed_bytes"] == 0


def test_the_newest_runs_stay_whole(job: Path) -> None:
    ask("prune", job, "--yes", "--keep", "2", cwd=job)
    assert spooled(job) == {"asr.3", "asr.2", "alignment.1", "mux.1", "@run.3", "@run.2", "@run.1"}


def test_with_spool_every_journal_goes_and_the_record_is_read_from_the_manifests(job: Path) -> None:
    before = {name: Manifest.load(job / name / "manifest.json") for name in ("06_asr", "07_alignment", "12_mux")}
    assert ask("prune", job, "--yes", "--spool", cwd=job).returncode == 0
    assert spooled(job) == set()
    assert {name: Manifest.load(job / name / "manifest.json") for name in before} == before


@pytest.mark.parametrize("options", [(), ("--spool",)])
def test_everything_reads_and_goes_on_after_a_prune(job: Path, options: tuple[str, ...]) -> None:
    ask("prune", job, "--yes", *options, cwd=job)
    status = json.loads(ask("status", job, "--json", cwd=job).stdout)
    assert [(stage["name"], stage["state"], stage["attempt"]) for stage in status["stages"]] == [
        ("asr", "success", 3), ("alignment", "success", 1), ("mux", "success", 1),
    ]  # fmt: skip
    for command in (("show", job), ("show", job, "asr"), ("validate", job), ("trace", job), ("recover", job)):
        done = ask(*command, cwd=job)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "no GPU" in ask("show", job, "asr", cwd=job).stdout  # of the former attempt, whose journal is gone
    with Receiver() as receiver:
        assert ask("push", job, "--endpoint", receiver.url, cwd=job).returncode == 0
    run(job, "asr", "mux")
    newest = RunRecord.load(job)
    assert newest.attempt == 4
    assert [(item.stage, item.attempt) for item in newest.stages] == [("asr", 4), ("mux", 2)]
    asr = Manifest.load(job / "06_asr" / "manifest.json")
    assert (asr.attempt, [former.attempt for former in asr.attempts]) == (4, [1, 2, 3])
    assert ask("validate", job, cwd=job).returncode == 0


def test_attempts_go_on_counting_even_if_the_run_record_had_lost_count(job: Path) -> None:
    record = job / ".stageio" / "run.json"
    content = json.loads(record.read_text())
    content["stage_attempts"] = {}
    record.write_text(json.dumps(content))
    age(job, 60)
    ask("prune", job, "--yes", "--spool", cwd=job)
    run(job, "asr")
    assert Manifest.load(job / "06_asr" / "manifest.json").attempt == 4


def test_what_a_killed_process_left_half_written_goes(job: Path) -> None:
    draft = job / ".stageio" / "tmp" / "spool..ack.1.2"
    draft.write_bytes(b"x" * 5000)
    assert "half-written" not in ask("prune", job, cwd=job).stdout  # it may be in use
    age(draft.parent, 1)
    assert "half-written files" in ask("prune", job, "--yes", cwd=job).stdout
    assert not draft.exists()


def test_an_idle_run_that_nobody_owned_is_closed_before_its_journals_go(tmp_path: Path) -> None:
    root = tmp_path / "job"
    for _ in range(2):
        with StageIO("asr", root):
            pass
    age(root, 60)
    assert json.loads((root / ".stageio" / "run.json").read_text())["status"] == "running"
    ask("prune", root, "--yes", "--spool", cwd=tmp_path)
    assert json.loads((root / ".stageio" / "run.json").read_text())["status"] == "success"
    assert spooled(root) == {"@run.2"}  # its root span, written just now
    assert ask("validate", root, cwd=tmp_path).returncode == 0


def test_one_document_for_programs_says_files_and_reasons(job: Path) -> None:
    found = document(job.parent, "--yes", cwd=job)
    (only,) = found["jobs"]
    assert found["deleted"] is True
    assert found["freed_bytes"] == only["freed_bytes"] == sum(piece["bytes"] for piece in only["pieces"]) > 0
    assert only["before_bytes"] > only["freed_bytes"]
    for piece in only["pieces"]:
        assert piece["files"]
        assert not any(os.path.exists(path) for path in piece["files"])


# -- what stays ------------------------------------------------------------------------------------------------------


def test_what_no_collector_has_accepted_stays(job: Path) -> None:
    with Receiver(lambda request: Answer(503) if request.signal == "logs" else Answer(200)) as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        found = document(job, cwd=job, **env)  # an endpoint is configured, and nothing has been sent
        assert [piece["what"] for piece in found["jobs"][0]["pieces"]] == []
        assert found["jobs"][0]["kept"][0]["reason"].startswith("not sent yet: `otel-stageio push` sends it")
        state = {"trouble": {"logs": {"kind": "later"}}, "offsets": {}}
        Path(Job(job).ack).write_text(json.dumps(state))  # once delivery was on, that holds without an endpoint as well
        kept = {item["what"] for item in document(job, cwd=job)["jobs"][0]["kept"]}
        assert kept == {"journal of asr, attempt 1", "journal of asr, attempt 2"}
        assert document(job, "--unsent", cwd=job, **env)["jobs"][0]["kept"] == []
    with Receiver() as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        assert ask("push", job, cwd=job, **env).returncode == 0
        ask("prune", job, "--yes", cwd=job, **env)
    assert spooled(job) == {"asr.3", "alignment.1", "mux.1", "@run.3", "@run.1"}
    offsets = json.loads(Path(Job(job).ack).read_text())["offsets"]
    assert not [name for name in offsets if name.startswith(("asr.1.", "asr.2.", "@run.2."))]


def test_a_half_line_that_nobody_will_ever_send_keeps_nothing(job: Path) -> None:
    with Receiver() as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        with open(job / ".stageio" / "spool" / "asr.1.spans.jsonl", "ab") as file:
            file.write(b'{"resourceSpans":[{')
        age(job, 60)
        ask("push", job, cwd=job, **env)
        assert document(job, "--yes", cwd=job, **env)["jobs"][0]["kept"] == []
    assert "asr.1" not in spooled(job)


def test_a_running_stage_and_its_run_stay(job: Path, tmp_path: Path) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys
        from otel_stageio import Pipeline
        with Pipeline("films", sys.argv[1]) as run, run.stage("asr"):
            print("ready", flush=True)
            sys.stdin.readline()
        """,
    )
    process = start_python(script, job, OTEL_STAGEIO_CONSOLE="off")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    age(job, 90)
    found = document(job, "--yes", "--spool", cwd=job)["jobs"][0]
    assert spooled(job) == {"asr.4"}
    process.communicate("go\n", timeout=60)
    assert process.returncode == 0
    assert found["freed_bytes"] > 0
    assert Manifest.load(job / "06_asr" / "manifest.json").status == "success"
    assert ask("validate", job, cwd=job).returncode == 0


def test_a_job_may_run_while_it_is_pruned_again_and_again(tmp_path: Path) -> None:
    root = tmp_path / "job"
    script = write_script(
        tmp_path / "runs.py",
        """
        import sys
        from otel_stageio import Pipeline
        for _ in range(12):
            with Pipeline("films", sys.argv[1]) as run:
                for name in ("asr", "mux"):
                    with run.stage(name) as io, io.span("work"):
                        pass
        """,
    )
    run(root, "asr")
    process = start_python(script, root, OTEL_STAGEIO_CONSOLE="off")
    pruned = 0
    while process.poll() is None:
        pruned += len(prune(root, Rules(0, spool=True), delete=True).pieces)
    assert process.communicate() == ("", "")
    assert pruned > 12
    asr = Manifest.load(root / "06_asr" / "manifest.json")
    assert [former.attempt for former in (*asr.attempts, asr)] == list(range(1, 14))
    assert {former.status for former in (*asr.attempts, asr)} == {"success"}
    assert RunRecord.load(root).attempt == 13
    assert ask("validate", root, cwd=tmp_path).returncode == 0


def test_a_journal_that_somebody_holds_stays_whatever_it_says(job: Path) -> None:
    with open(Job(job).journal("asr", 1), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        pruned = prune(job, Rules(30 * DAYS), delete=True)
    assert pruned.kept == [("journal of asr, attempt 1", "a process holds its lock")]
    assert {"asr.1"} < spooled(job)


def test_a_job_that_is_being_delivered_is_left_alone(job: Path) -> None:
    with open(Job(job).delivery_lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = ask("prune", job, "--yes", cwd=job)
    assert "another process is delivering it; try again" in done.stdout
    assert "asr.1" in spooled(job)


def test_a_stage_without_a_manifest_keeps_its_journal(tmp_path: Path) -> None:
    root = tmp_path / "job"
    for _ in range(2):
        with Pipeline("films", root):
            StageIO("asr", root, enable_manifest=False).finalize()
    age(root, 60)
    found = document(root, "--yes", cwd=tmp_path)["jobs"][0]
    assert found["kept"] == [
        {"what": "journal of asr, attempt 1", "reason": "its end is in no manifest: the journal is its only record"}
    ]
    assert "asr.1" in spooled(root)


def test_what_was_refused_stays(job: Path) -> None:
    Path(Job(job).refused).write_text('{"reason": "too old"}\n')
    age(job, 60)
    ask("prune", job, "--yes", "--spool", "--unsent", cwd=job)
    assert Path(Job(job).refused).exists()


def test_links_are_not_followed(job: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    (job / ".stageio" / "spool").rename(other)
    (job / ".stageio" / "spool").symlink_to(other)
    done = ask("prune", job, "--yes", "--spool", cwd=job)
    assert "symbolic link" in done.stdout
    assert (other / "asr.1.logs.jsonl").exists()
    (job / ".stageio" / "spool").unlink()
    other.rename(job / ".stageio" / "spool")
    precious = tmp_path / "precious.jsonl"
    (job / ".stageio" / "spool" / "asr.1.spans.jsonl").rename(precious)
    (job / ".stageio" / "spool" / "asr.1.spans.jsonl").symlink_to(precious)
    ask("prune", job, "--yes", "--spool", cwd=job)
    assert precious.stat().st_size > 0


def test_a_job_of_the_original_and_one_without_a_run_record_are_left_alone(job: Path, tmp_path: Path) -> None:
    old = tmp_path / "out" / "old" / "06_asr"
    old.mkdir(parents=True)
    (old / "manifest.json").write_text('{"stage": "asr", "status": "success"}')
    before = everything(old.parent)
    assert "nothing of otel_stageio is in it" in ask("prune", old.parent, "--yes", "--spool", cwd=job).stdout
    assert everything(old.parent) == before
    (job / ".stageio" / "run.json").write_text("{")
    assert "run record is missing or damaged" in ask("prune", job, "--yes", "--spool", cwd=job).stdout
    assert "asr.1" in spooled(job)
    assert (job / ".stageio" / "run.json").read_text() == "{"


def test_a_disk_that_refuses_is_said_and_the_rest_goes(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("asr.1."):
            raise PermissionError(1, "Operation not permitted")
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    pruned = prune(job, Rules(30 * DAYS), delete=True)
    assert pruned.kept == [("journal of asr, attempt 1", "Operation not permitted")]
    assert "journal of asr, attempt 2" in [piece.what for piece in pruned.pieces]


@pytest.mark.parametrize(
    ("args", "message"),
    [(("--older-than", "soon"), "--older-than takes 12h, 30d"), (("--keep", "0"), "Invalid value for '--keep'")],
)
def test_what_makes_no_sense_exits_2(job: Path, args: tuple[str, ...], message: str) -> None:
    done = ask("prune", job, *args, cwd=job)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_path_that_is_no_job_stops_it_before_anything_goes(job: Path, tmp_path: Path) -> None:
    done = ask("prune", job, tmp_path / "nothing", "--yes", cwd=job)
    assert done.returncode == 1
    assert "does not exist" in done.stderr
    assert "asr.1" in spooled(job)
