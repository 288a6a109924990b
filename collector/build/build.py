"""Build the collector, Jaeger, promtool and the compose checker from Go modules, once, into a cache outside the tree.

    python collector/build/build.py             build what is not in the cache yet
    python collector/build/build.py --print otelcol    say where a built binary is

The cache is ``$OTEL_STAGEIO_BUILD_CACHE``, else ``$XDG_CACHE_HOME/otel_stageio``, else ``~/.cache/otel_stageio``; a
binary's directory there is named after the files that it is made of, so a changed manifest is a new build and nothing
is ever stale. Cold it takes about ten minutes on two processors, warm nothing. Needs nothing but Python and Go.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

#: Generates the collector's main package from a manifest. Newer than what it generates: only since 0.154 does it leave
#: go.mod alone when asked to.
BUILDER = "go.opentelemetry.io/collector/cmd/builder@v0.161.0"
OLDEST_GO = (1, 26)  # what otelcol/go.mod asks for
FLAGS = ["-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-buildvcs=false"]


class CannotBuild(Exception):
    """Says why, and what to do."""


@dataclass(frozen=True)
class Binary:
    """Attributes:
    name: of the binary, and of the directory here that has what it is made of.
    prepare: makes the directory to build in; gets that, and the Go program.
    package: what to build there.
    """

    name: str
    package: str
    prepare: Callable[[Path, str], None]

    @property
    def sources(self) -> list[Path]:
        return sorted(path for path in (HERE / self.name).iterdir() if path.is_file())

    @property
    def path(self) -> Path:
        """Where it is, or will be."""
        digest = hashlib.sha256(repr((BUILDER, FLAGS, self.package)).encode())
        for source in self.sources:
            digest.update(f"\0{source.name}\0".encode() + source.read_bytes())
        return cache() / f"{self.name}-{digest.hexdigest()[:16]}" / self.name


def cache() -> Path:
    own = os.environ.get("OTEL_STAGEIO_BUILD_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(own) if own else Path(shared) / "otel_stageio"


def find_go() -> str:
    """The Go program.

    Raises:
        CannotBuild: if there is none, or it is too old.
    """
    places = os.pathsep.join(filter(None, [os.environ.get("PATH"), "/usr/local/go/bin"]))  # where go.dev's archive goes
    needed = ".".join(map(str, OLDEST_GO))
    go = shutil.which("go", path=places)
    if go is None:
        raise CannotBuild(f"Go {needed} or later is not here: install it from https://go.dev/dl/ and run this again")
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout.strip()
    numbers = said.removeprefix("go").split("-")[0].split(".")
    try:
        version = (int(numbers[0]), int(numbers[1]))
    except (ValueError, IndexError):
        raise CannotBuild(f"{go} does not say which version it is") from None
    if version < OLDEST_GO:
        raise CannotBuild(f"{go} is Go {said.removeprefix('go')}; {needed} or later is needed (https://go.dev/dl/)")
    return go


def build(binary: Binary) -> bool:
    """Build it unless it is there. Returns whether there was anything to do.

    Raises:
        CannotBuild: saying why.
    """
    target = binary.path
    if target.exists():
        return False
    go = find_go()
    cache().mkdir(parents=True, exist_ok=True)
    with open(cache() / f"{binary.name}.lock", "w") as lock:  # two at once: one builds, the other waits and finds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return False
        print(f"building {binary.name} into {target.parent} (once)", flush=True)
        with tempfile.TemporaryDirectory(prefix=f".{binary.name}-", dir=cache()) as directory:
            work = Path(directory)
            for source in binary.sources:
                shutil.copy(source, work)
            binary.prepare(work, go)
            run([go, "build", *FLAGS, "-o", str(work / "out" / binary.name), binary.package], work)
            target.parent.parent.mkdir(parents=True, exist_ok=True)
            os.replace(work / "out", target.parent)
    return True


def run(command: list[str], where: Path, **variables: str) -> None:
    fixed = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    environment = {**os.environ, **fixed, **variables}
    log = cache() / "build.log"
    with open(log, "a", encoding="utf-8") as file:
        print("+", *command, file=file, flush=True)
        done = subprocess.run(command, cwd=where, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise CannotBuild(f"{' '.join(command[:2])} ended with {done.returncode}; the end of {log}:\n{tail}")


def generate_collector(work: Path, go: str) -> None:
    """The collector's sources, from the manifest; its own ``go mod tidy`` would look for modules that tests need."""
    tools = work / "bin"
    run([go, "install", BUILDER], work.parent, GOBIN=str(tools))
    pinned = {name: (work / name).read_bytes() for name in ("go.mod", "go.sum")}
    manifest = work / "builder-config.yaml"
    run([str(tools / "builder"), f"--config={manifest}", "--skip-compilation", "--skip-get-modules"], work)
    for path in (work / "build").iterdir():
        os.replace(path, work / path.name)
    for name, content in pinned.items():
        (work / name).write_bytes(content)


BINARIES = {
    binary.name: binary
    for binary in (
        Binary("compose-check", ".", lambda work, go: None),
        Binary("jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger", lambda work, go: None),
        Binary("otelcol", ".", generate_collector),
        # Pinned to the Prometheus that the collector's receiver is made of, so that most of it is compiled already.
        Binary("promtool", "github.com/prometheus/prometheus/cmd/promtool", lambda work, go: None),
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the collector, Jaeger, promtool and the compose checker, once.")
    parser.add_argument("--print", choices=BINARIES, metavar="NAME", help=f"say where {', '.join(BINARIES)} is")
    asked = parser.parse_args().print
    if asked:
        path = BINARIES[asked].path
        if not path.exists():
            print(f"{asked} is not built: make binaries", file=sys.stderr)
            return 1
        print(path)
        return 0
    for binary in BINARIES.values():
        began = time.monotonic()
        try:
            if build(binary):
                size = binary.path.stat().st_size / 1e6
                print(f"built {binary.name}: {size:.0f} MB in {time.monotonic() - began:.0f} s", flush=True)
        except CannotBuild as reason:
            print(f"{binary.name} cannot be built: {reason}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
