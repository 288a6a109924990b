"""``otel-stageio why``: what would run again, and why, without running it."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.text import Text

from ..layout import Job
from ..reading.job import CannotAnswer
from ..reading.text import count, one_line, plain
from ..reading.view import JobView, StageView
from ..resume.decide import Decision, decide, place_of
from ..resume.digest import Digests
from .terminal import Row, Terminal


@dataclasses.dataclass
class Answer:
    """Attributes:
    ahead: a stage before it that would run, and whose outputs it reads; empty if there is none.
    """

    stage: str
    decision: Decision
    ahead: str = ""

    @property
    def runs(self) -> bool:
        return not self.decision or bool(self.ahead)

    @property
    def sentence(self) -> str:
        if not self.decision:
            return self.decision.sentence
        if self.ahead:
            return f"reads what {self.ahead} makes, which has to run; skipped if that comes out the same"
        return self.decision.sentence

    def document(self) -> dict[str, Any]:
        return {"stage": self.stage, "runs": self.runs, "ahead": self.ahead or None, **self.decision.plain(),
                "sentence": self.sentence}  # fmt: skip


def answers_of(view: JobView, stage: StageView | None) -> list[Answer]:
    """In the order in which the stages began; or that of one stage.

    Raises:
        CannotAnswer: for a job that nobody has recorded here.
    """
    job = Job(view.path)
    digests = Digests(job)
    makers: dict[str, str] = {}
    found: list[Answer] = []
    for one in sorted(view.stages, key=lambda one: (one.started_at or "~", one.number)):
        if one.state == "running":
            raise CannotAnswer(f"{one.name} is running; ask again when it is over")
        decision = decide(job, one.name, None, digests, thorough=True)
        answer = Answer(one.name, decision)
        record = decision.record or {}
        reads, writes = (
            [place_of(job, entry, record.get("resume"))[0] for entry in record.get(name, ())]
            for name in ("inputs", "outputs")
        )
        ahead = [makers[name] for name in reads if name in makers]
        answer.ahead = ahead[0] if decision and ahead else ""
        if answer.runs:
            makers.update(dict.fromkeys(writes, one.name))
        found.append(answer)
        if stage is not None and one.name == stage.name:
            return [answer]  # what began after it, and may be running, is not asked about
    return found if stage is None else []


def show_answers(answers: list[Answer], terminal: Terminal) -> None:
    rows: list[Row] = []
    for answer in answers:
        glyph = terminal.glyph("running" if answer.runs else "success")
        verdict = "up to date" if not answer.runs else "may run" if answer.decision else "would run"
        style = "" if answer.runs else "dim"
        rows.append(
            [glyph, Text(one_line(answer.stage), "bold"), Text(verdict, style), Text(plain(answer.sentence), style)]
        )
        rows += [["", "", "", Text(plain(reason.sentence), "dim")] for reason in answer.decision.reasons[1:]]
    terminal.columns(rows, indent=0)
    if len(answers) > 1:
        sure, current = sum(not answer.decision for answer in answers), sum(not answer.runs for answer in answers)
        maybe = len(answers) - sure - current
        said = [f"{count(sure, 'stage')} would run", *([f"{maybe} may"] if maybe else []), f"{current} up to date"]
        terminal.line()
        terminal.line(f"{', '.join(said)}. Parameters are compared when a stage asks.")
