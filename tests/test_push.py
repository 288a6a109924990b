"""``otel-stageio push``, ``push --watch`` and ``doctor``, as a person at a terminal and a service manager meet them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers import LIMIT, cli, environment, run_command, start_python, write_script
from receiver import OK, Answer, CountingReceiver, GrpcReceiver, Received, Receiver, free_port
from stack import wait_until

from otel_stageio import Pipeline, StageIO
from otel_stageio.delivery import shipper


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return make(tmp_path / "job")


def make(root: Path) -> Path:
    """A job with a run of one stage: 2 spans, 4 log records."""
    with Pipeline("films", root) as run, run.stage("asr") as io:
        io.get_stage_logger("CRITICAL").info("hello")
    return root


def ask(*args: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return run_command(cli(*args), cwd=cwd, env=environment(**env))


# -- push ------------------------------------------------------------------------------------------------------------


def test_push_says_what_it_sent_and_then_that_nothing_is_pending(job: Path) -> None:
    with Receiver() as receiver:
        first = ask("push", job, "--endpoint", receiver.url, cwd=job)
        second = ask("push", job, "--endpoint", receiver.url, cwd=job)
    assert (first.returncode, first.stdout, first.stderr) == (0, f"✓ {job}  3 log records, 2 spans sent\n", "")
    assert (second.returncode, second.stdout) == (0, f"✓ {job}  nothing was pending\n")


def test_the_endpoint_comes_from_the_environment_and_options_come_first(job: Path) -> None:
    with Receiver() as receiver:
        done = ask("push", job, "--header", "X-Team: film=s", cwd=job, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
                   OTEL_EXPORTER_OTLP_HEADERS="x-team=other,api-key=k")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert {(r.headers["x-team"], r.headers["api-key"]) for r in receiver.requests} == {("film=s", "k")}
    with GrpcReceiver() as other:
        done = ask("push", job, "--again", "--endpoint", other.url, "--protocol", "grpc", cwd=job,
                   OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(other.span_ids) == 2


def test_what_is_pending_is_counted_with_the_reason_and_exits_1(job: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = ask("push", job, "--endpoint", url, cwd=job)
    assert done.returncode == 1
    assert "3 log records, 2 spans pending" in done.stdout
    assert done.stdout.count("Connection refused") == 1  # for all signals at one address
    assert "`otel-stageio doctor` says what is wrong" in done.stdout
    with Receiver(Answer(401)) as receiver:
        done = ask("push", job, "--endpoint", receiver.url, cwd=job)
    assert done.returncode == 1
    assert "401 Unauthorized" in done.stdout


def test_what_is_refused_is_named_with_its_file_and_exits_1(job: Path) -> None:
    def picky(request: Received) -> Answer:
        return Answer(400, text="no such field") if any(span.name == "asr" for span in request.spans) else OK

    with Receiver(picky) as receiver:
        done = ask("push", job, "--endpoint", receiver.url, cwd=job)
        again = ask("push", job, "--endpoint", receiver.url, cwd=job)
    assert done.returncode == 1
    assert "1 span refused, see .stageio/refused.jsonl" in done.stdout
    assert "no such field" in (job / ".stageio" / "refused.jsonl").read_text()
    assert (again.returncode, again.stdout) == (0, f"✓ {job}  nothing was pending\n")


def test_several_jobs_have_a_line_each_and_a_sum(tmp_path: Path) -> None:
    jobs = [make(tmp_path / f"job{number}") for number in range(3)]
    with Receiver() as receiver:
        done = ask("push", *jobs, "--endpoint", receiver.url, cwd=tmp_path)
        document = ask("push", *jobs, "--endpoint", receiver.url, "--again", "--json", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "9 log records, 6 spans sent from 3 jobs"
    assert document.stderr == ""
    found = json.loads(document.stdout)
    assert all(shipment.pop("requests") >= 2 for shipment in found["jobs"])
    assert found == {
        "jobs": [
            {
                "job": str(path),
                "sent": {"logs": 3, "spans": 2},
                "refused": {},
                "pending": {},
                "trouble": {},
                "remarks": {},
                "unnoted": "",
                "failed": "",
            }
            for path in jobs
        ]
    }


def test_since_leaves_old_jobs_alone(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old"), make(tmp_path / "new")
    for path in (old / ".stageio" / "spool").iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    with Receiver() as receiver:
        for when in ("2h", "2020-01-01", "2020-01-01T00:00:00Z"):
            done = ask("push", old, new, "--since", when, "--endpoint", receiver.url, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        assert len(receiver.span_ids) == 2
        ask("push", old, "--endpoint", receiver.url, cwd=tmp_path)
        assert len(receiver.span_ids) == 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("push",), "give job directories, or --watch ROOT"),
        (("push", "JOB"), "no endpoint: set OTEL_EXPORTER_OTLP_ENDPOINT, or give --endpoint http://localhost:4318"),
        (("doctor", "--header", "nonsense"), "a header is NAME=VALUE, and number 1 is not"),
        (("push", "JOB", "--endpoint", "http://h", "--since", "tomorrow"), "--since takes 90m, 12h, 3d or a date"),
        (("push", "JOB", "--endpoint", "http://h", "--since", "999999999999d"), "--since takes 90m, 12h, 3d or a date"),
        (
            ("push", "JOB", "--endpoint", "http://h", "--header", "nonsense"),
            "a header is NAME=VALUE, and number 1 is not",
        ),
        (("push", "JOB", "--watch", ".", "--endpoint", "http://h"), "give job directories, or --watch ROOT"),
        (("push", "--watch", ".", "--again", "--endpoint", "http://h"), "do not go with --watch"),
        (("push", "JOB", "--protocol", "carrier-pigeon"), "carrier-pigeon"),
    ],
)
def test_what_makes_no_sense_is_said_and_exits_2(job: Path, args: tuple[str, ...], message: str) -> None:
    done = ask(*(str(job) if arg == "JOB" else arg for arg in args), cwd=job, COLUMNS="200")
    assert done.returncode == 2
    assert message in re.sub(r"[│\s]+", " ", done.stderr)


def test_a_path_that_is_no_job_stops_it_before_anything_is_sent(job: Path, tmp_path: Path) -> None:
    with Receiver() as receiver:
        done = ask("push", job, tmp_path / "nothing", "--endpoint", receiver.url, cwd=tmp_path)
        assert receiver.requests == []
    assert done.returncode not in (0, 2)
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_ends_a_push_after_the_request_under_way(tmp_path: Path) -> None:
    jobs = [make(tmp_path / f"job{number}") for number in range(40)]
    first, goes_on = threading.Event(), threading.Event()

    def slow(request: Received) -> Answer:
        if not request.empty:
            first.set()
            goes_on.wait(LIMIT)
        return OK

    with Receiver(slow) as receiver:
        process = subprocess.Popen(
            cli("push", *jobs, "--endpoint", receiver.url), env=environment(), stdout=subprocess.PIPE, text=True
        )
        assert first.wait(LIMIT)
        process.send_signal(signal.SIGTERM)
        goes_on.set()
        out, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 1
        assert re.search(r"stopped: \d+ jobs not begun", out)
        assert len([request for request in receiver.requests if not request.empty]) == 1
        receiver.answer = OK
        assert ask("push", *jobs, "--endpoint", receiver.url, cwd=tmp_path).returncode == 0
        assert set(receiver.span_ids.values()) == {1}
        assert len(receiver.span_ids) == 80


# -- how far it got --------------------------------------------------------------------------------------------------


def test_status_says_how_far_a_job_was_sent_and_why_no_further(job: Path) -> None:
    assert "sent " not in ask("status", job, cwd=job).stdout  # nobody meant to
    with Receiver(lambda request: OK if request.signal == "logs" else Answer(401)) as receiver:
        ask("push", job, "--endpoint", receiver.url, cwd=job)
    out = ask("status", job, cwd=job).stdout
    assert re.search(r"sent   3 log records; \d\.\d KiB pending, see otel-stageio push\n", out)
    assert re.search(rf"{receiver.url}/v1/traces: 401 Unauthorized, since \d{{4}}-", out)
    with Receiver() as receiver:
        ask("push", job, "--endpoint", receiver.url, cwd=job)
    assert "sent   3 log records, 2 spans\n" in ask("status", job, cwd=job).stdout
    assert json.loads(ask("show", job, "--json", cwd=job).stdout)["delivery"] == {
        "accepted": {"logs": 3, "spans": 2}, "refused": {}, "pending_bytes": 0, "trouble": [], "remarks": {},
    }  # fmt: skip
    assert ask("validate", job, cwd=job).returncode == 0


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"accepted": 5, "refused": [], "trouble": {"spans": 7}, "offsets": "x"}',
     '{"accepted": {"spans": "many", "x\\u001b[31m": 4}, "trouble": {"logs": {"reason": {"a": 1}, "place": 5}}}'],
)  # fmt: skip
def test_a_damaged_note_of_what_was_sent_is_no_trouble_to_readers(job: Path, content: str) -> None:
    (job / ".stageio" / "spool" / ".ack").write_text(content)
    for command in ("status", "show", "validate"):
        done = ask(command, job, cwd=job)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout


# -- push --watch ----------------------------------------------------------------------------------------------------


class Shipping:
    """``push --watch`` as a service manager runs it."""

    def __init__(self, root: Path, url: str, **env: str) -> None:
        self.process = subprocess.Popen(
            cli("push", "--watch", root, "--endpoint", url), env=environment(**env), cwd=root.parent,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()

    def stop(self) -> tuple[str, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=LIMIT)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    return tmp_path / "jobs"


def test_a_watch_delivers_what_is_there_and_what_comes_and_ends_in_order(root: Path) -> None:
    make(root / "old")
    with Receiver() as receiver:
        shipping = Shipping(root, receiver.url)
        assert shipping.first == f"watching {root}, sending to {', '.join(urls(receiver.url))}\n"
        wait_until(lambda: len(receiver.span_ids) == 2)
        make(root / "group" / "deep" / "new")
        wait_until(lambda: len(receiver.span_ids) == 4)
        with StageIO("demux", root / "late") as io:
            with io.span("early"):
                pass
            wait_until(lambda: any(span.name == "early" for span in receiver.spans))
        wait_until(lambda: any(span.name == "demux" for span in receiver.spans))
        out, err = shipping.stop()
        assert (shipping.process.returncode, err) == (0, "")
        assert "old: 3 log records, 2 spans sent" in out
        assert "group/deep/new: " in out
        assert out.endswith("stopped\n")
        assert set(receiver.span_ids.values()) == {1}


def urls(url: str) -> list[str]:
    return [f"{url}/v1/{signal}" for signal in ("traces", "logs", "metrics")]


def test_a_watch_outlives_its_receiver_and_says_so_once(root: Path) -> None:
    for number in range(5):
        make(root / f"job{number}")
    port = free_port()
    shipping = Shipping(root, f"http://127.0.0.1:{port}")
    assert shipping.process.stderr is not None
    assert "Connection refused (kept, tried again)" in shipping.process.stderr.readline()
    with Receiver(port=port) as receiver:
        wait_until(lambda: len(receiver.span_ids) == 10)
    _, err = shipping.stop()
    assert shipping.process.returncode == 0
    assert err.count("Connection refused") <= 2  # once for traces, once for logs


def remove(job: Path) -> None:
    """As `rm -rf`; what is noted in the job meanwhile makes that fail, and then it is tried again."""

    def gone() -> bool:
        shutil.rmtree(job, ignore_errors=True)
        return not job.exists()

    wait_until(gone)


def test_jobs_that_are_deleted_under_a_watch_are_no_trouble(root: Path) -> None:
    with Receiver() as receiver:
        shipping = Shipping(root, receiver.url)
        for number in range(30):
            path = make(root / f"job{number}")
            if number % 3:
                remove(path)
        wait_until(lambda: len([s for s in receiver.spans if s.name == "RUN films"]) >= 10)
        for path in root.iterdir():
            remove(path)
        make(root / "last")
        before = len(receiver.span_ids)
        wait_until(lambda: len(receiver.span_ids) >= before + 2)
        _, err = shipping.stop()
        assert (shipping.process.returncode, err) == (0, "")
        assert sorted(path.name for path in root.iterdir()) == ["last"]


def test_a_watch_closes_what_was_killed(root: Path, tmp_path: Path) -> None:
    script = write_script(
        tmp_path / "stage.py",
        """
        import sys
        from otel_stageio import StageIO

        with StageIO("asr", sys.argv[1]):
            print("open", flush=True)
            sys.stdin.readline()
        """,
    )
    process = start_python(script, root / "job")
    assert process.stdout is not None
    process.stdout.readline()
    with Receiver() as receiver:
        shipping = Shipping(root, receiver.url)
        wait_until(lambda: receiver.bodies["stage asr started"])
        assert receiver.spans == []
        process.kill()
        process.communicate(timeout=LIMIT)
        (span,) = wait_until(lambda: receiver.spans)
        assert (span.name, span.status.code) == ("asr", 2)
        shipping.stop()


def test_the_word_to_stop_may_come_at_any_instruction_of_who_waits_for_it(tmp_path: Path) -> None:
    """Thousands of times: with threading.Event a handler waits for ever, now and then, for what it has interrupted."""
    script = write_script(
        tmp_path / "waits.py",
        """
        import os, signal, time
        from otel_stageio.delivery.stop import Stop

        stop = Stop()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        own = os.getpid()
        child = os.fork()
        if not child:
            while os.getppid() == own:
                os.kill(own, signal.SIGTERM)
                time.sleep(0.0001)  # else there is nothing but handlers
        for _ in range(5_000):
            while not stop.wait(0.00001):
                pass
            stop = Stop()
        os.kill(child, signal.SIGKILL)
        """,
    )
    done = run_command([sys.executable, script], cwd=tmp_path, env=environment())
    assert done.returncode == 0, done.stderr


def test_two_watches_on_one_tree_send_everything_once(root: Path) -> None:
    with Receiver() as receiver:
        both = [Shipping(root, receiver.url) for _ in range(2)]
        for number in range(20):
            make(root / f"job{number}")
        wait_until(lambda: len(receiver.span_ids) == 40)
        for shipping in both:
            assert shipping.stop()[1] == ""
        assert set(receiver.span_ids.values()) == {1}


def test_links_are_not_followed_and_a_root_that_is_no_directory_is_said(root: Path, tmp_path: Path) -> None:
    make(tmp_path / "elsewhere")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert list(shipper.find_jobs(str(root))) == []
    done = ask("push", "--watch", tmp_path / "none", "--endpoint", "http://h", cwd=tmp_path)
    assert done.returncode not in (0, 2)
    assert "is no directory" in done.stderr


def test_memory_is_bounded_with_ten_thousand_jobs(root: Path, tmp_path: Path) -> None:
    """The first look delivers them all, the next ones keep nothing more."""
    line: dict[str, Any] = {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "ab" * 16, "name": "step"}]}]}]}
    for number in range(10_000):
        spool = root / f"group{number % 100}" / f"job{number}" / ".stageio" / "spool"
        spool.mkdir(parents=True)
        line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["spanId"] = f"{number:016x}"
        (spool / "asr.1.spans.jsonl").write_text(json.dumps(line) + "\n")
    script = write_script(
        tmp_path / "watch.py",
        """
        import sys, psutil
        from otel_stageio.delivery.delivery import Delivery
        from otel_stageio.delivery.settings import endpoints
        from otel_stageio.delivery.shipper import Watch

        watch = Watch(sys.argv[1], Delivery(endpoints()))
        for _ in range(3):
            watch.look()
            print(watch.jobs, psutil.Process().memory_info().rss >> 20, flush=True)
        """,
    )
    with CountingReceiver() as receiver:
        done = subprocess.run(
            [sys.executable, str(script), str(root)], env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url),
            capture_output=True, text=True, check=True, timeout=300,
        )  # fmt: skip
        looks = [tuple(map(int, text.split())) for text in done.stdout.splitlines()]
        assert [jobs for jobs, _ in looks] == [10_000] * 3
        assert max(size for _, size in looks) < 150
        assert looks[2][1] <= looks[0][1] + 4
        assert len(receiver.ids) == 10_000
        assert set(receiver.ids.values()) == {1}


# -- doctor ----------------------------------------------------------------------------------------------------------


def doctor(tmp_path: Path, url: str, *args: str, **env: str) -> tuple[int, str]:
    done = ask("doctor", "--endpoint", url, *args, cwd=tmp_path, **env)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(("kind", "protocol"), [(Receiver, "http/protobuf"), (GrpcReceiver, "grpc")])
def test_doctor_finds_nothing_wrong_and_sends_no_data(tmp_path: Path, kind: type[Receiver], protocol: str) -> None:
    with kind() as receiver:
        code, out = doctor(tmp_path, receiver.url, "--protocol", protocol)
        assert code == 0
        assert out.startswith(f"✓ {receiver.url}  {protocol}\n")
        for asked in ("traces", "logs", "metrics"):
            assert re.search(rf"✓ {asked} *(/v1/{asked})?\n +accepts {asked}, in \d+ ms\n", out)
        assert len(receiver.requests) == 3
        assert all(request.empty for request in receiver.requests)


@pytest.mark.parametrize(
    ("answer", "step", "advice"),
    [
        (Answer(401), "401 Unauthorized", "credentials are wanted: OTEL_EXPORTER_OTLP_HEADERS=Authorization="),
        (Answer(403), "403 Forbidden", "the credentials are known, but not allowed to write here"),
        (Answer(404), "404 Not Found", "no OTLP receiver at this path: OTEL_EXPORTER_OTLP_ENDPOINT is a base URL"),
        (Answer(503), "503 Service Unavailable", "the receiver is there, but does not accept anything now"),
        (Answer(200, html=True), "web page", "that is a web server: correct the port (4318 for OTLP over HTTP)"),
        (Answer(301, headers={"location": "https://x/"}), "redirected", "use the address that it redirects to"),
    ],
)
def test_doctor_says_what_an_answer_means(tmp_path: Path, answer: Answer, step: str, advice: str) -> None:
    with Receiver(answer) as receiver:
        code, out = doctor(tmp_path, receiver.url)
    assert code == 1
    assert step in out
    assert f"→ {advice}" in out


def test_doctor_finds_names_ports_and_protocols_that_do_not_fit(tmp_path: Path) -> None:
    port = free_port()
    code, out = doctor(tmp_path, f"http://127.0.0.1:{port}")
    assert (code, out.splitlines()[1:]) == (1, [
        f"  nothing listens on port {port}",
        "  → start the collector, or correct the port (by default 4318 for HTTP, 4317 for gRPC)",
    ])  # fmt: skip
    code, out = doctor(tmp_path, "http://no-such-host.invalid:4318")
    assert code == 1
    assert "the name no-such-host.invalid is not known here" in out
    with GrpcReceiver() as receiver:
        code, out = doctor(tmp_path, receiver.url)
    assert code == 1
    assert "what answers there speaks no HTTP\n  → a gRPC port: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in out
    with Receiver() as receiver:
        code, out = doctor(tmp_path, receiver.url, "--protocol", "grpc")
    assert code == 1
    assert "→ no gRPC port: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in out


def test_doctor_on_tls(tmp_path: Path, certificates: Path) -> None:
    tls = (certificates / "server.pem", certificates / "server.key", certificates / "ca.pem")
    trust = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates / "ca.pem")}
    identity = {
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificates / "client.pem"),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(certificates / "client.key"),
    }
    with Receiver(tls=tls) as receiver:
        code, out = doctor(tmp_path, receiver.url)
        assert code == 1
        assert "→ set OTEL_EXPORTER_OTLP_CERTIFICATE to the PEM file of the authority" in out
        code, out = doctor(tmp_path, receiver.url.replace("127.0.0.1", "localhost"), **trust)
        assert code == 1
        assert "→ the receiver seems to want a client certificate" in out
        assert doctor(tmp_path, receiver.url, **trust, **identity)[0] == 0
        plain = receiver.url.replace("https:", "http:")
        code, out = doctor(tmp_path, plain)
        assert code == 1
    with Receiver() as receiver:
        code, out = doctor(tmp_path, receiver.url.replace("http:", "https:"))
        assert code == 1
        assert f"→ nobody speaks TLS there: use {receiver.url}" in out


def test_doctor_says_which_signal_a_receiver_does_not_take(tmp_path: Path) -> None:
    with Receiver(lambda request: OK if request.signal == "traces" else Answer(404)) as receiver:
        code, out = doctor(tmp_path, receiver.url)
        document = json.loads(ask("doctor", "--endpoint", receiver.url, "--json", cwd=tmp_path).stdout)
    assert code == 1
    assert "✓ traces" in out
    assert "this receiver takes no logs (Jaeger takes traces only)" in out
    assert [(found["signal"], found["good"]) for found in document["endpoints"]] == [
        ("traces", True), ("logs", False), ("metrics", False),
    ]  # fmt: skip
