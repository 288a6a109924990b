"""What happens to open stages when a process ends, forks or is told to stop.

Everything that the exit hook needs is imported beforehand: on CPython 3.11 an import inside an ``atexit`` hook makes an
unhandled Ctrl-C exit 1 instead of dying by SIGINT.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from .. import delivery
from ..ambient import open_pipelines, open_recorders
from ..held import plain_signal
from ..resources.tree import elsewhere
from ..runs import run_end, run_file
from ..runtime import host_name, never_raises, runtime
from ..semconv import ENV_SIGTERM
from . import pulse

if TYPE_CHECKING:
    from ..layout import Job
    from .stage_io import StageIO

TERMINATED = 128 + signal.SIGTERM

#: Stages opened by this process and not ended, in order of opening.
open_stages: list[StageIO] = []
#: Stages that were opened for their logger alone (``compat.logger``): (job root, stage) -> the stage.
logger_only: dict[tuple[str, str], StageIO] = {}
#: Implicit runs that this process opened, and their jobs; the newest, since each is looked at when the process ends and
#: nobody is to wait long for that. One that is left out is closed by whoever finds it idle.
_opened_runs: dict[str, Job] = {}
_MOST_RUNS = 1_000

_installed = False
_previous_handler: Any = None
_sigterm_installed = False
_terminated = False


class Terminated(SystemExit):
    """SIGTERM, as an exception: ``finally`` and ``with`` run, and the exit code is 143, as a shell would say it."""


def opened(stage: StageIO) -> None:
    """Watch over a stage until :func:`closed`."""
    install_hooks()
    open_stages.append(stage)
    recorder = stage._recorder
    if recorder.opened_run:
        _keep_run(recorder.run.run_id, recorder.job)
    if recorder.job is not None:
        _deliver(recorder.job)
        pulse.start()
    _install_sigterm()


def closed(stage: StageIO) -> None:
    if stage in open_stages:
        open_stages.remove(stage)
    if not open_stages:
        _restore_sigterm()


def was_terminated() -> bool:
    return _terminated


@never_raises()
def _keep_run(run_id: str, job: Job) -> None:
    _opened_runs[run_id] = job
    if len(_opened_runs) > _MOST_RUNS:
        _opened_runs.pop(next(iter(_opened_runs)), None)


@never_raises()
def _deliver(job: Job) -> None:
    delivery.attend(job)


# -- exit ------------------------------------------------------------------------------------------------------------


def install_hooks() -> None:
    """Be there when this process forks or ends."""
    global _installed
    if not _installed:
        _installed = True
        atexit.register(_at_exit)
        os.register_at_fork(after_in_child=_after_fork)


def _at_exit() -> None:
    pulse.stop()
    # Set by the interpreter for an uncaught exception, before exit hooks run; not set for SystemExit.
    uncaught = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    for stage in list(open_stages):
        try:
            stage._close_at_exit(uncaught)
        except Exception:
            runtime.internal_error("exit")
    pid, host = os.getpid(), host_name()
    for run_id, job in _opened_runs.items():
        try:
            # Who opened a run, and ran or started all of its several stages, knows that it is over. Among strangers,
            # or after one stage, nobody knows: the next run, ``recover`` or ``push`` finds it idle.
            stages = (run_file.find(run_file.load(job), run_id) or {}).get("stages", ())
            mine = [pid in (item.get("pid"), item.get("parent_pid")) and item.get("host") == host for item in stages]
            if len(mine) > 1 and all(mine):
                run_end.close(job, run_id)
        except Exception:
            runtime.internal_error("exit")
    try:
        delivery.finish()
    except Exception:
        runtime.internal_error("exit")


# -- fork ------------------------------------------------------------------------------------------------------------


def _after_fork() -> None:
    """A forked child never ends its parent's stages, and does not keep a dead parent's stage alive."""
    global _terminated
    for recorder in list(open_recorders):
        recorder.after_fork()
    for pipeline in list(open_pipelines.values()):
        pipeline._after_fork()
    open_stages.clear()
    logger_only.clear()
    _opened_runs.clear()
    delivery.after_fork()
    elsewhere.forget()
    _terminated = False
    _restore_sigterm()


# -- SIGTERM ---------------------------------------------------------------------------------------------------------


def _install_sigterm() -> None:
    """Turn SIGTERM into an exception, unless the program has a handler of its own or ``OTEL_STAGEIO_SIGTERM=off``."""
    global _sigterm_installed, _previous_handler
    if _sigterm_installed or os.environ.get(ENV_SIGTERM, "").strip().lower() == "off":
        return
    if threading.current_thread() is not threading.main_thread():
        return
    try:
        answer = plain_signal.getsignal(signal.SIGTERM)
        if isinstance(answer, int) and answer == signal.SIG_DFL:
            _previous_handler = plain_signal.signal(signal.SIGTERM, _on_sigterm)
            _sigterm_installed = True
    except (ValueError, OSError):
        pass


def _restore_sigterm() -> None:
    global _sigterm_installed
    if not _sigterm_installed:
        return
    try:
        if plain_signal.getsignal(signal.SIGTERM) is _on_sigterm:
            plain_signal.signal(signal.SIGTERM, _previous_handler)
        _sigterm_installed = False
    except ValueError:
        pass  # not the main thread: the next stage that ends there restores it


def _on_sigterm(_signal: int, _frame: FrameType | None) -> None:
    global _terminated
    _terminated = True
    raise Terminated(TERMINATED)
