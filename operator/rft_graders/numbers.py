"""Finds numbers in text, in the forms that people and models write.

The numbers are Decimal, not float. With float, rounding errors such as in 0.1 + 0.2 would make exact
comparisons fail, and two large integers that differ by 1 could be equal.

Some places in a text can be read as several numbers, such as 2,5 or 5-7. Such a place has several values.
Other places look like a number but are only a part of a term, such as 3 in 3π. Such a place has no value.
``find_numbers`` returns all values. Functions that return one number return None if a place has several
values or no value.
"""

import re
from decimal import Context, Decimal, DecimalException, localcontext
from typing import NamedTuple

from rft_api.graders import Numeric
from rft_graders.text import THIN_SPACE, closing_brace, normalized

# Letters of scripts that form names with digits, such as x2 and H2O. A number may begin directly after a
# letter of any other script, because many of those scripts are written without spaces.
NAME_LETTERS = (
    "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u03ff\u0400-\u052f\u1e00-\u1fff"
)
# No number begins inside a name, in an index or exponent, or under a root.
_BEGIN = (
    rf"(?<![{NAME_LETTERS}0-9^\u221a])(?<![{NAME_LETTERS}0-9)\]}}]_)(?<![\^_]\{{)"
    r"(?<!\\sqrt)(?<!\\sqrt[{\[])(?<!\]\{)"
)
# A minus counts as a sign only where it cannot be a subtraction.
_SIGN = (
    r"(?:(?<=[=({$#])\s?(?P<apart>[-+])\s|(?P<both>\u00b1|\\pm(?![a-z]))\s?"
    rf"|(?<![{NAME_LETTERS}0-9)\]}}%])(?P<sign>[-+\u2013]))?"
)
_CURRENCY = "(?P<currency>\\\\?[$\u20ac\u00a3\u00a5\u20b9\u20a9\u20bd\u20ba]\\s?)?"
# An exponent has at most three digits, because code that expands "1e999999999" would take all memory.
_EXPONENT = r"(?:[eE][-+]?[0-9]{1,3}(?![0-9]))?"
_SPACED = (
    rf"[1-9][0-9]{{0,2}}(?P<gap>[ {THIN_SPACE}])[0-9]{{3}}(?:(?P=gap)[0-9]{{3}})*+(?:[.,][0-9]+)?+(?![0-9])"
)
_GLUED = rf"(?:[0-9]++|\.[0-9]++){_EXPONENT}(?:[.,'_:\u2013/-][0-9]++{_EXPONENT})*+"
_BRACES = r"\{(?:[^{}]|\{[^{}]{0,200}+\}){0,200}+\}"
_FRACTION = rf"\\[dtc]?frac\s?(?P<top>[0-9]|{_BRACES})\s?(?P<bottom>[0-9]|{_BRACES})"
_RATIO = r"(?P<top2>[0-9]{1,15})\s?/\s?(?P<bottom2>[0-9]{1,15})(?![0-9/]|[.,][0-9])"
_RAISED = r"(?:\{\s?(?P<%s>[-+]?[0-9]{1,3})\s?\}|(?P<%s>[-+]?[0-9]{1,3})(?![0-9]))"
_TAIL = (
    rf"(?:\s?(?:\\times|\\cdot|[\u00d7\u00b7\u22c5*xX])\s?10\s?(?:\^|\*\*)\s?{_RAISED % ('ten', 'ten2')}"
    rf"|\s?\^\s?{_RAISED % ('power', 'power2')})?"
)
_PERCENT = r"(?P<percent>\s?\$?\\?%|\s?\u2030|\s?(?i:per\s?cent|pct|prozent)(?![A-Za-z]))?"
_PRODUCT = (
    r"(?P<product>\s?(?:\)?\s?\^(?!\s?\{?\s?\\circ)|\\sqrt|\\[dtc]?frac|\\pi(?![a-z])|[\u03c0\u221a]))?"
)
_NUMBER = re.compile(
    f"{_SIGN}{_CURRENCY}"
    rf"(?:(?:{_BEGIN}(?P<whole>[0-9]{{1,15}})\s?)?{_FRACTION}"
    rf"|{_BEGIN}(?:(?P<whole2>[0-9]{{1,15}})[ {THIN_SPACE}]{_RATIO}"
    rf"|(?P<spaced>{_SPACED})|(?P<glued>{_GLUED})(?:\s?/\s?(?P<over>[0-9]{{1,30}})(?![0-9/]|\.[0-9]))?){_TAIL})"
    f"{_PERCENT}{_PRODUCT}"
)
_PARTS = re.compile(r"(?<![eE])[-\u2013:]")
_PLAIN = re.compile(rf"[0-9]*\.?[0-9]+{_EXPONENT}")
_POINT_LAST = re.compile(
    rf"(?:[1-9][0-9]{{0,2}}(?P<mark>[,'_ {THIN_SPACE}])[0-9]{{3}}(?:(?P=mark)[0-9]{{3}})*"
    r"|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3})(?:\.[0-9]+)?" + _EXPONENT
)
_COMMA_LAST = re.compile(
    rf"[1-9][0-9]{{0,2}}(?:(?P<mark>[.' {THIN_SPACE}])[0-9]{{3}}(?:(?P=mark)[0-9]{{3}})*,[0-9]+"
    r"|\.[0-9]{3}(?:\.[0-9]{3})+)"
)
_CONTEXT = Context(prec=60)
# With this precision the difference of any two numbers that are found is exact.
_DIFFERENCE = Context(prec=10_000)
_MAX_NUMBER_CHARACTERS = 1000
_EXPRESSION = re.compile(
    r"\\(?:sqrt|pi|ln|lg|log|exp|sin|cos|tan|cot|sec|csc|arc[a-z]+|sinh|cosh|tanh)(?![A-Za-z])|[\u221a\u03c0]"
    r"|[\^_]\s*\{?\s+[0-9]|(?<![A-Za-z\\])[A-Za-z]\s*[-+*/]\s*[0-9]|[0-9]\s*[-+*]\s*[A-Za-z](?![A-Za-z])"
)
"""Matches what makes a number in a \\boxed{} a part of an expression, such as a root or a variable."""
_EQUALS = re.compile("[=\u2248]|\\\\approx")


class Number(NamedTuple):
    """A number that was read from a text, where a percent or per mille sign may follow it.

    - ``value``: the value with the sign applied. For 20% this is 0.2.
    - ``bare``: the value without the sign. For 20% this is 20. If there is no sign, both values are equal.
    """

    value: Decimal
    bare: Decimal

    @property
    def has_sign(self) -> bool:
        """Whether a percent or per mille sign changes the value."""
        return self.value != self.bare

    def negated(self) -> "Number":
        """Return the number multiplied by -1, without rounding."""
        return Number(self.value.copy_negate(), self.bare.copy_negate())


def _places(text: str) -> list[tuple[Number, ...]]:
    """Find all places in the text that look like a number, in order. Return for each place the numbers that
    it may mean: most often one, but for some places several or none, see ``_readings``.
    """
    return [_readings(match) for match in _NUMBER.finditer(normalized(text))]


def _one(readings: tuple[Number, ...]) -> Number | None:
    """Return the only number in ``readings``, or None if ``readings`` does not have exactly one number."""
    return readings[0] if len(readings) == 1 else None


def find_numbers(text: str) -> list[Decimal]:
    """Return all numbers in a text, in their order. A place that may mean several numbers, such as 2,5, gives
    all of them.

    Signs, thousands separators, decimal points, fractions, powers and percent signs are read: 20% gives 0.2.
    """
    return [number.value for readings in _places(text) for number in readings]


def _at_the_beginning(text: str) -> str:
    """Return ``text`` after an equals sign, so that a minus at its beginning is a sign and no subtraction."""
    return f"={text.strip()}"


def only_number(text: str) -> Number | None:
    """Return the number if the whole text is one number, such as "1,000" or "20%".

    Return None if the text has other words, or may mean several numbers.
    """
    match = _NUMBER.fullmatch(_at_the_beginning(normalized(text)), 1)
    return None if match is None else _one(_readings(match))


def _readings(match: re.Match[str]) -> tuple[Number, ...]:
    """Return the numbers that a match of ``_NUMBER`` may mean: most often one, but 2 and 5 for 2,5.

    Return () if the number is too long, is divided by 0, or is only a factor of a larger term.
    """
    before = _before(match)
    if len(match[0]) > _MAX_NUMBER_CHARACTERS or match["product"]:
        return ()
    if match["top"] and not match["whole"] and re.match(rf"[{NAME_LETTERS}0-9)\]}}^_]", before):
        return ()  # a factor of something else
    try:
        with localcontext(_CONTEXT):
            sizes = [_raised(size, match) for size in _sizes(match)]
            numbers = tuple(Number(_part(size, match["percent"]), size) for size in sizes)
    except DecimalException:
        return ()
    if match["both"]:
        return tuple(signed for number in numbers for signed in (number, number.negated()))
    negative = (match["sign"] or match["apart"]) in ("-", "\u2013")
    return (numbers[0].negated(), *numbers[1:]) if negative and numbers else numbers


def _before(match: re.Match[str]) -> str:
    """Return the character before a match, or "" if the match is at the start of the text."""
    return match.string[max(match.start() - 1, 0) : match.start()]


def _sizes(match: re.Match[str]) -> tuple[Decimal, ...]:
    """Return the values that a match of ``_NUMBER`` may have, before its sign, power and percent sign are
    applied.

    Raises DecimalException, for example for a division by 0.
    """
    top, bottom = match["top"] or match["top2"], match["bottom"] or match["bottom2"]
    if top is not None:
        whole = match["whole"] or match["whole2"]
        return _mixed(Decimal(whole) if whole else None, _argument(top), _argument(bottom))
    if match["gap"] == " " and " 0" not in match["spaced"]:  # one number with spaces, or several
        return tuple(value for part in match["spaced"].split() for value in _glued(part))
    values = _glued(match["spaced"] or match["glued"])
    return tuple(value / Decimal(match["over"]) for value in values) if match["over"] else values


def _argument(text: str) -> Decimal | None:
    number = only_number(text[1:-1] if text.startswith("{") else text)
    return None if number is None else number.value


def _mixed(whole: Decimal | None, top: Decimal | None, bottom: Decimal | None) -> tuple[Decimal, ...]:
    """Return, as a tuple, the value of a fraction such as 1/2, or of a mixed fraction such as 3 1/2.

    If ``whole`` is None, the value is ``top`` / ``bottom``. Otherwise it is ``whole`` + ``top`` / ``bottom``.
    But if ``top`` / ``bottom`` is not between 0 and 1, the text is no mixed fraction: then return two values,
    ``whole`` and ``top`` / ``bottom``. Return () if ``top`` or ``bottom`` is None.
    """
    if top is None or bottom is None:
        return ()
    part = top / bottom
    if whole is None:
        return (part,)
    return (whole + part,) if 0 < part < 1 else (whole, part)


def _glued(text: str) -> tuple[Decimal, ...]:
    """Return the values of a text of digits with separators: one value for 1,000, but 2 and 30 for 2:30.

    Raises DecimalException, for example for a division by 0.
    """
    parts = _PARTS.split(text)
    if len(parts) > 1:
        return tuple(value for part in parts for value in _glued(part))
    if len(parts := text.split("/")) == 2:
        top, bottom = map(_glued, parts)
        return (top[0] / bottom[0],) if len(top) == len(bottom) == 1 else ()
    if _PLAIN.fullmatch(text):
        return (Decimal(text),)
    if _POINT_LAST.fullmatch(text):
        return (Decimal(re.sub(rf"[,'_ {THIN_SPACE}]", "", text)),)
    if _COMMA_LAST.fullmatch(text):
        return (Decimal(re.sub(rf"[.' {THIN_SPACE}]", "", text).replace(",", ".")),)
    return tuple(Decimal(part) for part in re.split("[,'_/]", text) if _PLAIN.fullmatch(part))


def _raised(value: Decimal, match: re.Match[str]) -> Decimal:
    """Return a number with its power applied. ``match`` is a match of ``_NUMBER``, which may have a power of
    ten as a factor (``1.5 × 10^3``) or an exponent (``2^10``).

    Return ``value`` unchanged without them. Raises DecimalException if the result is too large or undefined.
    """
    if ten := match["ten"] or match["ten2"]:
        return value.scaleb(int(ten))
    power = match["power"] or match["power2"]
    return value ** int(power) if power else value


def _part(value: Decimal, percent: str | None) -> Decimal:
    """Return ``value`` divided by 100 if a percent sign follows it, or by 1000 for a per mille sign.

    ``percent``: the sign, or a word such as "percent". None: there is none, and ``value`` is unchanged.
    """
    return value if percent is None else value.scaleb(-3 if "\u2030" in percent else -2)


def plain(text: str) -> str:
    """Return a text in which numbers that a formula parser would misread are written in plain digits.

    Such numbers are:

    - mixed fractions
    - exponents written with e
    - numbers with a per mille sign
    - digits in groups that are not separated by commas

    A number directly after a letter outside ASCII, such as a Chinese character, gets a space before it. A
    percent sign stays, because the parser reads 20% as 20 and as 0.2.
    """

    def written(match: re.Match[str]) -> str:
        before = _before(match)
        space = " " if before.isalpha() and not before.isascii() else ""
        digits = _written(match)
        if digits is None:
            return space + match[0]
        # A dollar sign may begin or end a formula, so it is kept. After a backslash it is only a currency
        # sign.
        begin = "$" if (match["currency"] or "").startswith("$") else ""
        return space + begin + digits + ("$" if "$" in (match["percent"] or "") else "")

    return _NUMBER.sub(written, normalized(text))


def _written(match: re.Match[str]) -> str | None:
    """Return the number that a match of ``_NUMBER`` means, written in plain digits.

    Return None if the text of the match can stay as it is, or does not mean exactly one number.
    """
    number = _one(_readings(match))
    if number is None:
        return None
    if match["percent"]:
        return format(number.value, "f") if "\u2030" in match["percent"] else None
    if any(match[group] for group in ("ten", "ten2", "power", "power2", "over")):
        return None
    if match["whole2"]:
        top = int(match["whole2"]) * int(match["bottom2"]) + int(match["top2"])
        return f"{'-' if number.value < 0 else ''}{top}/{match['bottom2']}"
    digits = match["spaced"] or match["glued"]
    if digits is None or not re.search(rf"['_eE {THIN_SPACE}]|\..*[.,]", digits):
        return None
    return format(number.value, "f")


def boxed(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{…}`` in a text: for ``\boxed{42}`` return ``42``.

    Return None if the text has no box, or if the closing brace of the last box is missing.
    """
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    end = closing_brace(text, start - 1)
    return None if end is None else text[start:end]


def is_blank(value: object) -> bool:
    """Return whether the value of a row's field is empty for the grader ``math``.

    This is true for a boolean, and for a text of only white space and LaTeX delimiters.
    """
    if isinstance(value, bool):
        return True
    return isinstance(value, str) and not re.sub(r"\\boxed|\\[()\[\]]|[\s${}]", "", value)


def extract_number(text: str, settings: Numeric) -> Number | None:
    """Return the number that ``settings.extract`` selects in a text: the last or the first number, the number
    in the last \\boxed{}, or the first number after the last ``settings.marker``.

    Return None if there is no such number, or if the selected place may mean several numbers.
    """
    if settings.extract == "boxed":
        return _in_box(boxed(text) or "")
    if settings.extract == "marker":
        _, marked, after = text.rpartition(settings.marker or "####")
        if not marked:
            return None
        text = _at_the_beginning(after)
    places = _places(text)
    if not places:
        return None
    return _one(places[-1 if settings.extract == "last" else 0])


def _in_box(inside: str) -> Number | None:
    """Return the number in ``inside``, the content of a \\boxed{}. Only the text after the last equals sign
    is read. Return None if this text has no number or several numbers, or if the number is only a part of an
    expression with a root, a function, an exponent or pi.
    """
    text = _at_the_beginning(_EQUALS.split(normalized(inside))[-1])
    places = _places(text)
    if len(places) != 1 or _EXPRESSION.search(text):
        return None
    return _one(places[0])


def close(first: Number, second: Number, tolerance: float) -> bool:
    """Return whether two numbers differ by at most ``tolerance``, an absolute value. The difference is exact.

    If only one of the two numbers has a percent sign, 20% equals 20 and also 0.2.
    """
    pairs = [(first.value, second.value)]
    if first.has_sign != second.has_sign:
        pairs.append((first.bare, second.bare))
    with localcontext(_DIFFERENCE):
        return any(abs(one - other) <= Decimal(str(tolerance)) for one, other in pairs)


def expected_number(value: object, settings: Numeric) -> Number | None:
    """Return the number with which completions are compared, from the value of a row's field. Return None if
    the value has no number.

    In a text with other words beside the number, the number is found as in a completion, by ``settings``. So
    the field may contain a whole solution that ends with the marker and the answer.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return Number(Decimal(str(value)), Decimal(str(value)))
    if not isinstance(value, str):
        return None
    whole = only_number(value)
    return whole if whole is not None else extract_number(value, settings)
