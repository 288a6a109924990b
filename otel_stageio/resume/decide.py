"""Whether a stage has to run again, and why: by looking now, not by a mark that says it was done.

A stage may be skipped if its last attempt succeeded, and the files that this attempt read and wrote, and what the stage
declares that its result depends on, are what they were. Files are compared by content; one that nobody has touched is
not read for that (see :mod:`otel_stageio.resume.digest`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .. import semconv as sc
from ..layout import Job, canonical, directory_name, owner_of, within
from ..record.fold import KIND
from ..record.shared_manifest import by_stage
from ..sinks.files import read_file
from .declared import NOT_READ, Declared, code_now, is_digest
from .digest import Digest, Digests, digest_text

_FILES = ("sha256", "dirHash1", "quick", "stat")
#: Reasons that are recorded; the sentence says how many there are.
_MOST_REASONS = 100


class Reason(NamedTuple):
    """Why a stage has to run.

    Attributes:
        kind: ``never succeeded``, ``last attempt``, ``forced``, ``parameter``, ``code``, ``environment``, ``input`` or
            ``output``.
        name: of the parameter or file.
        sentence: for people.
        before, after: what it was and what it is, where there is something to say.
    """

    kind: str
    name: str
    sentence: str
    before: Any = None
    after: Any = None


@dataclass
class Decision:
    """Whether a stage may be skipped. True in a condition if it may.

    Attributes:
        skip: everything was verified to be as it was.
        sentence: why it has to run, or that it does not have to.
        reasons: all that was found; empty if it may be skipped.
        record: of the attempt that it was compared with, if there is one.
    """

    skip: bool
    sentence: str
    reasons: list[Reason] = field(default_factory=list)
    record: Mapping[str, Any] | None = None

    def __bool__(self) -> bool:
        return self.skip

    @property
    def source(self) -> dict[str, Any] | None:
        """The attempt that made the outputs: its number and where it is in which trace."""
        if self.record is None:
            return None
        former = (self.record.get("resume") or {}).get("source")
        return former or {"attempt": self.record.get("attempt"), **(self.record.get("trace") or {})}

    def plain(self) -> dict[str, Any]:
        found = {
            "skip": self.skip,
            "sentence": self.sentence,
            "reasons": [reason._asdict() for reason in self.reasons[:_MOST_REASONS]],
        }
        return {**found, "source": self.source} if self.skip else found


def decide(
    job: Job,
    stage: str,
    declared: Declared | None,
    digests: Digests,
    *,
    attempt: int | None = None,
    thorough: bool = False,
) -> Decision:
    """Compare a stage's last attempt with what is there now.

    Args:
        declared: None to leave out of the comparison what only the stage itself knows.
        attempt: the one that asks, which is not its own predecessor.
        thorough: find every reason, not only the first.
    """
    former = [record for record in records_of(job, stage) if record.get("attempt") != attempt or not _ours(record)]
    first = _before_comparing(job, stage, former)
    if first is not None:
        return Decision(False, first.sentence, [first], former[-1] if former else None)
    record = former[-1]
    reasons: list[Reason] = []
    for comparison in (_declared, _inputs, _outputs):
        reasons += comparison(job, record, declared, digests)
        if reasons and not thorough:
            break
    digests.save()
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return Decision(False, reasons[0].sentence + more, reasons, record)
    return Decision(True, _unchanged(record), [], record)


def _before_comparing(job: Job, stage: str, former: list[dict[str, Any]]) -> Reason | None:
    asked = _asked_for(job, stage)
    if not former:
        return Reason("never succeeded", stage, "never succeeded: it has not run before")
    last = former[-1]
    if asked:
        return Reason("forced", stage, asked)
    if _good(last):
        gone = (last.get("lost") or {}).get("journal")
        return Reason("last attempt", stage, f"{gone} entries of the last attempt's record were lost") if gone else None
    if not _ours(last):
        return Reason("last attempt", stage, "the last attempt was recorded by the original, which takes no digests")
    why = _why(last)
    if any(_good(record) for record in former):
        return Reason("last attempt", stage, f"the last attempt {why}")
    return Reason("never succeeded", stage, f"never succeeded: the last attempt {why}")


def records_of(job: Job, stage: str) -> list[dict[str, Any]]:
    """The records of a stage's attempts, oldest first; none if there is nothing that can be read."""
    try:
        content = json.loads(read_file(job.manifest(stage)))
        return by_stage(content, owner_of(directory_name(stage))).get(stage, [])
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        return []


def _ours(record: Mapping[str, Any]) -> bool:
    return record.get("kind") == KIND


def _good(record: Mapping[str, Any]) -> bool:
    """A success, or a skip that was one because of it."""
    skipped = record.get("status") == "skipped" and (record.get("resume") or {}).get("skip") is True
    return _ours(record) and (record.get("status") == "success" or skipped)


def _why(record: Mapping[str, Any]) -> str:
    status = str(record.get("status"))
    verb = {"failed": "failed", "crashed": "crashed", "lost": "was lost", "cancelled": "was cancelled",
            "timeout": "ran out of time", "skipped": "was skipped",
            "running": "has no end"}.get(status, "")  # fmt: skip
    errors = record.get("errors") or [{}]
    said = record.get("reason") if status == "skipped" else errors[-1].get("message") or record.get("cause")
    return (verb or f"ended as {status}") + (f": {str(said).splitlines()[0]}" if said else "")


def _asked_for(job: Job, stage: str) -> str:
    """Whether the user wants it to run in any case, and how that was said."""
    if os.environ.get(sc.ENV_RESUME, "").strip().lower() == "off":
        return f"{sc.ENV_RESUME} is off"
    forced = _names(sc.ENV_FORCE)
    if stage in forced or "all" in forced:
        return f"forced: {sc.ENV_FORCE} names it"
    for start in _names(sc.ENV_FROM):
        if stage == start:
            return f"forced: to run from {start} on"
        if _comes_after(job, stage, start):
            return f"forced: it comes after {start}, from which on is to be run"
    return ""


def _names(variable: str) -> list[str]:
    found = []
    for word in os.environ.get(variable, "").split(","):
        if word.strip():
            try:
                found.append(canonical(word.strip()))
            except ValueError:
                continue
    return found


def _comes_after(job: Job, stage: str, start: str) -> bool:
    """As the newest run that had both began them."""
    from ..runs import run_file

    for run in run_file.all_runs(job):
        names = [item.get("stage") for item in run.get("stages", ())]
        if stage in names and start in names:
            return names.index(stage) > names.index(start)
    return False


# -- what is compared ------------------------------------------------------------------------------------------------


def _declared(job: Job, record: Mapping[str, Any], declared: Declared | None, digests: Digests) -> list[Reason]:
    then = record.get("resume") or {}
    attempt = record.get("attempt")
    if declared is None:
        # What nobody can tell without running the stage is left out; files that are code can be looked at.
        return [
            Reason("code", name, f"code changed: {os.path.basename(name)}", before, after)
            for name, before in (then.get("code") or {}).items()
            if (after := code_now(name, before, digests)) != before or after == NOT_READ
        ]
    if "parameters" not in then:
        return [Reason("parameter", "", f"attempt {attempt} did not say what its result depends on")]
    if "arguments" in declared.parameters and "arguments" not in then["parameters"]:
        return [Reason("parameter", "", "its program asks for itself")]
    found = []
    found += [
        Reason("code", name, f"code cannot be verified: {name} could not be read")
        for name, value in declared.code.items()
        if value == NOT_READ
    ]
    for name, before, after in _differences(_by_name(then.get("code") or {}), _by_name(declared.code)):
        files = is_digest(before) or is_digest(after)
        change = "" if files else f" {_short(before)}→{_short(after)}"
        found.append(Reason("code", name, f"code changed: {name}{change}", before, after))
    for kind, old, new in (
        ("parameter", then.get("parameters") or {}, declared.parameters),
        ("environment", then.get("environment") or {}, declared.environment),
    ):
        for name, before, after in _differences(old, new):
            found.append(Reason(kind, name, f"{kind} {name} {_short(before)}→{_short(after)}", before, after))
    listed = [place_of(job, entry, then) for entry in record.get("inputs", ())[: then.get("inputs", 0)]]
    found += [Reason("input", name, f"input added: {name}") for name in _without(declared.inputs, listed)]
    found += [Reason("input", name, f"input no longer read: {name}") for name in _without(listed, declared.inputs)]
    return found


def _without(files: Iterable[tuple[str, Path]], others: Iterable[tuple[str, Path]]) -> list[str]:
    known = {path for _, path in others}
    return [name for name, path in files if path not in known]


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    names = dict.fromkeys([*before, *after])
    return [
        (name, before.get(name), after.get(name))
        for name in names
        if (name in before) != (name in after) or _canonical(before.get(name)) != _canonical(after.get(name))
    ]


def _by_name(code: Mapping[str, str]) -> dict[str, str]:
    """Files by their own names, since a program may lie elsewhere by now, unless two have the same."""
    short = {os.path.basename(name): value for name, value in code.items()}
    return short if len(short) == len(code) else dict(code)


def _canonical(value: Any) -> str:
    """As a journal and back: a tuple is a list, and 1 is not true."""
    return json.dumps(value, sort_keys=True, default=str)


def _short(value: Any) -> str:
    text = "(not set)" if value is None else value if isinstance(value, str) else _canonical(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _inputs(job: Job, record: Mapping[str, Any], declared: Declared | None, digests: Digests) -> list[Reason]:
    found = []
    for entry in record.get("inputs", ()):
        name, path = place_of(job, entry, record.get("resume"))
        if entry.get("changed"):
            attempt = record.get("attempt")
            found.append(Reason("input", name, f"input changed while attempt {attempt} ran: {name}"))
        elif entry.get("exists") is False:
            if path.exists():
                found.append(Reason("input", name, f"input was not there, and is now: {name}"))
        else:
            found += _file("input", name, path, entry.get("digest") or {}, digests)
    return found


def _outputs(job: Job, record: Mapping[str, Any], declared: Declared | None, digests: Digests) -> list[Reason]:
    outputs = list(record.get("outputs", ()))
    if not outputs:
        return [Reason("output", "", f"attempt {record.get('attempt')} recorded no output that could be verified")]
    found = []
    for entry in outputs:
        name, path = place_of(job, entry, record.get("resume"))
        if entry.get("exists") is False:
            found.append(Reason("output", name, f"output missing: {name}"))
        else:
            found += _file("output", name, path, entry.get("digest") or {}, digests)
    return found


def _file(role: str, name: str, path: Path, recorded: Digest, digests: Digests) -> list[Reason]:
    if not any(kind in recorded for kind in _FILES):
        why = recorded.get("not_computed", "no digest was recorded")
        return [Reason(role, name, f"{role} cannot be verified: {name} ({why})", recorded)]
    now = digests.again(str(path), recorded)
    if not now:
        return [Reason(role, name, f"{role} missing: {name}", recorded)]
    if any(kind in recorded and recorded[kind] == now.get(kind) for kind in _FILES):
        return []
    if "not_computed" in recorded:
        why = f"it was touched, and its digest had not been computed: {recorded['not_computed']}"
        return [Reason(role, name, f"{role} cannot be verified: {name} ({why})", recorded, now)]
    if "not_computed" in now:
        return [Reason(role, name, f"{role} cannot be verified: {name} ({now['not_computed']})", recorded, now)]
    change = f"{digest_text(recorded)}→{digest_text(now).split(' ')[-1]}" if "stat" not in recorded else "by its times"
    return [Reason(role, name, f"{role} changed: {name} ({change})", recorded, now)]


def place_of(job: Job, entry: Mapping[str, Any], resume: Mapping[str, Any] | None = None) -> tuple[str, Path]:
    """A recorded file's name, relative to the job where it lies in it, and where it is now.

    Args:
        resume: of the same record. It knows where the job was then; without it that is a guess.
    """
    path = str(entry.get("path", ""))
    then = (resume or {}).get("place") or {}
    full = os.path.abspath(os.path.join(then["directory"], path) if then else path)
    relative = inside_of(full, then["job"]) if then else within(path, job.root)
    return (path, Path(full)) if relative is None else (relative, job.root / relative)


def inside_of(path: str, directory: str) -> str | None:
    """An absolute path relative to a directory, None for one outside."""
    if path == directory:
        return "."
    return path[len(directory) + 1 :] if path.startswith(directory + os.sep) else None


def _unchanged(record: Mapping[str, Any]) -> str:
    then = record.get("resume") or {}
    counts = [(len(record.get("inputs", ())), "input"), (len(record.get("outputs", ())), "output"),
              (len(then.get("parameters") or {}), "parameter")]  # fmt: skip
    said = ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in counts if number)
    source = (then.get("source") or {}).get("attempt") or record.get("attempt")
    return f"unchanged since attempt {source}: {said} verified"
