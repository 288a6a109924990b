"""The development stack: its compose file, the collector with its configuration, and both without containers."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import environment
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from stack import Collector, Jaeger, free_ports, get, measured, samples, wait_until

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
            for name, labels, _ in samples(collector.span_metrics)
            if labels.get("otel_scope_cicd_pipeline_name") == "measured"
        }
        return found if {name for name, _ in found} >= EXPECTED else set()

    found = wait_until(scraped, what="the metrics of the stages")
    assert found == {(name, stage) for name in EXPECTED for stage in ("demux", "asr")}
