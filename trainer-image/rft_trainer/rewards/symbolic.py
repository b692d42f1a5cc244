"""Symbolic equality, by math-verify. Runs in a worker process: sympy may take for ever or all memory.

Its own time limits are turned off, as they are Python signal handlers: an integer power is computed in C,
which no handler interrupts. The pool's deadline kills the process instead.
"""

import logging
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

from rft_trainer.rewards.numbers import boxed

# Its warning that time limits are off, and every text that does not parse.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_DELIMITERS = ("$", "\\(", "\\[")


def equal(completion: str, row: Mapping[str, Any], field: str) -> float:
    r"""Return 1.0 when the completion's answer equals the field's expression; no answer is 0.0.

    The answer is the last \boxed{}, else what the library finds: after "final answer is", else the last
    formula or number. Raises ValueError for a field that holds no expression.
    """
    gold = _gold(_text(row.get(field), field))
    if not gold:
        raise ValueError(f"field {field} holds no expression")
    return float(verify(list(gold), _parsed(_boxed(completion) or completion), timeout_seconds=None))


def _parsed(text: str) -> list[Any]:
    return list(parse(text, parsing_timeout=None))


def _boxed(text: str) -> str | None:
    """Return the last box alone: the library takes all boxes together as one set, a corrected answer too."""
    inside = boxed(text)
    return None if inside is None else f"\\boxed{{{inside}}}"


@lru_cache(maxsize=64)
def _gold(text: str) -> tuple[Any, ...]:
    r"""Parse what a row holds: LaTeX may come bare there; the library reads it only in $…$ or \boxed{}."""
    delimited = _boxed(text) or (text if any(mark in text for mark in _DELIMITERS) else None)
    return tuple(_parsed(delimited) if delimited else _parsed(f"${text}$") or _parsed(text))


def _text(value: object, field: str) -> str:
    """Return a field's text; numbers without an exponent, in which LaTeX has Euler's number."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format(Decimal(str(value)), "f")
    raise ValueError(f"field {field} holds no expression")
