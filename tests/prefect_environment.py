"""Prefect in an environment of its own, made once, into the cache beside the built binaries.

    python -m tests.prefect_environment      make it unless it is there

The engine's hundred packages are not for the environment in which this package is developed. Named after what it is
made from: a changed lock or Python is a new environment, and nothing is ever stale.
"""

from __future__ import annotations

import fcntl
import hashlib
import sys
from pathlib import Path

from collector.build.build import CannotBuild, cache, run

LOCK = Path(__file__).resolve().parents[1] / "requirements" / "prefect.txt"


def python() -> Path:
    """Its Python, or where that will be."""
    digest = hashlib.sha256(sys.version.encode() + LOCK.read_bytes())
    return cache() / f"prefect-{digest.hexdigest()[:16]}" / "bin" / "python"


def make() -> bool:
    """Make it unless it is there. Returns whether there was anything to do.

    Raises:
        CannotBuild: saying why.
    """
    place = python().parents[1]
    ready = place / ".ready"  # an environment cannot be moved: it is made where it will be, and this says that it is
    if ready.exists():
        return False
    cache().mkdir(parents=True, exist_ok=True)
    with open(cache() / "prefect.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready.exists():
            return False
        print(f"making an environment with Prefect in {place} (once)", flush=True)
        run([sys.executable, "-m", "venv", "--clear", str(place)], cache())
        pip = [str(python()), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
        run([*pip, "install", "--require-hashes", "-r", str(LOCK)], cache())
        ready.touch()
    return True


def missing() -> str:
    """Why it cannot be used; empty if it can."""
    return "" if (python().parents[1] / ".ready").exists() else "Prefect's environment is not made yet: make binaries"


def main() -> int:
    try:
        make()
    except CannotBuild as reason:
        print(f"Prefect's environment cannot be made: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
