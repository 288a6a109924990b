"""Text that is safe in a log line: no control characters, no forged lines, no lone surrogates."""

from __future__ import annotations

import re

# C0 and C1 controls except tab and newline, DEL, Unicode line and paragraph separators, surrogates.
# Everything that str.splitlines() takes for a line break is in here, apart from "\n" itself.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FORGED = re.compile(r"\n(?=\[)")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def clean(text: str) -> str:
    """Escape (never drop) what a terminal, a log parser or UTF-8 would choke on; ``\\r\\n`` becomes ``\\n``.

    Example:
        >>> clean("a\\x1b[31mb")
        'a\\\\x1b[31mb'
    """
    if text.isprintable():  # one C call, and true of nearly every line
        return text
    if "\r\n" in text:
        text = text.replace("\r\n", "\n")
    return _CONTROL.sub(_escape, text)


def one_record(text: str) -> str:
    """A record's further lines never begin with ``[``, so none can pass for a record of its own."""
    if "\n[" in text:
        return _FORGED.sub("\n ", text)
    return text
