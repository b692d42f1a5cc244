"""Loads, splits and renders small files. They are read completely before the start of a run.

One error reports all invalid lines of a file, because the user waits for GPUs again before the next attempt.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_api.lifecycle import Evaluation
from rft_graders.row_fields import Required
from rft_planner.steps import MAX_HELD_OUT, MIN_HELD_OUT, OTHERWISE, held_out_rows
from rft_run.errors import DataError
from rft_run.rows import BYTE_ORDER_MARK, RowLayout
from rft_run.rows.tool_calls import ToolStyle
from rft_trainer.data.rendering import Renderer, Tokenizer
from rft_trainer.data.rows import JSON_LINES, Prompt, Row, data_error, read_row
from rft_trainer.data.run_rendering import CURRENT, Rendering
from rft_trainer.data.source import readable

log = logging.getLogger(__name__)

WARN_DROPPED = 0.1
"""A warning is logged if more than this share of the prompts is too long."""


def load_rows(
    file: str | Path, required: Required | None = None, layout: RowLayout = JSON_LINES
) -> list[Row]:
    """Return the rows of a local file with JSON lines. Blank lines are skipped.

    ``required`` is the result of ``required_fields``. Raises one DataError for all invalid lines.
    """
    with readable(file):
        data = Path(file).read_bytes()
    rows: list[Row] = []
    problems: list[str] = []
    for row, found in checked(data, required or {}, layout):
        problems += found
        if row is not None:
            rows.append(row)
    if problems:
        raise data_error(problems)
    if not rows:
        raise DataError(f"{file}: no rows")
    return rows


def checked(
    data: bytes, required: Required, layout: RowLayout = JSON_LINES
) -> Iterator[tuple[Row | None, list[str]]]:
    """Yield the row and the problems of each line of a file. The row is None if the line cannot be parsed."""
    for line, raw in _lines(data):
        yield read_row(line, raw, required, layout)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file and their numbers, from 1.

    Only a newline ends a line, because JSON may contain the line separator U+2028.
    """
    for number, raw in enumerate(data.removeprefix(BYTE_ORDER_MARK).split(b"\n"), start=1):
        if raw.strip():
            yield number, raw


def split(rows: Sequence[Row], evaluation: Evaluation) -> tuple[list[Row], list[Row]]:
    """Return the rows for training and the held-out rows. Rows with the same prompt are all in the same part.

    If the evaluation is off, no row is held out. Otherwise the held-out prompts are those with the lowest
    hashes. So the choice depends only on the rows. It does not depend on their order, the seed or the
    attempt. At most half of the rows are held out. Raises DataError if fewer than ``MIN_HELD_OUT`` rows would
    be held out.
    """
    if evaluation.is_off:
        return list(rows), []
    limit = min(MAX_HELD_OUT, len(rows) // 2)
    wanted = held_out_rows(len(rows), evaluation.fraction)
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row.key] = sizes.get(row.key, 0) + 1
    held: set[str] = set()
    count = 0
    for key in sorted(sizes):
        if count < wanted and count + sizes[key] <= limit:
            held.add(key)
            count += sizes[key]
    if count < MIN_HELD_OUT:
        raise DataError(
            f"{len(rows)} rows with {len(sizes)} different prompts are too few to hold out {MIN_HELD_OUT}"
            f" rows and train on {MIN_HELD_OUT} others: add rows, {OTHERWISE}"
        )
    return [r for r in rows if r.key not in held], [r for r in rows if r.key in held]


def without(rows: Sequence[Row], held_out: Collection[Row]) -> list[Row]:
    """Return the training rows whose prompts are not in a separate evaluation dataset.

    Raises DataError if all training prompts are also in the evaluation dataset.
    """
    keys = {row.key for row in held_out}
    kept = [row for row in rows if row.key not in keys]
    if not kept:
        raise DataError(
            "every training prompt is also in the evaluation dataset: use other rows in"
            " spec.evaluation.dataset"
        )
    if len(kept) < len(rows):
        log.warning("%d training rows left out: the evaluation set has their prompts", len(rows) - len(kept))
    return kept


def render(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    chat_template_args: Mapping[str, Any] | None,
    budget_tokens: int,
    rendering: Rendering = CURRENT,
    tool_style: ToolStyle = "template",
) -> tuple[list[Prompt], int]:
    """Return the prompts of at most ``budget_tokens`` tokens each, and the number of longer prompts.

    ``tool_style`` is that of ``Renderer``.

    Raises:
        DataError: the chat template refuses a row, or every prompt is too long.
        ConfigurationError: the tokenizer has no template.
    """
    renderer = Renderer(tokenizer, chat_template_args, rendering, tool_style)
    prompts: list[Prompt] = []
    problems: list[str] = []
    shortest: int | None = None
    for row in rows:
        try:
            prompt = renderer.prompt(row)
        except ValueError as error:
            problems.append(str(error))
            continue
        length = len(prompt.token_ids)
        shortest = min(length, shortest if shortest is not None else length)
        if length <= budget_tokens:
            prompts.append(prompt)
    if problems:
        raise data_error(problems)
    dropped = len(rows) - len(prompts)
    if not prompts:
        raise DataError(
            f"all {len(rows)} prompts are longer than {budget_tokens} tokens (the shortest has {shortest}):"
            " raise maxContextLength or lower maxTokens"
        )
    if dropped > WARN_DROPPED * len(rows):
        log.warning("%d of %d prompts dropped: longer than %d tokens", dropped, len(rows), budget_tokens)
    return prompts, dropped
