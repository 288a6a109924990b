"""Imports the library once and runs each case in a child of its own, which ends as any program does.

Reads one request a line, answers with one line; see :class:`faults.Server`.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from faults.programs import LIBRARY, PROGRAMS
from otel_stageio.runtime import runtime

#: Longer than any case takes, so that one that hangs has a name.
LIMIT = 10


def main() -> None:
    if "--checks" in sys.argv:
        import faults.checks  # noqa: F401
    gc.freeze()
    pending = b""
    while True:
        while b"\n" not in pending:
            data = os.read(0, 65536)
            if not data:
                os._exit(0)
            pending += data
        line, _, pending = pending.partition(b"\n")
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            leave(run, request)
        _, status = os.waitpid(child, 0)
        os.write(1, json.dumps(os.waitstatus_to_exitcode(status)).encode() + b"\n")


def run(request: dict[str, Any]) -> None:
    place = Path(request["place"])
    for name, fd in (("stdout", 1), ("stderr", 2)):
        file = os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, fd)
        os.close(file)
    signal.alarm(LIMIT)
    job = Path(request["job"])
    os.environ.update(request.get("env", {}))
    if request["program"] == "check":
        from faults import checks

        print(json.dumps(checks.examine(job)))
        return
    atexit.register(report, place / "report")  # first in, so last out: after the exit hook of the library
    LIBRARY.faulty_watch(os.fsencode(job))
    LIBRARY.faulty_arm(*request.get("arm", (0, 0, 0, 0)))
    PROGRAMS[request["program"]](job)


def leave(program: Callable[[dict[str, Any]], None], request: dict[str, Any]) -> NoReturn:
    """Run and end as the interpreter does, but for taking itself apart, which takes longer than the whole case."""
    code = 0
    try:
        program(request)
    except SystemExit as said:
        code = int(said.code or 0)
    except BaseException as error:
        code = 1
        sys.excepthook(type(error), error, error.__traceback__)
        sys.last_value = error
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def report(path: Path) -> None:
    count, hits = LIBRARY.faulty_count(), LIBRARY.faulty_hits()
    LIBRARY.faulty_watch(b"")
    sites = [LIBRARY.faulty_site(number).decode() for number in range(1, count + 1)]
    path.write_text(json.dumps({"sites": sites, "hits": hits, "internal_errors": runtime.internal_errors}))


if __name__ == "__main__":
    main()
