"""Parses and checks the rows of a dataset, one line at a time."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rft_api.graders import Grader
from rft_graders.numbers import expected_number, is_blank
from rft_graders.template import row_fields
from rft_run.errors import DataError
from rft_run.rows import RowLayout, parsed
from rft_run.rows.messages import Message
from rft_run.rows.strict import kind

MAX_LISTED = 20
"""Maximum number of problems that an error message lists. If there are more, it says how many more."""

JSON_LINES = RowLayout()

Required = Mapping[str, Mapping[str, Grader]]
"""The graders that read each field of a row: a mapping from field to grader's name to grader."""


@dataclass(frozen=True)
class Row:
    """One row of a dataset.

    - ``line``: the number of its line, from 1.
    - ``fields``: the other fields of the row, by name.
    - ``key``: the hash of the prompt. Rows with equal prompts have equal keys, even if their JSON is
      formatted differently.
    """

    line: int
    messages: list[Message]
    fields: dict[str, Any]
    key: str


@dataclass(frozen=True)
class Prompt:
    """A row and the token ids of its prompt, which sampler and trainer both use."""

    row: Row
    token_ids: tuple[int, ...]
    opens_thought: bool = False
    """Whether the prompt ends inside the thought of a thinking model."""


def data_error(problems: Sequence[str]) -> DataError:
    """Return one error for all problems of a dataset.

    The error's message lists the first problems, and says how many more there are.
    """
    listed = "; ".join(problems[:MAX_LISTED])
    more = len(problems) - MAX_LISTED
    return DataError(f"{listed}; and {more} more" if more > 0 else listed)


def prompt_key(messages: Sequence[Message]) -> str:
    """Return the SHA-256 hash of a prompt's JSON with sorted keys, as hexadecimal digits."""
    canonical = json.dumps(messages, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def required_fields(graders: Iterable[Grader]) -> dict[str, dict[str, Grader]]:
    """Return the graders that read each field of a row: ``{field: {name of the grader: grader}}``."""
    needs: dict[str, dict[str, Grader]] = {}
    for grader in graders:
        settings = grader.exact_match or grader.numeric or grader.math
        fields = [settings.field] if settings is not None else []
        if (text := grader.text_similarity) is not None:
            fields = [text.field] if text.reference is None else row_fields(text.reference)
            fields += row_fields(text.input)
        if (check := grader.string_check) is not None:
            fields = [*row_fields(check.input), *row_fields(check.reference)]
        if grader.model is not None:
            fields = row_fields(grader.model.prompt)
        for field in fields:
            needs.setdefault(field, {})[grader.name] = grader
    return needs


def read_row(
    line: int, raw: bytes, required: Required, layout: RowLayout = JSON_LINES
) -> tuple[Row | None, list[str]]:
    """Return the row in a line, and the problems of the line. Each problem has the line number.

    The row is None if the line cannot be parsed.
    """
    try:
        messages, fields = parsed(raw, layout)
    except ValueError as error:
        return None, [f"line {line}: {error}"]
    row = Row(line, messages, fields, prompt_key(messages))
    return row, [f"line {line}: {problem}" for problem in _unmet(fields, required)]


def _takes_any(grader: Grader) -> bool:
    """Return whether a grader inserts the values of a row's fields into a text, such as a judge's prompt.

    Then a value may also be an object or a list.
    """
    text = grader.text_similarity
    return (
        grader.model is not None
        or grader.string_check is not None
        or (text is not None and text.reference is not None)
    )


def _unmet(fields: Mapping[str, Any], required: Required) -> Iterator[str]:
    """Yield a problem for each field that a grader cannot use, because it is missing or has a wrong value."""
    for field, graders in required.items():
        value = fields.get(field)
        names = ", ".join(graders)
        if value is None:
            yield f"field {field} is missing (grader {names})"
        elif isinstance(value, list | dict) and not all(map(_takes_any, graders.values())):
            yield f"field {field} is {kind(value)}, but grader {names} needs text or a number"
        else:
            for name, grader in graders.items():
                if grader.math is not None and is_blank(value):
                    yield f"field {field} contains no expression (grader {name})"
                if grader.numeric is not None and expected_number(value, grader.numeric) is None:
                    yield f"field {field} is {value!r:.60}, not one number such as 1234.5 (grader {name})"
