"""Every variable that is set and means something here: what it says, and whether anybody will obey it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping

from ... import semconv as sc
from ...capture.redaction import MASK, Redactor
from ...delivery.settings import SIGNALS, shown
from ...levels import level_number
from ...otlp.carrier import extract
from ...sinks.spool import parse_size
from . import OK, WARNING, Check

_OURS = "OTEL_STAGEIO_"
_OTLP = "OTEL_EXPORTER_OTLP_"
_OTLP_SETTINGS = (
    "ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION", "CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY",
    "INSECURE",
)  # fmt: skip
#: Variables without OTEL_ in front that are read here as well.
_FURTHER = ("OUTPUT_DIR", "LOG_LEVEL", "DEBUG_MODE", sc.ENV_TRACEPARENT)
#: What a pipeline hands to the programs that it starts. Nobody sets them by hand.
_HANDED = (sc.ENV_RUN_ID, sc.ENV_STAGE, sc.ENV_JOB)


def settings(environment: Mapping[str, str]) -> list[Check]:
    names = sorted(name for name in environment if name.startswith("OTEL_") or name in _FURTHER)
    redactor = Redactor(environment)
    found = [_check(name, environment, redactor) for name in names]
    return found or [Check("variables", OK, "none is set, so the defaults hold")]


def _check(name: str, environment: Mapping[str, str], redactor: Redactor) -> Check:
    value = environment[name]
    said = _shown(name, value, redactor)
    if name not in _known() and not name.startswith(("OTEL_PYTHON_", "OTEL_INSTRUMENTATION_")):
        near = difflib.get_close_matches(name, _known(), 1, 0.8)
        whose = "of otel_stageio" if name.startswith(_OURS) else "known to OpenTelemetry's SDK or to otel_stageio"
        advice = f"did you mean {near[0]}?" if near else "remove it, if nothing else reads it"
        return Check(name, WARNING, f"{said}; this is no variable {whose}", advice)
    if not value.strip():
        return Check(name, OK, "empty, which counts as not set")
    wrong = _wrong(name, value.strip(), environment)
    if wrong:
        return Check(name, WARNING, f"{said} is ignored", wrong)
    if name in _HANDED:
        said += "; handed over by a pipeline: what runs here is part of its run"
    if name == "OTEL_SDK_DISABLED" and value.strip().lower() == "true":
        said += "; files only: no spans, and nothing is sent"
    return Check(name, OK, said)


def _known() -> set[str]:
    import opentelemetry.environment_variables as of_api
    import opentelemetry.sdk.environment_variables as of_sdk

    return {
        *(value for name, value in vars(sc).items() if name.startswith("ENV_")),
        *(name for module in (of_api, of_sdk) for name in vars(module) if name.startswith("OTEL_")),
        *(f"{_OTLP}{of}{what}" for of in ("", *_signals()) for what in _OTLP_SETTINGS),
        *_FURTHER,
    }


def _signals() -> list[str]:
    return [f"{signal.upper()}_" for signal in SIGNALS.values()]


def _shown(name: str, value: str, redactor: Redactor) -> str:
    """The value, without what may be a credential in it."""
    if redactor.key(name) or name.endswith("_HEADERS") or name == sc.ENV_REDACT:
        return MASK  # a pattern may be the very secret that it is to find
    return redactor.text(shown(value) if "://" in value else value)


# -- what is taken ---------------------------------------------------------------------------------------------------


def _wrong(name: str, value: str, environment: Mapping[str, str]) -> str:
    """What would be right, for a value that nobody obeys; empty if it is."""
    if name == sc.ENV_TRACEPARENT:
        propagated = "tracecontext" in environment.get("OTEL_PROPAGATORS", "tracecontext")
        return "" if extract(environment) or not propagated else "it is no W3C traceparent: 00-<32 hex>-<16 hex>-01"
    takes = _TAKES.get(name) or _TAKES.get(_OTLP + name.rpartition("_")[2] if name.startswith(_OTLP) else "")
    return "" if takes is None else takes(value)


def _words(*words: str) -> Callable[[str], str]:
    taken = f"use {', '.join(words[:-1])} or {words[-1]}"
    return lambda value: "" if value.lower() in words else taken


def _seconds(least: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        good = 0 < number < math.inf or (least == "0" and number == 0)
        return "" if good else "give a number of seconds, without a unit"

    return check


def _level(value: str) -> str:
    return "" if level_number(value) is not None else "use DEBUG, INFO, WARNING, ERROR or CRITICAL"


def _size(value: str) -> str:
    return "" if parse_size(value, -1) >= 0 else "give a size such as 512MiB or 2GB"


def _console(value: str) -> str:
    relayed = re.match(r"relay:", value)  # what a pipeline sets for its children
    return "" if relayed else _words("auto", "plain", "off")(value)


_TAKES: dict[str, Callable[[str], str]] = {
    sc.ENV_DELIVERY: _words("auto", "self", "off"),
    sc.ENV_PATHS: _words("job", "name", "absolute"),
    sc.ENV_DURABILITY: _words("process", "power"),
    sc.ENV_SIGTERM: _words("on", "off"),
    sc.ENV_CONSOLE: _console,
    sc.ENV_OTLP_LEVEL: _level,
    sc.ENV_EXIT_BUDGET: _seconds("0"),
    sc.ENV_SAMPLE_INTERVAL: _seconds("0"),
    sc.ENV_SPOOL_MAX: _size,
    "LOG_LEVEL": _level,
    "DEBUG_MODE": _words("1", "true", "yes", "on", "0", "false", "no", "off"),
    "OTEL_SDK_DISABLED": _words("true", "false"),
    _OTLP + "TIMEOUT": _seconds(""),
    _OTLP + "COMPRESSION": _words("gzip", "deflate", "none"),
    _OTLP + "INSECURE": _words("true", "false"),
}
