"""Delivery: what the receiver answers decides what happens next, and nothing is lost on the way."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from helpers import LIMIT, start_python, write_script
from receiver import OK, Answer, GrpcReceiver, Received, Receiver, black_hole, free_port

from otel_stageio import StageIO
from otel_stageio.delivery import delivery as delivering
from otel_stageio.delivery.delivery import Breaker, Delivery
from otel_stageio.delivery.outbox import Outbox
from otel_stageio.delivery.outcome import Kind, Outcome
from otel_stageio.delivery.settings import endpoints
from otel_stageio.delivery.shipper import Shipment, Watch, push
from otel_stageio.layout import Job
from otel_stageio.otlp import decode
from otel_stageio.testing import Records


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(delivering, "FIRST_LONG_PAUSE", 0.01)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "job")


def run_stage(job: Job, name: str = "asr", spans: int = 3, lines: int = 3) -> None:
    with StageIO(name, job.root) as io:
        log = io.get_stage_logger()
        for number in range(lines):
            log.info("%s line %d", name, number)
        for number in range(spans):
            with io.span(f"{name} step", number=number):
                pass


def spooled_spans(job: Job) -> set[str]:
    return {span["spanId"] for span in Records(job.root).spans()}


def spooled_logs(job: Job) -> Counter[str]:
    found: Counter[str] = Counter()
    for path in Path(job.spool).glob("*.logs.jsonl"):
        for _, record in decode.log_records(decode.Lines(path)):
            found[record.get("body", {}).get("stringValue", "")] += 1
    return found


def send(job: Job, url: str, **how: Any) -> Shipment:
    delivery = Delivery(endpoints({}, endpoint=url, protocol=how.pop("protocol", None)))
    try:
        return push(job, delivery, **how)
    finally:
        delivery.close()


def refused_file(job: Job) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(job.refused).read_text(encoding="utf-8").splitlines()]


# -- what arrives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Receiver, GrpcReceiver])
def test_everything_in_the_spool_arrives_once_and_is_then_not_pending(job: Job, kind: type[Receiver]) -> None:
    run_stage(job)
    with kind() as receiver:
        protocol = "grpc" if kind is GrpcReceiver else None
        shipment = send(job, receiver.url, protocol=protocol)
        assert (shipment.pending, shipment.report.refused) == ({}, {})
        assert receiver.span_ids == Counter(spooled_spans(job))
        assert receiver.bodies == spooled_logs(job)
        before = len(receiver.requests)
        assert send(job, receiver.url, protocol=protocol).report.accepted == {}
        assert len(receiver.requests) == before


def test_a_span_arrives_with_the_ids_times_events_and_status_that_it_has_on_disk(job: Job) -> None:
    with pytest.raises(ValueError, match="boom"), StageIO("asr", job.root) as io:
        io.add_warning("careful")
        raise ValueError("boom")
    with Receiver() as receiver:
        send(job, receiver.url)
        (sent,) = (span for span in receiver.spans if span.name == "asr")
    (spooled,) = decode.spans(decode.Lines(job.journal("asr", 1, "spans")))
    assert sent.trace_id.hex() == spooled["traceId"]
    assert sent.parent_span_id.hex() == spooled["parentSpanId"]
    assert (sent.start_time_unix_nano, sent.end_time_unix_nano) == (
        spooled["startTimeUnixNano"],
        spooled["endTimeUnixNano"],
    )
    assert [(event.name, event.time_unix_nano) for event in sent.events] == [
        (event["name"], int(event["timeUnixNano"])) for event in spooled["events"]
    ]
    assert (sent.status.code, sent.status.message) == (2, spooled["status"]["message"])


def test_what_is_meant_for_this_machine_alone_is_not_sent(job: Job) -> None:
    with StageIO("asr", job.root) as io:
        io.set_config({"title": "a secret film", "model": "large"})
        io.track_input(Path(__file__), "script")
    with Receiver() as receiver:
        send(job, receiver.url)
        wire = b"".join(received.message.SerializeToString() for received in receiver.requests)
    assert b"stageio.local." in b"".join(path.read_bytes() for path in Path(job.spool).glob("*.logs.jsonl"))
    assert b"stageio.local." not in wire
    assert b"a secret film" not in wire
    assert str(Path(__file__).parent).encode() not in wire


def test_requests_are_merged_up_to_about_a_mebibyte_and_never_larger(job: Job) -> None:
    with StageIO("asr", job.root) as io:
        log = io.get_stage_logger()
        for number in range(3000):
            log.info("%06d %s", number, "x" * 1000)
    with Receiver() as receiver:
        send(job, receiver.url)
        sizes = [received.size for received in receiver.requests if received.signal == "logs"]
    assert receiver.bodies == spooled_logs(job)
    assert max(sizes) <= 1.1 * 1024 * 1024
    assert len(sizes) <= 6


def test_a_stage_that_died_is_closed_and_its_end_is_sent(job: Job, tmp_path: Path) -> None:
    script = write_script(
        tmp_path / "killed.py",
        """
        import os, signal, sys
        from otel_stageio import StageIO

        with StageIO("asr", sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    start_python(script, job.root).communicate(timeout=LIMIT)
    with Receiver() as receiver:
        send(job, receiver.url)
    assert any(span.name == "asr" and span.status.code == 2 for span in receiver.spans)
    assert any(span.name.startswith("RUN") for span in receiver.spans)


# -- later -----------------------------------------------------------------------------------------------------------


BAD = {
    "401": Answer(401, text="no token"),
    "403": Answer(403),
    "404": Answer(404),
    "400 to everything": Answer(400, text="Client sent an HTTP request to an HTTPS server."),
    "413 to everything": Answer(413),
    "a web page": Answer(200, html=True),
    "a redirect": Answer(302, {"location": "https://elsewhere/"}),
    "a dropped answer": Answer(drop=True),
}
BUSY = {"429": Answer(429), "500": Answer(500), "502": Answer(502), "503": Answer(503), "504": Answer(504)}


@pytest.mark.parametrize("answer", [*BAD.values()], ids=[*BAD])
def test_a_receiver_that_is_wrong_loses_nothing_and_is_named(job: Job, answer: Answer) -> None:
    run_stage(job)
    with Receiver(answer) as receiver:
        shipment = send(job, receiver.url)
        assert shipment.pending["spans"] == len(spooled_spans(job))
        assert shipment.pending["logs"] == spooled_logs(job).total()
        assert all(outcome.reason for _, outcome in shipment.report.trouble.values())
        assert shipment.report.trouble
    assert not Path(job.refused).exists()
    with Receiver() as receiver:
        assert send(job, receiver.url).pending == {}
        assert receiver.span_ids == Counter(spooled_spans(job))
        assert receiver.bodies == spooled_logs(job)


@pytest.mark.parametrize("answer", [*BUSY.values()], ids=[*BUSY])
def test_a_busy_receiver_is_asked_again_until_it_accepts(job: Job, answer: Answer) -> None:
    run_stage(job)
    bad = {"traces": 2, "logs": 2}

    def busy_at_first(received: Received) -> Answer:
        bad[received.signal] -= 1
        return answer if bad[received.signal] >= 0 else OK

    with Receiver(busy_at_first) as receiver:
        assert send(job, receiver.url).pending == {}
    assert receiver.span_ids == Counter(spooled_spans(job))
    assert receiver.bodies == spooled_logs(job)


CODES = ["UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "UNAVAILABLE", "INTERNAL", "INVALID_ARGUMENT"]


@pytest.mark.parametrize("code", CODES)
def test_an_error_over_grpc_to_everything_loses_nothing(job: Job, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_stageio.delivery.shipper.PATIENCE", 0.0)
    run_stage(job)
    with GrpcReceiver(Answer(code=getattr(grpc.StatusCode, code), text="because")) as receiver:
        shipment = send(job, receiver.url, protocol="grpc")
        assert shipment.pending["spans"] == len(spooled_spans(job))
        assert shipment.report.trouble["spans"][1].reason == f"{code}: because"
    with GrpcReceiver() as receiver:
        assert send(job, receiver.url, protocol="grpc").pending == {}
        assert receiver.span_ids == Counter(spooled_spans(job))


def test_nobody_there_is_said_at_once_and_costs_one_connection_for_all_signals(job: Job) -> None:
    run_stage(job)
    shipment = send(job, f"http://127.0.0.1:{free_port()}")
    assert shipment.report.requests == 1
    assert "refused" in next(iter(shipment.report.trouble.values()))[1].reason.lower()
    assert shipment.pending["spans"] == len(spooled_spans(job))


def test_a_black_hole_is_left_after_the_timeout(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(job)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with black_hole() as url:
        delivery = Delivery(endpoints(endpoint=url))
        assert push(job, delivery).pending["spans"] == len(spooled_spans(job))


def test_retry_after_is_obeyed_and_pauses_grow_with_jitter() -> None:
    breaker = Breaker()
    breaker.failed(Outcome(Kind.LATER, retry_after=20.0))
    assert 19 < breaker.seconds <= 20
    pauses = []
    for _ in range(20):
        breaker.failed(Outcome(Kind.LATER))
        pauses.append(breaker.seconds)
    assert max(pauses) <= delivering.LONGEST_PAUSE
    assert len(set(pauses)) == len(pauses)
    breaker.succeeded()
    assert breaker.seconds == 0


@pytest.mark.parametrize(("header", "least", "most"), [("7", 6, 7), ("Wed, 21 Oct 2099 07:28:00 GMT", 3000, 3600)])
def test_retry_after_comes_in_seconds_or_as_a_date(job: Job, header: str, least: float, most: float) -> None:
    run_stage(job)
    with Receiver(Answer(503, {"retry-after": header})) as receiver:
        delivery = Delivery(endpoints({}, endpoint=receiver.url))
        delivery.deliver(Outbox(job))
        assert least < delivery.breakers["spans"].seconds <= most
        seen = len(receiver.requests)
        delivery.deliver(Outbox(job))  # not before then
        assert len(receiver.requests) == seen


def test_retry_info_over_grpc_is_obeyed(job: Job) -> None:
    from google.rpc.error_details_pb2 import RetryInfo

    run_stage(job)
    info = RetryInfo()
    info.retry_delay.seconds = 9
    trailer = {"google.rpc.retryinfo-bin": info.SerializeToString()}
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    with GrpcReceiver(Answer(code=code, headers=trailer)) as receiver:
        delivery = Delivery(endpoints({}, endpoint=receiver.url, protocol="grpc"))
        delivery.deliver(Outbox(job))
        assert 8 < delivery.breakers["spans"].seconds <= 9


def test_a_journal_that_is_stuck_does_not_keep_the_others_back(job: Job) -> None:
    run_stage(job, "demux")
    run_stage(job, "asr")

    def poison(received: Received) -> Answer:
        return Answer(503, text="value too large") if any(span.name == "demux" for span in received.spans) else OK

    with Receiver(poison) as receiver:
        delivery = Delivery(endpoints({}, endpoint=receiver.url))
        outbox = Outbox(job)
        for _ in range(20):
            delivery.deliver(outbox)
            time.sleep(0.01)  # the pause that follows a failure here, not a guess at somebody else's
        names = {span.name for span in receiver.spans}
    assert "asr" in names
    assert "demux" not in names


# -- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413])
def test_the_one_record_that_is_refused_is_set_aside_with_the_reason_and_the_rest_arrives(
    job: Job, status: int
) -> None:
    run_stage(job, spans=9)

    def picky(received: Received) -> Answer:
        bad = any(attribute.key == "number" and attribute.value.int_value == 5 for span in received.spans
                  for attribute in span.attributes)  # fmt: skip
        return Answer(status, text="no fives") if bad else OK

    with Receiver(picky) as receiver:
        shipment = send(job, receiver.url)
        assert shipment.report.refused == {"spans": 1}
        assert shipment.pending == {}
        assert len(receiver.span_ids) == len(spooled_spans(job)) - 1
        assert set(receiver.span_ids.values()) == {1}
        before = len(receiver.requests)
        send(job, receiver.url)
        assert len(receiver.requests) == before  # not tried for ever
    (entry,) = refused_file(job)
    assert "no fives" in entry["reason"]
    assert entry["journal"] == "asr.1.spans.jsonl"
    (span,) = entry["request"]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert {"key": "number", "value": {"intValue": "5"}} in span["attributes"]


def test_partial_success_counts_what_the_receiver_dropped_and_is_not_sent_again(job: Job) -> None:
    run_stage(job)
    with Receiver(lambda r: Answer(rejected=2, text="too old") if r.signal == "traces" else OK) as receiver:
        shipment = send(job, receiver.url)
        before = len(receiver.requests)
        assert send(job, receiver.url).pending == {}
        assert len(receiver.requests) == before
    assert shipment.report.refused["spans"] >= 2
    assert {entry["reason"] for entry in refused_file(job)} == {"too old"}


def test_lines_that_are_no_otlp_are_set_aside_and_what_is_glued_to_them_arrives(job: Job) -> None:
    run_stage(job)
    journal = Path(job.journal("asr", 1, "spans"))
    whole = journal.read_bytes()
    journal.write_bytes(
        b'{"resourceSpans":[{"resource":{"at' + whole + b"\x00\xff not json\n[1,2]\n"
        + b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz","startTimeUnixNano":"soon"}]}]}]}\n'
        + b'{"resourceSpans":7}\n{"resourceLogs":[]}\n' + b"x" * 9_000_000 + b"\n"
    )  # fmt: skip
    expected = spooled_spans_of(whole)
    with Receiver() as receiver:
        shipment = send(job, receiver.url)
    assert expected <= set(receiver.span_ids)
    assert shipment.pending == {}
    assert shipment.report.refused["spans"] == len(refused_file(job)) == 7
    assert all(entry["reason"] for entry in refused_file(job))


def spooled_spans_of(raw: bytes) -> set[str]:
    return {
        span["spanId"]
        for line in raw.splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    }


def test_a_line_that_is_being_written_waits_until_it_is_whole(job: Job) -> None:
    run_stage(job)
    journal = Path(job.journal("asr", 1))
    whole = journal.read_bytes()
    with Receiver() as receiver:
        journal.write_bytes(whole[:-40])
        assert send(job, receiver.url).report.refused == {}
        some = receiver.bodies.total()
        with journal.open("ab") as file:
            file.write(whole[-40:])
        send(job, receiver.url)
    assert some < receiver.bodies.total() == spooled_logs(job).total()


def test_what_was_accepted_around_a_refused_record_is_noted_at_once_and_not_sent_again(job: Job) -> None:
    """The receiver goes away in the middle of looking for the one at fault."""
    run_stage(job, spans=40)
    away = True

    def picky(received: Received) -> Answer:
        numbers = {a.value.int_value for span in received.spans for a in span.attributes if a.key == "number"}
        if 30 in numbers:
            return Answer(400, text="no thirties")
        return Answer(503, {"retry-after": "0"}) if away and 35 in numbers else OK

    with Receiver(picky) as receiver:
        delivery = Delivery(endpoints({}, endpoint=receiver.url))
        for _ in range(4):
            delivery.deliver(Outbox(job))
            time.sleep(0.02)  # the pause that follows a failure here, not a guess at somebody else's
        away = False
        assert send(job, receiver.url).pending == {}
    assert set(receiver.span_ids.values()) == {1}
    assert len(receiver.span_ids) == len(spooled_spans(job)) - 1
    assert len(refused_file(job)) == 1


HUGE = "1" + "0" * 400
NUMBERS = ["1e999", HUGE, f'"{HUGE}"', "-1", "[]", "true", '"soon"', "NaN", "-Infinity", "{}"]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("where", ["startTimeUnixNano", "kind", "value"])
def test_numbers_that_fit_nowhere_stop_nothing(job: Job, number: str, where: str) -> None:
    run_stage(job)
    value = number if where == "value" else "3"
    fields = "" if where == "value" else f',"{where}":{number}'
    line = (
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"' + "ab" * 16 + '","spanId":"' + "cd" * 8 + '"' + fields
        + ',"attributes":[{"key":"a","value":{"intValue":' + value + "}}]}]}]}]}\n"
    )  # fmt: skip
    expected = spooled_spans(job)
    with Path(job.journal("asr", 1, "spans")).open("r+") as file:
        whole = file.read()
        file.seek(0)
        file.write(line + whole)
    with Receiver() as receiver:
        assert send(job, receiver.url).pending == {}
    assert expected <= set(receiver.span_ids)


def test_a_warning_about_records_that_were_accepted_is_shown_and_costs_nothing(job: Job) -> None:
    run_stage(job)
    with Receiver(lambda r: Answer(text="use newer names") if r.signal == "traces" else OK) as receiver:
        shipment = send(job, receiver.url)
    assert (shipment.pending, shipment.report.refused) == ({}, {})
    assert shipment.report.remarks == {"spans": "use newer names"}
    assert json.loads(Path(job.ack).read_bytes())["remarks"] == {"spans": "use newer names"}
    assert not Path(job.refused).exists()


def test_a_receiver_that_rejects_less_than_nothing_is_not_believed(job: Job) -> None:
    run_stage(job)
    with Receiver(Answer(rejected=-5, text="odd")) as receiver:
        shipment = send(job, receiver.url)
    assert shipment.report.refused == {}
    assert shipment.report.accepted["spans"] == len(spooled_spans(job))


# -- the note of what was accepted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"offsets": 3}', b'{"offsets": {"asr.1.logs.jsonl": 1e9}}'])
def test_a_damaged_note_sends_again_rather_than_loses(job: Job, content: bytes) -> None:
    run_stage(job)
    Path(job.ack).write_bytes(content)
    with Receiver() as receiver:
        assert send(job, receiver.url).pending == {}
    assert set(receiver.span_ids) == spooled_spans(job)
    assert receiver.bodies == spooled_logs(job)


def test_again_sends_all_of_it_once_more_with_the_same_ids(job: Job) -> None:
    run_stage(job)
    with Receiver() as receiver:
        send(job, receiver.url)
        send(job, receiver.url, again=True)
    assert receiver.span_ids == Counter(dict.fromkeys(spooled_spans(job), 2))


def test_since_leaves_out_what_is_older(job: Job) -> None:
    import os

    run_stage(job, "demux")
    run_stage(job, "asr")
    for path in Path(job.spool).glob("demux*"):
        os.utime(path, (1, 1))
    with Receiver() as receiver:
        send(job, receiver.url, since=1000.0)
        assert "asr" in {span.name for span in receiver.spans}
        assert "demux" not in {span.name for span in receiver.spans}
        send(job, receiver.url)
        assert "demux" in {span.name for span in receiver.spans}


def test_only_one_process_delivers_a_job_at_a_time(job: Job) -> None:
    run_stage(job)
    with Receiver() as receiver, Outbox(job).locked() as mine:
        assert mine
        report = Delivery(endpoints({}, endpoint=receiver.url)).deliver(Outbox(job))
        assert report.busy
        assert receiver.requests == []


def test_a_job_that_was_deleted_is_not_brought_back(job: Job) -> None:
    run_stage(job)
    outbox = Outbox(job)
    with Receiver() as receiver:
        delivery = Delivery(endpoints({}, endpoint=receiver.url))
        shutil.rmtree(job.root)
        assert delivery.deliver(outbox).accepted == {}
        outbox.save()
    assert not job.root.exists()


def test_trouble_is_noted_beside_the_spool_and_goes_when_it_is_over(job: Job) -> None:
    run_stage(job)
    with Receiver(Answer(401)) as receiver:
        send(job, receiver.url)
        trouble = json.loads(Path(job.ack).read_bytes())["trouble"]["spans"]
        assert (trouble["kind"], trouble["reason"]) == ("misconfigured", "401 Unauthorized")
        receiver.answer = OK
        send(job, receiver.url)
    assert json.loads(Path(job.ack).read_bytes())["trouble"] == {}


def test_a_job_that_is_deleted_and_made_again_is_sent_from_its_beginning(job: Job) -> None:
    """Also by a deliverer that knows the former one, and where the new one is longer than the old was."""
    run_stage(job, spans=2)
    outbox = Outbox(job)
    with Receiver() as receiver:
        delivery = Delivery(endpoints({}, endpoint=receiver.url))
        delivery.deliver(outbox)
        shutil.rmtree(job.root)
        run_stage(job, spans=30, lines=30)
        delivery.deliver(outbox)
        assert spooled_spans(job) <= set(receiver.span_ids)
        assert (receiver.bodies & spooled_logs(job)) == spooled_logs(job)


def test_a_journal_that_is_replaced_while_its_request_is_under_way_is_not_noted_as_sent(job: Job) -> None:
    run_stage(job, spans=2)

    def replace(received: Received) -> Answer:
        if received.spans and not replaced:
            replaced.append(True)
            shutil.rmtree(job.root)
            run_stage(job, spans=30)
        return OK

    replaced: list[bool] = []
    with Receiver(replace) as receiver:
        send(job, receiver.url)
        assert send(job, receiver.url).pending == {}
    assert spooled_spans(job) <= set(receiver.span_ids)


def test_a_job_that_is_copied_or_moved_is_not_sent_again(job: Job, tmp_path: Path) -> None:
    run_stage(job)
    with Receiver() as receiver:
        send(job, receiver.url)
        before = len(receiver.requests)
        shutil.copytree(job.root, tmp_path / "copy")
        assert send(Job(tmp_path / "copy"), receiver.url).report.accepted == {}
        job.root.rename(tmp_path / "moved")
        assert send(Job(tmp_path / "moved"), receiver.url).report.accepted == {}
        assert len(receiver.requests) == before


def without_a_note(job: Job) -> None:
    """Nothing can be noted beside this job: in the way of the note is a directory with something in it."""
    (Path(job.ack) / "in the way").mkdir(parents=True)


def test_where_nothing_can_be_noted_it_is_said_and_a_long_lived_deliverer_sends_once(job: Job) -> None:
    run_stage(job)
    without_a_note(job)
    told: list[str] = []
    with Receiver() as receiver:
        delivery = Delivery(endpoints({}, endpoint=receiver.url))
        watch = Watch(job.root.parent, delivery, on_unnoted=lambda job, report: told.append(report.unnoted))
        for _ in range(4):
            watch.look()
        assert receiver.span_ids == Counter(spooled_spans(job))
        run_stage(job, "mux")
        watch.look()
        assert receiver.span_ids == Counter(spooled_spans(job))
    assert told == ["Is a directory"]
    with Receiver() as receiver:
        assert send(job, receiver.url).report.unnoted == "Is a directory"


NOTES = ['{"accepted": [], "refused": 3, "trouble": [], "remarks": 7}', '{"accepted": {"spans": null}}',
         '{"trouble": {"spans": 4}}', '{"offsets": {"asr.1.spans.jsonl": true}, "beginnings": 3}']  # fmt: skip


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("answer", [OK, Answer(401)], ids=["accepted", "not accepted"])
def test_a_note_of_the_wrong_kind_stops_nobody(job: Job, note: str, answer: Answer) -> None:
    run_stage(job)
    Path(job.ack).write_text(note)
    with Receiver(answer) as receiver:
        assert not send(job, receiver.url).failed
        receiver.answer = OK
        assert send(job, receiver.url).pending == {}
    assert set(receiver.span_ids) == spooled_spans(job)


WRONG = [
    ("owner", None),
    ("owner", 7),
    ("pipeline_log", None),
    ("started_ns", "soon"),
    ("stages", None),
    ("attempt", "x"),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_damaged_run_record_keeps_nothing_back(job: Job, key: str, value: object) -> None:
    run_stage(job)
    content = json.loads(Path(job.run_record).read_text())
    Path(job.run_record).write_text(json.dumps({**content, key: value}))
    with Receiver() as receiver:
        Watch(job.root.parent, Delivery(endpoints({}, endpoint=receiver.url))).look()
        assert "asr" in {span.name for span in receiver.spans}
        assert send(job, receiver.url).pending == {}


def test_one_journal_that_is_always_put_off_keeps_no_other_job_back(tmp_path: Path) -> None:
    for number in range(6):
        run_stage(Job(tmp_path / f"job{number}"))
    stuck = json.loads(Path(Job(tmp_path / "job0").run_record).read_text())["trace_id"]

    def poison(received: Received) -> Answer:
        return Answer(503) if any(span.trace_id.hex() == stuck for span in received.spans) else OK

    with Receiver(poison) as receiver:
        delivery = Delivery(endpoints({}, endpoint=receiver.url))
        watch = Watch(tmp_path, delivery)
        for _ in range(6):
            watch.look()
            time.sleep(0.02)  # the pause that follows a failure here, not a guess at somebody else's
        arrived = {span.trace_id.hex() for span in receiver.spans}
    assert len(arrived) == 5
    assert stuck not in arrived


def test_an_error_of_our_own_with_one_job_keeps_no_other_job_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_in_production: None
) -> None:
    for number in range(3):
        run_stage(Job(tmp_path / f"job{number}"))
    load = Outbox.load

    def broken(outbox: Outbox) -> None:
        if outbox.job.root.name == "job0":
            raise RuntimeError("nobody thought of this")
        load(outbox)

    monkeypatch.setattr(Outbox, "load", broken)
    with Receiver() as receiver:
        delivery = Delivery(endpoints({}, endpoint=receiver.url))
        Watch(tmp_path, delivery).look()
        assert len({span.trace_id for span in receiver.spans}) == 2
        assert push(Job(tmp_path / "job0"), delivery).failed == "an error of otel-stageio itself (RuntimeError)"


def test_again_counts_what_is_accepted_once_though_the_receiver_was_busy_in_between(job: Job) -> None:
    run_stage(job)
    answers = [Answer(429, {"retry-after": "0"})]
    with Receiver() as receiver:
        send(job, receiver.url)
        receiver.answer = lambda received: answers.pop() if answers and received.signal == "logs" else OK
        shipment = send(job, receiver.url, again=True)
    assert shipment.report.accepted == {"spans": len(spooled_spans(job)), "logs": spooled_logs(job).total()}
    assert receiver.span_ids == Counter(dict.fromkeys(spooled_spans(job), 2))


def test_a_stage_that_still_runs_is_seen_to_its_end(tmp_path: Path) -> None:
    """A run can be over, and everything sent, while a stage of it goes on."""
    job = Job(tmp_path / "job")
    with Receiver() as receiver:
        watch = Watch(tmp_path, Delivery(endpoints({}, endpoint=receiver.url)))
        with StageIO("asr", job.root) as io:
            from otel_stageio.runs import run_end

            run_end.close(job, json.loads(Path(job.run_record).read_text())["run_id"])
            watch.look()
            watch.look()
            with io.span("late"):
                pass
        watch.look()
        assert {"late", "asr"} <= {span.name for span in receiver.spans}


# -- receivers that are worse than wrong -----------------------------------------------------------------------------


def test_an_answer_that_drips_ends_with_the_timeout(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(job)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    with Receiver(Answer(drip=True)) as receiver:
        delivery = Delivery(endpoints(endpoint=receiver.url))
        shipment = push(job, delivery)
    assert shipment.pending["spans"] == len(spooled_spans(job))
    assert {outcome.reason for _, outcome in shipment.report.trouble.values()} == {"the answer did not end in time"}


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"", b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"])
def test_how_long_to_wait_is_not_believed_if_it_is_nonsense(job: Job, raw: bytes) -> None:
    run_stage(job)
    trailer = {"google.rpc.retryinfo-bin": raw}
    with GrpcReceiver(Answer(code=grpc.StatusCode.UNAVAILABLE, headers=trailer)) as receiver:
        delivery = Delivery(endpoints({}, endpoint=receiver.url, protocol="grpc"))
        delivery.deliver(Outbox(job))
        assert all(breaker.seconds <= 3600 for breaker in delivery.breakers.values())
        assert Outbox(job).pending()


def test_too_large_is_understood_however_a_grpc_server_says_it(job: Job) -> None:
    run_stage(job, spans=8)

    def small(received: Received) -> Answer:
        text = "Sent message exceeds maximum size"
        return Answer(code=grpc.StatusCode.RESOURCE_EXHAUSTED, text=text) if len(received.spans) > 2 else OK

    with GrpcReceiver(small) as receiver:
        assert send(job, receiver.url, protocol="grpc").pending == {}
        assert receiver.span_ids == Counter(spooled_spans(job))
