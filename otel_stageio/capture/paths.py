"""Path policy: how much of the file system leaves in telemetry.

``job`` (default): relative to the job directory, the bare name for files outside it, and ``~`` for the home directory
in text. ``name``: bare names only. ``absolute``: as they are. Local manifests keep the caller's strings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..layout import Job
from ..semconv import ENV_PATHS


class PathPolicy:
    def __init__(self, job: Job, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        word = environ.get(ENV_PATHS, "job").strip().lower()
        self.kind = word if word in ("job", "name", "absolute") else "job"
        self._root = str(job.root)
        home = os.path.expanduser("~")
        prefixes = [(self._root + os.sep, "")]
        if len(home) > 1:
            prefixes.append((home + os.sep, "~/"))
        self._prefixes = tuple(prefixes) if self.kind != "absolute" else ()

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

    def text(self, text: str) -> str:
        """Text with the job's directory made relative and the home directory made ``~``."""
        for prefix, replacement in self._prefixes:
            if prefix in text:
                text = text.replace(prefix, replacement)
        return text
