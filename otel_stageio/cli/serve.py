"""``otel-stageio serve``: the jobs below a directory, and the report of each, for a browser on this machine.

It answers GET and HEAD on loopback, and nothing that came by another name than this machine's own (a page elsewhere
could have its name point here). A path is a job's only if every part of it is a plain directory below the root.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import socket
import socketserver
import stat
import sys
import threading
from collections import OrderedDict
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..layout import Job
from ..reading.disk import entries, held
from ..reading.job import CannotAnswer, is_job, stage_directories
from ..reading.text import one_line
from . import jobs_page

HOSTS = ("127.0.0.1", "localhost", "::1")
#: The port may be another: that of a tunnel's end.
_HERE = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?")
#: Reports that are kept until their jobs change.
_KEPT = 8
_OWN_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def serve(root: str, host: str, port: int) -> None:
    """Answer until Ctrl-C.

    Raises:
        CannotAnswer: if there is no such directory, or the port is taken.
    """
    if not Path(root).is_dir():
        raise CannotAnswer(f"{root} is no directory")
    try:
        server = Server(root, host, port)
    except OSError as error:
        raise CannotAnswer(f"port {port} cannot be used: {error.strerror}; --port 0 takes one that is free") from error
    with server:
        sys.stdout.write(f"{server.url}  (Ctrl-C ends it)\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self.root = Path(os.path.realpath(root))
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"
        self._reports: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._rendering = threading.Lock()

    def server_bind(self) -> None:
        """Without asking the network what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def job_at(self, path: str) -> Path | None:
        """The job that a path of a URL names; the root itself for an empty one."""
        names = [unquote(name, errors="surrogateescape") for name in path.split("/")] if path else []
        if any(not name or name.startswith(".") or "/" in name or "\0" in name for name in names):
            return None
        place = self.root.joinpath(*names)
        return place if os.path.realpath(place) == str(place) and is_job(Job(place)) else None

    def report(self, job: Path) -> str:
        """One at a time, and once for all who look: it may take seconds."""
        from ..report import render

        key = str(job)
        with self._rendering:
            version = stamp(job)  # from before: what comes meanwhile is another version
            known = self._reports.pop(key, None)
            if known is None or known[0] != version:
                known = version, render(key, live=f"version#{version}")
            self._reports[key] = known
            if len(self._reports) > _KEPT:
                self._reports.popitem(last=False)
            return known[1]


def stamp(path: Path) -> str:
    """Another one once there is something new in a job's files, or one of its processes has gone."""
    job = Job(path)
    places = (job.key, job.machinery, job.former_runs, job.spool, job.logs)
    paths = [entry.path for place in places for entry in entries(place)]
    paths += [f"{directory}/{name}" for directory in stage_directories(job) for name in ("manifest.json", "stage.log")]
    seen: list[Any] = []
    for file in paths:
        with suppress(OSError):
            about = os.lstat(file)
            if stat.S_ISREG(about.st_mode):  # directories change with every look
                seen.append((file, about.st_mtime_ns, about.st_size))
    living = [(entry.name, held(Path(entry.path))) for entry in entries(job.open)]
    return hashlib.sha256(repr((seen, living, held(job.owner_lock))).encode("utf-8", "replace")).hexdigest()[:16]


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "otel-stageio", ""
    timeout = 30

    def do_GET(self) -> None:
        try:
            self._answer()
        except CannotAnswer as error:
            self._say(HTTPStatus.NOT_FOUND, str(error))
        except (BrokenPipeError, ConnectionError, TimeoutError):
            pass  # nobody waits any more
        except Exception as error:
            sentence = f"internal error, please report it: {type(error).__name__}: {error}"
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, sentence)

    do_HEAD = do_GET

    def _answer(self) -> None:
        if not _HERE.fullmatch(self.headers.get("Host", "").lower()):
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "this is for a browser on this machine, by its name localhost")
            return
        path = urlsplit(self.path).path
        if path == "/":
            if is_job(Job(self.server.root)):
                self._redirect("/job/")
            else:
                self._page(jobs_page.page(self.server.root), jobs_page.POLICY)
            return
        match = re.fullmatch(r"/job/(?:(.+)/)?(version)?", path)
        job = self.server.job_at(match[1] or "") if match else None
        if match is None or job is None:
            self._say(HTTPStatus.NOT_FOUND, "there is no such job")
        elif match[2]:
            self._send(HTTPStatus.OK, stamp(job), "text/plain; charset=utf-8")
        else:
            text = self.server.report(job)
            own = _OWN_POLICY.search(text)
            self._page(text, html.unescape(own[1]) if own else jobs_page.POLICY)

    def _page(self, text: str, policy: str) -> None:
        # Said by the page as well; here it holds from the first byte, and nobody may frame it.
        policy = f"{policy}; frame-ancestors 'none'"
        self._send(HTTPStatus.OK, text, "text/html; charset=utf-8", {"Content-Security-Policy": policy})

    def _say(self, status: HTTPStatus, sentence: str) -> None:
        self._send(status, f"{one_line(sentence)}\n", "text/plain; charset=utf-8")

    def _redirect(self, path: str) -> None:
        self._send(HTTPStatus.FOUND, "", "text/plain; charset=utf-8", {"Location": path})

    def _send(self, status: HTTPStatus, text: str, kind: str, headers: dict[str, str] | None = None) -> None:
        content = text.encode("utf-8", "replace")
        about = {"Content-Type": kind, "Content-Length": str(len(content))}
        self.send_response(status)
        for name, value in {**about, **_HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass
