"""Reads large files. A row is read, checked and rendered only when training needs it.

Before the start only the beginning of the file and a sample of its rows are checked. If an invalid line is
found later, a checkpoint is saved and the run ends. The error contains the line's number.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from rft_graders.row_fields import Required
from rft_planner.steps import MAX_HELD_OUT, MIN_HELD_OUT
from rft_run.errors import DataError
from rft_run.rows import RowLayout
from rft_run.state import Position
from rft_trainer.data.lines import Lines
from rft_trainer.data.order import permuted
from rft_trainer.data.rendering import Renderer
from rft_trainer.data.rows import JSON_LINES, MAX_LISTED, Prompt, Row, data_error, read_row
from rft_trainer.data.source import readable
from rft_trainer.data.training import Reached, TrainingPrompts
from rft_trainer.data.whole import WARN_DROPPED, checked

log = logging.getLogger(__name__)

LOOK_AHEAD = 1000
"""Maximum number of rows that are checked after an invalid row, to report several problems at once."""
_TRIES = 8
"""Maximum number of rows that are read, for each row of the sample.

A row is skipped if its prompt is already in the sample. Then another row is read.
"""


@dataclass(frozen=True)
class Sample:
    """A sample of rows from the whole file, all with different prompts."""

    rows: list[Row]

    def prompts(self, renderer: Renderer, budget_tokens: int) -> tuple[list[Prompt], float, float]:
        """Return the prompts of the sample that fit, and two estimates for the whole file.

        A prompt fits if it has at most ``budget_tokens`` tokens. The first estimate is the mean length, in
        tokens, of the prompts that fit. The second is their share of all prompts, from 0 to 1. Raises
        DataError if a row cannot be rendered, or if no prompt fits.
        """
        prompts = _rendered(self.rows, renderer)
        kept = [prompt for prompt in prompts if len(prompt.token_ids) <= budget_tokens]
        if not kept:
            shortest = min(len(prompt.token_ids) for prompt in prompts)
            raise DataError(
                f"all {len(prompts)} prompts in a sample of the dataset are longer than {budget_tokens}"
                f" tokens (the shortest has {shortest}): raise maxContextLength or lower maxTokens"
            )
        share = len(kept) / len(prompts)
        if 1 - share > WARN_DROPPED:
            percent = 100 * (1 - share)
            log.warning("about %.0f %% of the prompts are longer than %d tokens", percent, budget_tokens)
        return kept, fmean(len(prompt.token_ids) for prompt in kept), share


def _rendered(rows: Sequence[Row], renderer: Renderer) -> list[Prompt]:
    prompts, problems = [], []
    for row in rows:
        try:
            prompts.append(renderer.prompt(row))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise data_error(problems)
    return prompts


def check_first(lines: Lines, required: Required, size: int, layout: RowLayout = JSON_LINES) -> None:
    """Check every line within the first ``size`` bytes of a file.

    Raises DataError with all problems, and DataError or TrainerError if the file cannot be read.
    """
    with readable(lines.file), lines.file.open("rb") as file:
        head = file.read(size)
    whole = head[: head.rfind(b"\n") + 1]
    problems = [problem for _, found in checked(whole, required, layout) for problem in found]
    if problems:
        raise data_error(problems)


def sample(lines: Lines, required: Required, layout: RowLayout = JSON_LINES) -> Sample:
    """Return a sample of rows from a file.

    Which lines are read depends only on the number of lines in the file, not on the run's seed. Raises
    DataError if rows are invalid, or if there are too few different prompts.
    """
    rows: dict[str, Row] = {}
    problems: list[str] = []
    most, least = min(len(lines), _TRIES * MAX_HELD_OUT), max(MIN_HELD_OUT, MAX_HELD_OUT // 2)
    for index in range(most):
        line = 1 + permuted(index, len(lines), "held-out")
        row, found = _row(lines, line, required, layout)
        problems += found
        if row is not None:
            rows.setdefault(row.key, row)
        if len(rows) == MAX_HELD_OUT:
            break
    if problems:
        raise data_error(problems)
    if len(rows) < least:
        raise DataError(
            f"{lines.file}: {most} rows were read, and they have only {len(rows)} different prompts; at"
            f" least {least} are needed: remove repeated rows, or add rows with other prompts"
        )
    return Sample(list(rows.values()))


def _row(lines: Lines, line: int, required: Required, layout: RowLayout) -> tuple[Row | None, list[str]]:
    """Return the row of a line and the line's problems. A blank line has no row (None) and no problems.

    The row is also None if the line cannot be parsed. Raises DataError if the line has problems and the file
    was changed during the run.
    """
    raw = lines[line]
    if not raw.strip():
        return None, []
    row, problems = read_row(line, raw, required, layout)
    if problems and lines.changed():
        raise DataError(f"{problems[0]}: {lines.file} was changed during the run")
    return row, problems


class Streamed(TrainingPrompts):
    """The prompts of a large file, read line by line in a computed order."""

    def __init__(
        self,
        lines: Lines,
        required: Required,
        renderer: Renderer,
        budget_tokens: int,
        held_out: Collection[str],
        seed: int,
        layout: RowLayout = JSON_LINES,
    ) -> None:
        """Prepare the prompts. No line is read yet.

        - ``budget_tokens``: the longest prompt that is used, in tokens. Longer prompts are skipped.
        - ``held_out``: the keys of the held-out prompts, which are not used for training.
        """
        self._lines, self._required, self._layout, self._renderer = lines, required, layout, renderer
        self._budget, self._held_out, self._seed = budget_tokens, frozenset(held_out), seed
        self.rows = len(lines)

    def read(self, position: Position) -> Iterator[Reached]:
        """Yield the prompts from ``position`` to the end of its epoch, then a ``Reached`` without a prompt.

        Rows that cannot be used for training are skipped: blank lines, held-out rows and prompts that are too
        long. Raises DataError at an invalid line. The error also has problems of later lines. Also raises
        DataError if no row of the epoch can be used.
        """
        dropped, found = 0, False
        for offset in range(position.offset, self.rows):
            prompt, problems = self._prompt(position.epoch, offset)
            if problems:
                raise data_error([*problems, *self._problems_after(position.epoch, offset)])
            if prompt is None:
                continue
            if len(prompt.token_ids) > self._budget:
                dropped += 1
                continue
            found = True
            yield Reached(prompt, offset + 1, dropped)
        if not found and position.offset == 0:
            raise DataError(
                f"{self._lines.file}: no line can be used for training: of {self.rows} lines {dropped} are"
                f" longer than {self._budget} tokens, and the others are blank or held out for evaluation"
            )
        yield Reached(None, self.rows, dropped)

    def _prompt(self, epoch: int, offset: int) -> tuple[Prompt | None, list[str]]:
        line = 1 + permuted(offset, self.rows, f"order/{self._seed}/{epoch}")
        row, problems = _row(self._lines, line, self._required, self._layout)
        if row is None or problems or row.key in self._held_out:
            return None, problems
        try:
            return self._renderer.prompt(row), []
        except ValueError as error:
            return None, [str(error)]

    def _problems_after(self, epoch: int, offset: int) -> list[str]:
        """Return problems of the lines that follow ``offset`` in the training order.

        So one error can report many problems. At most ``LOOK_AHEAD`` lines are checked.
        """
        found: list[str] = []
        for later in range(offset + 1, min(self.rows, offset + 1 + LOOK_AHEAD)):
            found += self._prompt(epoch, later)[1]
            if len(found) >= MAX_LISTED:
                break
        return found
