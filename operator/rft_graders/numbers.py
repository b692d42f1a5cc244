"""Finds numbers in text, in the forms that people and models write.

They are Decimal, not float: with rounding errors such as in 0.1 + 0.2 exact comparisons would fail, and large
integers would equal their neighbours.
"""

import re
from decimal import Context, Decimal, DecimalException, localcontext

from rft_api.graders import Numeric

# A minus counts as a sign only where it cannot be a subtraction. An exponent has at most three digits,
# because code that expands "1e999999999" would take all memory.
_PLAIN = (
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]{1,3}(?![0-9]))?"
)
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])(?P<sign>[-+\u2212]))?(?<!\w)"
    r"(?:[$\u20ac\u00a3]\s?)?"
    r"(?:\\[dt]?frac\{\s*(?P<texnum>-?[0-9]{1,30})\s*\}\{\s*(?P<texden>[0-9]{1,30})\s*\}"
    rf"|(?P<num>{_PLAIN})(?:\s?/\s?(?P<den>[0-9]{{1,30}})(?![0-9/]|\.[0-9]))?)"
)
_CONTEXT = Context(prec=60)
_MAX_NUMBER_CHARACTERS = 1000


def find_numbers(text: str) -> list[Decimal]:
    """Return the numbers of ``text`` in order: signs, thousands separators, decimals, fractions."""
    return [n for match in _NUMBER.finditer(text) if (n := _value(match)) is not None]


def _value(match: re.Match[str]) -> Decimal | None:
    """Return the number of a match; None for too many digits, and for a fraction x/0."""
    if len(match[0]) > _MAX_NUMBER_CHARACTERS:
        return None
    try:
        with localcontext(_CONTEXT):
            if match["texnum"] is not None:
                value = Decimal(match["texnum"]) / Decimal(match["texden"])
            else:
                value = Decimal(match["num"].replace(",", ""))
                if match["den"] is not None:
                    value = value / Decimal(match["den"])
    except DecimalException:
        return None
    return value.copy_negate() if match["sign"] in ("-", "\u2212") else value


def boxed(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{…}`` with balanced braces; None when there is none."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return None


def extract_number(text: str, settings: Numeric) -> Decimal | None:
    """Return the number of the text that ``settings.extract`` selects, or None."""
    if settings.extract == "marker":
        _, found, rest = text.rpartition(settings.marker or "####")
        numbers = find_numbers(rest) if found else []
        return numbers[0] if numbers else None
    if settings.extract == "boxed":
        inside = boxed(text)
        numbers = find_numbers(inside) if inside is not None else []
        return numbers[-1] if numbers else None
    numbers = find_numbers(text)
    if not numbers:
        return None
    return numbers[0] if settings.extract == "first" else numbers[-1]


def expected_number(value: object, settings: Numeric) -> Decimal | None:
    """Return the number in a row's field, or None.

    From a text that is not just a number it is extracted as from a completion. So a field may hold a whole
    worked solution that ends with the marker and the answer.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return Decimal(str(value))
    if not isinstance(value, str):
        return None
    whole = _NUMBER.fullmatch(value.strip())
    return _value(whole) if whole is not None else extract_number(value, settings)
