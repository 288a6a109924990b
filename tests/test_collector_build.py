"""What the collector, Jaeger and the compose checker are built of, and what is said where they cannot be built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from collector.build import build as builder

ROOT = Path(__file__).resolve().parents[1]


def run_builder(cache: Path, path: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collector.build.build", *args],
        cwd=ROOT,
        env={"PATH": path, "HOME": str(cache), "OTEL_STAGEIO_BUILD_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def without_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)


def test_a_changed_manifest_is_another_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "HERE", tmp_path)
    binary = builder.BINARIES["otelcol"]
    (tmp_path / "otelcol").mkdir()
    (tmp_path / "otelcol" / "go.mod").write_text("module a\n")
    before = binary.path
    assert binary.path == before
    (tmp_path / "otelcol" / "go.mod").write_text("module b\n")
    changed = binary.path
    (tmp_path / "otelcol" / "go.sum").write_text("")
    assert len({before, changed, binary.path}) == 3


def test_the_cache_is_outside_the_tree_and_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OTEL_STAGEIO_BUILD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert builder.cache() == tmp_path / ".cache" / "otel_stageio"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert builder.cache() == tmp_path / "xdg" / "otel_stageio"
    monkeypatch.setenv("OTEL_STAGEIO_BUILD_CACHE", str(tmp_path / "own"))
    assert builder.cache() == tmp_path / "own"


def test_without_go_one_sentence_says_what_to_install(without_go: None) -> None:
    with pytest.raises(
        builder.CannotBuild, match=r"Go 1\.26 or later is not here: install it from https://go\.dev/dl/"
    ):
        builder.find_go()


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("go1.21.3", r"is Go 1\.21\.3; 1\.26 or later is needed"),
        ("go1.25-custom", r"is Go 1\.25-custom; 1\.26 or later"),
        ("", "does not say which version it is"),
        ("devel +abc", "does not say which version it is"),
    ],
)
def test_an_old_or_strange_go_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, message: str
) -> None:
    go = tmp_path / "go"
    go.write_text(f"#!/bin/sh\necho '{says}'\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(builder.CannotBuild, match=message):
        builder.find_go()


def test_a_build_that_fails_shows_the_end_of_its_log_and_leaves_nothing_behind(tmp_path: Path) -> None:
    tools, cache = tmp_path / "bin", tmp_path / "cache"
    tools.mkdir()
    (tools / "go").write_text(
        '#!/bin/sh\nif [ "$1" = env ]; then echo go1.26.0; else echo "no required module" >&2; exit 3; fi\n'
    )
    (tools / "go").chmod(0o755)
    done = run_builder(cache, f"{tools}:/usr/bin:/bin")
    assert done.returncode == 1
    assert "compose-check cannot be built: " in done.stderr
    assert "ended with 3" in done.stderr
    assert "no required module" in done.stderr
    assert sorted(path.name for path in cache.iterdir()) == ["build.log", "compose-check.lock"]


def test_what_is_not_built_is_said_when_asked_for(tmp_path: Path) -> None:
    done = run_builder(tmp_path, "/usr/bin:/bin", "--print", "otelcol")
    assert (done.returncode, done.stderr) == (1, "otelcol is not built: make binaries\n")


def test_a_built_binary_is_not_built_again(binaries: object) -> None:
    assert not any(builder.build(binary) for binary in builder.BINARIES.values())


def test_every_component_is_of_the_distributions_release() -> None:
    manifest = yaml.safe_load((ROOT / "collector/build/otelcol/builder-config.yaml").read_text())
    release = manifest["dist"]["version"]
    modules = [
        component["gomod"].split()
        for kind in ("extensions", "receivers", "exporters", "processors", "connectors")
        for component in manifest[kind]
    ]
    assert len(modules) > 20
    assert {version for _, version in modules} == {f"v{release}"}
    pinned = (ROOT / "collector/build/otelcol/go.mod").read_text()
    assert all(f"{module} {version}" in pinned for module, version in modules)
