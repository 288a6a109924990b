"""Secrets stay out: what looks like a credential is in no file of the job, and what merely sounds like one is kept."""

from __future__ import annotations

import json
import logging
import os
import random
import string
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry import trace

from otel_stageio import Pipeline, StageFailed, StageIO
from otel_stageio.capture import Capture
from otel_stageio.capture.redaction import MASK, Redactor, is_secret_key
from otel_stageio.capture.text import clean
from otel_stageio.layout import Job
from otel_stageio.testing import Records

# -- keys ------------------------------------------------------------------------------------------------------------

SECRET_KEYS = [
    "hf_token", "HF_TOKEN", "hfToken", "token", "tmdb_api_key", "tmdbApiKey", "TMDB-API-KEY", "api.key", "apiKey",
    "apikey", "x-api-key", "password", "Password", "db_password", "dbPassword", "userpassword", "passwd",
    "passphrase", "secret", "client_secret", "clientSecret", "secretKey", "secret_access_key",
    "aws_secret_access_key", "AWS_SESSION_TOKEN", "access_token", "refresh_token", "id.access.token", "authToken",
    "authorization", "Authorization", "http.request.header.authorization", "proxy-authorization", "credential",
    "credentials", "aws_credentials", "private_key", "privateKey", "signing_key", "ssh_key", "cookie", "set-cookie",
    "session.cookie", "jwt", "api_tokens", "accessTokens", "passwords", "secrets", "api_keys", "OAuthToken",
    "userPwd", "pwd", "bearer_token", "github_token", "token2", "my_token_", "GITLAB_TOKEN_2", "basic_auth",
    "db_pass", "user.pass",
]  # fmt: skip
PLAIN_KEYS = [
    "max_tokens", "token_count", "tokenizer", "author", "authority", "authors", "session_name", "session_id",
    "max_new_tokens", "num_tokens", "n_tokens", "tokens", "tokens_per_second", "tokenizer_path", "token_type",
    "token_ids", "eos_token", "pad_token_id", "bos_token", "special_tokens", "detokenize", "subtoken", "keyframe",
    "key", "keys", "keyboard", "hotkey", "primary_key", "monkey", "passes", "pass", "first_pass", "two_pass",
    "passthrough", "compass", "secretary", "model", "beam_size", "language", "username", "email", "name", "url",
    "path", "cwd", "basic", "bearing", "basis", "authenticity", "autotune", "tokenized", "vocab_tokens",
    "split_tokens",
]  # fmt: skip


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_a_key_that_says_secret(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize("key", PLAIN_KEYS)
def test_a_key_that_only_sounds_like_it(key: str) -> None:
    assert not is_secret_key(key)


def test_what_stands_under_a_secret_key_is_masked_whatever_it_is() -> None:
    taken = capture()
    given_config = {
        "hf_token": "abc",
        "password": 123456,
        "credentials": {"user": "ann", "pin": [1, 2]},
        "secret": ["a", b"b"],
        "api_key": None,
        "use_password": True,
        "token": 42,
        "nested": [{"deep": {"clientSecret": "x"}}],
    }
    assert taken.plain(given_config) == {
        "hf_token": MASK,
        "password": MASK,
        "credentials": MASK,
        "secret": MASK,
        "api_key": None,
        "use_password": True,
        "token": 42,
        "nested": [{"deep": {"clientSecret": MASK}}],
    }
    assert taken.counts()[0] == 5


# -- text ------------------------------------------------------------------------------------------------------------

HIDDEN = [
    ("password=hunter2", "hunter2"),
    ("password = hunter2", "hunter2"),
    ("password: hunter2, next", "hunter2"),
    ("PASSWORD:=hunter2", "hunter2"),
    ("password => hunter2", "hunter2"),
    ("--password hunter2 --verbose", "hunter2"),
    ("--password=hunter2", "hunter2"),
    ("--db-password 'hunter 2'", "hunter 2"),
    ("-hf-token hf", "hf "),
    ("login(user='ann', password='hunter2')", "hunter2"),
    ("login(password=hunter2)", "hunter2"),
    ("f(password=b'hunter2')", "hunter2"),
    ("password=hun)ter]2", "hun)ter]2"),
    ("password='it\\'s hunter2'", "hunter2"),
    ('{"password": "hunter2", "user": "ann"}', "hunter2"),
    ('{"password": "hun\\"ter2"}', "ter2"),
    ('{"body": "{\\"password\\": \\"hunter2\\"}"}', "hunter2"),
    ("{'api_key': 'hunter2'}", "hunter2"),
    ("Command '['tool', '--password', 'hunter2']' returned non-zero exit status 1", "hunter2"),
    ("credentials: ['hunter2', 'x']", "hunter2"),
    ("credentials={'pin': 'hunter2'}", "hunter2"),
    ('password="hunter2 is cut of', "hunter2"),
    ("API key: hunter2", "hunter2"),
    ("the api key is wrong: api_key=hunter2", "hunter2"),
    ("invalid credentials password=hunter2", "hunter2"),
    ("secret token=hunter2", "hunter2"),
    ("token: hunter2", "hunter2"),
    ("max_tokens=512 hf_token=hunter2", "hunter2"),
    ("https://api.example.org/3/movie?api_key=hunter2&language=en", "hunter2"),
    ("Authorization: Bearer hunter2", "hunter2"),
    ("authorization: Basic aHVudGVyMg==", "aHVudGVyMg"),
    ("Authorization: Token hunter2", "hunter2"),
    ("-H 'Authorization: Bearer hunter2'", "hunter2"),
    ("{'Authorization': 'Bearer hunter2'}", "hunter2"),
    ("[('Authorization', 'Bearer hunter2hunter2')]", "hunter2"),
    ("sent bearer AbCdEf123456 to it", "AbCdEf123456"),
    ("Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA"),
    ("Cookie: a=hunter2; b=hunter3", "hunter3"),
    ("https://ann:hunter2@example.org/x.git", "hunter2"),
    ("postgresql+psycopg://ann:hun@ter2@db/x", "ter2"),
    ("https://hunter2token@example.org/x", "hunter2token"),
    ("hf_abcdefghijklmnop", "hf_abcdefghijklmnop"),
    ("hf_AbCdEfGh12", "hf_AbCdEfGh12"),
    ("see file_hf_AbCdEfGhIjKl.txt", "AbCdEfGhIjKl"),
    ("sk-AbCdEf123456", "sk-AbCdEf123456"),
    ("sk-proj-AbCdEf_12-3456", "AbCdEf_12-3456"),
    ("ghp_AbCdEf123456", "ghp_AbCdEf123456"),
    ("github_pat_11AAA_bbb222ccc", "11AAA_bbb222ccc"),
    ("glpat-AbCdEf-123456", "AbCdEf-123456"),
    ("xoxb-123456-AbCdEf", "123456-AbCdEf"),
    ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ("(ASIAIOSFODNN7EXAMPLE)", "ASIAIOSFODNN7EXAMPLE"),
    ("AIzaSyA-1234567890_abcdefghijk", "AIzaSyA-1234567890"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "eyJzdWIiOiIxMjM0In0"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nhunter2\n-----END RSA PRIVATE KEY-----\nafter", "hunter2"),
    ("-----BEGIN PRIVATE KEY-----\nhunter2 cut of", "hunter2"),
]
KEPT = [
    "max_tokens=512, token_count: 7, tokenizer='bpe', author=Ann, session_name=main",
    "generated 412 tokens in 3.1 s (128 tokens/s)",
    "the token was refused",
    "token refused by the server",
    "the password is wrong",
    "forgot your password? ask the administrator",
    "no secret here: it is a secret garden",
    "running basic cleaning step; bearer of news; basic authentication failed",
    "Basic Authentication is required",
    "mail ann@example.org about it",
    "see https://example.org/@ann/status and mail ann@example.org",
    "git@github.com:ann/x.git",
    "using hf_transfer and hf_pipeline from hf_transformers",
    "the risk-assessment of task-management; sk-learn",
    "keyframe=12 key=value keys: a, b; KeyError: 'password'",
    "asia, ASIA and AKIA are words",
    "pass 1 of 2: first_pass=done",
    "passing --max-tokens 5 --tokenizer x --author Ann",
    "password=None token=null api_key=",
    "token=5 of 7",
    "eyJ is how they begin",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "http://localhost:4318/v1/traces",
    "PWD=/home/ann",
]


def redacted(text: str, **environ: str) -> str:
    return Redactor(environ).text(clean(text))


@pytest.mark.parametrize(("text", "secret"), HIDDEN)
def test_text_that_must_be_hidden(text: str, secret: str) -> None:
    redactor = Redactor({})
    shown = redactor.text(text)
    assert secret not in shown
    assert MASK in shown
    assert redactor.count > 0
    assert redactor.suspicious(text)
    again = Redactor({})
    assert again.text(shown) == shown
    assert again.count == 0


@pytest.mark.parametrize("text", KEPT[:-1])
def test_text_that_must_be_kept(text: str) -> None:
    redactor = Redactor({})
    assert redactor.text(text) == text
    assert redactor.count == 0


def test_the_rest_of_the_text_stays() -> None:
    text = "GET https://ann:pw123@example.org/x?api_key=abc&language=en {'password': 'x', 'user': 'ann'} (token=abc)"
    assert redacted(text) == (
        f"GET https://{MASK}@example.org/x?api_key={MASK}&language=en "
        f"{{'password': '{MASK}', 'user': 'ann'}} (token={MASK})"
    )


# -- the environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "TMDB_API_KEY", "OPENAI_APIKEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "DB_PASSWORD",
        "PGPASSWORD", "MYSQL_PWD", "CLIENT_SECRET", "MY_CREDENTIALS", "NPM_AUTH", "PRIVATE_KEY", "hf_token",
    ],
)  # fmt: skip
def test_a_secret_of_the_environment_is_hidden_wherever_it_turns_up(name: str) -> None:
    environ = {name: "swordfish", "USER": "ann"}
    assert redacted("ffmpeg -i swordfish.mkv of ann, swordfish!", **environ) == f"ffmpeg -i {MASK}.mkv of ann, {MASK}!"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PWD", "/home/ann"),
        ("OLDPWD", "/home/ann"),
        ("TOKENIZERS_PARALLELISM", "swordfish"),
        ("MAX_TOKENS", "4096000"),
        ("AUTHOR", "swordfish"),
        ("SSH_AUTH_SOCK", "/tmp/agent"),
        ("USE_TOKEN", "true"),
        ("API_TOKEN", "enabled"),
        ("HF_TOKEN", "abc"),  # too short to look for: it would be in every word
        ("DB_PASSWORD", "123456"),
        ("KEYBOARD", "swordfish"),
        ("DB_PASSWORD", "redact"),  # a part of the mask
    ],
)
def test_a_harmless_variable_hides_nothing(name: str, value: str) -> None:
    assert redacted(f"it said {value}, and so on", **{name: value}) == f"it said {value}, and so on"


def test_credentials_in_otlp_headers_are_known() -> None:
    headers = "authorization=Bearer%20swordfish1,x-api-key=goldfish22,x-scope-orgid=tenant"
    shown = redacted("sent swordfish1, goldfish22 for tenant", OTEL_EXPORTER_OTLP_HEADERS=headers)
    assert shown == f"sent {MASK}, {MASK} for tenant"


@given(st.text(st.characters(), min_size=6, max_size=20).filter(lambda text: len(text.strip()) >= 6))
@example('quote"back\\slash\nline')
@example("ä\U0001f600\x1b\udcff6%")
@example("a+b/c=d e%20")
def test_a_secret_is_known_in_every_form(secret: str) -> None:
    if (
        secret.strip().isdigit()
        or secret.strip().lower() in ("default", "optional", "required", "unknown")
        or secret.strip() in MASK
        or secret.strip().startswith("<")  # found one earlier than it was put
    ):
        return
    redactor = Redactor({"DB_PASSWORD": secret})
    bare = secret.strip()
    forms = [bare, clean(bare), repr(bare)[1:-1], json.dumps(bare)[1:-1], json.dumps(bare, ensure_ascii=False)[1:-1]]
    for form in forms:
        shown = redactor.text(clean(f"<{form}>"))
        assert shown == f"<{MASK}>", form
        assert redactor.text(shown) == shown


def test_patterns_of_the_users_own() -> None:
    patterns = r"corp-[0-9]{4,6}, ^tenant$ ,project\w*,[broken,x*"
    environ = {"OTEL_STAGEIO_REDACT": patterns}
    assert redacted("corp-1234 corp-1 projectile [broken", **environ) == f"{MASK} corp-1 {MASK} {MASK}"
    taken = Redactor(environ)
    assert taken.key("Tenant")
    assert taken.key("my-corp-12345")
    assert not taken.key("tenants")  # x* fits everything with nothing, and hides nothing
    assert redacted("nothing of it", **environ) == "nothing of it"
    assert (
        redacted(redacted("red dact", OTEL_STAGEIO_REDACT="[a-z]+"), OTEL_STAGEIO_REDACT="[a-z]+") == f"{MASK} {MASK}"
    )


# -- any text --------------------------------------------------------------------------------------------------------

PIECES = (
    [text for text, _ in HIDDEN]
    + KEPT
    + list("\"'\\=:,;&@/ -\n[]{}()")
    + ["token", "password", "Bearer ", "://", MASK, "--", "hf_", "sk-", "eyJ", "A1b2C3d4E5f6"]
)


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=12))
@settings(max_examples=500)
def test_redacting_twice_is_redacting_once(pieces: list[str]) -> None:
    environ = {"HF_TOKEN": "swordfish", "OTEL_STAGEIO_REDACT": "corp-[0-9]+"}
    once = redacted("".join(pieces), **environ)
    again = Redactor(environ)
    assert again.text(once) == once


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_a_first_look_that_finds_nothing_is_right(text: str) -> None:
    redactor = Redactor({"HF_TOKEN": "swordfish"})
    if not redactor.suspicious(text):
        assert redactor.text(text) == text


PASSWORDS = st.text(string.ascii_letters + string.digits + "!#$%*+-./:<>?@^_|~äß漢", min_size=8, max_size=24)
ALNUM = st.text(string.ascii_letters + string.digits, min_size=20, max_size=40).filter(
    lambda text: any(c.isdigit() for c in text) and any(c.isupper() for c in text)
)
AROUND = st.sampled_from(["", " ", "\n", '"', "'", "(", "[", "see ", "x, ", "\t", "the token was refused: "])
AFTER = st.sampled_from(["", " ", "\n", '"', "'", ")", "]", ", and so on", ";", "\t", ". And", "\\n"])


@given(AROUND, AFTER, ALNUM, st.integers(0, 100))
@settings(max_examples=400)
def test_a_credential_in_any_surroundings(before: str, after: str, body: str, which: int) -> None:
    credentials = [
        f"hf_{body}",
        f"sk-{body}",
        f"ghp_{body}",
        f"Bearer {body}",
        f"AKIA{body[:16].upper()}",
        f"eyJ{body}.{body}.{body}",
    ]
    credential = credentials[which % len(credentials)]
    assert body[:16].upper() not in redacted(before + credential + after).upper()


@given(AROUND, PASSWORDS, st.sampled_from(["password", "HF_TOKEN", "apiKey", "client-secret", "x.api_key"]))
@settings(max_examples=400)
def test_a_password_in_every_notation(before: str, password: str, key: str) -> None:
    nested = json.dumps({"outer": json.dumps({key: password})})
    for text in (
        f"{key}={password}", f"{key}: {password}", f"--{key}={password}", f"--{key} x{password}", f"{key}='{password}'",
        repr({key: password}), json.dumps({key: password}), nested, f"{key} => {password} next", f"[{key}={password}]",
    ):  # fmt: skip
        shown = redacted(before + text)
        assert password not in shown
        assert json.dumps(password)[1:-1] not in shown


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=8, max_size=20))
@settings(max_examples=300)
@example('it\'s "quoted" \\ and, more; (of) it}')
def test_a_quoted_password_of_any_characters(password: str) -> None:
    if password.strip("[") in MASK or password.startswith(MASK):
        return
    for text in (repr({"password": password, "user": "ann"}), json.dumps({"password": password, "user": "ann"})):
        shown = redacted(f"called with {text} and failed")
        assert password not in shown
        assert shown.endswith(("ann'} and failed", 'ann"} and failed'))


@pytest.mark.parametrize(
    "text",
    [
        "token " + "a" * 100_000,
        "a" * 100_000 + "token" + "b" * 100_000 + "=",
        "token" * 20_000,
        "token-" * 20_000 + "=x",
        "token." * 20_000 + "'",
        "token=" * 20_000,
        'token="' * 20_000,
        "token='\"" * 20_000,
        'token=\\"' * 20_000,
        "token" + " " * 100_000,
        "token " * 20_000,
        "--token " * 15_000,
        "password: [" * 10_000,
        "password=" + "\\" * 100_000,
        "password='" + "\\'" * 50_000,
        "-token', " * 12_000,
        "key" + "-_." * 30_000,
        "eyJ-" * 25_000,
        "eyJaaaa." * 12_000,
        "sk-" * 33_000,
        "sk-aaaa_" * 12_000,
        "hf_" * 33_000,
        "hf_aaaaaaa_" * 9_000,
        "ghp_" * 25_000,
        "xoxb-" * 20_000,
        "AKIA" * 25_000,
        "AIza" * 25_000,
        "-----BEGIN " * 9_000,
        "-----BEGIN" + " PRIVATE KEY" * 8_000,
        "-----BEGIN PRIVATE KEY-----" * 4_000,
        "bearer " * 14_000,
        "basic " + "a" * 100_000,
        "basic" + " " * 100_000 + "x",
        "://" * 33_000 + "@",
        "http://" + "a" * 100_000,
        "a://b@" * 16_000,
        "@://" * 25_000,
        MASK * 10_000,
        "İtoken=x " * 10_000,
    ],
    ids=range(39),
)
def test_no_text_takes_forever(text: str) -> None:
    """Some of these take a backtracking regex minutes ("tokentoken…", "eyJ-eyJ-…"); the test is that it ends."""
    redactor = Redactor({"HF_TOKEN": "swordfish"})
    once = redactor.text(text)
    assert Redactor({"HF_TOKEN": "swordfish"}).text(once) == once


# -- a whole stage ---------------------------------------------------------------------------------------------------


def capture() -> Capture:
    return Capture(Job("/somewhere/job"))


class Vault:
    """Makes secrets up, and remembers them."""

    ENV, PATTERN = "Env1roNmentSecret", "corp-123456"

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self.secrets = [self.ENV, self.PATTERN]

    def new(self, length: int = 20, alphabet: str = string.ascii_letters + string.digits) -> str:
        body = "A1b" + "".join(self._random.choices(alphabet, k=length - 3))
        self.secrets.append(body)
        return body

    def texts(self) -> list[str]:
        """One text for each kind of secret."""
        new = self.new
        upper = new(16, string.ascii_uppercase + string.digits).upper()
        self.secrets[-1] = upper
        return [
            f"hf_{new()}", f"sk-{new()}", f"ghp_{new()}", f"AKIA{upper}", f"eyJ{new()}.{new()}.{new()}",
            f"Authorization: Bearer {new()}", f"https://ann:{new()}@example.org/x", f"password={new()}",
            f"--password {new()}", json.dumps({"tmdb_api_key": new()}), repr({"clientSecret": new() + "'\"\\"}),
            f"-----BEGIN PRIVATE KEY-----\n{new(40)}\n-----END PRIVATE KEY-----", self.ENV, f"x {self.PATTERN} y",
        ]  # fmt: skip

    def leaks(self, job: Path) -> list[tuple[str, str]]:
        files = [path for path in job.rglob("*") if path.is_file()]
        assert len(files) >= 4
        return [
            (str(path.relative_to(job)), secret)
            for path in files
            for secret in self.secrets
            if secret.encode() in path.read_bytes() or secret in path.name
        ]


def raised(text: str) -> Exception:
    try:
        try:
            password = text  # its name and its value are in the traceback's source line
            raise ValueError(password)
        except ValueError as cause:
            raise RuntimeError(f"wrapped {text}") from cause
    except RuntimeError as error:
        return error


def in_a_library(text: str, what: str) -> None:
    """What an instrumented library does inside a stage: it knows the global tracer, and nothing of us."""
    with trace.get_tracer("library").start_as_current_span("GET") as span:
        if what == "attribute":
            span.set_attribute("url.full", text)
        elif what == "list":
            span.set_attribute("argv", ["curl", text])
        elif what == "key":
            span.set_attribute(text, 1)
        elif what == "secret key":
            span.set_attribute("session.cookie", f"{text}")
        elif what == "bytes":
            span.set_attribute("body", text.encode())
        elif what == "event":
            span.add_event(text, {"header": text})
        elif what == "exception":
            span.record_exception(raised(text))
        elif what == "status":
            span.set_status(trace.Status(trace.StatusCode.ERROR, text))
        elif what == "name":
            span.update_name(text)
        elif what == "link":
            context = trace.SpanContext(1, 1, is_remote=True)
            span.add_link(context, {"header": text})


def attach(io: StageIO, text: str, **what: Any) -> None:
    io.track_output(io.get_output_path("x.json"), "json", **what)


CHANNELS: dict[str, Callable[[StageIO, str], Any]] = {
    "message": lambda io, text: io.get_stage_logger().info("saying " + text.replace("%", "%%")),
    "argument": lambda io, text: io.get_stage_logger().warning("saying %s and %r", text, {"x": text}),
    "debug": lambda io, text: io.get_stage_logger().debug("%s", text),
    "traceback": lambda io, text: io.get_stage_logger().error("failed", exc_info=raised(text)),
    "another logger": lambda io, text: logging.getLogger("library").warning("%s", text),
    "warning": lambda io, text: warnings.warn(f"beware of {text}", UserWarning, stacklevel=2),
    "add_warning": lambda io, text: io.add_warning(f"beware of {text}"),
    "add_error": lambda io, text: io.add_error(f"failed: {text}"),
    "exception": lambda io, text: io.add_error("failed", raised(text)),
    "config": lambda io, text: io.set_config({"model": text, "command": ["x", text]}),
    "nested config": lambda io, text: io.add_config("outer", [{"inner": {"text": (text,)}}]),
    "config key": lambda io, text: io.set_config({text: 1, "outer": {text: 2}}),
    "config of bytes": lambda io, text: io.set_config({"raw": text.encode(), "set": {text}}),
    "resources": lambda io, text: io.set_resources(gpu=text),
    "metadata": lambda io, text: attach(io, text, note=text, more={"deep": [text]}),
    "metadata key": lambda io, text: attach(io, text, **{text: 1}),
    "file type": lambda io, text: io.track_input("a.json", text),
    "path": lambda io, text: io.track_input(f"dir/{text}.json"),
    "reason": lambda io, text: io.track_intermediate("tmp", True, text),
    "event": lambda io, text: io.event(f"happened {text}", header=text, more=[text]),
    "progress": lambda io, text: io.progress(1, 1, text),
    "span": lambda io, text: io.span("work", header=text).__enter__().end(),
    "span name": lambda io, text: io.span(text).__enter__().end(),
    "stage's span": lambda io, text: io.otel_span.set_attribute("header", text),
    "stage's span event": lambda io, text: io.otel_span.add_event("x", {"header": text}),
    "manifest": lambda io, text: io.manifest and io.manifest.add_config("x", text),
    **{
        f"library: {what}": lambda io, text, what=what: in_a_library(text, what)  # type: ignore[misc]
        for what in ("attribute", "list", "key", "bytes", "event", "exception", "status", "name", "link")
    },
}  # fmt: skip
OVERWRITTEN = {"stage's span"}


@pytest.fixture
def vault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Vault:
    monkeypatch.setenv("SERVICE_TOKEN", Vault.ENV)
    monkeypatch.setenv("OTEL_STAGEIO_REDACT", "corp-[0-9]{5,7}")
    return Vault(request.node.name)


@pytest.mark.parametrize("channel", CHANNELS)
def test_no_secret_is_in_any_file(records: Records, vault: Vault, channel: str) -> None:
    texts = vault.texts()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with StageIO("asr", records.job) as io:
            for text in texts:
                CHANNELS[channel](io, text)
            io.event("the end")
    assert vault.leaks(records.job) == []
    manifest = records.manifest("asr")
    assert manifest["status"] == "success"
    assert manifest["redactions"] >= (1 if channel in OVERWRITTEN else len(texts))


def test_nor_at_the_beginning_or_the_end_of_a_stage(records: Records, vault: Vault) -> None:
    for text in vault.texts():
        io = StageIO("asr", records.job, attributes={"header": text, "list": [text]})
        io.finalize("failed", error=text, exit_code=3, nested={"x": [text]}, api_key=vault.new())
        assert records.manifest("asr")["redactions"] >= 3
        with StageIO("mux", records.job) as io:
            io.skip(f"because of {text}")
        with pytest.raises(RuntimeError), StageIO("demux", records.job):
            raise raised(text)
        with pytest.raises(SystemExit), StageIO("tmdb", records.job):
            sys.exit(text)
        StageIO("alignment", records.job).finalize(text)
        with pytest.raises(ValueError), StageIO("ner", records.job) as io, io.span("inner"):
            raise ValueError(text)
        with Pipeline(f"name {text}", records.job, attributes={"x": text}) as run, run.stage("translation"):
            pass
    assert vault.leaks(records.job) == []


def test_nor_under_a_key_that_says_secret(records: Records, vault: Vault) -> None:
    with StageIO("asr", records.job, attributes={"hf_token": vault.new()}) as io:
        io.set_config({"hf_token": vault.new(), "outer": [{"password": [vault.new()]}]})
        io.add_config("tmdbApiKey", vault.new())
        io.set_resources(access_token=vault.new())
        attach(io, "", client_secret=vault.new(), credentials={"x": vault.new()})
        io.event("login", password=vault.new(), tokens={"refresh_token": vault.new()})
        with io.span("login", password=vault.new()):
            in_a_library(vault.new(), "secret key")
            with trace.get_tracer("library").start_as_current_span("x") as span:
                span.set_attribute("db.password", [vault.new()])
                span.set_attribute("private.key", {"x": vault.new()})
                span.set_attribute("api.key", 123456789)
                vault.secrets.append("123456789")
                span.add_event("x", {"x-api-key": vault.new(), "jwt": vault.new()})
        io.finalize(token=vault.new(), secret=vault.new())
    assert vault.leaks(records.job) == []
    assert records.manifest("asr")["redactions"] >= 14


def test_nor_when_a_long_text_is_cut_within_it(records: Records, vault: Vault) -> None:
    with StageIO("asr", records.job) as io:
        for before in range(99_900, 100_050, 7):
            io.add_warning("x" * before + f" {Vault.ENV} {Vault.ENV}")
            io.get_stage_logger("CRITICAL").info("%s", "x" * before + f" password={vault.new()}")
    vault.secrets += [secret[:10] for secret in vault.secrets]
    assert vault.leaks(records.job) == []


@settings(max_examples=40)
@given(st.sampled_from(sorted(CHANNELS)), st.integers(0, 2**32))
def test_any_secret_by_any_way(tmp_path_factory: pytest.TempPathFactory, channel: str, seed: int) -> None:
    vault, job = Vault(str(seed)), tmp_path_factory.mktemp("job")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("always")
        patch.setenv("SERVICE_TOKEN", Vault.ENV)
        patch.setenv("OTEL_STAGEIO_REDACT", "corp-[0-9]{5,7}")
        with StageIO("asr", job) as io:
            CHANNELS[channel](io, random.Random(seed).choice(vault.texts()))
    assert vault.leaks(job) == []


# -- child processes -------------------------------------------------------------------------------------------------

SAYS_EVERYTHING = """
import os, sys
print("called with", sys.argv)
print("bare", *sys.argv[1:], os.environ["HF_TOKEN"])
print("on stderr", os.environ["HF_TOKEN"], file=sys.stderr)
sys.exit(f"last words {sys.argv} {os.environ['HF_TOKEN']}")
"""


def test_nor_in_what_a_child_process_says(records: Records, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", vault.new())
    argv = [sys.executable, "-c", SAYS_EVERYTHING, f"--password={vault.new()}", f"https://ann:{vault.new()}@x/y"]
    with Pipeline("films", records.job) as run:
        result = run.command("asr", argv, check=False)
    assert result.status == "failed"
    assert vault.leaks(records.job) == []
    assert records.manifest("asr")["redactions"] > 0


def test_an_environment_that_a_test_has_put_in_the_place_of_the_processs_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {"SERVICE_TOKEN": "correct horse battery"})
    assert Redactor().text("sent correct horse battery") == f"sent {MASK}"


def test_nor_from_the_arguments_and_the_environment_of_a_command(records: Records, vault: Vault) -> None:
    argv = [sys.executable, "-c", SAYS_EVERYTHING, "--password", vault.new(), f"--api-key={vault.new()}"]
    with Pipeline("films", records.job) as run, pytest.raises(StageFailed):
        run.command("asr", argv, env={"HF_TOKEN": vault.new()})
    assert vault.leaks(records.job) == []


def test_what_a_redactor_learns_of_a_child() -> None:
    redactor = Redactor({})
    redactor.learn(
        {"HF_TOKEN": "swordfish", "USER": "annette"}, ["tool", "--password", "goldfish", "--api-key=sardine", "--token"]
    )
    assert redactor.text("swordfish goldfish sardine annette") == f"{MASK} {MASK} {MASK} annette"
    redactor.learn({"OTHER_TOKEN": "flounder"})
    assert redactor.text("swordfish flounder") == f"{MASK} {MASK}"


def test_nor_in_the_resource(records: Records, vault: Vault) -> None:
    code = f"""
import sys
from otel_stageio import StageIO
with StageIO("asr", {str(records.job)!r}) as io:
    with io.span("x"): pass
"""
    attributes = f"deployment.password={vault.new()},url=https://ann:{vault.new()}@x/y,plain={Vault.ENV}"
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=60,
        env={"PATH": "", "SERVICE_TOKEN": Vault.ENV, "OTEL_RESOURCE_ATTRIBUTES": attributes},
    )
    assert vault.leaks(records.job) == []
