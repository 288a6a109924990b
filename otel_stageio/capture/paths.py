"""Path policy: how much of the file system leaves in telemetry.

``job`` (default): relative to the job directory, the bare name for files outside it. ``name``: bare names only.
``absolute``: as they are. In text, unless ``absolute``, the job directory is ``.`` and the home directory ``~``. Local
manifests keep the caller's strings.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping

from ..layout import Job
from ..semconv import ENV_PATHS


class PathPolicy:
    def __init__(self, job: Job, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        word = environ.get(ENV_PATHS, "job").strip().lower()
        self.kind = word if word in ("job", "name", "absolute") else "job"
        self._root = job.key
        self._found: list[tuple[str, str]] | None = None

    @property
    def _places(self) -> list[tuple[str, str]]:
        """(directory, how text shows it), the longest first: the job often lies in the home directory."""
        if self._found is None:  # no cached_property: until Python 3.12 it holds a lock, which a fork may find taken
            self._found = self._find_places()
        return self._found

    def _find_places(self) -> list[tuple[str, str]]:
        if self.kind == "absolute":
            return []
        places = {self._root: ".", os.path.realpath(self._root): ".", os.path.expanduser("~"): "~"}
        absolute = (item for item in places.items() if len(item[0]) > 1 and os.sep in item[0])
        return sorted(absolute, key=_length, reverse=True)

    def relative(self, path: str) -> str:
        """A path as telemetry shows it. ``path`` may be relative to the working directory."""
        if self.kind == "absolute":
            return os.path.abspath(path)
        if self.kind == "name":
            return os.path.basename(path.rstrip(os.sep)) or path
        absolute = os.path.abspath(path)
        if absolute == self._root:
            return "."
        if absolute.startswith(self._root + os.sep):
            return absolute[len(self._root) + 1 :]
        return os.path.basename(absolute)

    def mentions(self, text: str) -> bool:
        """A cheap first look: False means that :meth:`text` would change nothing."""
        if os.sep not in text:
            return False
        for place, _ in self._places:  # noqa: SIM110  (any() with a generator costs half as much again)
            if place in text:
                return True
        return False

    def text(self, text: str) -> str:
        """Text with the job's directory made relative and the home directory made ``~``."""
        if os.sep not in text:
            return text
        for place, short in self._places:
            if place in text:
                inside, alone = _patterns(place)
                text = alone.sub(short, inside.sub("" if short == "." else f"{short}/", text))
        return text


def _length(place: tuple[str, str]) -> int:
    return len(place[0])


@functools.lru_cache(maxsize=16)
def _patterns(place: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """``place`` before a further path, and alone; never within another path: ``/mnt/job/x`` is not in ``/job``."""
    whole = rf"(?<![\w.-]){re.escape(place)}"
    return re.compile(whole + r"""/(?=[^\s"'`,;:)\]}>\\/])"""), re.compile(whole + r"/?(?![\w-]|\.\w)")
