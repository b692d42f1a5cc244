"""Converts digits, signs and spaces of any script, of special typefaces and of LaTeX to plain characters, so
that numbers can be found in the text.
"""

import re
import unicodedata
from functools import lru_cache

THIN_SPACE = "\u2009"
"""The character that replaces every kind of space that may separate the digits of one number, such as a
no-break space."""

_SPACES = "\u00a0\u2007\u2009\u200a\u202f"
_MINUS = "\u2010\u2011\u2012\u2212\ufe63\uff0d"
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\u2066\u2067\u2068\u2069\ufeff"
_OTHERS = {"\u066b": ".", "\u066c": ",", "\u2044": "/", "\u2215": "/", "\u2019": "'", "\u066a": "%"}
_TYPEFACES = ("<wide>", "<narrow>", "<font>")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_RAISED = re.compile("(?<=[0-9])[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
# Spaces of LaTeX. With one more backslash before it, such a space would be the end of a line instead.
_LATEX_SPACE = re.compile(r"(?<!\\)(?:\{\\[,;:]\}|\\[,;: ]|\\thinspace\b|(?<=[0-9])~(?=[0-9]))")
_LATEX_NOTHING = re.compile(r"\{\}|\\!|\\(?:left|right)(?=[()\[\]])")


def normalized(text: str) -> str:
    """Return a text in which all digits and signs are ASCII characters: ``４２`` becomes ``42``, ``10²``
    becomes ``10^{2}``, and ``½`` becomes ``1/2``. Spaces and separators of LaTeX become plain characters.
    """
    text = _LATEX_NOTHING.sub("", text.replace("{,}", ",").replace("{.}", "."))
    text = _LATEX_SPACE.sub(THIN_SPACE, text)
    if text.isascii():
        return text
    text = _RAISED.sub(lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", text)
    return _fractions("".join(map(_plain, text)))


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    """Return the ASCII form of a digit, a sign, or a character of a special typeface. Return ``THIN_SPACE``
    for a no-break or thin space, "" for an invisible character, and any other character unchanged.
    """
    if character.isascii():
        return character
    if character in _SPACES:
        return THIN_SPACE
    if character in _MINUS:
        return "-"
    if character in _INVISIBLE:
        return ""
    if character in _OTHERS:
        return _OTHERS[character]
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    if unicodedata.decomposition(character).startswith(_TYPEFACES):
        return unicodedata.normalize("NFKC", character)
    return character


def _fractions(text: str) -> str:
    """Return the text with each fraction character such as ½ written as 1/2. If a digit is before the
    character, a space is put between them: 3½ becomes 3 1/2.
    """

    def written(match: re.Match[str]) -> str:
        parts = unicodedata.normalize("NFKC", match[2]).replace("\u2044", "/")
        return f"{match[1]} {parts}" if match[1] else parts

    return re.sub("([0-9]?) ?([\u00bc-\u00be\u2150-\u215e])", written, text)


def closing_brace(text: str, start: int) -> int | None:
    """Return the index of the brace } that closes the brace { at the index ``start`` of the text.

    Return None if it is not closed.
    """
    depth = 0
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return None
