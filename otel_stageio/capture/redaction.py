"""Secrets stay out: one redactor, before any file or wire.

Three rules: a value under a key that says *secret*; text that looks like a credential (known prefixes, bearer and URL
user-info, ``key=value``); and the exact values of environment variables whose names say *secret*, which also covers
tracebacks and command lines. Plain substrings are searched first and a regex runs only on a hit: a case-insensitive
regex costs 3 µs on 40 characters, more than the rest of a log line (DESIGN §5). Every regex is linear in the text.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

from ..semconv import ENV_REDACT
from .text import clean

MASK = "[redacted]"

#: The environment of which ``os.environb`` is the other view; a test may have put another in its place.
_OWN = os.environ

_SEGMENTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_WORDS = frozenset({"authorization", "cookie", "jwt", "pwd"})
#: Also at the end of a word: ``dbpassword``, ``clientsecret``.
_SECRET_ENDINGS = (
    "password", "passwd", "passphrase", "secret", "credential", "apikey", "accesskey", "authkey", "privatekey",
    "secretkey", "signingkey",
)  # fmt: skip
_KEY_KINDS = ("access", "account", "api", "auth", "encryption", "private", "secret", "signing", "ssh")
_SECRET_PAIRS = frozenset(
    {*((kind, "key") for kind in _KEY_KINDS), ("basic", "auth"), ("http", "auth"), ("db", "pass"), ("user", "pass")}
)
#: ``token`` is a credential in hf_token and an ordinary word in a model's vocabulary.
_TOKEN_NEIGHBOURS = frozenset(
    {
        "bos", "budget", "cls", "count", "de", "eos", "id", "ids", "index", "length", "limit", "mask", "max", "min",
        "n", "non", "num", "number", "pad", "per", "sep", "special", "split", "sub", "timestamp", "type", "unk",
        "vocab",
    }
)  # fmt: skip
_TOKENS_OF = frozenset({"access", "api", "auth", "bearer", "refresh", "secret"})

# Words are kept apart from credentials by what words have not: a digit or a capital inside, or an unlikely length.
_CREDENTIAL = re.compile(
    r"""
      (?<![A-Za-z0-9]) (?: hf | gh[pousr] ) _ (?: (?=[a-z]*[A-Z0-9]) [A-Za-z0-9]{8,} | [a-z]{16,} )
    | (?<![\w-]) sk- (?: (?=[a-z_-]*[A-Z0-9]) [\w-]{8,} | [a-z]{16,} )
    | (?<![A-Za-z0-9]) (?: github_pat_ | glpat- | xox[abeoprs]- ) [\w-]{8,}
    | (?<![A-Za-z0-9]) A[KS]IA [0-9A-Z]{16} (?![0-9A-Za-z])
    | (?<![A-Za-z0-9]) AIza [\w-]{20,}
    | (?<![\w-]) eyJ [\w-]{4,} \. [\w-]{4,} \. [\w-]*
    | -----BEGIN [ A-Z]* PRIVATE[ ]KEY----- .*? (?: -----END[ A-Z]*PRIVATE[ ]KEY----- | \Z )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_SCHEME = re.compile(
    r"""
    (?<![\w-]) (?P<scheme> (?i:bearer|basic) [ \t]+ )
    (?: (?=.[A-Za-z.-]*[A-Z0-9_~+/=]) [A-Za-z0-9._~+/=-]{6,} | [A-Za-z0-9._~+/=-]{20,} )
    """,
    re.VERBOSE,
)
_USER_INFO = re.compile(r"""://[^\s/'"]+@""")

_KEY_WORD = re.compile(r"token|keys?|secret|passw(?:or)?d|passphrase|pass|pwd|credential|auth(?:orization)?|cookie|jwt")
_LONGEST_KEY = 64  # characters on either side of the word
#: What stands between a key and its value: ``=``, ``": "``, ``\": \"``, ``: Bearer ``.
_ASSIGNED = re.compile(
    rf"""
    (?P<tail> [\w.-]{{0,{_LONGEST_KEY}}} )
    (?: \\*["']? [ \t]* (?: := | => | ==? | : ) [ \t]* (?: (?i:bearer|basic|token|digest|apikey) [ \t]+ )?
      | (?P<option> [ \t]+ (?![-=:]) | \\*["'] , \s* (?=["']) ) )
    (?P<open> (?i:[bru]{{0,2}}) \\* ["'] )?
    """,
    re.VERBOSE,
)
_BARE = re.compile(r"""[\[({][^\])}\n]*[\])}]?|[^\s,;&]+""")
_NO_VALUE = frozenset({"", "none", "null", "true", "false", "bearer", "basic"})

_HARMLESS = frozenset({"true", "false", "enabled", "disabled", "default", "required", "optional", "unknown"})
_SHORTEST_SECRET = 6


# Before any regex runs, lower-case text is searched for plain substrings. It happens at every log line, so each search
# is one expression: a loop costs half as much again, any() twice as much.


def _may_name_secret(folded: str) -> bool:
    return (
        "token" in folded
        or "key" in folded
        or "secret" in folded
        or "pass" in folded
        or "pwd" in folded
        or "credential" in folded
        or "auth" in folded
        or "cookie" in folded
        or "jwt" in folded
    )


def _may_be_credential(folded: str) -> bool:
    return (
        ("_" in folded and ("hf_" in folded or "github_pat_" in folded or _GITHUB.search(folded) is not None))
        or ("-" in folded and ("sk-" in folded or "glpat-" in folded or "xox" in folded or "private key" in folded))
        or "akia" in folded
        or "asia" in folded
        or "aiza" in folded
        or "eyj" in folded
        or "bearer" in folded
        or "basic" in folded
    )


_GITHUB = re.compile("gh[pousr]_")


def is_secret_key(key: str) -> bool:
    """Whether the value under ``key`` is a credential, judged by the words in the key.

    Example:
        >>> is_secret_key("hf_token"), is_secret_key("tmdbApiKey"), is_secret_key("max_tokens"), is_secret_key("author")
        (True, True, False, False)
    """
    if not _may_name_secret(key.lower()):
        return False
    words = [word.lower() for word in _SEGMENTS.findall(key)]
    for position, plural in enumerate(words):
        before = words[position - 1] if position else ""
        if plural == "tokens":
            if before in _TOKENS_OF:
                return True
            continue
        word = plural.removesuffix("s")
        if word in _SECRET_WORDS or word.endswith(_SECRET_ENDINGS) or (before, word) in _SECRET_PAIRS:
            return True
        if (before, plural) in _SECRET_PAIRS:
            return True
        if word.endswith("token"):
            neighbours = {before, word.removesuffix("token"), *words[position + 1 : position + 2]}
            if not neighbours & _TOKEN_NEIGHBOURS:
                return True
    return False


class Innocent(NamedTuple):
    """Short texts and names of attributes in which nothing was found: stages say the same few again and again."""

    texts: set[str]
    names: set[str]


@functools.lru_cache(8)
def _innocent(secrets: tuple[str, ...], extra: tuple[re.Pattern[str], ...]) -> Innocent:
    """The same for all stages of a process that hide the same."""
    return Innocent(set(), set())


class Redactor:
    """Finds credentials in keys and text. ``count`` is how many were masked.

    Args:
        environ: where secret values are read from; the process environment by default.

    ``OTEL_STAGEIO_REDACT`` adds comma-separated regular expressions, tried on keys and on values.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self.count = 0
        self._secrets: tuple[str, ...] = ()
        self._extra = tuple(map(_compile, patterns_of(environ.get(ENV_REDACT, ""))))
        #: Another one once something was learnt: what was found innocent before may not be so after.
        self.innocent = _innocent(self._secrets, self._extra)
        self.learn(environ)

    def learn(self, environ: Mapping[str, str], argv: Sequence[str] = ()) -> None:
        """Take in the secrets of an environment, and of a command line, to mask them wherever they turn up."""
        kept = _secrets_in(tuple(_of_process().items() if environ is _OWN else environ.items()))
        secrets = [*_secret_words(argv), *kept]
        if secrets:
            found = {form for secret in secrets for form in _forms(secret)}
            # Longest first: one secret may be a part of another. Of one length by name: who hides the same shares.
            self._secrets = tuple(sorted({*self._secrets, *found}, key=lambda form: (-len(form), form)))
            self.innocent = _innocent(self._secrets, self._extra)

    def key(self, key: str) -> bool:
        return is_secret_key(key) or any(any(found[0] for found in pattern.finditer(key)) for pattern in self._extra)

    def suspicious(self, text: str) -> bool:
        """A cheap first look: False means that nothing in ``text`` can need masking."""
        folded = text.lower()
        return (
            _may_name_secret(folded)
            or _may_be_credential(folded)
            or ("@" in text and "://" in text)
            or bool(self._extra)
            or (bool(self._secrets) and any(secret in text for secret in self._secrets))
        )

    def text(self, text: str) -> str:
        """``text`` with every credential in it replaced by ``[redacted]``."""
        for secret in self._secrets:
            if secret in text:
                self.count += text.count(secret)
                text = text.replace(secret, MASK)
        folded = text.lower()
        if _may_be_credential(folded):  # first: what is glued to one may be a key once that is gone
            text = _CREDENTIAL.sub(self._mask, text)
            text = _SCHEME.sub(self._scheme, text)
            folded = text.lower()
        if _may_name_secret(folded):
            text = self._assignments(text, folded)
        if "@" in text and "://" in text:
            text = _USER_INFO.sub(self._user_info, text)
        for pattern in self._extra:
            # What is masked stays as it is, so that a pattern which fits the mask itself does no harm.
            text = MASK.join([pattern.sub(self._mask, part) for part in text.split(MASK)])
        return text

    def _assignments(self, text: str, folded: str) -> str:
        if len(folded) != len(text):  # a few letters have longer lower-case forms: positions must stay the same
            folded = "".join([character.lower() if character.isascii() else character for character in text])
        parts: list[str] = []
        done = 0
        for word in _KEY_WORD.finditer(folded):
            if word.start() < done:
                continue
            match = _ASSIGNED.match(text, word.end())
            if match is None:
                continue
            start = _key_start(text, folded, word.start())
            # "--password hunter2" is a secret, "the token was refused" is a sentence.
            if match["option"] and text[start] != "-":
                continue
            key = text[start : match.end("tail")]
            if not self.key(key):
                continue
            value, close = _value_at(text, match, key)
            if value.lower() in _NO_VALUE or value.startswith(MASK) or (len(value) < 6 and _is_number(key, value)):
                continue
            self.count += 1
            parts += text[done : match.end()], MASK, close
            done = match.end() + len(value) + len(close)
        return "".join(parts) + text[done:] if parts else text

    def _mask(self, match: re.Match[str]) -> str:
        if not match[0]:
            return ""
        self.count += 1
        return MASK

    def _scheme(self, match: re.Match[str]) -> str:
        self.count += 1
        return match["scheme"] + MASK

    def _user_info(self, match: re.Match[str]) -> str:
        masked = f"://{MASK}@"
        self.count += match[0] != masked
        return masked


def _key_start(text: str, folded: str, at: int) -> int:
    """Where the key begins that has its secret word at ``at``."""
    lowest = max(0, at - _LONGEST_KEY)
    while at > lowest and (text[at - 1].isalnum() or text[at - 1] in "_.-"):
        at -= 1
    for kind in _KEY_KINDS:  # "API key: …"
        if folded.endswith(kind + " ", 0, at):
            return at - len(kind) - 1
    return at


def _value_at(text: str, match: re.Match[str], key: str) -> tuple[str, str]:
    """The value after ``match``, and the quote that closes it."""
    start, opening = match.end(), match["open"]
    if opening:
        closing = opening.lstrip("bruBRU")
        end = text.find(closing, start)
        while end > 0 and len(closing) == 1 and text[end - 1] == "\\" and end > start:
            end = text.find(closing, end + 1)  # an escaped quote is part of the value
        if end < 0:  # cut off before the quote: the rest of the line
            end = text.find("\n", start)
            return text[start : end if end >= 0 else len(text)], ""
        return text[start:end], closing
    if "cookie" in key.lower():
        end = text.find("\n", start)
        return text[start : end if end >= 0 else len(text)], ""
    bare = _BARE.match(text, start)
    if bare is None:
        return "", ""
    if text.startswith(MASK, start):
        return MASK, ""
    return bare[0].rstrip("\\\"')]}>") if bare[0][0] not in "[({" else bare[0], ""


def _is_number(key: str, value: str) -> bool:
    """A number of tokens is a number; a numeric password is a password."""
    return value.isdigit() and "token" in key.lower()


def _of_process() -> Mapping[bytes, bytes]:
    """The environment of this process, as CPython keeps it: to have it decoded takes 2 µs a variable, and in a pod of
    Kubernetes, which names each service in seven, there are hundreds.
    """
    return getattr(os.environb, "_data", os.environb)


@functools.lru_cache(8)  # each stage of a process asks for the same environment
def _secrets_in(environment: tuple[tuple[str, str] | tuple[bytes, bytes], ...]) -> list[str]:
    return [secret for name, value in environment for secret in _secrets_of(os.fsdecode(name), os.fsdecode(value))]


def _secrets_of(name: str, value: str) -> tuple[str, ...]:
    """The credentials in one environment variable."""
    if name.endswith("_HEADERS"):  # OTEL_EXPORTER_OTLP_HEADERS: key=value, percent-encoded, separated by commas
        pairs = [pair.partition("=")[::2] for pair in value.split(",")]
        contents = [content for key, content in pairs if is_secret_key(key)]
        return tuple(
            form for content in contents for form in (content, unquote(content), unquote(content).rpartition(" ")[2])
        )
    if name not in ("PWD", "OLDPWD") and (is_secret_key(name) or name.endswith("_AUTH")):
        return (value,)
    return ()


def _secret_words(argv: Sequence[str]) -> Iterator[str]:
    """The credentials on a command line: ``--password x`` and ``--password=x``."""
    for position, word in enumerate(argv):
        option, equals, content = word.partition("=")
        if option.startswith("-") and is_secret_key(option):
            if equals:
                yield content
            elif position + 1 < len(argv) and not argv[position + 1].startswith("-"):
                yield argv[position + 1]


def _forms(secret: str) -> Iterator[str]:
    """A secret as it may turn up in text: as it is, and as Python, JSON and URLs write it."""
    secret = secret.strip()
    number = secret.isdigit() and len(secret) < 8
    if len(secret) < _SHORTEST_SECRET or number or secret.lower() in _HARMLESS or secret in MASK:
        return
    escaped = (repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    for form in (secret, *escaped, quote(secret, safe="", errors="replace")):
        yield form
        yield clean(form)


def patterns_of(variable: str) -> list[str]:
    """Patterns are separated by commas; the comma in ``x{8,12}`` separates nothing."""
    return [pattern.strip() for pattern in re.split(r",(?![^{}]*\})", variable) if pattern.strip()]


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error:  # a typo in a pattern must not let the secret through, nor break a stage: take it literally
        return re.compile(re.escape(pattern), re.IGNORECASE)
