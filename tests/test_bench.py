"""The benches run, and the page about them shows what they measured. How long anything takes is no test."""

from __future__ import annotations

import json
import sys

from helpers import ROOT, environment, run_command

from bench.page import PAGE, PICTURE, RESULTS, filled, picture


def test_a_look_at_lines_spans_and_stages_prints_a_table() -> None:
    words = [sys.executable, "-m", "bench", "--quick", "--only", "lines", "--only", "spans", "--only", "stages"]
    done = run_command(words, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr
    heading, *rows = done.stdout.splitlines()
    assert heading.split() == ["what", "takes", "against", "takes", "ratio", "middle", "half", "aim"]
    assert [row.split("  ")[0] for row in rows[1:] if row.startswith("log.debug")] == ["log.debug: stage.log"]
    assert any("logfire.span" in row for row in rows)


def test_the_page_shows_what_was_measured() -> None:
    kept = json.loads(RESULTS.read_text("utf-8"))
    page = PAGE.read_text("utf-8")
    assert filled(page, kept) == page, "run `python -m bench --save`, and write nothing into its tables by hand"
    assert picture(kept["curves"]) == PICTURE.read_text("utf-8")
    assert not kept["about"]["quick"]


def test_each_missed_goal_is_said_to_be_missed() -> None:
    kept = json.loads(RESULTS.read_text("utf-8"))
    missed = [entry for entry in kept["results"] if entry["verdict"] == "missed"]
    assert PAGE.read_text("utf-8").count("**missed**") == len(missed)
