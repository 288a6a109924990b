"""Secrets stay out: one redactor, before any file or wire.

Three rules: a value under a key that says *secret*; text that looks like a credential (known prefixes, bearer and URL
user-info, ``key=value``); and the exact values of environment variables whose names say *secret*, which also covers
tracebacks and command lines. Plain substrings are searched first and a regex runs only on a hit: a case-insensitive
regex costs 3 µs on 40 characters, more than the rest of a log line (DESIGN §5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ..semconv import ENV_REDACT

MASK = "[redacted]"

_SEGMENTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_SEGMENTS = frozenset(
    {
        "secret", "secrets", "password", "passwords", "passwd", "pwd", "passphrase", "credential", "credentials",
        "authorization", "apikey", "apitoken", "accesstoken", "authtoken", "cookie", "jwt",
    }
)  # fmt: skip
_SECRET_PAIRS = frozenset(
    {("api", "key"), ("private", "key"), ("access", "key"), ("secret", "key"), ("signing", "key"), ("auth", "key")}
)
#: ``token`` is a credential in hf_token and an ordinary word in a model's vocabulary.
_TOKEN_NEIGHBOURS = frozenset(
    {
        "bos", "budget", "cls", "count", "eos", "id", "ids", "index", "length", "limit", "mask", "max", "min", "n",
        "num", "number", "pad", "per", "sep", "special", "split", "timestamp", "type", "unk", "vocab",
    }
)  # fmt: skip

# Kept in step with the needles below: each alternative contains one of them.
_VALUE = re.compile(
    r"""
      \bhf_[A-Za-z0-9]{8,}
    | \bsk-[A-Za-z0-9_-]{8,}
    | \bgh[pousr]_[A-Za-z0-9]{8,}
    | \bgithub_pat_[A-Za-z0-9_]{8,}
    | \bglpat-[A-Za-z0-9_-]{8,}
    | \bxox[abeoprs]-[A-Za-z0-9-]{8,}
    | \bA[KS]IA[0-9A-Z]{16}\b
    | \bAIza[0-9A-Za-z_-]{20,}
    | \beyJ[\w-]{4,}\.[\w-]{4,}\.[\w-]*
    | -----BEGIN[ A-Z]*PRIVATE[ ]KEY-----.*?(?:-----END[ A-Z]*PRIVATE[ ]KEY-----|\Z)
    | (?<=://)[^\s/@'"]+(?=@)
    | (?i:(?<=bearer )|(?<=basic ))[A-Za-z0-9._~+/=-]{6,}
    """,
    re.VERBOSE | re.DOTALL,
)
_ASSIGNMENT = re.compile(
    r"""(?ix)
    (?P<key> [\w.-]* (?: api[_-]?key | private[_-]?key | access[_-]?key | token | secret | password | passwd | pwd
                       | passphrase | credentials? | authorization ) [\w.-]* )
    (?P<between> ["']? \s* [=:] \s* (?: (?:bearer|basic) \s+ )? | \s+ (?=[^\s=:-]) )
    (?P<value> "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | [^\s"',;&)\]}]+ )
    """
)
_NEEDLES_FOLDED = (
    "_key", "-key", "apikey", "accesskey", "privatekey", "authkey", "secret", "token", "passw", "pwd", "passphrase",
    "credential", "authoriz", "bearer ", "basic ",
)  # fmt: skip
_NEEDLES_EXACT = (
    "hf_", "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "AKIA", "ASIA", "AIza", "eyJ",
    "PRIVATE KEY",
)  # fmt: skip
_ENV_NAMES = re.compile(r"(?i)(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|API_?KEY|ACCESS_?KEY"
                        r"|SECRET_?KEY|PRIVATE_?KEY|AUTH)(?:_|$)")  # fmt: skip
_SHORTEST_ENV_SECRET = 6


def is_secret_key(key: str) -> bool:
    """Whether the value under ``key`` is a credential, judged by the words in the key.

    Example:
        >>> is_secret_key("hf_token"), is_secret_key("tmdbApiKey"), is_secret_key("max_tokens"), is_secret_key("author")
        (True, True, False, False)
    """
    words = [word.lower() for word in _SEGMENTS.findall(key)]
    for position, word in enumerate(words):
        if word in _SECRET_SEGMENTS:
            return True
        if position and (words[position - 1], word) in _SECRET_PAIRS:
            return True
        if word == "token":
            neighbours = words[max(0, position - 1) : position] + words[position + 1 : position + 2]
            if not _TOKEN_NEIGHBOURS.intersection(neighbours):
                return True
    return False


class Redactor:
    """Finds credentials in keys and text. ``count`` is how many were masked.

    Args:
        environ: where secret values are read from; the process environment by default.

    ``OTEL_STAGEIO_REDACT`` adds comma-separated regular expressions, tried on keys and on values.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self.count = 0
        self._secrets = tuple(
            sorted(
                {
                    value
                    for name, value in environ.items()
                    if len(value) >= _SHORTEST_ENV_SECRET and _ENV_NAMES.search(name) and not _harmless(value)
                },
                key=len,
                reverse=True,
            )
        )
        self._extra = tuple(_compile(pattern) for pattern in environ.get(ENV_REDACT, "").split(",") if pattern.strip())

    def key(self, key: str) -> bool:
        return is_secret_key(key) or any(pattern.search(key) for pattern in self._extra)

    def text(self, text: str) -> str:
        """``text`` with every credential in it replaced by ``[redacted]``."""
        for secret in self._secrets:
            if secret in text:
                self.count += text.count(secret)
                text = text.replace(secret, MASK)
        folded = text.lower()
        if any(needle in folded for needle in _NEEDLES_FOLDED):
            text = _ASSIGNMENT.sub(self._assignment, text)
            text = _VALUE.sub(self._mask, text)
        elif any(needle in text for needle in _NEEDLES_EXACT) or ("@" in text and "://" in text):
            text = _VALUE.sub(self._mask, text)
        for pattern in self._extra:
            text = pattern.sub(self._mask, text)
        return text

    def suspicious(self, text: str) -> bool:
        """A cheap first look at a whole encoded line: False means that nothing in it can need masking."""
        folded = text.lower()
        return (
            any(needle in folded for needle in _NEEDLES_FOLDED)
            or any(needle in text for needle in _NEEDLES_EXACT)
            or ("@" in text and "://" in text)
            or any(secret in text for secret in self._secrets)
            or bool(self._extra)
        )

    def _mask(self, match: re.Match[str]) -> str:
        if match[0] == MASK or not match[0]:
            return match[0]
        self.count += 1
        return MASK

    def _assignment(self, match: re.Match[str]) -> str:
        key, between, value = match["key"], match["between"], match["value"]
        if value.startswith(MASK) or not is_secret_key(key):
            return match[0]
        bare = not any(character in between for character in "=:")
        # "--password hunter2" is a secret, "the token was refused" is a sentence.
        if bare and not match.string[: match.start()].endswith("-"):
            return match[0]
        if value.lower() in ("none", "null", "true", "false", "bearer", "basic"):
            return match[0]
        self.count += 1
        quote = value[0] if value[0] in "\"'" else ""
        return f"{key}{between}{quote}{MASK}{quote}"


def _harmless(value: str) -> bool:
    return value.lower() in ("true", "false", "enabled", "disabled", "default", "required") or value.isdigit()


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern.strip(), re.IGNORECASE)
    except re.error:  # a typo in a pattern must not let the secret through, nor break a stage: take it literally
        return re.compile(re.escape(pattern.strip()), re.IGNORECASE)
