"""Makes messages for users about syntax errors in YAML: what is wrong, and how to correct it."""

import re

import yaml

_ESCAPE = "unknown escape character"
_MAPPING = "mapping values are not allowed"


def explained(error: yaml.YAMLError, text: str) -> str:
    """Return the message for a syntax error in the YAML ``text``: its place, what is wrong, and the fix."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error)
    number = error.problem_mark.line
    lines = text.split("\n")
    line = lines[number] if number < len(lines) else ""
    place = f"line {number + 1}, column {error.problem_mark.column + 1}"
    return f"{place}: {_fix(error, line) or f'{error.problem}: {line.strip()}'}"


def _fix(error: yaml.MarkedYAMLError, line: str) -> str:
    """Return what is wrong in a line of YAML, and what to write instead.

    ``error`` is PyYAML's error about the line. Return "" for a kind of error that this function does not
    know. Then the caller uses PyYAML's own message.
    """
    assert error.problem_mark is not None
    problem, column = error.problem or "", error.problem_mark.column
    if _ESCAPE in problem:
        return _escape(line, column)
    if line[: len(line) - len(line.lstrip())].count("\t"):
        return "the line is indented with a tab, which YAML does not allow; indent it with spaces"
    if _MAPPING in problem:
        return (
            f"YAML reads a colon in {line.strip()!r} as the start of a new field, but no field can start"
            " there:"
            " put a text with a colon in quotes, or indent this line like the lines around it"
        )
    if "cannot start any token" in problem and column < len(line):
        return f"a text cannot begin with {line[column]} unless it is in quotes"
    if "undefined alias" in problem:
        return "a text that begins with * is an alias in YAML unless it is in quotes"
    if "expected <block end>" in problem:
        return (
            f"{line.strip()!r} is not indented like the lines before it, or a quote in it ends too early; a"
            " quote within single quotes is written twice"
        )
    if "expected ',' or" in problem:
        return f"a bracket is opened, but not closed before {line.strip()!r}{_opened(error)}"
    if "found unexpected end of stream" in problem or "while scanning a quoted scalar" in str(error.context):
        return f"a quote is opened and never closed{_opened(error)}"
    return ""


def _opened(error: yaml.MarkedYAMLError) -> str:
    return f"; it begins in line {error.context_mark.line + 1}" if error.context_mark is not None else ""


def _escape(line: str, column: int) -> str:
    escape = line[column - 1 : column + 1]
    said = f"in double quotes YAML reads {escape} as an escape sequence, but YAML has no such sequence"
    quoted = re.search(r'"((?:[^"\\]|\\.)*)"', line[_opening(line, column) :])
    if quoted is None:
        return f"{said}; put the text in single quotes"
    single = quoted[1].replace('\\"', '"').replace("'", "''")
    return f"{said}; use single quotes, in which a backslash is an ordinary character: '{single}'"


def _opening(line: str, column: int) -> int:
    """Return the column where the double-quoted text around ``column`` begins."""
    start, inside = 0, False
    position = 0
    while position < column:
        character = line[position]
        if character == '"':
            start, inside = position, not inside
        position += 2 if inside and character == "\\" else 1
    return start
