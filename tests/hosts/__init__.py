"""Several hosts on this machine: processes that are told another host's name, and locks as a network may have them."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).parent

#: How locks go: as NFS has them, kept on each host, not at all.
WORLDS = ("shared", "local", "refused")


def build(where: Path, gcc: str) -> Path:
    library = where / "flock.so"
    subprocess.run(
        [gcc, "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o", library, HERE / "flock.c"], check=True
    )
    return library


class World:
    """Attributes: ``locks`` is one of :data:`WORLDS`."""

    def __init__(self, library: Path, locks: str) -> None:
        self._library = library
        self.locks = locks

    def on(self, host: str) -> dict[str, str]:
        """What a process on a host has in its environment."""
        return {"LD_PRELOAD": str(self._library), "FLOCK": self.locks, "OTEL_STAGEIO_HOST_ID": host}
