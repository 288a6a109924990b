"""The alerts, by Prometheus' own promtool; and a week of 500 jobs, whose numbers the dashboards have to give."""

from __future__ import annotations

import random
import re
import subprocess
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from stack import Collector, samples, wait_until
from test_dashboards import dashboards

ROOT = Path(__file__).resolve().parents[1]
PROMETHEUS = ROOT / "collector/prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yaml"))
CASES = sorted((PROMETHEUS / "tests").glob("*.yaml"))


def promtool(binaries: Any, *words: str | Path) -> tuple[int, str]:
    command = [str(binaries["promtool"].path), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def alerts() -> list[dict[str, Any]]:
    found = [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    return [rule for rule in found if "alert" in rule]


# -- the rules -------------------------------------------------------------------------------------------------------


def test_prometheus_takes_the_rules(binaries: Any) -> None:
    code, said = promtool(binaries, "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert code == 0, said
    assert said.count("SUCCESS") == len(RULES) == 2


def test_prometheus_takes_the_configuration(binaries: Any, tmp_path: Path) -> None:
    code, said = promtool(binaries, "check", "config", PROMETHEUS / "prometheus.yml")
    assert code == 0, said
    assert said.count("rules found") == len(RULES)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_each_alert_fires_in_the_case_that_it_is_for_and_in_no_other(binaries: Any, path: Path) -> None:
    code, said = promtool(binaries, "test", "rules", path)
    assert code == 0, said


def test_each_alert_has_a_case() -> None:
    texts = "".join(path.read_text() for path in CASES)
    fires = set(re.findall(r'\{alertname="(\w+)"', texts))
    assert {alert["alert"] for alert in alerts()} == fires


def test_whoever_gets_an_alert_is_told_what_to_do() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("warning", "critical"), alert["alert"]
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}
        assert "$labels" in alert["annotations"]["summary"]


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("stages.yaml", "success|skip|cancellation", "success|cancellation"),  # a stage that is skipped is an alert
        ("stages.yaml", "> 0.95", "> 0.4"),
        ("stages.yaml", "(stageio_gpu_process_memory_usage_bytes > 0)", "hw_power_watts"),
        ("stages.yaml", "[20m]", "[1m]"),  # a stage that has ended is a silence
        ("collector.yaml", "unless on (job, instance, exporter, data_type)", "unless on (job, instance, exporter)"),
        ("collector.yaml", "unless {", "and {"),  # a failure that is the first is none
    ],
)
def test_the_cases_notice_a_mistake(binaries: Any, tmp_path: Path, file: str, right: str, wrong: str) -> None:
    text = (PROMETHEUS / "rules" / file).read_text()
    assert right in text
    for name in ("rules", "tests"):
        (tmp_path / name).mkdir()
    (tmp_path / "rules" / file).write_text(text.replace(right, wrong))
    (tmp_path / "tests" / file).write_text((PROMETHEUS / "tests" / file).read_text())
    code, said = promtool(binaries, "test", "rules", tmp_path / "tests" / file)
    assert (code, "FAILED" in said) == (1, True)


def test_the_dashboard_shows_what_runs_on_each_host_and_who_has_gone_silent(binaries: Any, tmp_path: Path) -> None:
    cases = yaml.safe_load((PROMETHEUS / "tests/stages.yaml").read_text())["tests"]
    (case,) = (case for case in cases if "goes silent" in case["name"])

    def shows(title: str, minutes: int, **values: float) -> dict[str, Any]:
        (expr,) = queries("runs.json", title, "films")
        samples = [
            {"labels": f'{{host_name="{host.replace("_", "-")}"}}', "value": value} for host, value in values.items()
        ]
        return {"expr": expr, "eval_time": f"{minutes}m", "exp_samples": samples}

    asked = [
        shows("Stages running by host", 19, gpu_1=1, gpu_2=1, gpu_3=2),
        shows("Stages running by host", 28, gpu_3=1),
        shows("Silent hosts", 19),
        shows("Silent hosts", 28, gpu_1=1),
    ]
    test = {"interval": case["interval"], "input_series": case["input_series"], "promql_expr_test": asked}
    (tmp_path / "case.yaml").write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    code, said = promtool(binaries, "test", "rules", tmp_path / "case.yaml")
    assert code == 0, said


# -- a week of 500 jobs ----------------------------------------------------------------------------------------------

HOUR = 3_600
WEEK = 168 * HOUR
BATCHES = 14
JOBS = 500
PIPELINE = "week"


@dataclass(frozen=True)
class Ran:
    """A stage, or a run (``stage`` is empty)."""

    stage: str
    seconds: float
    result: str

    def span(self, number: int) -> dict[str, Any]:
        end = 1_790_000_000_000_000_000 + number
        attributes = {"cicd.pipeline.name": PIPELINE}
        if self.stage:
            attributes |= {"cicd.pipeline.task.name": self.stage, "cicd.pipeline.task.run.result": self.result}
        if self.result != "success":
            attributes["error.type"] = "ValueError"
        return {
            "traceId": f"{number + 1:032x}",
            "spanId": f"{number + 1:016x}",
            "name": self.stage or f"RUN {PIPELINE}",
            "kind": 1 if self.stage else 2,
            "startTimeUnixNano": str(end - int(self.seconds * 1e9)),
            "endTimeUnixNano": str(end),
            "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()],
            "status": {} if self.result == "success" else {"code": 2},
        }


def job(chance: random.Random, *, fails: bool) -> list[Ran]:
    asr = Ran("asr", chance.uniform(900, 3600), "failure" if fails else "success")
    mux = Ran("mux", chance.uniform(5, 15), "success")
    stages = [Ran("demux", chance.uniform(60, 300), "success"), asr, *([] if fails else [mux])]
    return [*stages, Ran("", sum(stage.seconds for stage in stages), asr.result)]


@pytest.fixture(scope="module")
def week(collector: Collector) -> tuple[list[list[Ran]], list[dict[str, Any]]]:
    """What ran in each of 14 half days, after a job of each kind the week before; and Prometheus' series of it.

    The spans go through the real collector: the series are what it shows after each half day.
    """
    chance = random.Random(20261126)
    ran = [[*job(chance, fails=False), *job(chance, fails=True)]]
    for batch in range(BATCHES):
        numbers = range(JOBS * batch // BATCHES, JOBS * (batch + 1) // BATCHES)
        ran.append([item for number in numbers for item in job(chance, fails=number % 25 == 0)])
    series: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = defaultdict(list)
    sent = 0
    for batch in ran:
        spans = [item.span(sent + place) for place, item in enumerate(batch)]
        sent += len(spans)
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "week"}}]}
        body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}
        assert requests.post(f"{collector.http}/v1/traces", json=body, timeout=10).status_code == 200

        def shown(sent: int = sent) -> list[tuple[str, dict[str, str], float]] | None:
            now = samples(collector.span_metrics)
            found = [item for item in now if item[1].get("cicd_pipeline_name") == PIPELINE]
            total = Counter[str]()
            for name, _, value in found:
                total[name] += int(value)
            whole = total["traces_span_metrics_calls_total"] == total["traces_span_metrics_duration_seconds_count"]
            return found if whole and total["traces_span_metrics_calls_total"] == sent else None

        for name, labels, value in wait_until(shown, what="the spans"):
            series[name, tuple(sorted(labels.items()))].append(value)
    assert {len(values) for values in series.values()} == {BATCHES + 1}

    def written(name: str, labels: tuple[tuple[str, str], ...]) -> str:
        return f"{name}{{{', '.join(f'{key}={chr(34)}{value}{chr(34)}' for key, value in labels)}}}"

    return ran, [{"series": written(*key), "values": " ".join(map(repr, values))} for key, values in series.items()]


def queries(file: str, title: str, pipeline: str = PIPELINE) -> list[str]:
    """Of one panel, as Grafana would send them for that week."""
    (panel,) = (panel for panel in dashboards()[file]["panels"] if panel["title"] == title)
    found = []
    for target in panel["targets"]:
        # A millisecond more than the week, so that its first sample is within.
        query = target["expr"].replace("$__range", f"{WEEK}s1ms")
        query = query.replace("$__rate_interval", "12h1ms").replace("$stage", "asr")
        query = query.replace("$pipeline", pipeline).replace("$host", ".*")
        found.append(query)
    return found


def quantile(seconds: list[float], buckets: list[float], share: float) -> float:
    """As Prometheus estimates it: evenly within the bucket that it falls into."""
    rank, below, low = share * len(seconds), 0, 0.0
    for high in buckets:
        within = sum(low < value <= high for value in seconds)
        if below + within >= rank:
            return low + (high - low) * (rank - below) / within
        below, low = below + within, high
    raise AssertionError("beyond the last bucket")


def test_a_week_of_500_jobs_gives_the_rates_and_quantiles_that_its_maker_knows(
    binaries: Any, week: tuple[list[list[Ran]], list[dict[str, Any]]], tmp_path: Path
) -> None:
    ran, series = week
    buckets = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0]
    everything = [item for batch in ran for item in batch]
    of_week = [item for batch in ran[1:] for item in batch]

    def ended(stage: str, *, bad: bool = False, items: list[Ran] = of_week) -> int:
        return sum(item.stage == stage and not (bad and item.result == "success") for item in items)

    def took(stage: str, *, all_of_them: bool = False) -> list[float]:
        return [
            item.seconds for item in everything if item.stage == stage and (all_of_them or item.result == "success")
        ]

    def asks(expr: str, *expected: tuple[str, float], hours: int = 168) -> dict[str, Any]:
        exact = [{"labels": labels or "{}", "value": round(value, 3)} for labels, value in expected]
        return {"expr": f"round({expr}, 0.001)", "eval_time": f"{hours}h", "exp_samples": exact}

    assert (ended(""), ended("", bad=True), ended("asr"), ended("asr", bad=True)) == (500, 20, 500, 20)
    stages = {name: f'{{cicd_pipeline_task_name="{name}"}}' for name in ("demux", "asr", "mux")}
    failed = '{cicd_pipeline_task_name="asr"}'
    count, failures, mean, p95 = queries("pipeline.json", "Stages")
    runs = {title: queries("runs.json", title)[0] for title in ("Runs ended", "Runs failed", "Stages failed")}
    all_runs = took("", all_of_them=True)
    tests = [
        asks(runs["Runs ended"], ("", 500)),
        asks(runs["Runs failed"], ("", 20)),
        asks(runs["Stages failed"], ("", 20)),
        asks(count, *((labels, ended(name)) for name, labels in stages.items())),
        asks(failures, (failed, 20)),
        asks(mean, *((labels, sum(took(name)) / len(took(name))) for name, labels in stages.items())),
        asks(p95, *((labels, quantile(took(name), buckets, 0.95)) for name, labels in stages.items())),
        asks(queries("pipeline.json", "19 of 20 take less than")[0],
             (f'{{cicd_pipeline_name="{PIPELINE}"}}', quantile(all_runs, buckets, 0.95))),
        asks(queries("stage.json", "Mean")[0], (stages["asr"], sum(took("asr")) / len(took("asr")))),
        *(asks(queries("runs.json", "Runs")[0], (f'{{cicd_pipeline_name="{PIPELINE}"}}', ended("", items=ran[half])),
               hours=12 * half) for half in (1, 5, 14)),
    ]  # fmt: skip
    case = {"interval": "12h", "input_series": series, "promql_expr_test": tests}
    text = yaml.safe_dump({"rule_files": [], "evaluation_interval": "12h", "fuzzy_compare": True, "tests": [case]})
    (tmp_path / "week.yaml").write_text(text)
    code, said = promtool(binaries, "test", "rules", tmp_path / "week.yaml")
    assert code == 0, said
    # An estimate from buckets: how far it is from what was drawn.
    for name in stages:
        exact = sorted(took(name))[int(0.95 * len(took(name)))]
        assert quantile(took(name), buckets, 0.95) == pytest.approx(exact, rel=0.1)
