"""What Grafana and the alerts ask for, against what the running stack has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import pytest
import requests
import yaml
from stack import Collector, Jaeger, free_ports, get, measured, samples, wait_until

from collector.grafana.generate import DASHBOARDS, files
from collector.native import COLLECTOR
from otel_stageio import Pipeline
from otel_stageio.delivery.delivery import Delivery
from otel_stageio.delivery.settings import endpoints
from otel_stageio.delivery.shipper import push
from otel_stageio.layout import Job

ROOT = Path(__file__).resolve().parents[1]
PROVISIONING = ROOT / "collector/grafana/provisioning"
COMPOSE = ROOT / "docker-compose.otel.yml"
Sample = tuple[str, dict[str, str], float]


# -- what the stack has ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """(job, run id, trace id) of a run with stages that succeeded, failed, were skipped and were cancelled."""
    root = tmp_path_factory.mktemp("seen") / "job"
    with Pipeline("seen", root) as run:
        with run.stage("demux") as io, io.span("step"):
            pass
        with run.stage("tmdb") as io:
            io.skip("no network")
        with run.stage("asr") as io:
            io.add_error("no voice found")
            io.finalize("failed")
    with Pipeline("seen", root.parent / "cancelled") as other, other.stage("asr") as io:
        io.finalize("cancelled")
    return root, json.loads((root / ".stageio/run.json").read_text())["run_id"], run.trace_id


@pytest.fixture(scope="module")
def of_jobs(collector: Collector, run: tuple[Path, str, str]) -> list[Sample]:
    """What the collector makes of those, and of two stages beside a GPU, and says of itself."""
    root = run[0]
    measured(root.parent / "measured")
    delivery = Delivery(endpoints({}, endpoint=collector.http))
    for name in ("job", "cancelled", "measured"):
        assert push(Job(root.parent / name), delivery).pending == {}
    delivery.close()

    def counted() -> list[Sample]:
        now = samples(collector.span_metrics)
        results = {
            labels.get("cicd_pipeline_task_run_result")
            for name, labels, value in now
            if name.endswith("_calls_total") and labels.get("cicd_pipeline_name") == "seen" and value
        }
        measures = {name for name, _, _ in now}
        whole = {"success", "skip", "failure", "cancellation"} <= results and "hw_gpu_utilization_ratio" in measures
        return now if whole else []

    return [*wait_until(counted, what="the metrics"), *samples(collector.self_metrics)]


TROUBLED = """
receivers:
  prometheus:  # as an agent scrapes itself
    config:
      scrape_configs:
        - job_name: agent
          scrape_interval: 200ms
          scrape_timeout: 200ms
          static_configs: [{targets: ["127.0.0.1:${env:SELF_METRICS_PORT}", "${env:HEALTHY}"]}]
exporters:
  otlp_http/refusing: {endpoint: "${env:REFUSING}", sending_queue: {enabled: false}}
  otlp_grpc/down: {endpoint: "${env:DOWN}", tls: {insecure: true}, sending_queue: {queue_size: 1}}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp_http/refusing, otlp_grpc/down]}
    logs: {receivers: [otlp], exporters: [otlp_http/refusing, otlp_grpc/down]}
    metrics: {receivers: [otlp], exporters: [otlp_http/refusing, otlp_grpc/down]}
    metrics/own: {receivers: [prometheus], exporters: [prometheus]}
"""


class Refusing(BaseHTTPRequestHandler):
    """A backend that takes nothing, for good."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(400)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def in_trouble(
    collector: Collector, of_jobs: list[Sample], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Sample]]:
    """What a collector says of itself whose one backend is down and whose other refuses, and what comes of that, and of
    one that is well, where it is scraped as agents do it.
    """
    place = tmp_path_factory.mktemp("trouble")
    (place / "trouble.yaml").write_text(TROUBLED)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as backend:
        threading.Thread(target=backend.serve_forever, daemon=True).start()
        down = f"127.0.0.1:{free_ports(1)[0]}"
        healthy = urlsplit(collector.self_metrics).netloc
        env = {"REFUSING": f"http://127.0.0.1:{backend.server_port}", "DOWN": down, "HEALTHY": healthy}
        server = Collector(place, down, (*COLLECTOR, place / "trouble.yaml"), env)
        server.start()
        now = str(time.time_ns())
        span = {"traceId": "1" * 32, "spanId": "2" * 16, "name": "s", "startTimeUnixNano": now, "endTimeUnixNano": now}
        gauge = {"name": "g", "gauge": {"dataPoints": [{"timeUnixNano": now, "asInt": "1"}]}}
        bodies = {
            "traces": {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]},
            "logs": {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "b"}}]}]}]},
            "metrics": {"resourceMetrics": [{"scopeMetrics": [{"metrics": [gauge]}]}]},
        }
        for signal, body in bodies.items():
            for _ in range(3):
                requests.post(f"{server.http}/v1/{signal}", json=body, timeout=10)

        def failed() -> list[Sample]:
            now = [*samples(server.self_metrics), *samples(server.span_metrics)]
            names = {name for name, _, _ in now}
            nouns = ("spans", "log_records", "metric_points")
            wanted = {f"otelcol_exporter_{what}_failed_{noun}" for what in ("send", "enqueue") for noun in nouns}
            wanted |= {f"{name}_total" for name in (*wanted, "otelcol_exporter_sent_spans")}
            return now if wanted <= names else []

        try:
            yield wait_until(failed, what="every failure")
        finally:
            server.kill()
            backend.shutdown()


@pytest.fixture(scope="module")
def seen(of_jobs: list[Sample], in_trouble: list[Sample]) -> list[Sample]:
    return [*of_jobs, *in_trouble]


# -- what is asked for -----------------------------------------------------------------------------------------------


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def provisioned() -> dict[str, dict[str, Any]]:
    text = (PROVISIONING / "datasources/datasources.yaml").read_text()
    return {source["uid"]: source for source in yaml.safe_load(text)["datasources"]}


def everything(node: Any) -> list[dict[str, Any]]:
    """Every object within."""
    if isinstance(node, dict):
        return [node, *(inner for item in node.values() for inner in everything(item))]
    return [inner for item in node for inner in everything(item)] if isinstance(node, list) else []


def of_grafana() -> list[str]:
    """Every query in Prometheus' language, of the dashboards and of the links between data sources."""
    nodes = everything(list(dashboards().values()))
    found = [node["expr"] for node in nodes if "expr" in node and node["datasource"]["type"] == "prometheus"]
    found += [node["definition"] for node in nodes if "definition" in node]
    for source in provisioned().values():
        for given in source["jsonData"].get("tracesToMetrics", {}).get("queries", ()):
            found.append(given["query"].replace("{$$__tags}", '{cicd_pipeline_task_name="x"}'))
    return found


def rules() -> list[dict[str, Any]]:
    texts = [path.read_text() for path in sorted((ROOT / "collector/prometheus/rules").glob("*.yaml"))]
    return [rule for text in texts for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def asked() -> list[str]:
    return [*of_grafana(), *(rule["expr"] for rule in rules())]


METRIC = r"\b(?:traces|otelcol|process|hw|stageio|stage:|collector:)[a-z0-9_:]+(?=[{\[ ,)]|$)"


def test_every_query_names_metrics_and_labels_that_the_stack_has(seen: list[Sample]) -> None:
    metrics = {name for name, _, _ in seen}
    labels = {label for _, given, _ in seen for label in given} | {"le", "__name__"}
    made = {rule["record"] for rule in rules() if "record" in rule}
    assert len(asked()) > 80
    for query in asked():
        patterns = re.findall(r'__name__=~"([^"]*)"', query)
        bare = re.sub(r'"[^"]*"', '""', query)
        named = set(re.findall(METRIC, re.sub(r"\b(by|on) \([^)]*\)", "", bare))) - made
        assert named or patterns or made & set(re.findall(r"[a-z0-9_:]+", bare)) or bare.startswith("up{"), query
        assert named <= metrics, (query, named - metrics, sorted(metrics))
        for pattern in patterns:  # as it is scraped, and as it comes through the gateway
            plain = pattern.removesuffix("(_total)?")
            assert {plain, f"{plain}_total"} <= metrics, pattern
        for group in (*re.findall(r"\{([^}]*)\}", bare), *re.findall(r"(?:by|on) \(([^)]*)\)", bare)):
            words = {re.split(r"[=!~]", word)[0].strip() for word in group.split(",")}
            assert words <= labels, (query, words - labels)
        for label in re.findall(r"label_values\(.*, ([a-z_]+)\)", bare):
            assert label in labels


def test_every_value_that_a_query_compares_with_was_seen(seen: list[Sample]) -> None:
    had = {pair for _, labels, _ in seen for pair in labels.items()} | {("job", "collector")}
    compared = {
        (label, value)
        for query in asked()
        for label, values in re.findall(r'([a-z_]+)(?:=|!=|=~|!~)"([A-Za-z_|]+)"', query)
        for value in values.split("|")
    }
    assert {("status_code", "STATUS_CODE_ERROR"), ("cicd_pipeline_task_run_result", "skip")} <= compared
    assert compared - {("cicd_pipeline_task_name", "x")} <= had


def test_a_stage_is_counted_once_with_its_result(of_jobs: list[Sample]) -> None:
    results = sorted(
        (labels["cicd_pipeline_task_name"], labels["cicd_pipeline_task_run_result"], value)
        for name, labels, value in of_jobs
        if name == "traces_span_metrics_calls_total"
        and labels.get("cicd_pipeline_name") == "seen"
        and labels.get("cicd_pipeline_task_name")
    )
    assert results == [("asr", "cancellation", 1), ("asr", "failure", 1), ("demux", "success", 1), ("tmdb", "skip", 1)]


def test_what_is_counted_and_measured_says_on_which_host_and_durations_do_not(
    collector: Collector, of_jobs: list[Sample]
) -> None:
    def hosts(metric: str, now: list[Sample]) -> set[str]:
        return {labels.get("host_name", "") for name, labels, _ in now if name == metric}

    for metric in ("process_cpu_time_seconds_total", "hw_gpu_utilization_ratio"):
        assert hosts(metric, of_jobs) == {os.uname().nodename}, metric
    now = str(time.time_ns())
    for place, host in enumerate(("gpu-1", "gpu-2", "gpu-3")):
        given = {"cicd.pipeline.name": "hosts", "cicd.pipeline.task.name": "asr"}
        span = {"traceId": f"{place + 1:032x}", "spanId": f"{place + 1:016x}", "name": "asr", "kind": 1,
                "startTimeUnixNano": now, "endTimeUnixNano": now, "attributes": _attributes(given)}  # fmt: skip
        resource = {"attributes": _attributes({"service.name": "hosts", "host.name": host})}
        body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span] * (place + 1)}]}]}
        assert requests.post(f"{collector.http}/v1/traces", json=body, timeout=10).status_code == 200

    def counted() -> list[Sample]:
        found = [sample for sample in samples(collector.span_metrics) if sample[1].get("job") == "hosts"]
        return found if sum(value for name, _, value in found if name.endswith("_calls_total")) == 6 else []

    found = wait_until(counted, what="the counts")
    counts = {labels["host_name"]: value for name, labels, value in found if name.endswith("_calls_total")}
    assert counts == {"gpu-1": 1, "gpu-2": 2, "gpu-3": 3}
    assert hosts("traces_span_metrics_duration_seconds_count", found) == {""}


def _attributes(given: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in given.items()]


def test_prometheus_can_read_every_query_of_the_dashboards(binaries: Any, tmp_path: Path) -> None:
    plain = [re.sub(r"\$__\w+", "5m", query) for query in of_grafana() if not query.startswith("label_values")]
    made = [{"record": f"query:{place}", "expr": query} for place, query in enumerate(plain)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}))
    command = [str(binaries["promtool"].path), "check", "rules", str(tmp_path / "rules.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


# -- the files -------------------------------------------------------------------------------------------------------


def test_the_dashboards_are_what_their_program_makes() -> None:
    assert {path.name: path.read_text() for path in DASHBOARDS.iterdir()} == files()


def test_a_dashboard_is_one_that_grafana_takes() -> None:
    uids = [made["uid"] for made in dashboards().values()]
    assert uids == [f"otel-stageio-{name}" for name in ("collector", "pipeline", "runs", "stage")]
    for made in dashboards().values():
        assert made["title"]
        assert made["schemaVersion"] >= 41
        names = {variable["name"] for variable in made["templating"]["list"]}
        text = re.sub(r"\$\{?__\w+[\w.:]*\}?", "", json.dumps(made["panels"]))
        assert set(re.findall(r"\$\{?([a-z_]+)", text)) <= names
        assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
        taken: set[tuple[int, int]] = set()
        for panel in made["panels"]:
            grid = panel["gridPos"]
            cells = {
                (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
            }
            assert not cells & taken, panel["title"]
            assert grid["x"] + grid["w"] <= 24
            taken |= cells
            letters = [target["refId"] for target in panel["targets"]]
            assert len(set(letters)) == len(letters)


def test_every_data_source_that_is_named_is_provisioned() -> None:
    uids = provisioned()
    nodes = everything(list(dashboards().values()))
    named = {node["uid"] for node in nodes if node.get("type") in ("prometheus", "loki", "jaeger")}
    named |= {node["datasourceUid"] for node in everything(list(uids.values())) if "datasourceUid" in node}
    assert named == {"jaeger", "loki", "prometheus"} == set(uids)
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for source in uids.values():
        assert source["url"].split("/")[2].split(":")[0] in services


def test_dashboards_and_rules_lie_where_grafana_and_prometheus_are_told_to_look() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]

    def mounted(service: str, target: str) -> Path:
        mounts = [mount.split(":") for mount in services[service]["volumes"]]
        (found,) = (source for source, place, *_ in mounts if place == target)
        return ROOT / found

    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/dashboards.yaml").read_text())["providers"]
    assert mounted("grafana", provider["options"]["path"]) == DASHBOARDS
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (DASHBOARDS / home.name).exists()
    config = mounted("prometheus", "/etc/prometheus/prometheus.yml")
    (pattern,) = yaml.safe_load(config.read_text())["rule_files"]
    place = mounted("prometheus", f"/etc/prometheus/{Path(pattern).parent}")
    assert [path.name for path in sorted(place.glob(Path(pattern).name))] == ["collector.yaml", "stages.yaml"]


# -- links -----------------------------------------------------------------------------------------------------------


def links() -> list[tuple[str, str]]:
    """(title of the panel, address) of every link of a value."""
    found = []
    for made in dashboards().values():
        for panel in made["panels"]:
            given = [*panel["fieldConfig"]["defaults"].get("links", ()), *everything(panel["fieldConfig"]["overrides"])]
            found += [(panel["title"], node["url"]) for node in given if "url" in node]
    return found


def test_a_bar_opens_the_trace_of_its_run(jaeger: Jaeger, of_jobs: list[Sample], run: tuple[Path, str, str]) -> None:
    bars = [url for _, url in links() if url.startswith("/explore")]
    assert len(bars) == 3
    labels = next(
        labels for name, labels, _ in of_jobs
        if name == "process_cpu_time_seconds_total" and labels["otel_scope_cicd_pipeline_name"] == "measured"
    )  # fmt: skip
    trace = json.loads((run[0].parent / "measured/.stageio/run.json").read_text())["trace_id"]
    now = time.time_ns() // 1000
    for url in bars:
        for name, value in (*((f"__field.labels.{key}", value) for key, value in labels.items()),
                            ("__from", str(now // 1000 - 3_600_000)), ("__to", str(now // 1000 + 60_000))):  # fmt: skip
            url = url.replace(f"${{{name}}}", value)
        assert "$" not in url
        pane = json.loads(parse_qs(urlsplit(url).query)["panes"][0])["a"]
        assert pane["datasource"] in provisioned()
        (query,) = pane["queries"]
        key, _, value = query["tags"].partition("=")
        search = {"service": query["service"], "tags": json.dumps({key: value}),
                  "start": int(pane["range"]["from"]) * 1000, "end": int(pane["range"]["to"]) * 1000}  # fmt: skip
        found = json.loads(get(f"{jaeger.query}/api/traces?{urlencode(search)}")[1])["data"]
        assert [item["traceID"] for item in found] == [trace]


def test_a_dot_opens_the_trace_of_its_span(collector: Collector, run: tuple[Path, str, str]) -> None:
    """Exemplars last one flush of the connector; Prometheus, which comes as often, stores them."""
    (link,) = provisioned()["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert link["datasourceUid"] == "jaeger"
    delivery = Delivery(endpoints({}, endpoint=collector.http))
    accept = {"Accept": "application/openmetrics-text"}

    def found() -> bool:
        push(Job(run[0]), delivery, again=True)
        text = requests.get(collector.span_metrics, headers=accept, timeout=10).text
        return f'{link["name"]}="{run[2]}"' in text

    wait_until(found, what="an exemplar")
    delivery.close()
    shown = [target for target in everything(list(dashboards().values())) if target.get("exemplar")]
    assert len(shown) >= 5


def test_a_dashboard_opens_another_with_its_variables() -> None:
    by_uid = {made["uid"]: made for made in dashboards().values()}
    opened = [urlsplit(url) for _, url in links() if url.startswith("/d/")]
    assert {url.path for url in opened} == {"/d/otel-stageio-pipeline", "/d/otel-stageio-stage"}
    for url in opened:
        known = {f"var-{variable['name']}" for variable in by_uid[url.path.rpartition("/")[2]]["templating"]["list"]}
        assert {name for name in parse_qs(unquote(url.query)) if name.startswith("var-")} == known


def test_the_trace_leads_to_its_logs_and_a_log_line_to_its_trace(collector: Collector, of_jobs: object) -> None:
    uids = provisioned()
    link = uids["jaeger"]["jsonData"]["tracesToLogsV2"]
    assert "trace_id = `$${__trace.traceId}`" in link["query"]  # structured metadata: Loki keeps the OTLP field so
    (back,) = uids["loki"]["jsonData"]["derivedFields"]
    assert (back["matcherType"], back["matcherRegex"]) == ("label", "trace_id")
    # Every log record that left has the field that both links go by.
    records = wait_until(collector.log_records, what="the log records")
    assert all(record.get("traceId") for record in records)
