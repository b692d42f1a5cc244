"""Counts the rows of a dataset and estimates the length of their prompts, if it can be read here.

The tokenizer may not be on this machine, so lengths are estimated from characters. A token has about four in
English prose, fewer in code and most other languages. ChatML adds five tokens per message, and three for the
start of the answer.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local.inputs import Input, located
from rft_cli.local.manifest import Manifest
from rft_planner.estimate import RowCounts
from rft_planner.steps import MAX_HELD_OUT, MIN_HELD_OUT, held_out_rows
from rft_run.errors import DataError
from rft_run.rows import BYTE_ORDER_MARK, RowLayout, json_lines, parsed
from rft_run.rows.messages import tools_of

READ_BYTES = 32 << 20
"""Bytes of a file that are read, as many as the trainer checks before the start."""
CHARACTERS_PER_TOKEN = 4
MESSAGE_TOKENS = 5
ANSWER_TOKENS = 3
JSON_LINES = RowLayout()


class Counted(NamedTuple):
    """Number of rows of a dataset, and their length."""

    number: int
    prompt_tokens: float
    """Mean length of a prompt, estimated."""


def count(file: IO[bytes], source: str, layout: RowLayout = JSON_LINES) -> Counted:
    """Return the number of rows in a file that can seek, without blank lines, and their mean length.

    After ``READ_BYTES`` lines are only counted, and taken to have the mean length of those before.

    Raises:
        UserError: the file cannot be read as ``layout`` says, a line is no row, or the file has no rows.
    """
    try:
        return _counted(json_lines(file, layout, source), source, layout)
    except DataError as error:
        raise UserError(str(error), UNREADABLE) from error


def _counted(lines: Iterator[bytes], source: str, layout: RowLayout) -> Counted:
    rows, tokens, left = 0, 0.0, READ_BYTES
    for number, line in enumerate(lines, start=1):
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if text.strip():
            rows, tokens = rows + 1, tokens + _prompt_tokens(text, f"{source}: line {number}", layout)
        left -= len(line)
        if left <= 0:
            break
    if not rows:
        raise DataError(f"{source}: holds no rows")
    return Counted(rows + sum(1 for line in lines if line.strip()), tokens / rows)


def _prompt_tokens(line: bytes, place: str, layout: RowLayout) -> float:
    try:
        messages, fields = parsed(line, layout)
        tools_of(fields)
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error
    characters = sum(len(message["content"]) for message in messages)
    return characters / CHARACTERS_PER_TOKEN + MESSAGE_TOKENS * len(messages) + ANSWER_TOKENS


def rows_of(manifest: Manifest, dataset: Path | None, evaluation: Path | None) -> RowCounts:
    """Return the number of a manifest's rows; files from the command line replace those of the manifest.

    Raises:
        UserError: the rows cannot be read on this machine, or are too few.
    """
    spec = manifest.job.spec
    given = located(manifest, "spec.dataset", spec.dataset, dataset, "--dataset", Path())
    counted = _read(given, RowLayout.of(spec.dataset))
    if spec.evaluation.dataset is not None:
        return RowCounts(counted.number, _evaluated(manifest, evaluation), counted.prompt_tokens)
    if evaluation is not None:
        raise UserError("--evaluation-dataset: the manifest has no spec.evaluation.dataset", UNREADABLE)
    held_out = held_out_rows(counted.number, spec.evaluation.fraction)
    if held_out < MIN_HELD_OUT:
        raise UserError(
            f"spec.dataset: {counted.number} rows are too few to hold out {MIN_HELD_OUT} and train on as"
            " many; add rows, or set spec.evaluation.dataset"
        )
    return RowCounts(counted.number - held_out, held_out, counted.prompt_tokens)


def _evaluated(manifest: Manifest, override: Path | None) -> int:
    """Return the number of rows in the evaluation's dataset, ``MAX_HELD_OUT`` if it cannot be read."""
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
    if given.content is not None:
        return count(BytesIO(given.content), given.location, layout)
    if "://" in given.location:
        raise UserError(f"{given.location}: is not on this machine; pass --dataset FILE", UNREADABLE)
    try:
        with Path(given.location).open("rb") as file:
            return count(file, given.location, layout)
    except OSError as error:
        raise UserError(f"{given.location}: cannot be read: {error.strerror}", UNREADABLE) from error
