"""Counts the rows of a dataset and estimates the length of their prompts, if it can be read here.

The tokenizer may not be on this machine, so lengths are estimated from characters. A token has about four in
English prose, fewer in code and most other languages. ChatML adds five tokens per message, and three for the
start of the answer.
"""

import json
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local.inputs import Input, located
from rft_cli.local.manifest import Manifest
from rft_planner.estimate import RowCounts
from rft_planner.steps import MAX_HELD_OUT, MIN_HELD_OUT, held_out_rows

READ_BYTES = 32 << 20
"""Bytes of a file that are read, as many as the trainer checks before the start."""
CHUNK_BYTES = 1 << 20
CHARACTERS_PER_TOKEN = 4
MESSAGE_TOKENS = 5
ANSWER_TOKENS = 3


class Counted(NamedTuple):
    """Number of rows of a dataset, and their length."""

    number: int
    prompt_tokens: float
    """Mean length of a prompt, estimated."""


def count(file: IO[bytes], source: str) -> Counted:
    """Return the number of rows in a JSONL file, without blank lines, and their mean length.

    After ``READ_BYTES`` lines are only counted, and taken to have the mean length of those before.

    Raises:
        UserError: a line is no row, or the file has no rows.
    """
    rows, tokens, left = 0, 0.0, READ_BYTES
    for number, line in enumerate(file, start=1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if text.strip():
            rows, tokens = rows + 1, tokens + _prompt_tokens(text, f"{source}: line {number}")
        left -= len(line)
        if left <= 0:
            break
    if not rows:
        raise UserError(f"{source}: holds no rows", UNREADABLE)
    return Counted(rows + _lines(file), tokens / rows)


def _lines(file: IO[bytes]) -> int:
    """Return the number of lines from here to the end; the last one may have no newline."""
    lines, last = 0, b"\n"
    while chunk := file.read(CHUNK_BYTES):
        lines, last = lines + chunk.count(b"\n"), chunk[-1:]
    return lines + (last != b"\n")


def _prompt_tokens(line: bytes, place: str) -> float:
    try:
        messages = json.loads(line)["messages"]
        texts = [message["content"] for message in messages]
        characters = sum(map(len, texts))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{place}: is not a row; one is a JSON object whose messages have a role and a content",
            UNREADABLE,
        ) from error
    return characters / CHARACTERS_PER_TOKEN + MESSAGE_TOKENS * len(texts) + ANSWER_TOKENS


def rows_of(manifest: Manifest, dataset: Path | None, evaluation: Path | None) -> RowCounts:
    """Return the number of a manifest's rows; files from the command line replace those of the manifest.

    Raises:
        UserError: the rows cannot be read on this machine, or are too few.
    """
    spec = manifest.job.spec
    counted = _read(located(manifest, "spec.dataset", spec.dataset, dataset, "--dataset", Path()))
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
        return _read(located(manifest, field, source, override, flag, Path())).number
    except UserError:
        if override is not None:
            raise
        return MAX_HELD_OUT


def _read(given: Input) -> Counted:
    if given.content is not None:
        return count(BytesIO(given.content), given.location)
    if "://" in given.location:
        raise UserError(f"{given.location}: is not on this machine; pass --dataset FILE", UNREADABLE)
    try:
        with Path(given.location).open("rb") as file:
            return count(file, given.location)
    except OSError as error:
        raise UserError(f"{given.location}: cannot be read: {error.strerror}", UNREADABLE) from error
