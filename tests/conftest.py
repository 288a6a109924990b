"""What every test starts from: no telemetry settings of the caller's, strict errors, nothing left open by another test.

``needs("gcc")`` skips a test, with its reason, where a component is missing; with ``STAGEIO_CI=1`` it fails instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import shutil
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from opentelemetry import context as otel_context

from otel_stageio.ambient import open_pipelines, open_recorders
from otel_stageio.runtime import runtime
from otel_stageio.stages import lifecycle, opening

pytest_plugins = ["otel_stageio.testing"]

# A suite that was started in the background (nohup, "&") ignores Ctrl-C, and so would every program that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

IN_CI = os.environ.get("STAGEIO_CI") == "1"
OURS = ("OTEL_", "TRACEPARENT", "TRACESTATE", "BAGGAGE", "OUTPUT_DIR", "LOG_LEVEL", "DEBUG_MODE")

settings.register_profile(
    "otel_stageio",
    deadline=None,  # a slow machine is no bug
    derandomize=IN_CI,
    database=None,
    max_examples=60,
    # The fixtures here are about the process, not about an example.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("otel_stageio")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """What a test printed may not be UTF-8, on purpose; between the processes of a run it has to be."""
    report = yield
    report.sections = [
        (name, content.encode("utf-8", "backslashreplace").decode()) for name, content in report.sections
    ]
    return report


def needs(component: str) -> Any:
    """A Python module, or the path of a program; the test is skipped if there is neither, and fails in CI."""
    if importlib.util.find_spec(component) is not None:
        return importlib.import_module(component)
    beside = str(Path(sys.executable).parent)
    found = shutil.which(component) or shutil.which(component, path=beside)
    if found is None:
        reason = f"{component} is not here: no such Python module, and no such program on the PATH"
        if IN_CI:
            pytest.fail(f"{reason}; CI is to have everything", pytrace=False)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def binaries() -> Any:
    """The real collector and Jaeger are in the build cache; ``make test`` builds them where Go is."""
    from collector.build.build import BINARIES

    missing = [name for name, binary in BINARIES.items() if not binary.path.exists()]
    if missing:
        reason = f"not built: {', '.join(missing)} (make binaries, which needs Go)"
        if IN_CI:
            pytest.fail(f"{reason}; CI is to have everything", pytrace=False)
        pytest.skip(reason)
    return BINARIES


@pytest.fixture(scope="session")
def jaeger(binaries: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The real Jaeger with badger."""
    from stack import Jaeger

    server = Jaeger(tmp_path_factory.mktemp("jaeger"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def collector(jaeger: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The real collector with the development configuration, in front of that Jaeger."""
    from stack import Collector

    server = Collector(tmp_path_factory.mktemp("collector"), jaeger.otlp_grpc)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a command in this process: nothing says how wide or colourful its output may be, and stages print nothing."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_STAGEIO_CONSOLE", "off")


@pytest.fixture(autouse=True)
def fresh(strict: None) -> Iterator[None]:
    """A process as a test expects to find it: environment, context, root logger, and no stage left open."""
    saved = dict(os.environ)
    for name in saved:
        if name.startswith(OURS):
            del os.environ[name]
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    otel_context.attach(otel_context.Context())
    runtime.internal_errors.clear()
    yield
    runtime.strict = False
    for stage in list(lifecycle.open_stages):
        stage.finalize("incomplete")
    lifecycle.logger_only.clear()
    open_recorders.clear()
    open_pipelines.clear()
    opening._joined = False
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture
def as_in_production(strict: None) -> Iterator[None]:
    """Internal errors are swallowed and counted, as users have it: for tests of what happens then."""
    runtime.strict = False
    yield
    runtime.strict = True


@pytest.fixture(scope="module")
def sink(binaries: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What stands behind a gateway and keeps what comes out of it."""
    from gateway import Sink

    server = Sink(tmp_path_factory.mktemp("sink"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca``, and ``server`` and ``client`` signed by it, and a ``stranger``: each ``.pem`` and ``.key``."""
    from certificates import make

    needs("openssl")
    return make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def kafka(binaries: Any) -> None:
    """A real broker can be started: Java is there, and the jars are in the build cache."""
    from collector.build.broker import missing

    if reason := missing():
        if IN_CI:
            pytest.fail(f"{reason}; CI is to have everything", pytrace=False)
        pytest.skip(reason)
