"""Parses JSON strictly. It refuses values that other JSON parsers change or drop silently, such as a repeated
key.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

from rft_run import run_files

_NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


def kind(value: object) -> str:
    """Return the name of the JSON type of a parsed value for messages, with an article, such as "a list"."""
    return "null" if value is None else _NAMES[type(value)]


def value_of(raw: bytes) -> Any:
    """Parse a JSON text, and return the value. Raise ValueError with a message that says what is wrong, if:

    - a number is not finite;
    - an object has a key twice;
    - a text has only one half of a surrogate pair, such as ``\\ud83d`` alone;
    - the values are too many, or nested too deeply;
    - the text is not JSON or not UTF-8.
    """
    run_files.refuse_too_many_values(raw)
    try:
        text = raw.decode()
        value = json.loads(
            text, parse_constant=_refused, parse_float=_finite, object_pairs_hook=_each_key_once
        )
        if b"\\u" in raw:  # only an escape sequence can give a lone surrogate
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except UnicodeEncodeError as error:
        raise ValueError(
            "a text has an incomplete surrogate pair (an escape sequence such as \\ud83d)"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON: leave the field out, or write null")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is too large: the largest is about 1.8e308")
    return number


def _each_key_once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {json.dumps(key)} occurs twice in one object: keep one of them")
        found[key] = value
    return found
