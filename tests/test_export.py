"""Exports: what others' own tools make of a job, in every state of it."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shlex
import subprocess
import threading
import uuid
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import needs
from helpers import cli, environment, read_manifest, run_command, start_python, strict_json, write_script
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from otel_stageio import Pipeline
from otel_stageio.cli.app import app
from otel_stageio.export.lanes import Slice, lanes
from otel_stageio.testing import FixedClock, SequentialIds, fixed

ROOT = Path(__file__).resolve().parents[1]
FORMATS = ("openlineage", "ro-crate", "chrome")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_STAGEIO_CONSOLE", "off")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "out" / "job 1"


def export(job: Path, to: str, *words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["export", str(job), "--format", to, *map(str, words)])
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert done.stdout.isascii()
    return done.stdout if not code else done.stderr


def openlineage(job: Path, *words: object) -> list[dict[str, Any]]:
    return [strict_json(line) for line in export(job, "openlineage", *words).splitlines()]


def chrome(job: Path, *words: object) -> list[dict[str, Any]]:
    return strict_json(export(job, "chrome", *words))["traceEvents"]  # type: ignore[no-any-return]


def two_runs(job: Path) -> None:
    """A film is demuxed and fails to be heard; the next run keeps the sound and succeeds."""
    film = job.parent / "film.mkv"
    film.parent.mkdir(parents=True, exist_ok=True)
    film.write_bytes(b"moving pictures")
    for attempt in (1, 2):
        with Pipeline("subtitles", job) as run:
            with run.stage("demux") as io:
                io.track_input(film, "media")
                if not io.up_to_date(params={"rate": 16000}):
                    sound = io.get_output_path("the sound #1.wav")
                    sound.write_bytes(b"la la la")
                    io.track_output(sound, "audio")
            try:
                with run.stage("asr") as io:
                    io.track_input(job / "01_demux" / "the sound #1.wav", "audio")
                    io.add_warning("it is noisy")
                    with io.span("decode"):
                        io.track_output(io.save_json(["la"] * attempt, "words.json"), "transcript")
                    if attempt == 1:
                        raise RuntimeError("refused with password=hunter22hunter")
            except RuntimeError:
                pass


# -- OpenLineage -----------------------------------------------------------------------------------------------------


def official(event: dict[str, Any]) -> dict[str, Any]:
    """An event made of the official client's own classes, as it would serialise it."""
    from openlineage.client import event_v2 as ol
    from openlineage.client.serde import Serde

    def facets(given: dict[str, Any]) -> dict[str, Any]:
        return {key: facet(value) for key, value in given.items()}

    def datasets(kind: Any, own: str) -> list[Any]:
        return [
            kind(item["namespace"], item["name"], facets=facets(item["facets"]), **{own: facets(item.get(own, {}))})
            for item in event["inputs" if own == "inputFacets" else "outputs"]
        ]

    run, job = event["run"], event["job"]
    made = ol.RunEvent(
        eventTime=event["eventTime"],
        eventType=ol.RunState(event["eventType"]),
        producer=event["producer"],
        run=ol.Run(run["runId"], facets(run["facets"])),
        job=ol.Job(job["namespace"], job["name"], facets(job["facets"])),
        inputs=datasets(ol.InputDataset, "inputFacets"),
        outputs=datasets(ol.OutputDataset, "outputFacets"),
    )
    return json.loads(Serde.to_json(made))  # type: ignore[no-any-return]


def facet(content: dict[str, Any]) -> Any:
    """The class is the one that the schema names; of another version of it, the comparison would fail."""
    from openlineage.client.generated import base, parent_run

    name = content["_schemaURL"].rpartition("/")[2]
    own = {key: value for key, value in content.items() if not key.startswith("_")}
    if name in ("RunFacet", "DatasetFacet"):
        made = getattr(base, name)(producer=content["_producer"])
        return made.with_additional_properties(**own)
    module = {
        "DatasetVersionDatasetFacet": "dataset_version_dataset", "ErrorMessageRunFacet": "error_message_run",
        "JobTypeJobFacet": "job_type_job", "OutputStatisticsOutputDatasetFacet": "output_statistics_output_dataset",
        "ParentRunFacet": "parent_run", "ProcessingEngineRunFacet": "processing_engine_run",
    }[name]  # fmt: skip
    if name == "ParentRunFacet":
        root = own["root"]
        own = {
            "run": parent_run.Run(**own["run"]),
            "job": parent_run.Job(**own["job"]),
            "root": parent_run.Root(parent_run.RootRun(**root["run"]), parent_run.RootJob(**root["job"])),
        }
    kind = getattr(importlib.import_module(f"openlineage.client.generated.{module}"), name)
    return kind(producer=content["_producer"], **own)


def without_empty(value: Any) -> Any:
    """The client writes out empty facets that we leave away."""
    if isinstance(value, dict):
        return {key: without_empty(item) for key, item in value.items() if item not in ({}, [])}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def test_every_event_is_what_the_official_client_makes_of_it(job: Path) -> None:
    needs("openlineage.client")
    two_runs(job)
    for run in (1, 2):
        events = openlineage(job, "--run", run)
        assert len(events) == 6
        for event in events:
            assert without_empty(official(event)) == without_empty(event)


def by_run(events: list[dict[str, Any]]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for event in events:
        found[event["run"]["runId"]].append(event["eventType"])
    return dict(found)


def last(events: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return [event for event in events if event["job"]["name"] == name][-1]


def test_a_run_and_its_stages_each_begin_and_end_once(job: Path) -> None:
    two_runs(job)
    events = openlineage(job, "--run", 1)
    assert list(by_run(events).values()) == [["START", "FAIL"], ["START", "COMPLETE"], ["START", "FAIL"]]
    assert [event["eventTime"] for event in events] == sorted(event["eventTime"] for event in events)
    assert events[0]["job"]["name"] == events[-1]["job"]["name"] == "subtitles"
    for event in events[1:-1]:
        parent = event["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == events[0]["run"]["runId"]
        assert parent["job"]["name"] == "subtitles"
    assert all(uuid.UUID(run_id).version == 5 for run_id in by_run(events))


def test_a_failure_says_why_and_keeps_its_secret(job: Path) -> None:
    two_runs(job)
    told = last(openlineage(job, "--run", 1), "subtitles.asr")["run"]["facets"]["errorMessage"]
    assert told["message"] == "RuntimeError: refused with password=[redacted]"
    assert "raise RuntimeError" in told["stackTrace"]
    assert "hunter22hunter" not in json.dumps(told)


def test_a_skipped_stage_names_the_run_that_made_its_outputs(job: Path) -> None:
    two_runs(job)
    first = last(openlineage(job, "--run", 1), "subtitles.demux")
    second = last(openlineage(job), "subtitles.demux")
    assert second["eventType"] == "COMPLETE"
    skip = second["run"]["facets"]["stageio_skip"]
    assert skip["reason"].startswith("unchanged since attempt 1")
    assert skip["runId"] == first["run"]["runId"] != second["run"]["runId"]
    versions = [[item["facets"]["version"] for item in event["outputs"]] for event in (first, second)]
    assert versions[0] == versions[1]
    assert "outputFacets" in first["outputs"][0]
    assert "outputFacets" not in second["outputs"][0]


def test_files_are_datasets_with_their_digests_and_link_the_stages(job: Path) -> None:
    two_runs(job)
    events = openlineage(job, "--run", 1)
    (made,), (read,) = last(events, "subtitles.demux")["outputs"], last(events, "subtitles.asr")["inputs"]
    sound = job / "01_demux" / "the sound #1.wav"
    assert (made["namespace"], made["name"]) == (read["namespace"], read["name"]) == ("file", str(sound))
    digest = hashlib.sha256(sound.read_bytes()).hexdigest()
    assert made["facets"]["version"]["datasetVersion"] == f"sha256:{digest}"
    assert made["facets"]["stageio_file"]["digest"] == {"sha256": digest}
    assert made["outputFacets"]["outputStatistics"]["size"] == 8


def test_the_same_run_gives_the_same_bytes(job: Path, tmp_path: Path) -> None:
    two_runs(job)
    for to in FORMATS:
        first = export(job, to)
        done = run_command(cli("export", job, "-f", to), cwd=tmp_path, env={**environment(), "TZ": "Asia/Kolkata"})
        assert done.stdout == first


def test_an_exact_event(job: Path) -> None:
    with (
        fixed(FixedClock(), SequentialIds()),
        Pipeline("subtitles", job) as run,
        run.stage("asr", attributes={"media.duration": 2.0}),
    ):
        pass
    event = last(openlineage(job), "subtitles.asr")
    assert event["eventTime"] == "2025-11-27T10:11:12.000+00:00"
    assert event["run"]["runId"] == "c87c9943-4461-58dd-a719-f48993c44b85"
    attempt = {key: value for key, value in event["run"]["facets"]["stageio_attempt"].items() if key[0] != "_"}
    trace = read_manifest(job / "06_asr")["trace"]
    assert attempt == {
        "stage": "asr", "attempt": 1, "traceId": trace["trace_id"], "spanId": trace["span_id"], "status": "success",
    }  # fmt: skip


STAGE = """
import sys
from otel_stageio import Pipeline
with Pipeline("subtitles", sys.argv[1]) as run, run.stage("asr") as io:
    io.track_input(__file__, "script")
    with io.span("decode"):
        print("inside", flush=True)
        sys.stdin.readline()
"""


def test_what_runs_has_not_ended_and_what_was_killed_was_aborted(job: Path, tmp_path: Path) -> None:
    script = write_script(tmp_path / "asr.py", STAGE)
    process = start_python(script, job, OTEL_STAGEIO_CONSOLE="off")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        events = openlineage(job)
        assert list(by_run(events).values()) == [["START", "RUNNING"]] * 2
        assert [item["name"] for item in last(events, "subtitles.asr")["inputs"]] == [str(script)]
        assert {event["args"]["status"] for event in chrome(job) if event["ph"] == "X"} == {"running"}
        assert "ActiveActionStatus" in export(job, "ro-crate")
    finally:
        process.kill()
        process.communicate()
    events = openlineage(job)
    assert list(by_run(events).values()) == [["START", "ABORT"]] * 2
    assert "killed" in last(events, "subtitles.asr")["run"]["facets"]["errorMessage"]["message"].lower()
    assert "FailedActionStatus" in export(job, "ro-crate")


# -- RO-Crate --------------------------------------------------------------------------------------------------------


def loaded(job: Path) -> Any:
    rocrate = needs("rocrate.rocrate")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return rocrate.ROCrate(job)


def actions_of(crate: Any) -> dict[str, Any]:
    return {action["name"]: action for action in crate.get_by_type("CreateAction")}


def ids(value: Any) -> list[str]:
    return [entity.id for entity in (value if isinstance(value, list) else [value] if value is not None else [])]


def test_a_job_directory_becomes_a_crate_that_rocrate_reads(job: Path) -> None:
    two_runs(job)
    export(job, "ro-crate", "-o", job)
    crate = loaded(job)
    assert crate.version == "1.1"
    assert "https://w3id.org/ro/wfrun/process/0.5" in ids(crate.root_dataset["conformsTo"])
    actions = actions_of(crate)
    assert sorted(actions) == ["asr", "asr #2", "demux"]  # the second demux did nothing
    assert sorted(ids(crate.root_dataset["mentions"])) == sorted(action.id for action in actions.values())
    for action in actions.values():
        assert action["instrument"].type == "SoftwareApplication"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", action["startTime"])
        assert action["startTime"] <= action["endTime"]
    assert actions["asr"]["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert actions["asr"]["error"] == "RuntimeError: refused with password=[redacted]"
    assert actions["demux"]["actionStatus"] == "http://schema.org/CompletedActionStatus"


def test_the_files_of_a_crate_are_there_and_are_what_it_says(job: Path, tmp_path: Path) -> None:
    two_runs(job)
    export(job, "ro-crate", "-o", job)
    crate = loaded(job)
    files = {entity.id: entity for entity in crate.data_entities}
    assert sorted(files) == ["01_demux/the%20sound%20%231.wav", "06_asr/words.json"]
    for entity in files.values():
        content = Path(entity.source).read_bytes()
        assert entity["sha256"] == hashlib.sha256(content).hexdigest()
        assert entity["contentSize"] == str(len(content))
    assert ids(actions_of(crate)["demux"]["result"]) == ids(actions_of(crate)["asr"]["object"])
    crate.write(tmp_path / "copy")  # rocrate finds each by its id
    assert (tmp_path / "copy" / "01_demux" / "the sound #1.wav").read_bytes() == b"la la la"


def test_a_file_belongs_to_the_attempt_whose_content_it_has(job: Path) -> None:
    two_runs(job)
    export(job, "ro-crate", "-o", job)
    actions = actions_of(loaded(job))
    assert ids(actions["asr #2"]["result"]) == ["06_asr/words.json"]
    assert ids(actions["asr"].get("result")) == []


def test_what_is_no_part_of_a_crate_is_named_without_its_path(job: Path) -> None:
    two_runs(job)
    (job / "06_asr" / "words.json").unlink()
    export(job, "ro-crate", "-o", job)
    crate = loaded(job)
    outside = {entity["name"]: entity for entity in crate.get_by_type("CreativeWork") if entity.id.startswith("#")}
    assert sorted(outside) == ["film.mkv", "words.json"]
    assert outside["film.mkv"]["description"] == "outside the job directory"
    assert outside["words.json"]["description"] == "no longer in the job directory"
    assert ids(actions_of(crate)["demux"]["object"]) == [outside["film.mkv"].id]
    assert str(job.parent) not in (job / "ro-crate-metadata.json").read_text()


def test_a_file_that_grew_since_has_no_digest(job: Path) -> None:
    two_runs(job)
    with (job / "06_asr" / "words.json").open("a") as file:
        file.write("more")
    export(job, "ro-crate", "-o", job)
    words = loaded(job).get("06_asr/words.json")
    assert words.get("sha256") is None
    assert words["contentSize"] == str((job / "06_asr" / "words.json").stat().st_size)


def test_a_crate_of_one_run_has_what_the_skipped_stage_stands_for(job: Path) -> None:
    two_runs(job)
    export(job, "ro-crate", "-o", job, "--run", 2)
    assert sorted(actions_of(loaded(job))) == ["asr #2", "demux"]


def test_nothing_is_overwritten_unasked(job: Path) -> None:
    two_runs(job)
    mine = job / "ro-crate-metadata.json"
    mine.write_text("written by hand")
    assert "--force overwrites it" in export(job, "ro-crate", "-o", job, code=1)
    assert mine.read_text() == "written by hand"
    export(job, "ro-crate", "-o", job, "--force")
    assert loaded(job).version == "1.1"
    assert "no directory" in export(job, "chrome", "-o", job / "nowhere" / "trace.json", code=1)
    assert not list(job.glob(".*.part"))


# -- Chrome ----------------------------------------------------------------------------------------------------------


def assert_nested(events: list[dict[str, Any]]) -> None:
    """On one track, slices follow each other or stand inside each other."""
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            start = round(event["ts"] * 1000)
            tracks[event["pid"], event["tid"]].append((start, start + round(event["dur"] * 1000)))
    for slices in tracks.values():
        outer: list[int] = []
        for start, end in sorted(slices, key=lambda item: (item[0], -item[1])):
            while outer and outer[-1] <= start:
                outer.pop()
            assert not outer or end <= outer[-1]
            outer.append(end)


def test_a_run_as_slices_with_names_and_states(job: Path) -> None:
    two_runs(job)
    whole = strict_json(export(job, "chrome", "--run", 1))
    assert whole["displayTimeUnit"] == "ms"
    assert whole["otherData"]["run"] == 1
    events = whole["traceEvents"]
    assert_nested(events)
    processes = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert list(processes.values()) == ["run subtitles", "demux", "asr"]
    slices = [
        (processes[event["pid"]], event["name"], event["args"]["status"]) for event in events if event["ph"] == "X"
    ]
    assert slices == [
        ("run subtitles", "subtitles", "failed"), ("demux", "demux", "success"), ("asr", "asr", "failed"),
        ("asr", "decode", "success"),
    ]  # fmt: skip
    asr = next(event for event in events if event["name"] == "asr")
    assert asr["args"]["attempt"] == 1
    assert asr["args"]["trace_id"] == whole["otherData"]["trace_id"]
    instants = [(event["name"], event["args"]["message"]) for event in events if event["ph"] == "i"]
    assert instants == [
        ("warning", "it is noisy"), ("error", "RuntimeError: refused with password=[redacted]"),
    ]  # fmt: skip
    assert min(event.get("ts", 0) for event in events) >= 0
    titles = [event["args"]["name"] for event in chrome(job) if event["name"] == "process_name"]
    assert titles == ["run subtitles", "demux #2", "asr #2"]


def test_spans_of_threads_are_on_tracks_beside_each_other(job: Path) -> None:
    both = threading.Barrier(2)
    with Pipeline("subtitles", job) as run, run.stage("asr") as io:

        def decode() -> None:
            both.wait()
            with io.span("decode"):
                both.wait()

        threads = [threading.Thread(target=decode) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events = chrome(job)
    assert_nested(events)
    assert len({event["tid"] for event in events if event["name"] == "decode"}) == 2


def test_what_a_stage_used_becomes_curves(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_STAGEIO_SAMPLE_INTERVAL", "0.05")
    with Pipeline("subtitles", job) as run, run.stage("asr"):
        metrics = job / ".stageio" / "spool" / "asr.1.metrics.jsonl"
        while not metrics.exists() or b"process.memory.usage" not in metrics.read_bytes():
            pass
    curves = defaultdict(list)
    for event in chrome(job):
        if event["ph"] == "C":
            curves[event["name"]].append(event["args"]["value"])
    assert {"processor %", "memory MiB"} <= set(curves)
    assert all(1 < value < 100_000 for value in curves["memory MiB"])


@st.composite
def forests(draw: st.DrawFn) -> list[Slice]:
    """Spans of several threads, some longer than what they stand in, as asynchronous ones are."""
    found: list[Slice] = []
    for at in range(draw(st.integers(0, 25))):
        parent = draw(st.one_of(st.none(), st.integers(0, at - 1))) if at else None
        start = draw(st.integers(0, 40))
        found.append(Slice(start, start + draw(st.integers(0, 20)), parent))
    return found


@given(forests())
def test_no_two_slices_of_a_track_overlap_unless_one_is_inside_the_other(slices: list[Slice]) -> None:
    tracks = lanes(slices)
    assert len(tracks) == len(slices)
    assert min(tracks, default=0) == 0
    for at, one in enumerate(slices):
        for other_at, other in enumerate(slices[:at]):
            if tracks[at] != tracks[other_at] or one.end <= other.start or other.end <= one.start:
                continue
            inner, outer = sorted((one, other), key=lambda item: (-item.start, item.end))
            assert outer.start <= inner.start
            assert inner.end <= outer.end
            if inner.start < inner.end:
                assert other_at in ancestors(slices, at) or at in ancestors(slices, other_at)


def ancestors(slices: list[Slice], at: int) -> Iterator[int]:
    parent = slices[at].parent
    while parent is not None:
        yield parent
        parent = slices[parent].parent


def test_one_thread_needs_one_track() -> None:
    slices = [Slice(0, 100), *(Slice(at, at + 10, 0) for at in range(0, 100, 10)), Slice(3, 4, 1)]
    assert set(lanes(slices)) == {0}


def test_a_thousand_at_once_are_a_thousand_tracks_and_then_one() -> None:
    slices = [Slice(at, 5000 + at) for at in range(1000)] + [Slice(9000, 9001)]
    assert sorted(lanes(slices)[:-1]) == list(range(1000))
    assert lanes(slices)[-1] == 0


# -- any job ---------------------------------------------------------------------------------------------------------


def test_a_job_of_the_original(job: Path) -> None:
    stage = job / "06_asr"
    stage.mkdir(parents=True)
    (stage / "words.json").write_text("[]")
    (stage / "manifest.json").write_text(
        '{"stage": "asr", "timestamp": "2025-11-27T10:11:12", "duration_seconds": 4, "status": "failed",'
        ' "outputs": [{"path": "06_asr/words.json", "size_bytes": 2}],'
        ' "errors": ["no, api_key=abcdefgh12345678"], "config": {"x": NaN}}'
    )
    start, end = openlineage(job)
    assert (start["eventType"], end["eventType"]) == ("START", "FAIL")
    assert "parent" not in end["run"]["facets"]
    assert end["job"]["name"] == "job 1.asr"
    assert [item["name"] for item in end["outputs"]] == [str(stage / "words.json")]
    for to in FORMATS:
        assert "abcdefgh12345678" not in export(job, to)
    export(job, "ro-crate", "-o", job)
    (action,) = actions_of(loaded(job)).values()
    assert ids(action["result"]) == ["06_asr/words.json"]
    assert [event["dur"] for event in chrome(job) if event["ph"] == "X"] == [4e6, 4e6]


def test_a_hostile_job_is_exported_as_plain_json(job: Path) -> None:
    stage = job / "99_x"
    stage.mkdir(parents=True)
    odd = "\u202e\x1b[31m\ud800<script>#?%/../../etc/passwd"
    (stage / "manifest.json").write_text(
        json.dumps(
            {
                "stage": odd, "timestamp": "2025-11-27T10:11:12+01:00", "status": odd, "duration_seconds": 1e300,
                "outputs": [
                    {"path": odd, "digest": {"sha256": odd, "x": 1}}, {"path": "a\0b"}, {"path": ""},
                    {"path": str(job / "ro-crate-metadata.json")}, {"path": str(job)}, {"path": "/dev/zero"},
                ],
                "errors": [{"message": odd, "timestamp": odd, "traceback": odd}],
                "resume": {"skip": True, "source": {"attempt": [], "run_id": 7}}, "trace": {"run_id": odd},
            }
        )
    )  # fmt: skip
    everything = [openlineage(job), chrome(job), strict_json(export(job, "ro-crate"))]
    json.dumps(everything, ensure_ascii=False).encode("utf-8")  # half a surrogate pair would raise
    assert [event["eventType"] for event in openlineage(job)] == ["START", "ABORT"]
    assert_nested(chrome(job))
    export(job, "ro-crate", "-o", job)
    assert len(actions_of(loaded(job))) == 1


@pytest.mark.parametrize("to", FORMATS)
def test_what_cannot_be_exported_is_one_sentence(job: Path, to: str) -> None:
    job.mkdir(parents=True)
    assert "is empty" in export(job, to, code=1)
    (job / "06_asr").mkdir()
    (job / "06_asr" / "stage.log").write_text("hello\n")
    assert "no run 3; there are: none" in export(job, to, "--run", 3, code=1)
    if to != "ro-crate":
        assert export(job, to, code=1).startswith("otel-stageio: no")


def test_spans_inside_each_other_to_any_depth(job: Path) -> None:
    with Pipeline("subtitles", job) as run, run.stage("asr") as io:
        spans = [io.span(f"level {at}") for at in range(1500)]
        for span in spans:
            span.__enter__()
        for span in reversed(spans):
            span.__exit__(None, None, None)
    events = chrome(job)
    assert_nested(events)
    assert {event["tid"] for event in events if event["ph"] == "X"} == {1}
    assert sum(event["ph"] == "X" for event in events) == 1502


def test_twenty_thousand_files(job: Path) -> None:
    names = [f"06_asr/part {at}.json" for at in range(20_000)]
    with Pipeline("subtitles", job) as run, run.stage("asr"):
        pass
    manifest = job / "06_asr" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["outputs"] = [{"path": str(job / name), "size_bytes": 1, "digest": {"sha256": "0" * 64}} for name in names]
    manifest.write_text(json.dumps(content))
    assert len(last(openlineage(job), "subtitles.asr")["outputs"]) == 20_000
    assert export(job, "ro-crate").count("no longer in the job directory") == 20_000


def test_the_page_on_exports_is_true(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "EXPORTS.md").read_text(encoding="utf-8")
    two_runs(tmp_path / "out" / "job1")
    commands = re.findall(r"^\$ (otel-stageio .*)$", page, re.MULTILINE)
    for command in commands:
        words = shlex.split(command)[1:]
        done = subprocess.run(cli(*words), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
    assert len(commands) == 3
    for name in ("events.jsonl", "out/job1/ro-crate-metadata.json", "trace.json"):
        assert os.path.getsize(tmp_path / name) > 1000
