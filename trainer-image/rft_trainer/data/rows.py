"""Parses and checks the rows of a dataset, one line at a time."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rft_graders.row_fields import Required, unmet
from rft_run.errors import DataError
from rft_run.rows import RowLayout, parsed
from rft_run.rows.messages import Message

MAX_LISTED = 20
"""Maximum number of problems that an error message lists. If there are more, it says how many more."""

JSON_LINES = RowLayout()


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
    return row, [f"line {line}: {problem}" for problem in unmet(fields, required)]
