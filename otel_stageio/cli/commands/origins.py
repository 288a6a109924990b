"""Commands about what came from what, and what has to run again."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import JobArgument, JsonOption, StageArgument, answering


def why(
    job: JobArgument,
    stage: StageArgument = None,
    json: JsonOption = False,
) -> None:
    """Say what would run again and why, without running anything; exit code 1 if anything would.

    Files are looked at now, by content: inputs, outputs and code of each stage's last success. A stage that asks with
    StageIO.up_to_date, or that Pipeline.command(resume=True) runs, decides in the same way, and compares its parameters
    too.

    \b
    Examples:
      otel-stageio why out/job1
      otel-stageio why out/job1 asr
      otel-stageio why out/job1 --json | jq -r '.stages[] | select(.runs).stage'
    """
    with answering(json):
        from ...reading.job import read_job
        from ..show_stage import find_stage
        from ..terminal import Terminal, document
        from ..why import answers_of, show_answers

        view = read_job(job, steps=False)
        answers = answers_of(view, find_stage(view, stage) if stage is not None else None)
        if json:
            document({"job": view.path, "stages": [answer.document() for answer in answers]})
        else:
            show_answers(answers, Terminal())
        runs = any(answer.runs for answer in answers)
    if runs:
        raise typer.Exit(1)


def lineage(
    job: JobArgument,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="A file: its path, or the end of it.", show_default=False)
    ] = None,
    among: Annotated[
        str | None, typer.Option(metavar="ROOT", help="Also say where the jobs below ROOT have the same bytes.")
    ] = None,
    dot: Annotated[bool, typer.Option("--dot", help="A graph for Graphviz instead.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what each result was made from, by which stage; for one file also what was made with it.

    Files that are no longer what was recorded, and those made from what has changed since, are marked.

    \b
    Examples:
      otel-stageio lineage out/job1
      otel-stageio lineage out/job1 segments.json --among out
      otel-stageio lineage out/job1 --dot > job1.dot
    """
    with answering(json):
        from ...reading.job import read_job
        from ...reading.lineage import as_document, read_lineage
        from ..lineage import LineageTree, elsewhere_of, find_file
        from ..lineage import dot as as_dot
        from ..terminal import Terminal, document

        found = read_lineage(read_job(job, steps=False))
        name = find_file(found, file) if file is not None else None
        elsewhere = elsewhere_of(found, among)
        if json:
            whole = as_document(found, {key: [place.sentence for place in it] for key, it in elsewhere.items()})
            document(whole if name is None else {**whole, "files": [it for it in whole["files"] if it["name"] == name]})
        elif dot:
            print(as_dot(found), end="")
        else:
            tree = LineageTree(found, elsewhere, Terminal())
            if name is None:
                tree.whole()
            else:
                tree.upstream(name)
                tree.downstream(name)
