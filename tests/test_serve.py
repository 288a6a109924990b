"""``otel-stageio serve``: jobs in a browser on this machine, and in no other."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from browser import Visit, browser, visit
from helpers import LIMIT, clean_environment, cli, environment, run_command, start_python, write_script

from otel_stageio import Pipeline
from otel_stageio.cli import jobs_page
from otel_stageio.cli.serve import Server, stamp

__all__ = ["browser", "clean_environment", "visit"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two jobs, one of them deeper."""
    for name in ("job1", "films/job <2>"):
        with Pipeline("subtitles", tmp_path / "out" / name) as run, run.stage("asr") as io:
            io.get_stage_logger("CRITICAL").info("<script>alert(1)</script>")
    return tmp_path / "out"


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    yield from running(root)


def running(root: Path) -> Iterator[Server]:
    with Server(str(root)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Answered:
    def __init__(self, server: Server, method: str, path: str, host: str | None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=LIMIT)
        connection.putrequest(method, path, skip_host=True)
        if host is not None:
            connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        self.status, self.headers = answer.status, {name.lower(): value for name, value in answer.getheaders()}
        self.text = answer.read().decode()
        connection.close()


def get(server: Server, path: str, *, method: str = "GET", host: str | None = "localhost:1") -> Answered:
    return Answered(server, method, path, host)


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_the_list_has_every_job_with_its_state_and_a_link_to_its_report(server: Server) -> None:
    answer = get(server, "/")
    assert answer.status == 200
    links = re.findall(r'<a href="([^"]+)">([^<]+)</a>', answer.text)
    assert sorted(links) == [("/job/films/job%20%3C2%3E/", "films/job &lt;2&gt;"), ("/job/job1/", "job1")]
    assert answer.text.count("✓ success") == 2
    assert "subtitles" in answer.text
    for path, _ in links:
        report = get(server, path)
        assert (report.status, report.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "<title>" in report.text


def test_a_root_that_is_a_job_is_shown_itself(root: Path) -> None:
    for server in running(root / "job1"):
        answer = get(server, "/")
        assert (answer.status, answer.headers["location"]) == (302, "/job/")
        assert get(server, "/job/").status == 200
        assert get(server, "/job/version").text == stamp(root / "job1")
        assert get(server, "/job/06_asr/").status == 404  # a directory of it is no job


def test_a_root_without_jobs_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for server in running(tmp_path / "empty"):
        answer = get(server, "/")
        assert (answer.status, "empty" in answer.text, "<" in answer.text) == (404, True, False)


def test_a_head_is_answered_without_a_body_and_nothing_else_is_answered(server: Server) -> None:
    answer = get(server, "/", method="HEAD")
    assert (answer.status, answer.text, int(answer.headers["content-length"]) > 100) == (200, "", True)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert get(server, "/", method=method).status == 501


# -- a running job ---------------------------------------------------------------------------------------------------


def test_the_version_changes_with_what_a_job_says_and_when_it_dies_and_else_stays(root: Path, server: Server) -> None:
    script = write_script(
        root.parent / "stage.py",
        """
        import sys
        from otel_stageio import StageIO
        io = StageIO("mux", sys.argv[1])
        print("ready", flush=True)
        for line in sys.stdin:
            io.add_warning(line)
            print("said", flush=True)
        """,
    )
    process = start_python(script, root / "job1", OTEL_STAGEIO_CONSOLE="off")
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"

    def version() -> str:
        return get(server, "/job/job1/version").text

    page = get(server, "/job/job1/").text
    shown = re.search(r'data-live="version#(\w+)"', page)
    first = version()
    assert shown is not None
    assert shown[1] == first == version()  # looking changes nothing
    process.stdin.write("no subtitle track\n")
    process.stdin.flush()
    assert process.stdout.readline() == "said\n"
    second = version()
    assert second != first
    assert "no subtitle track" in get(server, "/job/job1/").text
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=LIMIT)
    assert version() != second
    assert 'data-result="crashed"' in get(server, "/job/job1/").text


def test_a_report_is_rendered_once_for_all_who_look(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import otel_stageio.report

    rendered: list[str] = []
    real = otel_stageio.report.render

    def counting(path: str, *, live: str | None = None) -> str:
        rendered.append(path)
        return real(path, live=live)

    monkeypatch.setattr(otel_stageio.report, "render", counting)
    pages = {get(server, "/job/job1/").text for _ in range(3)}
    assert (len(pages), len(rendered)) == (1, 1)
    (root / "job1" / "06_asr" / "stage.log").write_text("another\n")
    get(server, "/job/job1/")
    assert len(rendered) == 2


# -- who may ask, and for what ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [None, "evil.example.com", "evil.example.com:8765", "127.0.0.1.evil.com", "", "["])
def test_a_name_that_is_not_this_machines_is_refused(server: Server, host: str | None) -> None:
    for path in ("/", "/job/job1/", "/job/job1/version"):
        assert get(server, path, host=host).status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:8765", "LOCALHOST:8765"])
def test_through_a_tunnel_the_port_may_be_another(server: Server, host: str) -> None:
    assert get(server, "/job/job1/", host=host).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/job/../job1/", "/job/%2e%2e/outside/", "/job/job1/../../outside/", "/job/..%2foutside/", "/job/%2Fetc/",
        "/job//job1/", "/job/job1//", "/job/job1%00/", "/job/job1/06_asr/", "/job/nothing/", "/job/link/",
        "/job/way/job1/",         "/etc/passwd", "/job/job1/06_asr/stage.log", "/job/.hidden/",
        "/job/%ff/", "/job1/", "/version", "/job/version",
    ],
)  # fmt: skip
def test_only_jobs_below_the_root_are_shown(root: Path, server: Server, path: str) -> None:
    for place in (root.parent / "outside", root / ".hidden"):
        with Pipeline("secret", place) as run, run.stage("asr"):
            pass
    (root / "link").symlink_to(root.parent / "outside")
    (root / "way").symlink_to(root)
    answer = get(server, path)
    assert (answer.status, "secret" in answer.text) == (404, False)
    assert "outside" not in get(server, "/").text


def test_pages_may_run_and_load_nothing_but_what_is_in_them(server: Server) -> None:
    for path in ("/", "/job/job1/"):
        headers = get(server, path).headers
        policy = headers["content-security-policy"].split("; ")
        assert policy[0] == "default-src 'none'"
        assert "frame-ancestors 'none'" in policy
        assert not [rule for rule in policy if "unsafe" in rule or "*" in rule or "http" in rule]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert "connect-src 'self'" in get(server, "/job/job1/").headers["content-security-policy"]


def test_an_internal_error_is_a_sentence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise KeyError("oops")

    monkeypatch.setattr(jobs_page, "page", fail)
    answer = get(server, "/")
    assert (answer.status, answer.text) == (500, "internal error, please report it: KeyError: 'oops'\n")


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_it_says_where_it_is_and_ctrl_c_ends_it_quietly(root: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        cli("serve", root, "--port", "0"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.match(r"http://127\.0\.0\.1:(\d+)/", line)
    assert match is not None, line
    connection = http.client.HTTPConnection("127.0.0.1", int(match[1]), timeout=LIMIT)
    connection.request("GET", f"/job/{quote('films/job <2>')}/")
    assert connection.getresponse().status == 200
    connection.close()
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, err) == (0, "", "")


def test_what_cannot_be_served_is_said(root: Path, server: Server, tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.168.1.1", "example.com"):
        done = run_command(cli("serve", root, "--host", host), cwd=tmp_path, env=environment(COLUMNS="200"))
        assert done.returncode == 2
        assert "nothing else is served" in done.stderr
    done = run_command(cli("serve", root, "--port", server.server_port), cwd=tmp_path)
    assert done.returncode == 1
    assert f"port {server.server_port} cannot be used: Address already in use; --port 0 takes one" in done.stderr
    done = run_command(cli("serve", os.devnull), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "otel-stageio: /dev/null is no directory\n")


# -- in a browser ----------------------------------------------------------------------------------------------------


def test_in_a_browser_the_report_of_a_running_job_follows_it(root: Path, server: Server, visit: Visit) -> None:
    page = visit(f"http://localhost:{server.server_port}/")
    page.get_by_role("link", name="job1").click()
    assert "succeeded" in page.locator("h1").inner_text()
    with Pipeline("subtitles", root / "job1") as run, run.stage("asr") as io:
        page.wait_for_selector('body[data-result="running"]')
        io.add_warning("no subtitle track")
        page.get_by_text("no subtitle track").first.wait_for(state="attached")
    page.wait_for_selector('body[data-result="success"]')
