"""Python, the operating system, and the versions of what this library needs."""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata

from ..._version import __version__
from ...resources import nvml
from . import ERROR, OK, WARNING, Check

_PACKAGE = "otel-stageio"
#: Extra -> what it is for. Others than these are for those who work on the library.
_EXTRAS = {"cli": "for the command line and the report", "gpu": "for the numbers of NVIDIA GPUs"}
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:>=([0-9.]+))?(?:\s*;\s*extra == ['\"]([^'\"]+)['\"])?")


def environment() -> list[Check]:
    found = [_python(), Check("system", OK, f"{platform.system()} {platform.release()}, {platform.machine()}")]
    found.append(Check(_PACKAGE, OK, __version__))
    for name, least, extra in _requirements():
        if not extra:
            found.append(_core(name, least))
    return [*found, *(_extra(extra, purpose) for extra, purpose in _EXTRAS.items())]


def _python() -> Check:
    version = platform.python_version()
    least = _least_python()
    said = f"{version}, {sys.executable}"
    if least and _numbers(version) < _numbers(least):
        return Check("Python", ERROR, f"{said}; {least} is the oldest supported", f"use Python {least} or later")
    return Check("Python", OK, said)


def _least_python() -> str:
    try:
        return str(metadata.metadata(_PACKAGE).json.get("requires_python") or "").removeprefix(">=")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return ""


def _requirements() -> list[tuple[str, str, str]]:
    """(package, oldest version, extra), as the installed distribution declares them."""
    try:
        declared = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        return []
    return [(match[1], match[2] or "", match[3] or "") for match in map(_REQUIREMENT.fullmatch, declared) if match]


def _core(name: str, least: str) -> Check:
    version = _version(name)
    if version is None:
        return Check(name, ERROR, "not installed, and needed", f"pip install '{name}>={least}'")
    return _in_range(name, version, least)


def _in_range(name: str, version: str, least: str) -> Check:
    if least and _numbers(version) < _numbers(least):
        said = f"{version}; {least} is the oldest supported"
        return Check(name, WARNING, said, f"pip install --upgrade '{name}>={least}'")
    return Check(name, OK, version)


def _extra(extra: str, purpose: str) -> Check:
    name = f"extra {extra}"
    install = f"pip install '{_PACKAGE}[{extra}]'"
    members = [(package, least) for package, least, of in _requirements() if of == extra]
    missing = [package for package, _ in members if _version(package) is None]
    if missing:
        said = f"{', '.join(missing)} not installed; {purpose}"
        # A machine without a GPU misses nothing.
        wanted = extra != "gpu" or nvml.has_driver()
        return Check(name, WARNING if wanted else OK, said, install)
    for package, least in members:
        check = _in_range(package, _version(package) or "", least)
        if check.state != OK:
            return Check(name, check.state, f"{package} {check.said}", check.advice)
    return Check(name, OK, ", ".join(f"{package} {_version(package)}" for package, _ in members) or purpose)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """``2.13.0rc1`` -> ``(2, 13, 0)``: as much as a lower bound needs."""
    return tuple(int(part) for part in re.match(r"[0-9.]*", version)[0].split(".") if part)  # type: ignore[index]
