"""Apache Kafka for the tests of the Kafka tier: fetched by Maven once, into the cache beside the built binaries.

    python -m collector.build.broker

The real broker and not one of the small stand-ins: what is tested is that its acknowledgements and offsets mean what
our settings take them to mean. It is 46 MB of jars, starts in three seconds and needs Java 17.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .build import HERE, CannotBuild, cache, run

POM = HERE / "kafka" / "pom.xml"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def jars() -> Path:
    """The directory of its jars, or where it will be."""
    digest = hashlib.sha256(PLUGIN.encode() + POM.read_bytes()).hexdigest()
    return cache() / f"kafka-{digest[:16]}" / "jars"


def missing() -> str:
    """Why it cannot run here; empty if it can."""
    for program, package in (("java", "default-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None and (program == "java" or not jars().exists()):
            return f"{program} is not here (Debian: apt-get install {package})"
    return "" if jars().exists() else "Kafka is not fetched yet: make binaries"


def fetch() -> bool:
    """Fetch it unless it is there. Returns whether there was anything to do.

    Raises:
        CannotBuild: saying why.
    """
    target = jars()
    if target.exists():
        return False
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise CannotBuild(missing())
    cache().mkdir(parents=True, exist_ok=True)
    with open(cache() / "kafka.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return False
        print(f"fetching Kafka into {target.parent} (once)", flush=True)
        with tempfile.TemporaryDirectory(prefix=".kafka-", dir=cache()) as directory:
            work = Path(directory)
            shutil.copy(POM, work)
            # --strict-checksums: what does not match the sums beside it is an error and not a warning.
            run(["mvn", "-B", "-q", "--strict-checksums", PLUGIN, "-DoutputDirectory=out/jars"], work)
            os.replace(work / "out", target.parent)
    return True


def main() -> int:
    try:
        fetch()
    except CannotBuild as reason:
        print(f"Kafka cannot be fetched: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
