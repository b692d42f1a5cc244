"""Escapes or removes characters that would change how a terminal or an editor shows a text.

These are control characters, escape sequences, and invisible characters that change the order or the look of
a text. Letters of all writing systems and spaces of any width are kept. The functions are pure.
"""

import json
import re
import unicodedata

_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that are not shown themselves:

- Cc: control characters;
- Cf: format characters, such as those that change the direction of a text;
- Cs: halves of surrogate pairs;
- Zl, Zp: line and paragraph separators.
"""
_JOINERS = "\u200c\u200d"
"""Invisible characters that join or separate two letters or two emoji. Several writing systems need them.
They have no other effect.
"""
_KEPT = str.maketrans("", "", f"\n\t{_JOINERS}")
_SEQUENCES = re.compile(
    # Matches the escape sequences OSC, DCS, SOS, PM and APC with their text, CSI with its parameters, and all
    # shorter sequences. If a sequence has no end, its text is not part of the match.
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f\n]*(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~]"
)
_COLOURS = re.compile(r"(?:\x1b\[|\x9b)[0-9;:]*m")
_LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")


def visible(text: str) -> str:
    r"""Return a text in a form that is safe to print on a terminal.

    Control characters and invisible characters are replaced by visible escape codes such as ``\x1b``.
    Newlines and tabs are kept.
    """
    if text.translate(_KEPT).isprintable():
        return text
    return "".join(_code(c) if _is_obeyed(c) and c not in "\n\t" else c for c in text)


def one_line(text: str) -> str:
    r"""Return a text as one line that is safe to print on a terminal.

    Control characters, invisible characters, newlines and tabs are replaced by visible escape codes such as
    ``\x1b`` and ``\n``.
    """
    return visible(text).replace("\n", r"\n").replace("\t", r"\t")


def without_controls(text: str) -> str:
    """Remove escape sequences, control characters and invisible characters from a text.

    All kinds of line ends become newlines. Tabs are kept.
    """
    text = _SEQUENCES.sub("", _LINE_ENDS.sub("\n", text))
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(c for c in text if c in "\n\t" or not (_is_obeyed(c) or c in _JOINERS))


def without_colours(text: str) -> str:
    """Return a text without the escape sequences that set how its letters look, such as their colour."""
    return _COLOURS.sub("", text)


def as_json(body: object) -> str:
    """Return a value as indented JSON text that is safe to print on a terminal.

    Letters of every writing system are kept. Control and invisible characters are written as JSON escapes.
    """
    text = json.dumps(body, indent=2, ensure_ascii=False)
    if text.translate(_KEPT).isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if _is_obeyed(c) and c != "\n" else c for c in text)


def _is_obeyed(character: str) -> bool:
    return unicodedata.category(character) in _OBEYED and character not in _JOINERS


def _code(character: str) -> str:
    number = ord(character)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
