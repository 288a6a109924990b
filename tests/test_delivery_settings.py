"""The ``OTEL_EXPORTER_OTLP_*`` variables mean what they mean to the stock exporters, seen from the receiver's side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import needs
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from receiver import GrpcReceiver, Received, Receiver

from otel_stageio import StageIO
from otel_stageio.delivery.delivery import Delivery
from otel_stageio.delivery.settings import endpoints, parse_headers
from otel_stageio.delivery.shipper import push
from otel_stageio.layout import Job

#: Headers that every client sets in its own way.
_OF_THE_CLIENT = {
    "user-agent",
    "content-length",
    "accept",
    "accept-encoding",
    "connection",
    "host",
    "grpc-accept-encoding",
}


def stock(protocol: str) -> None:
    """One span through the stock exporter, which reads the process's environment."""
    exporter: SpanExporter
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        exporter = Grpc()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

        exporter = Http()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("t").start_span("stock").end()
    provider.shutdown()


def ours(job: Job) -> None:
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OTEL_")}
    with StageIO("asr", job.root):
        pass
    os.environ.update(before)
    delivery = Delivery(endpoints())
    try:
        assert push(job, delivery).pending == {}
    finally:
        delivery.close()


def seen(request: Received) -> tuple[str, dict[str, str]]:
    return request.path, {name: text for name, text in request.headers.items() if name not in _OF_THE_CLIENT}


ANYWHERE: list[dict[str, str]] = [
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "{url}"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "{url}/"},
    {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{url}/v1/traces"},
    {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20abc,x-tenant = films "},
    {"OTEL_EXPORTER_OTLP_HEADERS": "a=1", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "b=2"},
    {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=k==,b=c=d"},
    {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"},
    {"OTEL_EXPORTER_OTLP_COMPRESSION": "none", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip"},
]
OVER_HTTP: list[dict[str, str]] = [
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "{url}/some/where"},
    {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{url}/own/traces", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    {"OTEL_EXPORTER_OTLP_COMPRESSION": "deflate"},
]


@pytest.mark.parametrize(
    ("protocol", "given"),
    [*(("grpc", given) for given in ANYWHERE), *(("http/protobuf", given) for given in ANYWHERE + OVER_HTTP)],
    ids=lambda part: part if isinstance(part, str) else ",".join(f"{key[19:]}={text}" for key, text in part.items()),
)
def test_a_receiver_sees_the_same_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, given: dict[str, str]
) -> None:
    kind = GrpcReceiver if protocol == "grpc" else Receiver
    with kind() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        if not any("ENDPOINT" in name for name in given):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        for name, value in given.items():
            monkeypatch.setenv(name, value.replace("{url}", receiver.url))
        monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
        stock(protocol)
        ours(Job(tmp_path / "job"))
        theirs, *mine = [seen(request) for request in receiver.requests if request.signal == "traces"]
        assert mine
        assert all(one == theirs for one in mine)


def test_a_signal_that_is_exported_nowhere_is_not_sent_to_a_given_endpoint_either() -> None:
    """As doctor advises for a receiver that takes traces only; whoever gives an endpoint overrules the other words."""
    words = {"OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "console", "OTEL_TRACES_EXPORTER": "otlp"}
    assert endpoints(words, endpoint="http://h:4318").keys() == {"spans", "metrics"}
    assert endpoints({**words, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}).keys() == {"spans"}


@pytest.mark.parametrize("text", ["", "10", "0.5", "abc", "-3", "0", "1e3", "nan"])
def test_the_timeout_is_in_seconds_as_in_pythons_exporters(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The specification says milliseconds; Python's exporters have read seconds from the beginning."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    found = endpoints({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318", "OTEL_EXPORTER_OTLP_TIMEOUT": text})["spans"]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", text)
    if text in ("10", "0.5", "1e3"):
        exporter: Any = OTLPSpanExporter(endpoint="http://h:4317", insecure=True)
        assert found.timeout == exporter._timeout
        exporter.shutdown()
    else:
        assert found.timeout == 10.0  # what makes no sense is the default, and no reason to fail


def test_the_signals_own_timeout_comes_first() -> None:
    found = endpoints(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "7",
            "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "3",
        }
    )
    assert {name: endpoint.timeout for name, endpoint in found.items()} == {"spans": 7.0, "logs": 3.0, "metrics": 7.0}


@pytest.mark.parametrize(
    ("given", "signals"),
    [
        ({}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, {"spans", "logs", "metrics"}),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4318/v1/traces"}, {"spans"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318", "OTEL_SDK_DISABLED": "true"}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318", "OTEL_TRACES_EXPORTER": "none"}, {"logs", "metrics"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318", "OTEL_LOGS_EXPORTER": "console"}, {"spans", "metrics"}),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318", "OTEL_TRACES_EXPORTER": "console,otlp"},
            {"spans", "logs", "metrics"},
        ),
    ],
)
def test_what_is_sent_at_all(given: dict[str, str], signals: set[str]) -> None:
    assert set(endpoints(given)) == signals


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "is no URL; give one like http://localhost:4318"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://collector"}, "is no URL"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:port"}, "has no valid port"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "'http/json' is not supported; use http/protobuf or grpc",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_EXPORTER_OTLP_HEADERS": "Bearer secret"},
            "not of the form name=value",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://h", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such.pem"},
            "the certificate file /no/such.pem cannot be read",
        ),
    ],
)
def test_settings_that_make_no_sense_are_named_and_nothing_is_sent(given: dict[str, str], problem: str) -> None:
    assert problem in str(endpoints(given)["spans"].problem)


def test_a_credential_is_in_no_message() -> None:
    assert parse_headers("Authorization: Bearer hunter2") == ({}, ["Authorization"])
    assert parse_headers("a=b,hunter2,hunter2 c") == ({"a": "b"}, ["number 2", "number 3"])
    for given in (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://anna:hunter2@h:4318"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318",
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20hunter2",
        },
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://anna:hunter2@h:port"},
        *({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://anna:a{sign}hunter2@h:4318"} for sign in "/?#@: "),
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4318/v1/traces?api_key=hunter2"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer a,hunter2"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_EXPORTER_OTLP_HEADERS": "hunter2"},
    ):
        found = endpoints(given)["spans"]
        shown = f"{found.place} {found.server} {found.problem} {found.address}"
        assert "hunter2" not in shown


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("value", ["hunter2\nx", "hunter2\r", "hünter2\u2603 hunter2"])
def test_a_header_that_cannot_be_sent_is_said_without_its_value(tmp_path: Path, value: str, protocol: str) -> None:
    job = Job(tmp_path / "job")
    with StageIO("asr", job.root):
        pass
    with (Receiver if protocol != "grpc" else GrpcReceiver)() as receiver:
        found = endpoints({}, endpoint=receiver.url, protocol=protocol, headers={"Authorization": value})
        delivery = Delivery(found)
        shipment = push(job, delivery)
        delivery.close()
    reasons = {outcome.reason for _, outcome in shipment.report.trouble.values()}
    assert reasons == {"header authorization has a value that cannot be sent"}
    assert "hunter2" not in Path(job.ack).read_text()


@pytest.mark.parametrize(
    "url", ["http://a..b:4318", "http://[::1:4318", "http://h:99999", "http://", "http://h h:1", f"http://{'a' * 70}.b"]
)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_an_endpoint_that_is_none_is_said_and_everything_is_kept(tmp_path: Path, url: str, protocol: str) -> None:
    job = Job(tmp_path / "job")
    with StageIO("asr", job.root):
        pass
    delivery = Delivery(endpoints({}, endpoint=url, protocol=protocol))
    shipment = push(job, delivery)
    delivery.close()
    assert shipment.pending["spans"]
    assert not shipment.failed
    assert all("the endpoint" in outcome.reason for _, outcome in shipment.report.trouble.values())


@pytest.mark.parametrize(
    ("url", "insecure", "secure"),
    [
        ("http://h:4317", "", False),
        ("https://h:4317", "", True),
        ("h:4317", "", True),
        ("h:4317", "true", False),
        ("https://h:4317", "true", True),
    ],
)
def test_tls_over_grpc_is_chosen_as_the_stock_exporter_chooses(
    url: str, insecure: str, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    if insecure:
        given["OTEL_EXPORTER_OTLP_INSECURE"] = insecure
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert endpoints(given)["spans"].secure is secure
    exporter: Any = OTLPSpanExporter()
    assert bool(exporter._insecure) is not secure
    exporter.shutdown()


# -- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Receiver, GrpcReceiver])
def test_tls_without_trust_keeps_everything_until_the_authority_is_named(
    tmp_path: Path, certificates: Path, kind: type[Receiver]
) -> None:
    needs("openssl")
    job = Job(tmp_path / "job")
    with StageIO("asr", job.root):
        pass
    protocol = "grpc" if kind is GrpcReceiver else "http/protobuf"
    with kind(tls=(certificates / "server.pem", certificates / "server.key", None)) as receiver:
        base = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        for more in ({}, {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates / "stranger.pem")}):
            delivery = Delivery(endpoints({**base, **more}))
            shipment = push(job, delivery)
            delivery.close()
            assert shipment.pending == {"logs": 2, "spans": 2}
            (_, outcome), *_ = shipment.report.trouble.values()
            assert "certificate" in outcome.reason.lower()
        delivery = Delivery(endpoints({**base, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates / "ca.pem")}))
        assert push(job, delivery).pending == {}
        delivery.close()
        assert set(receiver.span_ids.values()) == {1}
