"""Finds secrets in a text, such as an error message, and replaces them.

Like secret scanners for source code, this module finds tokens by their form, values by the name beside them,
and passwords in addresses. It does not find a secret that has neither a known form nor a name beside it. A
hash without a name does not count as a secret, because revisions and digests look the same.
"""

import html
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import unquote

from rft_api.controls import without_controls
from rft_run.secret_forms import without_credentials, without_tokens
from rft_run.secret_names import REDACTED, holds_secret, kind_of

Match = re.Match[str]

_PASSES = 4
"""Maximum number of times that a text is searched for secrets. After one search has replaced or decoded a
secret, the next may find another secret beside it."""
_HINT = re.compile(
    r"pass|pwd|pw|secret|token|key|cred|auth|cookie|bearer|basic|sess|sid=|signature|[?&]sig=|-u|--user|login"
    r"|mysql|mongo|redis-cli|docker",
    re.IGNORECASE,
)
_NAME = re.compile(
    # name=value, name: value, "name": value, ["name"] = value. A value in quotes may be on the next line.
    r"(?<![\w.-])(?P<paren>\()?(?P<open>b?\\{0,7}[\"'])?(?P<name>[\w.-]++)(?P<close>\\{0,7}[\"'])?"
    r"(?:(?P<field>\]?[ \t]*(?::=|={1,3}>?|:)(?:\s*(?=b?\\*[\"'\[])|[ \t]*)(?:!\S+[ \t]+)?)"
    r"|(?P<pair>\s*,\s*(?=b?[\"'])))"
)
_IS = r"\\{0,7}[\"']?\s*+[:=]\s*+"
_OF_FIELDS = re.compile(
    # Fields that belong together, as in {"name": "HF_TOKEN", "value": "x"} and {"token": {"value": "x"}}
    rf"(?<![\w.-])(?:(?:name|key){_IS}\\{{0,7}}[\"']?(?P<name>[\w.-]++)\\{{0,7}}[\"']?[\s,]*+|(?P<outer>[\w.-]++){_IS}\{{?+\s*+)"
    rf"\\{{0,7}}[\"']?value\\{{0,7}}[\"']?\s*+[:=][ \t]*",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(?<![\w-])(?P<name>--?[A-Za-z][\w.-]*+)(?:[\"'],?\s+(?=[\"'])|[ \t]+(?!-))")
"""Matches the name of a command line option before its value, as in ``--name value`` or
``"--name", "value"``."""
_QUOTE_END = r"(?=[\s,;:)\]}>&|\\.]|$|[\w.-]+\\{0,7}[\"']\s*[:=])"
"""Matches what may follow the closing quote of a value: a space, a punctuation mark, the end of the text, or
the next name with its closing quote, as in ``b": ``."""
_QUOTED = re.compile(
    r"[bBrRuUfF]{0,2}(?P<quote>\"{3}|'{3}|\\{0,7}[\"'])"
    rf"(?P<value>(?:(?!(?P=quote){_QUOTE_END})[\s\S]){{0,4000}})(?P=quote){_QUOTE_END}"
)
_UNENDED = re.compile(r"[bBrRuUfF]{0,2}\\{0,7}[\"'](?P<value>[^\n]*)")
_LIST = re.compile(r"\[(?P<value>(?!redacted\])[^\]]*)")
_BLOCK = re.compile(r"[|>][+-]?\d?[ \t]*\n(?P<value>[ \t]+[^\n]*(?:\n[ \t]+[^\n]*)*)")
_BARE = re.compile(
    r"(?P<value>[^\s\"',;&\[{](?:[^\s\"',;&]|[,;&\"'](?=[^\s\"',;&)\]}\\])(?!\w+[=:]))*)(?<![)\]}>.`])"
)
_SENTENCE = 40
"""Number of characters from the beginning of a value that decide whether the value is only a word of a
sentence, and so no secret.
"""
_LINE = re.compile(r"(?P<value>[^\s\"'\[{][^\n]*)")


def redacted(text: str) -> str:
    """Return ``text`` in which each part that looks like a secret is replaced by ``[redacted]``.

    Remove control characters from the text first, because a secret that contains one is not found.
    """
    for _ in range(_PASSES):
        once = _redacted(text)
        if "%" in once or "&" in once:
            once = re.sub(r"\S+", _decoded, once)
        if once == text:
            break
        text = once
    return text


def _redacted(text: str) -> str:
    text = without_tokens(text)
    if "@" not in text and not _HINT.search(text):
        return text
    text = without_credentials(text)
    return _without(text, _values(text))


def _decoded(found: Match) -> str:
    """Decode a word that is encoded for a URL or for HTML, and search it for a secret. ``found`` matches the
    word.

    Return the decoded word with the secret replaced. If it has no secret, return the word unchanged.
    """
    plain = found[0]
    for _ in range(3):
        decoded = html.unescape(unquote(plain))
        if decoded == plain:
            break
        plain = without_controls(decoded)
        hidden = _redacted(plain)
        if hidden != plain:
            return hidden
    return found[0]


class _Named(NamedTuple):
    """A name in a text, such as ``password`` in ``password: x``, and the place of the value beside the name.
    The value may be a secret.
    """

    name: str
    at: int
    """The index in the text at which the value begins."""
    in_prose: bool = False
    """Whether a colon and a space are between the name and its value. If true, name and value may be words of
    a sentence."""
    is_line: bool = False
    """Whether a value without quotes ends only at the end of its line, as in YAML. If false, it ends at the
    first space."""
    is_quotation: bool = False
    """Whether the name may be a quoted word of a sentence, as in: volume "token" : secret. If true, a value
    without quotes is not secret."""


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts, at = [], 0
    for start, end in spans:
        if start >= at:
            parts += [text[at:start], REDACTED]
            at = end
    return "".join((*parts, text[at:]))


def _values(text: str) -> list[tuple[int, int]]:
    """Find the values in ``text`` that are secret because of the name beside them. Return the start and end
    index of each, in ascending order.
    """
    beside = (
        _named(text, found)
        for found in _NAME.finditer(text)
        if found["field"] or (found["paren"] and found["open"] and found["close"])
    )
    of_fields = (_Named(found["name"] or found["outer"], found.end()) for found in _OF_FIELDS.finditer(text))
    options = (_Named(found["name"], found.end()) for found in _OPTION.finditer(text))
    return sorted(span for names in (beside, of_fields, options) for span in _spans(text, names))


def _spans(text: str, names: Iterable[_Named]) -> Iterator[tuple[int, int]]:
    end = 0
    for named in names:
        # A name inside a value that is replaced anyway is skipped. The text after this name may be long, and
        # searching it for a value would only take time.
        if named.at >= end and kind_of(named.name) is not None and (span := _span(text, named)) is not None:
            yield span
            end = span[1]


def _named(text: str, found: Match) -> _Named:
    field = found["field"] or ""
    before = text[text.rfind("\n", 0, found.start()) + 1 : found.start("name")]
    in_prose = ":" in field and field[-1] in " \t"
    is_line = in_prose and not before.strip(" \t-") and kind_of(found["name"]) == "secret"
    quoted = found["close"] is not None and field[:1] in (" ", "\t")
    return _Named(found["name"], found.end(), in_prose, is_line, quoted)


def _span(text: str, named: _Named) -> tuple[int, int] | None:
    """Return the start and end index of the value of the name ``named`` in ``text``.

    Return None if the name has no value, or if the value is not secret.
    """
    bare = _LINE if named.is_line else _BARE
    matches = (pattern.match(text, named.at) for pattern in (_QUOTED, _UNENDED, _LIST, _BLOCK, bare))
    value = next((match for match in matches if match is not None), None)
    if value is None or (value.re is bare and named.is_quotation):
        return None
    start, end = value.span("value")
    sentence = text[start : start + _SENTENCE] if value.re is bare and named.in_prose else ""
    return (start, end) if holds_secret(named.name, text[start:end], sentence) else None
