"""The grader ``math``: symbolic equality with the library math-verify.

It runs in a worker process, because sympy may never end, or may use all memory. The worker process is killed
at its timeout.

The time limits of math-verify are turned off. They use Python signal handlers, which cannot interrupt C code,
such as the power of two large integers.
"""

import logging
import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

from rft_graders.numbers import boxed, is_blank, plain

# Without this, math_verify warns that its time limits are off, and logs every text that it cannot parse.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_REPEATING = re.compile(
    r"([0-9]{0,20})\.([0-9]{0,20})(?:\\(?:overline|bar)\s*\{([0-9]{1,20})\}|\\dot\s*\{?([0-9])\}?)"
    r"(?!\s*\\dot|[0-9])"
)
_DELIMITERS = ("$", "\\(", "\\[")


def equal(completion: str, row: Mapping[str, Any], field: str) -> float:
    r"""Return 1.0 if the completion's answer equals the expression in the row's field, else 0.0.

    The answer is the first of these that the completion has:

    - the last \boxed{}
    - the text after "final answer is"
    - the last formula or number

    A completion without an answer gets 0.0. Raises ValueError if the field contains no expression.
    """
    if is_blank(row.get(field)):
        raise ValueError(f"field {field} contains no expression")
    completion = plain(_with_fractions(completion))
    gold = _gold(plain(_with_fractions(_text(row.get(field), field).replace("\\$", ""))))
    if not gold:
        raise ValueError(f"field {field} contains no expression")
    found = _parsed(_boxed(completion) or completion)
    return float(
        verify(list(gold), found, timeout_seconds=None) and not _small_and_apart(gold[0], *found[:1])
    )


def _small_and_apart(first: Any, second: Any) -> bool:
    """Return whether two small numbers differ clearly, although math-verify may treat them as equal.

    Small means that both absolute values are below 0.001. A clear difference is more than 0.1 % of the larger
    absolute value. Return False if the numbers are not small, or if an argument is not a number.
    """
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
    """Return the last \\boxed{…} of a text with its content, or None if there is none.

    Only the last box is given to math-verify, which would read several boxes as one set of answers.
    """
    inside = boxed(text)
    return None if inside is None else f"\\boxed{{{inside}}}"


def _with_fractions(text: str) -> str:
    r"""Replace repeating decimals, such as 0.1\overline{6}, by fractions, which math-verify can read."""

    def fraction(match: re.Match[str]) -> str:
        whole, fixed, repeated = match[1], match[2], match[3] or match[4]
        above = int(whole + fixed + repeated) - int((whole + fixed) or "0")
        return rf"\frac{{{above}}}{{{(10 ** len(repeated) - 1) * 10 ** len(fixed)}}}"

    return _REPEATING.sub(fraction, text)


@lru_cache(maxsize=64)
def _gold(text: str) -> tuple[Any, ...]:
    r"""Parse the reference answer, which is the text of a row's field. Return the expressions in it, () if
    there are none.

    The text may lack the delimiters of LaTeX formulas, such as $, which math-verify requires.
    """
    delimited = _boxed(text) or (text if any(mark in text for mark in _DELIMITERS) else None)
    return tuple(_parsed(delimited) if delimited else _parsed(f"${text}$") or _parsed(text))


def _text(value: object, field: str) -> str:
    """Return the value of the row's field ``field`` as text. A number is written without an exponent such as
    e-7, because the letter e means Euler's number in LaTeX.

    Raises ValueError if the value is neither a text nor a number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format(Decimal(str(value)), "f")
    raise ValueError(f"field {field} contains no expression")
