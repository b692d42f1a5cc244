"""Symbolic equality, with math-verify. Runs in a worker process, as sympy may never end or take all memory.

math-verify's own time limits are turned off. They are Python signal handlers, which cannot interrupt C code
such as that of an integer power. The pool kills the process at its deadline instead.
"""

import logging
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

from rft_graders.numbers import boxed, is_blank, plain

# It warns that its time limits are off, and logs every text that it cannot parse.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_DELIMITERS = ("$", "\\(", "\\[")


def equal(completion: str, row: Mapping[str, Any], field: str) -> float:
    r"""Return 1.0 when the completion's answer equals the field's expression; no answer is 0.0.

    The answer is the last \boxed{}, else what the library finds: after "final answer is", else the last
    formula or number. Raises ValueError for a field that holds no expression.
    """
    if is_blank(row.get(field)):
        raise ValueError(f"field {field} holds no expression")
    completion = plain(completion)
    gold = _gold(plain(_text(row.get(field), field)))
    if not gold:
        raise ValueError(f"field {field} holds no expression")
    found = _parsed(_boxed(completion) or completion)
    return float(
        verify(list(gold), found, timeout_seconds=None) and not _small_and_apart(gold[0], *found[:1])
    )


def _small_and_apart(first: Any, second: Any) -> bool:
    """Return whether two small numbers differ: the library only compares their difference with zero."""
    if not (getattr(first, "is_number", False) and getattr(second, "is_number", False)):
        return False
    try:
        sizes = [complex(first.doit().evalf()), complex(second.doit().evalf())]
    except (TypeError, ValueError, AttributeError, OverflowError):
        return False
    largest = max(map(abs, sizes))
    return largest < 1e-3 and abs(sizes[0] - sizes[1]) > 1e-3 * largest


def _parsed(text: str) -> list[Any]:
    return list(parse(text, parsing_timeout=None))


def _boxed(text: str) -> str | None:
    """Return only the last box: the library would take all boxes together as one set of answers."""
    inside = boxed(text)
    return None if inside is None else f"\\boxed{{{inside}}}"


@lru_cache(maxsize=64)
def _gold(text: str) -> tuple[Any, ...]:
    r"""Parse a row's field, which may be bare LaTeX; the library reads LaTeX only in $…$ or \boxed{}."""
    delimited = _boxed(text) or (text if any(mark in text for mark in _DELIMITERS) else None)
    return tuple(_parsed(delimited) if delimited else _parsed(f"${text}$") or _parsed(text))


def _text(value: object, field: str) -> str:
    """Return a field's text; a number is written without exponent, as LaTeX reads e as Euler's number."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format(Decimal(str(value)), "f")
    raise ValueError(f"field {field} holds no expression")
