"""Parses and checks rows, one line at a time."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rft_api.graders import Grader
from rft_graders.numbers import expected_number
from rft_graders.template import row_fields
from rft_run.errors import DataError

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_LISTED = 20
"""Problems named one by one in a message; the rest are counted."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Message = dict[str, Any]
Required = Mapping[str, Mapping[str, Grader]]
"""Fields that graders read from a row: field -> grader name -> grader."""


@dataclass(frozen=True)
class Row:
    """One row. Rows with equal prompts have equal keys, even if their JSON is formatted differently."""

    line: int
    messages: list[Message]
    fields: dict[str, Any]
    key: str


@dataclass(frozen=True)
class Prompt:
    """A row and its token ids, as sampler and trainer both use them."""

    row: Row
    token_ids: tuple[int, ...]


def data_error(problems: Sequence[str]) -> DataError:
    """Return one error that lists the first problems and gives the number of the others."""
    listed = "; ".join(problems[:MAX_LISTED])
    more = len(problems) - MAX_LISTED
    return DataError(f"{listed}; and {more} more" if more > 0 else listed)


def prompt_key(messages: Sequence[Message]) -> str:
    """Return the hash of a prompt's canonical JSON."""
    canonical = json.dumps(messages, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def required_fields(graders: Iterable[Grader]) -> dict[str, dict[str, Grader]]:
    """Return the fields that graders read from a row: field -> grader name -> grader."""
    needs: dict[str, dict[str, Grader]] = {}
    for grader in graders:
        kind = grader.exact_match or grader.numeric or grader.math or grader.text_similarity
        fields = [kind.field] if kind is not None else []
        if grader.model is not None:
            fields = row_fields(grader.model.prompt)
        for field in fields:
            needs.setdefault(field, {})[grader.name] = grader
    return needs


def read_row(line: int, raw: bytes, required: Required) -> tuple[Row | None, list[str]]:
    """Return the row of a line, None if it cannot be parsed, and all its problems with the line number."""
    try:
        row = _row(line, raw)
    except ValueError as error:
        return None, [f"line {line}: {error}"]
    return row, [f"line {line}: {problem}" for problem in _unmet(row.fields, required)]


def _row(line: int, raw: bytes) -> Row:
    """Parse one line. Raises ValueError with the problem."""
    value = _json(raw)
    if not isinstance(value, dict):
        raise ValueError(f"a row is a JSON object, not {_kind(value)}")
    messages = value.pop("messages", None)
    _check_messages(messages)
    return Row(line, messages, value, prompt_key(messages))


def _json(raw: bytes) -> Any:
    """Parse strict JSON: without NaN, lone surrogates and too deep nesting. Raises ValueError."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(raw.decode(), parse_constant=refuse)
        if b"\\u" in raw:  # only an escape sequence can give a lone surrogate
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _kind(value: object) -> str:
    """Return the JSON name of a value's type."""
    if value is None:
        return "null"
    names: dict[type, str] = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names[type(value)]


def _check_messages(messages: object) -> None:
    """Raise ValueError unless this is a conversation whose next message is the model's."""
    if messages is None:
        raise ValueError("messages is missing")
    if not isinstance(messages, list):
        raise ValueError(f"messages is {_kind(messages)}, not a list")
    if not messages:
        raise ValueError("messages is empty")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise ValueError(f"message {number} is {_kind(message)}, not an object")
        if message.get("role") not in ROLES:
            raise ValueError(
                f"message {number}: role {json.dumps(message.get('role'))} is not one of {', '.join(ROLES)}"
            )
        content = message.get("content")
        if not isinstance(content, str):
            raise ValueError(f"message {number}: content is {_kind(content)}, not a string")
    if messages[-1]["role"] == "assistant":
        raise ValueError("the last message is the assistant's: nothing is left to answer")


def _unmet(fields: Mapping[str, Any], required: Required) -> Iterator[str]:
    """Yield a problem for each field that a grader needs and the row lacks."""
    for field, graders in required.items():
        value = fields.get(field)
        names = ", ".join(graders)
        if value is None:
            yield f"field {field} is missing (grader {names})"
        elif isinstance(value, list | dict) and any(grader.model is None for grader in graders.values()):
            yield f"field {field} is {_kind(value)} (grader {names})"
        else:
            for name, grader in graders.items():
                if grader.numeric is not None and expected_number(value, grader.numeric) is None:
                    yield f"field {field} holds no number (grader {name})"
