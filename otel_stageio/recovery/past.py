"""What an attempt has left on disk: its events folded, its last words, and whose records they were."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .. import semconv as sc
from ..events import Event
from ..layout import Job
from ..otlp import decode
from ..record.fold import Fold
from ..runs import run_file
from ..runtime import runtime
from .last_words import last_words


@dataclass
class Past:
    """A journal, read.

    Attributes:
        last_ns: when the stage was last heard of.
        lines: its last words.
    """

    stage: str
    attempt: int
    fold: Fold
    started: Event
    ended: Event | None
    last_ns: int
    lines: list[str]

    @property
    def ids(self) -> tuple[int, int]:
        """Trace and span id; zero for a stage that had no span."""
        trace = self.fold.record["trace"]
        return int(trace.get("trace_id", "0"), 16), int(trace.get("span_id", "0"), 16)

    @property
    def has_manifest(self) -> bool:
        events = (self.started, self.ended)
        return not any(event is not None and event.attributes.get(sc.LOCAL_NO_MANIFEST) for event in events)


def read_past(job: Job, stage: str, attempt: int) -> Past | None:
    """None for a journal in which no stage has begun."""
    fold = Fold()
    started = ended = None
    last_ns = 0
    for _, record in decode.log_records(decode.Lines(job.journal(stage, attempt))):
        last_ns = max(last_ns, decode.time_of(record))
        event = decode.event_of(record)
        if event is not None:
            fold.apply(event)
            if event.name == sc.EVENT_STARTED:
                started = started or event
            elif event.name == sc.EVENT_ENDED:
                ended = event
    if started is None:
        return None
    words = last_words(f"{job.stage_dir(stage)}/stage.log", stage, started.time_ns)
    return Past(stage, attempt, fold, started, ended, max(last_ns, words.time_ns), words.lines)


def never_begun(
    stage: str, attempt: int, every_run: Iterable[dict[str, Any]], taken_ns: int, *, had_begun: bool
) -> Past | None:
    """An attempt that was killed after it took its number and before it said a word: what it would have said.

    Args:
        taken_ns: when it took its number.
        had_begun: whether there is a sign of that beside the run record, which may be damaged.
    """
    every = list(every_run)
    noted = [run for run in every if any(_is(item, stage, attempt) for item in run.get("stages", ()))]
    if not noted and had_begun:
        noted = every[:1]
    if not noted:
        return None
    content = noted[0]
    run = run_file.Run(content)
    entries = [item for item in content.get("stages", ()) if _is(item, stage, attempt)]
    # Where it ran; an entry of a former version does not say, and then it ran where the run began.
    where = entries[0] if entries and "host" in entries[0] else content.get("owner", {})
    ids = {
        "run_id": run.run_id,
        "trace_id": f"{run.trace_id:032x}",
        "span_id": f"{runtime.ids.span_id():016x}",
        "parent_span_id": f"{run.root_span_id:016x}",
    }
    attributes = {
        **run_file.identity_of(run, stage, attempt),
        sc.LOCAL_HOST: where.get("host", ""),
        sc.LOCAL_BOOT_ID: where.get("boot_id", ""),
        sc.LOCAL_TRACE: ids,
    }
    started = Event(sc.EVENT_STARTED, taken_ns, attributes, f"stage {stage} started")
    return Past(stage, attempt, Fold(), started, None, taken_ns, [])


def _is(item: dict[str, Any], stage: str, attempt: int) -> bool:
    return (item.get("stage"), item.get("attempt")) == (stage, attempt)
