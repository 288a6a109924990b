"""A minute of ``make torture``: kills, full disks and lies at random points, and the promises that hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import IN_CI

from tests.torture import trials
from tests.torture.arrival import arrives

SEED = 20261126


@pytest.fixture(autouse=True)
def as_users_have_it(as_in_production: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_STAGEIO_CONSOLE", "off")


@pytest.mark.parametrize("job", range(15))
def test_kills_at_random_instants_lose_nothing_that_was_finished(tmp_path: Path, job: int) -> None:
    trials.kills(tmp_path / "job", SEED + job, 10)


def test_what_was_killed_and_recovered_is_in_jaeger(tmp_path: Path, collector: Any, jaeger: Any) -> None:
    jobs = [tmp_path / str(number) for number in range(3)]
    died = sum(trials.kills(job, 31 * SEED + number, 10) for number, job in enumerate(jobs))
    assert arrives([job for job in jobs if job.exists()], collector, jaeger) == died > 0


def test_the_signal_that_killed_a_program_is_named(tmp_path: Path) -> None:
    trials.commands(tmp_path / "job", SEED, 40)


@pytest.mark.parametrize("number", range(15))
def test_a_full_disk_changes_no_stage_and_what_is_missing_is_counted(tmp_path: Path, number: int) -> None:
    if os.geteuid():
        reason = "mounting a small disk needs root"
        pytest.fail(reason) if IN_CI else pytest.skip(reason)
    trials.fills(tmp_path / "disk", SEED + number)


@pytest.mark.parametrize("number", range(30))
def test_damaged_files_are_survived_and_never_make_a_success(tmp_path: Path, number: int) -> None:
    trials.lies(tmp_path / "job", SEED + number)
