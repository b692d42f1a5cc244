"""Counts the rows of a dataset that this machine can read, and estimates the length of their prompts.

The tokenizer may not be on this machine, so lengths are estimated from characters. A token has about four
characters in English prose. It has fewer in code and in most other languages. ChatML adds five tokens per
message, and three for the start of the answer.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local.inputs import Input, located
from rft_cli.local.manifest import Manifest
from rft_graders.row_fields import Required, unmet
from rft_planner.estimate import RowCounts
from rft_planner.steps import MAX_HELD_OUT, MIN_HELD_OUT, OTHERWISE, held_out_rows
from rft_run.errors import DataError
from rft_run.rows import BYTE_ORDER_MARK, RowLayout, json_lines, parsed
from rft_run.rows.messages import tools_of

READ_BYTES = 32 << 20
"""All rows in this number of bytes at the beginning of a file are checked. The trainer also checks these rows
before it starts.
"""
CHARACTERS_PER_TOKEN = 4
MESSAGE_TOKENS = 5
ANSWER_TOKENS = 3
JSON_LINES = RowLayout()
MAX_LISTED = 3
"""Maximum number of problems of rows that an error message lists."""


class RowLine(NamedTuple):
    """A row of a dataset, and the number of its line, counted from 1."""

    line: int
    messages: list[dict[str, Any]]
    fields: dict[str, Any]
    """The fields of the row other than its messages. Graders read these fields."""


def row_lines(file: IO[bytes], source: str, layout: RowLayout) -> Iterator[RowLine]:
    """Yield the rows of an open file. Raises DataError, with the line number, for an invalid row.

    - ``source``: the name of the file in error messages
    - ``layout``: the format and the columns of the file
    """
    return (_row(number, line, source, layout) for number, line in _numbered(file, source, layout))


class CheckedRows(NamedTuple):
    """What was found in the first ``READ_BYTES`` bytes of a file with rows."""

    prompts: int | None
    """The number of different prompts, or None for a larger file."""
    unmet: str
    """Which rows lack a field that a grader reads, or "" if none does."""
    fields: frozenset[str]
    """The names of all fields of the rows, except their messages."""


def checked_rows(file: IO[bytes], source: str, layout: RowLayout, required: Required) -> CheckedRows:
    """Count the different prompts in a file, and check the fields that graders read, which are ``required``.

    Raises:
        DataError: if the file cannot be read as ``layout`` says, or a line is not a row.
    """
    found, left, problems = set(), READ_BYTES, []
    fields: dict[str, None] = {}
    for number, line in _numbered(file, source, layout):
        left -= len(line)
        if left < 0:
            break
        row = _row(number, line, source, layout)
        found.add(json.dumps(row.messages, sort_keys=True))
        fields |= dict.fromkeys(row.fields)
        problems += [f"line {number}: {problem}" for problem in unmet(row.fields, required)]
    more = [f"{len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
    said = "; ".join([*problems[:MAX_LISTED], *more])
    if said:
        said += f". The fields of the rows are: {', '.join(list(fields)[:20]) or 'none but the prompt'}"
    return CheckedRows(len(found) if left >= 0 else None, said, frozenset(fields))


def _numbered(file: IO[bytes], source: str, layout: RowLayout) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not blank, as a pair: the line's number, counted from 1, and its bytes.

    Raises DataError if the file cannot be read.
    """
    for number, line in enumerate(json_lines(file, layout, source), start=1):
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if text.strip():
            yield number, text


def _row(number: int, line: bytes, source: str, layout: RowLayout) -> RowLine:
    try:
        messages, fields = parsed(line, layout)
        tools_of(fields)
    except ValueError as error:
        raise DataError(f"{source}: line {number}: {error}") from error
    return RowLine(number, messages, fields)


class Counted(NamedTuple):
    """The number of rows of a dataset, and the mean length of their prompts."""

    number: int
    prompt_tokens: float
    """The estimated mean length of a prompt, in tokens."""


def count(file: IO[bytes], source: str, layout: RowLayout = JSON_LINES) -> Counted:
    """Return the number of rows of a file, and the mean length of their prompts. The file must support seek.

    Blank lines do not count. After the first ``READ_BYTES`` bytes, lines are only counted and not checked.
    Their prompts are assumed to have the same mean length.

    Raises:
        UserError: if the file cannot be read as ``layout`` says, a line is not a row, or the file has no
            rows.
    """
    try:
        return _counted(file, source, layout)
    except DataError as error:
        raise UserError(str(error), UNREADABLE) from error


def _counted(file: IO[bytes], source: str, layout: RowLayout) -> Counted:
    rows, tokens, left = 0, 0.0, READ_BYTES
    lines = _numbered(file, source, layout)
    for number, line in lines:
        rows, tokens = rows + 1, tokens + prompt_tokens(_row(number, line, source, layout))
        left -= len(line)
        if left <= 0:
            break
    if not rows:
        raise DataError(f"{source}: has no rows")
    return Counted(rows + sum(1 for _ in lines), tokens / rows)


def prompt_tokens(row: RowLine) -> float:
    """Return the estimated length of the prompt of a row, in tokens."""
    characters = sum(len(message["content"]) for message in row.messages)
    return characters / CHARACTERS_PER_TOKEN + MESSAGE_TOKENS * len(row.messages) + ANSWER_TOKENS


def rows_of(manifest: Manifest, dataset: Path | None, evaluation: Path | None) -> RowCounts:
    """Return how many rows a manifest has for training and for evaluation, and the mean prompt length.

    The files ``dataset`` and ``evaluation`` from the command line replace the datasets of the manifest.

    Raises:
        UserError: if the rows cannot be read on this machine, or are too few, or if ``evaluation`` is given
            and the manifest has no evaluation dataset.
    """
    spec = manifest.job.spec
    given = located(manifest, "spec.dataset", spec.dataset, dataset, "--dataset", Path())
    counted = _read(given, RowLayout.of(spec.dataset))
    if spec.evaluation.dataset is not None:
        return RowCounts(counted.number, _evaluated(manifest, evaluation), counted.prompt_tokens)
    if evaluation is not None:
        raise UserError("--evaluation-dataset: the manifest has no spec.evaluation.dataset", UNREADABLE)
    held_out = held_out_rows(counted.number, spec.evaluation.fraction)
    if held_out < MIN_HELD_OUT and not spec.evaluation.is_off:
        raise UserError(
            f"spec.dataset: {counted.number} rows are too few to hold out {MIN_HELD_OUT} and train on as"
            f" many; add rows, {OTHERWISE}"
        )
    return RowCounts(counted.number - held_out, held_out, counted.prompt_tokens)


def _evaluated(manifest: Manifest, override: Path | None) -> int:
    """Return the number of rows in the evaluation dataset.

    If the dataset of the manifest cannot be read, ``MAX_HELD_OUT`` rows are assumed. ``override`` is a file
    from the command line, which replaces the dataset. Raises UserError if this file cannot be read.
    """
    source = manifest.job.spec.evaluation.dataset
    assert source is not None
    field, flag = "spec.evaluation.dataset", "--evaluation-dataset"
    try:
        given = located(manifest, field, source, override, flag, Path())
        return _read(given, RowLayout.of(source, field)).number
    except UserError:
        if override is not None:
            raise
        return MAX_HELD_OUT


def _read(given: Input, layout: RowLayout) -> Counted:
    with opened(given) as file:
        return count(file, given.location, layout)


@contextmanager
def opened(given: Input) -> Iterator[IO[bytes]]:
    """Yield the open file with the rows. Raises UserError if the file is not on this machine or cannot be
    read.
    """
    if given.content is not None:
        yield BytesIO(given.content)
        return
    if "://" in given.location:
        raise UserError(f"{given.location}: is not on this machine; pass --dataset FILE", UNREADABLE)
    try:
        with Path(given.location).open("rb") as file:
            yield file
    except OSError as error:
        raise UserError(f"{given.location}: cannot be read: {error.strerror}", UNREADABLE) from error
