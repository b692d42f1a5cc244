"""Decides whether a value in a text is secret, by the name beside the value.

For example, the value of ``HF_TOKEN`` is secret, and the value of ``maxTokens`` is not.
"""

import re
from functools import lru_cache
from itertools import pairwise
from typing import Literal

REDACTED = "[redacted]"
"""The text that replaces a secret."""

Kind = Literal["secret", "token"]
"""The kind of a name beside a value that may be secret.

- ``secret``: almost every value beside this name is secret. An example is ``password``.
- ``token``: the form of the value decides, because the name may also be about the tokens of a language model.
  An example is ``token``."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRETS = _set(
    "password passwords passwd passphrase passwort pwd secret secrets credential credentials creds apikey"
    " apikeys authkey accesskey secretkey privatekey passcode pw"
)
_SECRET_ENDS = ("password", "passwd", "passphrase", "secret", "apikey", "accesskey", "secretkey")
"""Names that end with one of these words have secret values. Examples are ``PGPASSWORD`` and ``password``."""
_OWNERS_OF_KEYS = _set(
    "api access secret private account storage master signing encryption auth shared subscription service"
    " ssh deploy license licence admin root hmac client consumer webhook openai anthropic azure aws gcp"
    " wandb hf functions"
)
"""If one of these words is right before ``key`` in a name, the values of this name are secret, as with
``api_key``."""
_REFERENCES = _set("ref refs pull existing")
"""If a name has one of these words, its value is only the name of a Secret. An example is ``secretRef``."""
_ABOUT_SECRETS = _set(
    "name names file files filename path paths dir folder type kind id ids count counts length len limit"
    " limits size budget index number num ttl expiry expires expiration lifetime url uri endpoint version"
    " audience issuer policy required enabled used missing field mount volume provider seconds rate usage"
    " class manager store operator driver error errors namespace hint rotation age"
)
"""If a name ends with one of these words, its value only describes a secret, and is not secret itself. An
example is ``tokenFile``."""
_OF_TEXT = _set(
    "eos bos pad unk sep cls mask stop end start special image video audio begin last first next previous"
    " per prompt completion max min new num total stale sampled top added vocab boundary unexpected invalid"
    " each input output cached reasoning"
)
"""If a name has ``token`` and one of these words, its value is not secret: the name is about the tokens of a
text, as in ``eos_token``, or about the next page of a list, as in ``next_token``."""
_NO_SECRET_KEYS = _set("primary foreign public sort partition cache row group hash host")
"""If one of these words is right before ``KEY`` in the name of an environment variable, the value is not
secret. An example is the key of a cache."""
_OF_PEOPLE = _set("access api auth secret refresh bearer personal hub")
"""If a name has ``tokens`` and one of these words, its value may be secret, as with ``access_tokens``."""
_NOTHING = re.compile(
    r"(?:none|null|nil|true|false|yes|no|undefined|unset|\(unset\)|\.{2,}|\*+|x{3,}|-+|\W"
    r"|<[^>]*>?|\$\w+|\$\{[^}]*\}?|\$\([^)]*\)?|\{\{[^}]*\}\}|%\w+%"
    r"|[~.]{0,2}(?:/[\w.-]+)+\.(?:key|pem|crt|json|txt|ya?ml|env|cfg|ini))[.,;)]*",
    re.IGNORECASE,
)
"""Matches values that are never secret: empty and masked values, true and false, names of variables, and
names of files."""
_NUMBER = re.compile(r"[-+~<>=]{0,3}\d[\d.,_]*(?:e[-+]?\d+)?(?:%|[a-z]{1,3}(?:/s)?)?", re.IGNORECASE)
_LETTER = re.compile(r"[^\W\d_]")
_PROSE = re.compile(
    r"(?:is|are|was|were|must|not|no|cannot|can't|could|should|has|have|had|the|a|an|unable|failed|invalid"
    r"|missing|required|expected|unexpected|wrong|denied|it|use|set|give|see|read|of|in|for|from|to|and|or"
    r"|unauthorized|expired|refused|bad|too|only|either|one|at|on|with|by|this|that|there|permission"
    r"|authentication)(?=[ \t]\S)",
    re.IGNORECASE,
)
"""Matches the first word after a name and a colon, if this word shows that a sentence follows and no secret.
An example is ``is`` in ``password: is missing``."""
_PIECES_OF_TEXT = (" ", "Ġ", "▁", "##", "<|", "[")
"""Characters with which tokens of a language model begin, such as ``Ġthe`` or ``<|end|>``.

A value that begins like this is usually such a token, and no secret.
"""
_ORDINARY = 100
"""Maximum number of characters of an ordinary word, number or file name. A longer value beside a name that
has a ``Kind`` is secret, unless it begins a sentence."""


@lru_cache(4096)
def kind_of(name: str) -> Kind | None:
    """Return how likely values beside this name are secret: ``secret`` means almost always, and ``token``
    means that the form of the value decides. Return None if the values are not secret.
    """
    words = _words(name)
    if not words or words[-1] in _ABOUT_SECRETS or not _REFERENCES.isdisjoint(words):
        return None
    if not _SECRETS.isdisjoint(words) or "".join(words).endswith(_SECRET_ENDS) or _is_key(words):
        return "secret"
    if words[-1] == "pass" and (name.startswith("-") or (len(words) > 1 and name.isupper())):
        return "secret"
    if words[-1] == "key" and len(words) > 1 and name.isupper() and words[-2] not in _NO_SECRET_KEYS:
        return "token"
    if "token" in words or words[-1].endswith("token"):
        return "token" if _OF_TEXT.isdisjoint(words) else None
    return "token" if "tokens" in words and not _OF_PEOPLE.isdisjoint(words) else None


def holds_secret(name: str, value: str, sentence: str = "") -> bool:
    """Return whether ``value``, which is beside ``name`` in a text, is secret.

    It is not secret if ``kind_of(name)`` is None, or if it is empty, masked, or a value such as ``true`` or
    ``$TOKEN``. If the kind is ``token`` (the name may be about a language model's tokens), numbers and most
    words in a sentence are not secret either.

    ``sentence`` is the text from the value on. Pass it only if the value has no quotes and follows a colon
    and a space. Such a value is not secret if it begins a sentence, as in ``password: is missing``.
    """
    kind, start = kind_of(name), value[:_ORDINARY].strip()
    if kind is None or not start or start.startswith(REDACTED[:-1]):
        return False
    if len(value) <= _ORDINARY and _NOTHING.fullmatch(start):
        return False
    if _PROSE.match(sentence):
        return False
    if kind == "secret":
        return True
    if len(value) > _ORDINARY:
        return True
    if value.startswith(_PIECES_OF_TEXT) or _NUMBER.fullmatch(value) or not _LETTER.search(value):
        return False
    if not sentence or len(_words(name)) > 1:
        return len(value) > 2
    return len(value) >= 16 or (len(value) >= 6 and any(c.isdigit() for c in value))


def _words(name: str) -> list[str]:
    """Split a name in camelCase, snake_case or another form into its words, and return them in lower case."""
    return [word.lower() for word in _WORDS.findall(name)]


def _is_key(words: list[str]) -> bool:
    of_owner = any(owner in _OWNERS_OF_KEYS and key in ("key", "keys") for owner, key in pairwise(words))
    return of_owner or words[-2:] == ["access", "signature"]
