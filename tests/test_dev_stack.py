"""The development stack: its compose file, the collector with its configuration, and what Grafana asks for."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import environment
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from stack import Collector, Jaeger, free_ports, get, wait_until

from collector.build.build import BINARIES
from collector.native import COLLECTOR, JAEGER, ports
from otel_stageio import Pipeline
from otel_stageio.delivery.delivery import Delivery
from otel_stageio.delivery.settings import endpoints
from otel_stageio.delivery.shipper import push
from otel_stageio.layout import Job

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "docker-compose.otel.yml"


# -- the compose file ------------------------------------------------------------------------------------------------


def load_compose(*files: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """As ``docker compose config`` would: the parser is compose's own."""
    plain = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    command = [str(BINARIES["compose-check"].path), *map(str, files)]
    return subprocess.run(command, cwd=ROOT, env={**plain, **env}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def project(binaries: Any) -> dict[str, Any]:
    done = load_compose(COMPOSE)
    assert (done.returncode, done.stderr) == (0, "")
    loaded: dict[str, Any] = yaml.safe_load(done.stdout)
    return loaded


def test_the_compose_parser_refuses_what_is_wrong(binaries: Any, tmp_path: Path) -> None:
    for wrong, said in (
        ("services: {a: {image: x, ports: [nonsense]}}", "Invalid containerPort: nonsense"),
        ("services: {a: {image: x, memlimit: 1g}}", "services.a.memlimit false schema"),
        ("services: {a: {image: x, volumes: ['data:/d']}}", "undefined volume data"),
    ):
        (tmp_path / "compose.yml").write_text(wrong)
        done = load_compose(tmp_path / "compose.yml")
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr


def test_every_port_is_on_the_loopback_interface(project: dict[str, Any]) -> None:
    bound = [port for service in project["services"].values() for port in service.get("ports", ())]
    assert len(bound) >= 7
    assert {port["host_ip"] for port in bound} == {"127.0.0.1"}


def test_every_long_lived_service_has_a_memory_limit_and_comes_back(project: dict[str, Any]) -> None:
    services = {name: service for name, service in project["services"].items() if name != "volumes"}
    assert set(services) == {"collector", "jaeger", "prometheus", "loki", "grafana"}
    for service in services.values():
        assert int(service["mem_limit"]) >= 256 << 20
        assert service["restart"] == "unless-stopped"
        assert service["logging"]["options"]["max-size"] == "10m"


def test_data_lies_in_named_volumes_and_configuration_is_mounted_read_only(project: dict[str, Any]) -> None:
    mounts = [mount for service in project["services"].values() for mount in service.get("volumes", ())]
    for mount in mounts:
        if mount["type"] == "bind":
            assert Path(mount["source"]).exists(), mount
            assert mount["read_only"], mount
    assert {mount["source"] for mount in mounts if mount["type"] == "volume"} == set(project["volumes"])


def test_images_are_pinned_and_are_the_versions_that_the_tests_run(project: dict[str, Any]) -> None:
    tags = {name: service["image"].rpartition(":")[2] for name, service in project["services"].items()}
    assert all(re.fullmatch(r"v?\d+\.\d+\.\d+", tag) for tag in tags.values()), tags
    manifest = yaml.safe_load((ROOT / "collector/build/otelcol/builder-config.yaml").read_text())
    assert tags["collector"] == manifest["dist"]["version"]
    module = re.search(r"github.com/jaegertracing/jaeger v(\S+)", (ROOT / "collector/build/jaeger/go.mod").read_text())
    assert module is not None
    # Jaeger releases both at once: v1.76.0 is the tag of the module, 2.13.0 the image made of it.
    assert (module[1], tags["jaeger"]) == ("1.76.0", "2.13.0")


def test_ports_images_and_the_password_come_from_the_environment(binaries: Any) -> None:
    named = set(re.findall(r"\$\{([A-Z_]+):-", COMPOSE.read_text()))
    offered = dict(re.findall(r"^#([A-Z_]+)=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert set(offered) == named
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}]+)\}", COMPOSE.read_text()))
    assert offered == defaults
    done = load_compose(COMPOSE, OTLP_HTTP_PORT="24318", GRAFANA_PASSWORD="other")
    loaded = yaml.safe_load(done.stdout)["services"]
    assert "24318" in {port["published"] for port in loaded["collector"]["ports"]}
    assert loaded["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "other"


def test_the_services_reach_each_other_where_the_files_say(project: dict[str, Any]) -> None:
    services = project["services"]
    env = services["collector"]["environment"]
    assert env["JAEGER_OTLP_ENDPOINT"] == f"jaeger:{ports(JAEGER)['JAEGER_OTLP_GRPC_PORT']}"
    loki = yaml.safe_load((ROOT / "collector/loki/config.yaml").read_text())
    assert env["LOKI_OTLP_ENDPOINT"] == f"http://loki:{loki['server']['http_listen_port']}/otlp"
    scraped = yaml.safe_load((ROOT / "collector/prometheus/prometheus.yml").read_text())["scrape_configs"]
    own = ports(COLLECTOR)
    assert {target for job in scraped for given in job["static_configs"] for target in given["targets"]} == {
        f"collector:{own['SPAN_METRICS_PORT']}",
        f"collector:{own['SELF_METRICS_PORT']}",
    }
    published = {port["target"] for port in services["collector"]["ports"]}
    assert published == {own["OTLP_GRPC_PORT"], own["OTLP_HTTP_PORT"], own["HEALTH_PORT"]}
    (query,) = services["jaeger"]["ports"]
    assert query["target"] == ports(JAEGER)["JAEGER_QUERY_PORT"]


# -- the collector with it -------------------------------------------------------------------------------------------


def test_the_collector_starts_without_a_warning_and_stops_in_order(jaeger: Jaeger, tmp_path: Path) -> None:
    server = Collector(tmp_path, jaeger.otlp_grpc)
    server.start()
    assert server.stop() == 0
    said = server.log.read_text()
    assert "Shutdown complete" in said
    assert [
        line for line in said.splitlines() if "\twarn\t" in line or "\terror\t" in line or "deprecated" in line
    ] == []


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_stock_exporter_gets_a_long_attribute_into_jaeger(
    collector: Collector, jaeger: Jaeger, protocol: str
) -> None:
    if protocol == "http":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

        exporter: SpanExporter = Http(endpoint=f"{collector.http}/v1/traces")
    else:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        exporter = Grpc(endpoint=collector.grpc, insecure=True)
    provider = TracerProvider(resource=Resource({"service.name": f"stock-{protocol}", "long": "r" * 200_000}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("t").start_as_current_span("n" * 5_000, attributes={"long": "ü" * 100_000}) as span:
        span.add_event("event", {"long": "e" * 200_000})
    provider.shutdown()
    trace = f"{span.get_span_context().trace_id:032x}"
    (found,) = wait_until(lambda: jaeger.spans(trace), what="the span")
    (text,) = (item["value"]["stringValue"] for item in found["attributes"] if item["key"] == "long")
    assert set(text) == {"ü"}
    assert 32_000 < len(text.encode()) <= 32_768
    assert len(found["name"]) == 1024


# -- what Grafana asks for -------------------------------------------------------------------------------------------


def samples(url: str) -> list[tuple[str, dict[str, str]]]:
    """(name, labels) of everything on a Prometheus endpoint."""
    found = []
    for line in get(url)[1].decode().splitlines():
        match = re.match(r"([a-z_:][a-z0-9_:]*)(?:\{(.*?)\})? ", line, re.IGNORECASE)
        if match and not line.startswith("#"):
            found.append(
                (match[1], dict(re.findall(r'([a-z0-9_]+)="((?:[^"\\]|\\.)*)"', match[2] or "", re.IGNORECASE)))
            )
    return found


def measured(job: Path) -> None:
    """Two stages that were looked at for three seconds, beside a GPU."""
    from test_resources import FakeGpus

    from otel_stageio import StageIO
    from otel_stageio.resources import gpu_sampler
    from otel_stageio.testing import FixedClock, fixed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_sampler, "open_gpus", lambda visible, order="": FakeGpus())
        for stage in ("demux", "asr"):
            clock = FixedClock(time.time_ns())
            with fixed(clock), StageIO(stage, job) as io:
                for _ in range(3):
                    clock.advance(1.0)
                    io._recorder.beat()
                    io._recorder.look_at_gpus()


@pytest.fixture(scope="module")
def seen(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, dict[str, str]]]:
    """What the collector makes of a run with a stage that succeeded and one that failed, and says of itself."""
    root = tmp_path_factory.mktemp("seen") / "job"
    with Pipeline("seen", root) as run:
        with run.stage("demux") as io, io.span("step"):
            pass
        with run.stage("asr") as io:
            io.add_error("no voice found")
            io.finalize("failed")
    delivery = Delivery(endpoints({}, endpoint=collector.http))
    assert push(Job(root), delivery).pending == {}
    measured(root.parent / "measured")
    assert push(Job(root.parent / "measured"), delivery).pending == {}
    delivery.close()

    def counted() -> list[tuple[str, dict[str, str]]]:
        now = samples(collector.span_metrics)
        calls = [labels for name, labels in now if name.endswith("_calls_total")]
        stages = {
            labels.get("cicd_pipeline_task_name") for labels in calls if labels.get("cicd_pipeline_name") == "seen"
        }
        measures = {name for name, _ in now}
        return now if {"demux", "asr"} <= stages and "hw_gpu_utilization_ratio" in measures else []

    return [*wait_until(counted, what="the span metrics"), *samples(collector.self_metrics)]


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((ROOT / "collector/grafana/dashboards").glob("*.json"))]


def provisioned() -> dict[str, dict[str, Any]]:
    text = (ROOT / "collector/grafana/provisioning/datasources/datasources.yaml").read_text()
    return {source["uid"]: source for source in yaml.safe_load(text)["datasources"]}


def everything(node: Any) -> list[dict[str, Any]]:
    """Every object within."""
    if isinstance(node, dict):
        return [node, *(inner for item in node.values() for inner in everything(item))]
    return [inner for item in node for inner in everything(item)] if isinstance(node, list) else []


def queries() -> list[str]:
    """Every query in Prometheus' language, of the dashboard and of the links between data sources."""
    found = [
        node["expr"]
        for node in everything(dashboards())
        if "expr" in node and node.get("datasource", {"type": "prometheus"})["type"] == "prometheus"
    ]
    found = [query for query in found if not query.startswith("{")]
    found += [node["definition"] for node in everything(dashboards()) if "definition" in node]
    tags = '{cicd_pipeline_task_name="x"}'
    for source in provisioned().values():
        for given in source["jsonData"].get("tracesToMetrics", {}).get("queries", ()):
            found.append(given["query"].replace("{$$__tags}", tags))
    return found


def test_every_query_names_metrics_and_labels_that_the_collector_has(seen: list[tuple[str, dict[str, str]]]) -> None:
    metrics = {name for name, _ in seen}
    labels = {label for _, given in seen for label in given} | {"le"}
    asked = queries()
    assert len(asked) > 8
    for query in asked:
        bare = re.sub(r'"[^"]*"', '""', query)
        named = set(re.findall(r"\b(?:traces|otelcol|process|hw_[a-z]+|stageio)_[a-z_]+(?=[{[ ,)]|$)", bare))
        assert named, query
        assert named <= metrics, (named - metrics, sorted(metrics))
        for group in (*re.findall(r"\{([^}]*)\}", bare), *re.findall(r"by \(([^)]*)\)", bare)):
            words = {re.split(r"[=!~]", word)[0].strip() for word in group.split(",")}
            assert words <= labels, (query, words - labels)
        for label in re.findall(r"label_values\(.*, ([a-z_]+)\)", bare):
            assert label in labels


def test_every_value_that_a_query_compares_with_was_seen(seen: list[tuple[str, dict[str, str]]]) -> None:
    compared = {pair for query in queries() for pair in re.findall(r'([a-z_]+)="([A-Z_]+)"', query)}
    assert ("status_code", "STATUS_CODE_ERROR") in compared
    assert compared <= {pair for _, labels in seen for pair in labels.items()}


def test_a_stage_is_counted_once_with_its_result(seen: list[tuple[str, dict[str, str]]]) -> None:
    calls = [labels for name, labels in seen if name == "traces_span_metrics_calls_total"]
    results = {
        labels["cicd_pipeline_task_name"]: labels["cicd_pipeline_task_run_result"]
        for labels in calls
        if labels.get("cicd_pipeline_task_run_result")
        and labels.get("cicd_pipeline_name") == "seen"
        and labels.get("cicd_pipeline_task_name")
    }
    assert results == {"demux": "success", "asr": "failure"}


def test_every_data_source_that_is_named_is_provisioned() -> None:
    uids = provisioned()
    named = {node["uid"] for node in everything(dashboards()) if node.get("type") in ("prometheus", "loki", "jaeger")}
    named |= {node["datasourceUid"] for node in everything(list(uids.values())) if "datasourceUid" in node}
    assert named == {"jaeger", "loki", "prometheus"} == set(uids)
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for source in uids.values():
        assert source["url"].split("/")[2].split(":")[0] in services


def test_the_trace_leads_to_its_logs_and_a_log_line_to_its_trace(collector: Collector, seen: object) -> None:
    uids = provisioned()
    link = uids["jaeger"]["jsonData"]["tracesToLogsV2"]
    assert "trace_id = `$${__trace.traceId}`" in link["query"]  # structured metadata: Loki keeps the OTLP field so
    (back,) = uids["loki"]["jsonData"]["derivedFields"]
    assert (back["matcherType"], back["matcherRegex"]) == ("label", "trace_id")
    # Every log record that left has the field that both links go by.
    records = wait_until(collector.log_records, what="the log records")
    assert all(record.get("traceId") for record in records)


def test_the_dashboard_lies_where_grafana_is_told_to_look(project: dict[str, Any]) -> None:
    text = (ROOT / "collector/grafana/provisioning/dashboards/dashboards.yaml").read_text()
    (provider,) = yaml.safe_load(text)["providers"]
    targets = {mount["target"]: mount["source"] for mount in project["services"]["grafana"]["volumes"]}
    assert Path(targets[provider["options"]["path"]]) == ROOT / "collector/grafana/dashboards"
    home = Path(project["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (ROOT / "collector/grafana/dashboards" / home.name).exists()
    (dashboard,) = dashboards()
    panels = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(panels)) == len(panels)


# -- without containers ----------------------------------------------------------------------------------------------


@pytest.fixture
def native_ports(tmp_path: Path) -> dict[str, str]:
    names = [*ports(JAEGER), *ports(COLLECTOR)]
    return dict(zip(names, map(str, free_ports(len(names))), strict=True))


def start_native(tree: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    """``make stack-native``'s program, in a copy of the files, so that its data lies there."""
    return subprocess.Popen(
        [sys.executable, "-m", "collector.native"],
        cwd=tree,
        env={**environment(**env), "PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    import shutil

    shutil.copytree(ROOT / "collector", tmp_path / "tree" / "collector", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "tree"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_native_stack_keeps_traces_over_a_restart(
    binaries: Any, tree: Path, native_ports: dict[str, str], tmp_path: Path, stop: signal.Signals
) -> None:
    root = tmp_path / "job"
    with Pipeline("p", root) as run, run.stage("asr"):
        pass
    query = f"http://127.0.0.1:{native_ports['JAEGER_QUERY_PORT']}/api/v3/traces/{run.trace_id}"
    endpoint = f"http://localhost:{native_ports['OTLP_HTTP_PORT']}"
    for again in (False, True):
        process = start_native(tree, native_ports)
        try:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(3)]
            assert told[2] == f"  export OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}\n", process.communicate()
            if not again:
                delivery = Delivery(endpoints({}, endpoint=endpoint))
                assert push(Job(root), delivery).pending == {}
                delivery.close()
            wait_until(lambda: get(query)[0] == 200, what="the trace")
        finally:
            process.send_signal(stop)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out.endswith("stopped\n")
    assert sorted(path.name for path in (tree / ".stack").iterdir()) == [
        "jaeger", "jaeger.log", "logs.jsonl", "otelcol.log", "queue",
    ]  # fmt: skip


def test_a_taken_port_is_named_with_its_variable(binaries: Any, tree: Path, native_ports: dict[str, str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        process = start_native(tree, {**native_ports, "OTLP_HTTP_PORT": taken})
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.startswith(f"stack-native: port {taken} cannot be used (Address already in use)")
    assert "OTLP_HTTP_PORT=" in err


def test_what_is_not_built_is_said(tree: Path, tmp_path: Path, native_ports: dict[str, str]) -> None:
    process = start_native(tree, {**native_ports, "OTEL_STAGEIO_BUILD_CACHE": str(tmp_path / "empty")})
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "stack-native: not built yet: jaeger and otelcol. Run `make binaries` (it needs Go, once)\n"


def test_a_server_that_dies_ends_the_stack_and_is_named(
    binaries: Any, tree: Path, native_ports: dict[str, str]
) -> None:
    import psutil

    process = start_native(tree, native_ports)
    assert process.stdout is not None
    assert "running" in process.stdout.readline()
    (collector,) = (child for child in psutil.Process(process.pid).children() if "otelcol" in child.name())
    collector.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stack-native: otelcol ended by itself; see" in err


# -- what a stage used -----------------------------------------------------------------------------------------------

EXPECTED = {
    "process_cpu_time_seconds_total", "process_cpu_utilization_ratio", "process_memory_usage_bytes",
    "process_thread_count", "process_disk_io_bytes_total", "hw_gpu_utilization_ratio", "hw_gpu_memory_usage_bytes",
    "hw_gpu_memory_limit_bytes", "hw_gpu_memory_utilization_ratio", "hw_energy_joules_total", "hw_power_watts",
    "hw_temperature_celsius", "stageio_gpu_process_memory_usage_bytes",
}  # fmt: skip


def test_what_stages_use_is_scraped_from_the_collector_each_under_its_own_stage(
    collector: Collector, tmp_path: Path
) -> None:
    measured(tmp_path / "measured")
    delivery = Delivery(endpoints({}, endpoint=collector.http))
    assert push(Job(tmp_path / "measured"), delivery).pending == {}
    delivery.close()

    def scraped() -> set[tuple[str, str]]:
        found = {
            (name, labels.get("otel_scope_cicd_pipeline_task_name", ""))
            for name, labels in samples(collector.span_metrics)
            if labels.get("otel_scope_cicd_pipeline_name") == "measured"
        }
        return found if {name for name, _ in found} >= EXPECTED else set()

    found = wait_until(scraped, what="the metrics of the stages")
    assert found == {(name, stage) for name in EXPECTED for stage in ("demux", "asr")}
