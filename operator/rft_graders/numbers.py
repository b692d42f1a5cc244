"""Finds numbers in text, in the forms that people and models write.

They are Decimal, not float: with rounding errors such as in 0.1 + 0.2 exact comparisons would fail, and large
integers would equal their neighbours.

What can be read in more than one way, such as 2,5 or 5-7, is one place with several values. What is no number
by itself, such as a date or a square root, is one without any. ``find_numbers`` returns all values; where one
number is asked for, such a place holds none.
"""

import re
from decimal import Context, Decimal, DecimalException, localcontext

from rft_api.graders import Numeric
from rft_graders.text import THIN_SPACE, normalized

# Letters of scripts that form names with digits, such as x2 and H2O. Behind letters of other scripts, many of
# which are written without spaces, a number may begin.
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
    r"(?:(?<=[=({$])\s?(?P<apart>[-+])\s|(?P<both>\u00b1|\\pm(?![a-z]))\s?"
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
# Enough for the exact difference of any two numbers that are found.
_DIFFERENCE = Context(prec=10_000)
_MAX_NUMBER_CHARACTERS = 1000
_EQUALS = re.compile("[=\u2248]|\\\\approx")


def _places(text: str, *, parts: bool = True) -> list[tuple[Decimal, ...]]:
    """Return the values of each place that looks like a number, in order.

    Without ``parts`` signs of percent and per mille are ignored: 20% is 20 and not 0.2.
    """
    return [_values(match, parts=parts) for match in _NUMBER.finditer(normalized(text))]


def _one(values: tuple[Decimal, ...]) -> Decimal | None:
    """Return the number of a place; None where it is not clear which, or whether it is one."""
    return values[0] if len(values) == 1 else None


def find_numbers(text: str) -> list[Decimal]:
    """Return the numbers of ``text`` in order: signs, thousands separators, decimals, fractions, powers."""
    return [value for values in _places(text) for value in values]


def only_number(text: str, *, parts: bool = True) -> Decimal | None:
    """Return the number of a text that is nothing but a number, else None. ``parts`` as in ``_places``."""
    match = _NUMBER.fullmatch(normalized(text).strip())
    return None if match is None else _one(_values(match, parts=parts))


def _values(match: re.Match[str], *, parts: bool = True) -> tuple[Decimal, ...]:
    """Return the values that a match may have; none for too many digits, and for a fraction x/0."""
    before = _before(match)
    if len(match[0]) > _MAX_NUMBER_CHARACTERS or match["product"]:
        return ()
    if match["top"] and not match["whole"] and re.match(rf"[{NAME_LETTERS}0-9)\]}}^_]", before):
        return ()  # a factor of something else
    try:
        with localcontext(_CONTEXT):
            sign = match["percent"] if parts else None
            values = tuple(_part(_raised(value, match), sign) for value in _sizes(match))
    except DecimalException:
        return ()
    if match["both"]:
        return tuple(signed for value in values for signed in (value, value.copy_negate()))
    negative = (match["sign"] or match["apart"]) in ("-", "\u2013")
    return (values[0].copy_negate(), *values[1:]) if negative and values else values


def _before(match: re.Match[str]) -> str:
    """Return the character before a match; "" at the text's beginning."""
    return match.string[max(match.start() - 1, 0) : match.start()]


def _sizes(match: re.Match[str]) -> tuple[Decimal, ...]:
    """Return the values of a match without sign and power. Raises DecimalException."""
    top, bottom = match["top"] or match["top2"], match["bottom"] or match["bottom2"]
    if top is not None:
        whole = match["whole"] or match["whole2"]
        return _mixed(Decimal(whole) if whole else None, _argument(top), _argument(bottom))
    if match["gap"] == " " and " 0" not in match["spaced"]:  # one number, or several
        return tuple(value for part in match["spaced"].split() for value in _glued(part))
    values = _glued(match["spaced"] or match["glued"])
    return tuple(value / Decimal(match["over"]) for value in values) if match["over"] else values


def _argument(text: str) -> Decimal | None:
    return only_number(text[1:-1] if text.startswith("{") else text)


def _mixed(whole: Decimal | None, top: Decimal | None, bottom: Decimal | None) -> tuple[Decimal, ...]:
    """Return whole + top/bottom; behind a whole number an improper fraction is another number."""
    if top is None or bottom is None:
        return ()
    part = top / bottom
    if whole is None:
        return (part,)
    return (whole + part,) if 0 < part < 1 else (whole, part)


def _glued(text: str) -> tuple[Decimal, ...]:
    """Return the values of digits with marks between them. Raises DecimalException."""
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
    """Return the value times a power of ten, or to a power. Raises DecimalException."""
    if ten := match["ten"] or match["ten2"]:
        return value.scaleb(int(ten))
    power = match["power"] or match["power2"]
    return value ** int(power) if power else value


def _part(value: Decimal, percent: str | None) -> Decimal:
    """Return the value, divided by 100 before a percent sign and by 1000 before a per mille sign."""
    return value if percent is None else value.scaleb(-3 if "\u2030" in percent else -2)


def plain(text: str) -> str:
    """Return the normalized text with plain digits for numbers that a parser of formulas would misread.

    These are mixed fractions, exponents written with e, digits grouped by more than commas, values per mille,
    and numbers behind a letter of a script without spaces, which get one. A percent sign stays: the parser
    takes 20% for 20 and for 0.2.
    """

    def written(match: re.Match[str]) -> str:
        before = _before(match)
        space = " " if before.isalpha() and not before.isascii() else ""
        digits = _written(match)
        if digits is None:
            return space + match[0]
        # A dollar sign may begin or end a formula; behind a backslash it cannot.
        begin = "$" if (match["currency"] or "").startswith("$") else ""
        return space + begin + digits + ("$" if "$" in (match["percent"] or "") else "")

    return _NUMBER.sub(written, normalized(text))


def _written(match: re.Match[str]) -> str | None:
    """Return plain digits for a match, None where it may stay as it is."""
    values = _values(match)
    if len(values) != 1:
        return None
    if match["percent"]:
        return format(values[0], "f") if "\u2030" in match["percent"] else None
    if any(match[group] for group in ("ten", "ten2", "power", "power2", "over")):
        return None
    if match["whole2"]:
        top = int(match["whole2"]) * int(match["bottom2"]) + int(match["top2"])
        return f"{'-' if values[0] < 0 else ''}{top}/{match['bottom2']}"
    digits = match["spaced"] or match["glued"]
    if digits is None or not re.search(rf"['_eE {THIN_SPACE}]|\..*[.,]", digits):
        return None
    return format(values[0], "f")


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


def is_blank(value: object) -> bool:
    """Return whether a field holds no expression: a boolean, or a text of white space and delimiters."""
    if isinstance(value, bool):
        return True
    return isinstance(value, str) and not re.sub(r"\\boxed|\\[()\[\]]|[\s${}]", "", value)


def extract_number(text: str, settings: Numeric, *, parts: bool = True) -> Decimal | None:
    """Return the number that ``settings.extract`` selects, or None. ``parts`` as in ``_places``."""
    if settings.extract == "boxed":
        return _in_box(boxed(text) or "", parts=parts)
    if settings.extract == "marker":
        _, marked, text = text.rpartition(settings.marker or "####")
        if not marked:
            return None
    places = _places(text, parts=parts)
    if not places:
        return None
    return _one(places[-1 if settings.extract == "last" else 0])


def _in_box(inside: str, *, parts: bool) -> Decimal | None:
    """Return the only number of a box, behind the last equals sign; a box with several holds none."""
    places = _places(_EQUALS.split(normalized(inside))[-1], parts=parts)
    return _one(places[0]) if len(places) == 1 else None


def close(first: Decimal, second: Decimal, tolerance: float) -> bool:
    """Return whether two numbers differ by no more than ``tolerance``, without rounding."""
    with localcontext(_DIFFERENCE):
        return abs(first - second) <= Decimal(str(tolerance))


def expected_number(value: object, settings: Numeric, *, parts: bool = True) -> Decimal | None:
    """Return the number in a row's field, or None. ``parts`` as in ``_places``.

    From a text that is not just a number it is extracted as from a completion. So a field may hold a whole
    worked solution that ends with the marker and the answer.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return Decimal(str(value))
    if not isinstance(value, str):
        return None
    whole = only_number(value, parts=parts)
    return whole if whole is not None else extract_number(value, settings, parts=parts)
