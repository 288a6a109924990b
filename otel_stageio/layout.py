"""Where everything is: the stage table, safe names, and the paths of a job.

The table is CP-WhisperX's (Stage Logging & Manifest Architecture v1.0): twelve numbered stages, their aliases and
sub-stages. A stage unknown to it is ``99_<name>``, for the writer and for the reader alike.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

StrPath: TypeAlias = "str | os.PathLike[str]"

#: Stage directories in order; the number is the position.
STAGES = (
    "demux", "tmdb", "glossary_load", "source_separation", "pyannote_vad", "asr", "alignment", "lyrics_detection",
    "export_transcript", "translation", "subtitle_generation", "mux",
)  # fmt: skip

#: Further names that write into another stage's directory.
SHARED = {
    "hallucination_removal": "asr",
    "hybrid_translation": "translation",
    "indictrans2_translation": "translation",
    "nllb_translation": "translation",
    "load_transcript": "translation",
    "subtitle_generation_source": "subtitle_generation",
    "subtitle_generation_target": "subtitle_generation",
    "hinglish_detection": "subtitle_generation",
}

UNKNOWN_NUMBER = 99

NUMBERS: dict[str, int] = {name: number for number, name in enumerate(STAGES, 1)}
NUMBERS.update({name: NUMBERS[parent] for name, parent in SHARED.items()})

STAGE_DIRECTORY = re.compile(r"\d\d_.+")
_UNSAFE = re.compile(r"[^\w.\- ]+")
_NAME_BYTES = 100  # leaves room for "99_", ".12.metrics.jsonl" and a digest within NAME_MAX (255 bytes)


def stage_number(stage: str) -> int:
    """1 to 12 as in the table, 99 for any other name."""
    return NUMBERS.get(stage, UNKNOWN_NUMBER)


def directory_name(stage: str) -> str:
    """``06_asr`` for both ``asr`` and ``hallucination_removal``, ``99_<name>`` for a name not in the table."""
    return f"{stage_number(stage):02d}_{SHARED.get(stage, stage)}"


def owner_of(directory: str) -> str:
    """The stage that a directory is named after: ``06_asr`` -> ``asr``."""
    return directory.split("_", 1)[1] if "_" in directory else directory


def safe_name(name: str) -> str:
    """A name that stays inside its directory and is one plain line.

    Path separators, control characters, bidirectional marks and other non-word characters become ``_``; leading dots
    go; an over-long name is cut and ends in a digest so that two of them stay apart.

    Raises:
        TypeError: if the name is not a string.
        ValueError: if nothing is left of it.

    Example:
        >>> safe_name("../../etc/passwd")
        'etc_passwd'
    """
    if not isinstance(name, str):
        raise TypeError(f"a stage name must be a str, not {type(name).__name__}")
    safe = _UNSAFE.sub("_", name.encode("utf-8", "replace").decode("utf-8")).strip("._ ")
    safe = re.sub(r"\.{2,}", "_", safe)
    if not any(character.isalnum() for character in safe):
        raise ValueError(f"no safe name can be made of the stage name {name!r}; use letters, digits, '_' or '-'")
    encoded = safe.encode()
    if len(encoded) > _NAME_BYTES:
        digest = hashlib.sha256(encoded).hexdigest()[:8]
        safe = encoded[: _NAME_BYTES - 9].decode("utf-8", "ignore") + "_" + digest
    return safe


def canonical(name: str) -> str:
    """The stage that a caller means: a safe name, with the number taken off a directory's name (``01_demux``).

    Raises:
        TypeError, ValueError: as :func:`safe_name`.
    """
    safe = safe_name(name)
    number, _, rest = safe.partition("_")
    return rest if len(number) == 2 and number.isdigit() and rest in NUMBERS else safe


def inside(directory: Path, name: str) -> Path:
    """``directory / name``, refusing names that leave the directory.

    Raises:
        ValueError: for an absolute name, one with ``..``, or one with a NUL byte.
    """
    text = os.fspath(name)
    if not isinstance(text, str) or not text:
        raise ValueError(f"a file name is needed, not {name!r}")
    if os.path.isabs(text) or ".." in Path(text).parts or "\0" in text:
        raise ValueError(f"{name!r} leaves the stage's directory {directory}; give a name relative to it, without '..'")
    return directory / text


def within(path: str, root: Path) -> str | None:
    """A recorded path relative to a job, wherever the job lies by now, or None for one outside.

    Manifests keep paths as their callers gave them, often relative to a directory that is long gone; the job may have
    been moved or copied since.

    Args:
        root: the job directory, absolute.

    Example:
        >>> within("out/film/06_asr/segments.json", Path("/mnt/copy/film"))
        '06_asr/segments.json'
    """
    if not path or "\0" in path:
        return None
    full, top = os.path.abspath(path), str(root)
    if full == top:
        return "."
    if full.startswith(top + os.sep):
        return full[len(top) + 1 :]
    parts = Path(path).parts
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == root.name and not _other(Path(*parts[: at + 1])):
            return _relative(parts[at + 1 :])
    for at, part in enumerate(parts[:-1]):
        if STAGE_DIRECTORY.fullmatch(part) and (root / part).is_dir():
            return _relative(parts[at:])
    return None


def _other(directory: Path) -> bool:
    """Whether a directory cannot be where a job was before: it is there, and no job."""
    return directory.is_dir() and not (directory / ".stageio").is_dir()


def _relative(parts: tuple[str, ...]) -> str | None:
    return None if ".." in parts else os.path.join(*parts)


_PLACES = {
    "logs": "logs",
    "machinery": ".stageio",
    "spool": ".stageio/spool",
    "temporary": ".stageio/tmp",
    "open": ".stageio/open",
    "locks": ".stageio/locks",
    "run_record": ".stageio/run.json",
    "former_runs": ".stageio/runs",
    "run_lock": ".stageio/run.lock",
    "owner_lock": ".stageio/owner.lock",
    "ack": ".stageio/spool/.ack",
    "delivery_lock": ".stageio/delivery.lock",
    "deliverer_lock": ".stageio/deliverer.lock",
    "refused": ".stageio/refused.jsonl",
    "digests": ".stageio/digests",
}


class Job:
    """The paths of one job directory.

    ``base`` is the directory exactly as the caller gave it (callers compute ``relative_to`` it); ``root`` is the same
    place made absolute once, so that a later ``chdir`` moves nothing. What is below it is text: a stage opens thirty
    files once, and a ``Path`` takes longer to make than most of them to open.
    """

    root: Path
    logs: str
    machinery: str
    spool: str
    temporary: str
    open: str
    locks: str
    run_record: str
    former_runs: str
    run_lock: str
    owner_lock: str
    ack: str
    delivery_lock: str
    deliverer_lock: str
    refused: str
    digests: str

    def __init__(self, base: StrPath) -> None:
        self.base: Path = Path(base)
        #: ``root`` as text: by it jobs are told apart.
        self.key: str = os.path.abspath(base)
        self._below = self.key.rstrip(os.sep) + os.sep

    def __getattr__(self, name: str) -> Any:
        """One of the places, made when it is first asked for. (A ``cached_property`` has a lock, which a fork may find
        taken, until Python 3.12.)
        """
        if name != "root" and name not in _PLACES:
            raise AttributeError(f"a job has no {name!r}")
        path = self.__dict__[name] = Path(self.key) if name == "root" else self._below + _PLACES[name]
        return path

    def stage_dir(self, stage: str) -> str:
        return self._below + directory_name(stage)

    def manifest(self, stage: str) -> str:
        return f"{self.stage_dir(stage)}/manifest.json"

    def directory_lock(self, stage: str) -> str:
        return f"{self.locks}/{directory_name(stage)}.lock"

    def journal(self, stage: str, attempt: int, signal: str = "logs") -> str:
        """``.stageio/spool/<stage>.<attempt>.<signal>.jsonl``; ``signal`` is ``logs``, ``spans`` or ``metrics``."""
        return f"{self.spool}/{stage}.{attempt}.{signal}.jsonl"

    def open_spans(self, stage: str, attempt: int, pid: int) -> str:
        """What a process has open of a stage; see :mod:`otel_stageio.sinks.open_spans`."""
        return f"{self.open}/{stage}.{attempt}.{pid}"

    def former_run(self, attempt: int) -> str:
        """The record of a run that is over, once another has begun; see :mod:`otel_stageio.runs.run_file`."""
        return f"{self.former_runs}/{attempt}.json"

    def run_journal(self, attempt: int) -> str:
        """Where root spans go. ``@`` keeps it apart from every stage name (see :func:`safe_name`)."""
        return f"{self.spool}/@run.{attempt}.spans.jsonl"


def spooled_attempts(job: Job) -> dict[str, list[int]]:
    """Stage name -> its attempts, as the journals on disk say."""
    found: dict[str, list[int]] = {}
    try:
        names = os.listdir(job.spool)
    except OSError:
        return found
    for name in names:
        if name.endswith(".logs.jsonl"):
            stage, _, attempt = name[: -len(".logs.jsonl")].rpartition(".")
            if stage and attempt.isdigit():
                found.setdefault(stage, []).append(int(attempt))
    for attempts in found.values():
        attempts.sort()
    return found


def find_jobs(root: str, also: Callable[[str, list[str]], bool] | None = None) -> Iterator[str]:
    """Job directories at any depth; what lies inside a job is not searched, and links are not followed.

    Args:
        also: says of another directory, by the names of the directories in it, whether it is a job too.
    """
    places = [root]
    while places:
        place = places.pop()
        try:
            if stat.S_ISDIR(os.lstat(f"{place}{os.sep}.stageio").st_mode):
                yield place
                continue
        except (OSError, ValueError):
            pass
        try:
            with os.scandir(place) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except (OSError, ValueError):
            continue
        if also is not None and also(place, names):
            yield place
        else:
            places += [os.path.join(place, name) for name in names if not name.startswith(".")]
