"""``otel-stageio prune``: what old records take, and the room that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from ..pruning import Pruned, Rules, prune
from ..reading.text import count, one_line, size
from .recover import jobs_at
from .terminal import Row, Terminal, document


def prune_all(paths: Sequence[str], rules: Rules, *, delete: bool, json: bool) -> None:
    """Free what these jobs, or the jobs below these directories, no longer need; or only say what that is.

    Raises:
        CannotAnswer: if one of them is neither; before anything is deleted.
    """
    jobs = [job for path in paths for job in jobs_at(path)]
    found = {job: prune(job, rules, delete=delete) for job in jobs}
    if json:
        document(_document(found, delete))
    else:
        _show(found, delete)


def _document(found: dict[str, Pruned], delete: bool) -> dict[str, Any]:
    return {
        "deleted": delete,
        "freed_bytes": sum(pruned.freed for pruned in found.values()),
        "before_bytes": sum(pruned.before for pruned in found.values()),
        "jobs": [
            {
                "job": job,
                "before_bytes": pruned.before,
                "freed_bytes": pruned.freed,
                "pieces": [
                    {"what": piece.what, "bytes": piece.size, "files": [str(path) for path in piece.paths]}
                    for piece in pruned.pieces
                ],
                "kept": [{"what": what, "reason": reason} for what, reason in pruned.kept],
                "left_alone": pruned.left_alone,
            }
            for job, pruned in found.items()
        ],
    }


def _show(found: dict[str, Pruned], delete: bool) -> None:
    terminal = Terminal()
    for job, pruned in found.items():
        if not (pruned.pieces or pruned.kept or pruned.left_alone):
            continue  # one of ten thousand in which there is nothing to do
        terminal.line((one_line(job), "bold"), (f"  {one_line(pruned.left_alone)}", "dim") if pruned.left_alone else "")
        rows: list[Row] = [[size(piece.size), one_line(piece.what)] for piece in pruned.pieces]
        rows += [["stays", Text(f"{one_line(what)}: {one_line(why)}", "yellow")] for what, why in pruned.kept]
        terminal.columns(rows, right="0")
    freed, before = (sum(getattr(pruned, name) for pruned in found.values()) for name in ("freed", "before"))
    jobs = count(len(found), "job")
    if not freed:
        terminal.line(f"nothing to free in {jobs}: the records take {size(before)}")
    elif delete:
        terminal.line(
            f"{size(freed)} freed in {jobs}: the records took {size(before)}, and take {size(before - freed)}"
        )
    else:
        terminal.line(f"{size(freed)} of {size(before)} could go from {jobs}; nothing is deleted yet: --yes does it")
