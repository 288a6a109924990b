"""Whether secrets stay out: a secret that nobody knows goes through what every stage's words go through."""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path

from ...capture import Capture
from ...capture.redaction import MASK, patterns_of
from ...layout import Job
from ...reading.text import count
from ...semconv import ENV_REDACT
from . import ERROR, OK, WARNING, Check

_CANARY = "OTEL_STAGEIO_CANARY_TOKEN"


def redaction() -> list[Check]:
    return [_masked(), _patterns()]


def _masked() -> Check:
    """By its key, by its look, in a URL, on a command line, and as the value of a variable."""
    canary = f"hf_{secrets.token_hex(16)}A1"
    known = secrets.token_hex(16)
    os.environ[_CANARY] = known
    try:
        capture = Capture(Job(Path()))
    finally:
        del os.environ[_CANARY]
    told = {
        "under a secret key": capture.mapping({"config": {"api_key": canary}}),
        "in a message": capture.text(f"the token is {canary}, said the server"),
        "in a URL": capture.text(f"https://anna:{known[:12]}x@example.com/"),
        "on a command line": capture.text(f"upload --password {known[:12]}x film.mkv"),
        "as a variable's value": capture.text(f"Traceback: {known}"),
    }
    through = [where for where, text in told.items() if canary in json.dumps(text) or known[:12] in json.dumps(text)]
    if through:
        return Check(
            "secrets", ERROR, f"not masked {', '.join(through)}", "do not run stages with secrets; report this"
        )
    return Check("secrets", OK, f"a secret made up for this came out as {MASK}: {', '.join(told)}")


def _patterns() -> Check:
    patterns = patterns_of(os.environ.get(ENV_REDACT, ""))
    if not patterns:
        return Check("patterns", OK, f"no further ones; {ENV_REDACT} takes them")
    faulty = [str(number) for number, pattern in enumerate(patterns, 1) if not _is_regex(pattern)]
    said = f"{count(len(patterns), 'further one')} in force"
    if faulty:
        return Check("patterns", WARNING, f"{said}; no regular expression, and taken literally: number "
                     f"{', '.join(faulty)}", f"mend {ENV_REDACT}")  # fmt: skip
    return Check("patterns", OK, said)


def _is_regex(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
