"""How a run ends: what its stages say of it, and its root span, which is written once.

A Python span can only be ended by the process that opened it, so the root is built directly, by whoever sees that the
run is over.
"""

from __future__ import annotations

import os
from typing import Any

from .. import semconv as sc
from ..events import iso
from ..layout import Job
from ..otlp import decode
from ..recovery import life
from ..runtime import never_raises, runtime
from ..sinks.files import is_locked
from . import run_file
from .root_span import write_root
from .run_edit import edit, put_away

#: The end of a journal in which its last word is looked for first.
_TAIL = 256 * 1024


def stage_records(job: Job, run: dict[str, Any]) -> list[dict[str, Any]]:
    """How every stage attempt of a run stands, in the order of starting: ``stage, status, last_ns, alive``."""
    records = []
    for item in run.get("stages", ()):
        path = job.journal(item["stage"], item["attempt"])
        alive = is_locked(path)
        status, last_ns = _last_word(path, alive)
        records.append({"stage": item["stage"], "status": status, "last_ns": last_ns, "alive": alive})
    return records


def _last_word(path: str, alive: bool) -> tuple[str, int]:
    """A stage's status and when it was last heard of. A long journal is read from its end: its end says all."""
    size = 0
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        return "lost", 0  # somebody has deleted it: the stage can neither say its end nor be judged by it
    except OSError:
        pass
    status, last_ns = _status_in(decode.Lines(path, max(0, size - _TAIL)))
    if status is None and size > _TAIL and not alive:
        status, last_ns = _status_in(decode.Lines(path))
    return status or "running", last_ns


def _status_in(lines: decode.Lines) -> tuple[str | None, int]:
    status, last_ns = None, 0
    for event in decode.events(lines):
        last_ns = max(last_ns, event.time_ns)
        if event.name == sc.EVENT_ENDED:
            status = str(event.attributes.get(sc.STAGE_STATUS, "incomplete"))
    return status, last_ns


def ended_as(job: Job, stage: str, attempt: int) -> str | None:
    """How an attempt at a stage ended; None if its journal has no end."""
    try:
        status, _ = _last_word(job.journal(stage, attempt), alive=False)
    except OSError:
        return None
    return None if status == "running" else status


def result_of(records: list[dict[str, Any]]) -> str:
    """A run's status from its stages: the last attempt at each counts, the worst word wins."""
    latest = {record["stage"]: record["status"] for record in records}
    for word in ("crashed", "lost", "failed", "timeout", "cancelled", "running", "incomplete"):
        if word in latest.values():
            return "crashed" if word == "running" else word
    return "success" if all(status in sc.GOOD_STATUSES for status in latest.values()) else "failed"


def _without_its_word(job: Job, run: dict[str, Any], result: str, lost_after: float) -> str:
    """A run that somebody owned is no success without that one's word: it was killed, perhaps before its next stage."""
    if run.get("implicit") or result not in sc.GOOD_STATUSES:
        return result
    if run.get("detached"):
        return "incomplete"
    death = life.owner_death(job, run, lost_after)
    return death.status if death is not None else "crashed"


def close(
    job: Job,
    run_id: str,
    status: str | None = None,
    error: BaseException | None = None,
    *,
    lost_lines: int = 0,
    lost_after: float = life.LOST_AFTER,
) -> bool:
    """Write a run's root span, once. False if that had been done, or if a stage of the run may still be alive.

    Args:
        status: the owner's word for how the run went. By default what its stages say, and then each must have ended
            or have been judged dead: a free lock alone says nothing about a stage on another host.
        lost_lines: of the owner's own, that the pipeline log did not take.
        lost_after: seconds of silence that make an owner lost.
    """
    with edit(job) as content:
        for run in (content, *content.get("earlier", ())):
            if run.get("run_id") != run_id:
                continue
            if run.get("status") != "running":
                return False
            if lost_lines:
                run["lost"] = {"pipeline_log": lost_lines}
            try:
                records = stage_records(job, run)
            except OSError:  # what cannot be read now is for the next who can
                if status is not None:
                    run["said"] = status
                return False
            if status is None and any(record["alive"] or record["status"] == "running" for record in records):
                return False
            ends = [record["last_ns"] for record in records]
            now = runtime.clock.wall_ns()
            # Closed by its owner: over now. Found idle: over when its last stage was.
            end = now if status is not None else max([*ends, run["started_ns"]])
            word = status or run.get("said") or _without_its_word(job, run, result_of(records), lost_after)
            lent = None
            if status is None:  # closed by somebody else, whose service, host and process are not the run's
                journals = [job.journal(item["stage"], item["attempt"]) for item in run.get("stages", ())]
                lent = next((path for path in journals if os.path.lexists(path)), None)
            if not write_root(job, run_file.Run(run), word, max(end, *ends, run["started_ns"]), error, lent):
                run["said"] = word  # for the next who tries
                return False
            run["status"], run["ended_at"] = word, iso(end)
            if run is not content and put_away(job, run):
                content["earlier"].remove(run)
            return True
    return False


@never_raises()
def close_superseded(job: Job, earlier: list[dict[str, Any]]) -> None:
    """No stage joins a run that nobody owns once another has begun: it is over when its stages are."""
    for run in earlier:
        if (run.get("implicit") or run.get("detached")) and run.get("status") == "running":
            close(job, run["run_id"])
