"""What is wrong with a configuration of the collector, found without starting it.

    python -m collector.check                     every configuration here, alone and in the documented combinations
    python -m collector.check a.yaml b.yaml       your own, later files over earlier ones

First by reading: references that resolve, no deprecated name, no queue in memory, no secret in clear. Then, where the
binary is built, by ``otelcol validate``, which decodes every setting but sees none of those.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .build.build import BINARIES, HERE

CONFIG = Path(__file__).resolve().parent / "config"
AGENT, GATEWAY = CONFIG / "agent.yaml", CONFIG / "gateway.yaml"
STATICALLY_ONLY = "# Checked statically only"


def load(file: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it
    loaded: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), loader)
    return loaded


def over(base: Path, *names: str) -> tuple[Path, ...]:
    return (base, *(CONFIG / "overlays" / f"{name}.yaml" for name in names))


#: What is documented to be started together, by how it is called.
COMBINATIONS = {
    " + ".join(path.stem for path in files): files
    for files in (
        over(AGENT),
        over(AGENT, "agent-auth-basic"),
        over(AGENT, "agent-mtls"),
        over(AGENT, "kafka-producer"),
        over(GATEWAY),
        over(GATEWAY, "auth-basic"),
        over(GATEWAY, "mtls"),
        over(GATEWAY, "tail-sampling"),
        over(GATEWAY, "vendor-otlp"),
        over(GATEWAY, "kafka-consumer"),
        over(GATEWAY, "kafka-consumer", "tail-sampling"),
        over(GATEWAY, "mtls", "tail-sampling", "vendor-otlp"),
        # Only the contrib image has what these need.
        over(AGENT, "host-metrics"),
        over(AGENT, "load-balancing"),
        over(AGENT, "host-metrics", "load-balancing", "otlp-json-file"),
        over(AGENT, "otlp-json-file"),
    )
}

#: Component types that have been renamed or are on their way out. The collector takes them with a warning at the start,
#: and ``validate`` says nothing.
DEPRECATED = {
    "batch": "sending_queue.batch of each exporter",
    "filelog": "file_log",
    "hostmetrics": "host_metrics",
    "k8sattributes": "k8s_attributes",
    "loadbalancing": "load_balancing",
    "otlp": "otlp_grpc",  # the exporter; the receiver is still called so
    "otlphttp": "otlp_http",
    "otlpjsonfile": "otlp_json_file",
    "prometheusremotewrite": "prometheus_remote_write",
    "resourcedetection": "resource_detection",
    "servicegraph": "service_graph",
    "spanmetrics": "span_metrics",
}
#: The same for settings, by the end of their path.
DEPRECATED_SETTINGS = {
    "telemetry.metrics.address": "telemetry.metrics.readers",
    "auth.plain_text": "auth.sasl",
    "auth.tls": "tls",
    "kafka.group_rebalance_strategy": "group_rebalance_strategies",
    "prometheus.resource_to_telemetry_conversion": "nothing",
    "traces.topic": "topics (of a receiver)",
    "logs.topic": "topics (of a receiver)",
    "metrics.topic": "topics (of a receiver)",
}
#: Only the contrib image has these.
CONTRIB_ONLY = {"host_metrics", "load_balancing", "otlp_json_file"}

KINDS = ("receivers", "processors", "exporters", "connectors", "extensions")
_SECRET = re.compile(r"(^|[_.-])(token|password|secret|authorization|api[_-]?key)$", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{env:(\w+)(:-)?")


def merge(files: tuple[Path, ...]) -> dict[str, Any]:
    """As the collector merges them: maps key by key, everything else, lists too, is replaced."""

    def put(into: dict[str, Any], what: dict[str, Any]) -> None:
        for key, value in what.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                put(into[key], value)
            else:
                into[key] = value

    merged: dict[str, Any] = {}
    for file in files:
        put(merged, load(file))
    return merged


def type_of(component: str) -> str:
    return component.partition("/")[0]


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every setting within, maps too."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{path}.{key}".lstrip("."), value
            yield from walk(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from walk(value, path)


def problems(files: tuple[Path, ...]) -> list[str]:
    """What is wrong with the files laid over each other, a sentence each."""
    try:
        config = merge(files)
    except yaml.YAMLError as error:
        return [f"not YAML: {str(error).splitlines()[0]}"]
    found = [*_references(config), *_names(config), *_order(config), *_queues(config), *_secrets(config)]
    return [*found, *_twice(files)]


def _references(config: dict[str, Any]) -> Iterator[str]:
    defined = {kind: set(config.get(kind) or ()) for kind in KINDS}
    service = config.get("service", {})
    listed = set(service.get("extensions", ()))
    for extension in sorted(listed - defined["extensions"]):
        yield f"service.extensions names {extension}, which is not defined"
    pipelines = service.get("pipelines", {})
    for name, pipeline in pipelines.items():
        for role in ("receivers", "processors", "exporters"):
            known = defined[role] | (defined["connectors"] if role != "processors" else set())
            for component in pipeline.get(role) or ():
                if component not in known:
                    yield f"pipeline {name} names {component} among its {role}, which is not defined"
    for connector in sorted(defined["connectors"]):
        for role in ("receivers", "exporters"):
            if not any(connector in (pipeline.get(role) or ()) for pipeline in pipelines.values()):
                yield f"connector {connector} stands among no pipeline's {role}"
    used = {c for p in pipelines.values() for role in ("receivers", "exporters") for c in p.get(role) or ()}
    for kind in ("receivers", "exporters"):
        for component, settings in (config.get(kind) or {}).items():
            if component not in used:
                continue
            for path, value in walk(settings):
                named = path.endswith(("auth.authenticator", "sending_queue.storage")) or path == "storage"
                if named and value not in listed:
                    yield f"{component} needs {value}, which is not among service.extensions"


def _names(config: dict[str, Any]) -> Iterator[str]:
    for kind in KINDS:
        for component in config.get(kind) or ():
            name = type_of(component)
            if name in DEPRECATED and (kind, name) != ("receivers", "otlp"):
                yield f"{component} is deprecated: use {DEPRECATED[name]}"
            elif name not in built(kind) and name not in CONTRIB_ONLY:
                yield f"{component} is no component of ours ({kind})"
    for path, _ in walk(config):
        for old, new in DEPRECATED_SETTINGS.items():
            if f".{path}".endswith(f".{old}") and not (old.endswith(".topic") and path.startswith("exporters")):
                yield f"{path} is deprecated: use {new}"


@functools.cache
def built(kind: str) -> set[str]:
    """The types that the binary has, from what it is built of: ``.../receiver/filelogreceiver`` is ``file_log``."""
    manifest = load(HERE / "otelcol" / "builder-config.yaml")
    modules = [entry["gomod"].split()[0].rpartition("/")[2] for entry in manifest[kind]]
    plain = {module.removesuffix(kind.removesuffix("s")) for module in modules}
    renamed = {"healthcheck": "health_check", "filestorage": "file_storage", "memorylimiter": "memory_limiter"}
    renamed |= {"tailsampling": "tail_sampling"}
    if kind == "receivers":
        return {DEPRECATED.get(name, name) if name != "otlp" else name for name in plain}
    return {renamed.get(name, DEPRECATED.get(name, name)) for name in plain}


def _order(config: dict[str, Any]) -> Iterator[str]:
    """The limiter first: what is refused later has been paid for already."""
    connectors = set(config.get("connectors") or ())
    for name, pipeline in config.get("service", {}).get("pipelines", {}).items():
        outside = set(pipeline.get("receivers") or ()) - connectors
        first = (pipeline.get("processors") or [""])[0]
        if outside and type_of(first) != "memory_limiter":
            yield f"pipeline {name} takes data from outside and does not begin with memory_limiter"


def _queues(config: dict[str, Any]) -> Iterator[str]:
    """What is accepted must outlive the process, and be sent in pieces that are taken."""
    for component, settings in (config.get("exporters") or {}).items():
        if type_of(component) not in ("otlp_grpc", "otlp_http", "kafka", "load_balancing"):
            continue
        queue = (settings or {}).get("sending_queue") or {}
        if not queue.get("storage"):
            yield f"{component} has no queue on disk"
        if str((settings.get("retry_on_failure") or {}).get("max_elapsed_time")) not in ("0", "0s"):
            yield f"{component} gives up after some time, and drops"
        batch = queue.get("batch")
        if batch is not None and batch.get("sizer") != "bytes":
            yield f"{component} bounds its batches in items, not in bytes"
    for component, settings in (config.get("extensions") or {}).items():
        if type_of(component) == "file_storage" and not (settings or {}).get("fsync"):
            yield f"{component} does not write through to the disk (fsync)"
    for component, settings in (config.get("receivers") or {}).items():
        if type_of(component) == "kafka":
            marking = (settings or {}).get("message_marking") or {}
            if marking.get("after") is not True or not (settings.get("error_backoff") or {}).get("enabled"):
                yield f"{component} marks messages as read before they are kept"


def _secrets(config: dict[str, Any]) -> Iterator[str]:
    for path, value in walk({kind: config.get(kind) for kind in KINDS}):
        if isinstance(value, str) and _SECRET.search(path) and "${" not in value:
            yield f"{path} is a secret in clear: refer to it"
        if isinstance(value, list) and path.endswith(".headers"):
            for header in value:
                if _SECRET.search(header["name"]) and "${" not in header["value"]:
                    yield f"{path}.{header['name']} is a secret in clear: refer to it"
    for path, value in walk(config):
        if "${" in path.rpartition(".")[2]:
            yield f"{path} is not expanded: variables are for values, not for keys"
        for name, default in _VARIABLE.findall(value) if isinstance(value, str) else ():
            if not default and not _SECRET.search(name):
                yield f"{path} needs {name}, which has no default"


def _twice(files: tuple[Path, ...]) -> Iterator[str]:
    """A list is replaced, not added to: two overlays that both set one undo each other."""
    setters: dict[str, str] = {}
    for file in files[1:]:
        lists = {path for path, value in walk(load(file)) if isinstance(value, list)}
        for path in sorted(lists):
            if path in setters:
                yield f"{file.name} replaces {path} of {setters[path]}"
            setters[path] = file.name


def only_statically(files: tuple[Path, ...]) -> bool:
    return any(file.read_text("utf-8").startswith(STATICALLY_ONLY) for file in files)


def validate(files: tuple[Path, ...], env: dict[str, str] | None = None) -> str:
    """What ``otelcol validate`` says; empty if nothing is wrong."""
    with tempfile.TemporaryDirectory() as queue:
        plain = {"PATH": os.environ.get("PATH", ""), "COLLECTOR_QUEUE": queue, "VENDOR_SECRET": "x"}
        done = subprocess.run(
            [str(BINARIES["otelcol"].path), "validate", *(f"--config={file}" for file in files)],
            env={**plain, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
    said = done.stderr.strip().removeprefix("Error: ")
    return (said or f"ended with {done.returncode}") if done.returncode else ""


def main() -> int:
    given = tuple(Path(name) for name in sys.argv[1:])
    wrong = 0
    have = BINARIES["otelcol"].path.exists()
    for name, files in {"configuration": given}.items() if given else COMBINATIONS.items():
        said = problems(files)
        statically = only_statically(files) or not have
        if not statically and (complaint := validate(files)):
            said.append(complaint)
        print(f"{name}: {'ok' if not said else 'wrong'}{' (statically)' if statically else ''}")
        for sentence in said:
            print(f"  {sentence}")
        wrong += bool(said)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
