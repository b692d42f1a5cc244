"""Removes text that looks like a secret from log lines that are written into a status. Pure.

A person may be allowed to read RFTJobs, but not the logs of their pods. Patterns cannot find every secret, so
the operator shows only a few last lines.
"""

import re

REDACTED = "[redacted]"

_SECRET_NAME = r"[\w.-]*(?:token|secret|passw(?:or)?d|api[_-]?key|access[_-]?key|credential)[\w.-]*"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # HTTP headers, whatever the scheme.
        (
            r"\b(authorization['\"]?\s*[:=]\s*['\"]?)(?:(?:bearer|basic|token)\s+)?[^\s'\",]+",
            rf"\1{REDACTED}",
        ),
        (r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", rf"\1 {REDACTED}"),
        # name=value, "name": "value", --name value.
        (rf"({_SECRET_NAME}['\"]?\s*[:=]\s*)(['\"])[^'\"]*\2", rf"\1\2{REDACTED}\2"),
        (rf"({_SECRET_NAME}['\"]?\s*[:=]\s*)[^\s'\",;&]+", rf"\1{REDACTED}"),
        (rf"(--{_SECRET_NAME}\s+)[^\s-]\S*", rf"\1{REDACTED}"),
        # scheme://user:password@host
        (r"\b([a-z][a-z0-9+.-]*://)[^\s/@]+@", rf"\1{REDACTED}@"),
    )
) + tuple(
    (re.compile(pattern), REDACTED)
    for pattern in (
        r"\beyJ[\w-]+\.[\w-]*(?:\.[\w-]*)?",  # JSON web tokens, of service accounts too
        r"\bhf_[A-Za-z0-9]{8,}",
        r"\bsk-[\w-]{16,}",
        r"\bgh[pousr]_[A-Za-z0-9]{16,}",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        r"\b[0-9a-fA-F]{40,}\b",  # API keys of wandb. Hashes are redacted too, which does little harm.
    )
)


def redacted(line: str) -> str:
    """Return ``line`` without control characters, and with text that looks like a secret replaced."""
    for pattern, replacement in _PATTERNS:
        line = pattern.sub(replacement, line)
    return "".join(character for character in line if character.isprintable() or character == "\t")
