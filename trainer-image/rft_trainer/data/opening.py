"""A run's datasets: which are read whole before the start, and which as they are reached."""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rft_api.runconfig import RunConfig
from rft_trainer.data.lines import Lines, index_lines
from rft_trainer.data.rendering import Renderer, Tokenizer
from rft_trainer.data.rows import Prompt, Required, Row, required_fields
from rft_trainer.data.source import discard, local_file, readable
from rft_trainer.data.streamed import Sample, Streamed, check_first, sample
from rft_trainer.data.training import InMemory, TrainingPrompts
from rft_trainer.data.whole import load_rows, render, split, without
from rft_trainer.errors import DataError

log = logging.getLogger(__name__)

FOLDER = "data"
"""Of the run's folder: copies of what is remote, and where the lines of large files begin."""

WHOLE_BYTES = 32 << 20
"""A file up to this size is read and checked whole before the start; of a larger one, its first so many."""


@dataclass(frozen=True)
class Prompts:
    """What is trained and evaluated on, and how many prompts were too long so far."""

    train: TrainingPrompts
    heldout: list[Prompt]
    dropped: int


class Rows(Protocol):
    """Rows that were checked, as far as they are before the start."""

    def rendered(
        self, tokenizer: Tokenizer, arguments: Mapping[str, Any] | None, budget_tokens: int
    ) -> Prompts:
        """Render them with the model's template. Raises DataError, ConfigurationError."""


@dataclass(frozen=True)
class WholeRows:
    """All rows, in memory."""

    train: list[Row]
    heldout: list[Row]
    seed: int

    def rendered(
        self, tokenizer: Tokenizer, arguments: Mapping[str, Any] | None, budget_tokens: int
    ) -> Prompts:
        """Render every row."""
        train, dropped = render(self.train, tokenizer, arguments, budget_tokens)
        heldout, more = render(self.heldout, tokenizer, arguments, budget_tokens)
        return Prompts(InMemory(train, self.seed), heldout, dropped + more)


@dataclass(frozen=True)
class StreamedRows:
    """Rows that stay in their file; ``heldout`` where the evaluation has a dataset of its own."""

    lines: Lines
    required: Required
    sample: Sample
    heldout: list[Row] | None
    seed: int

    def rendered(
        self, tokenizer: Tokenizer, arguments: Mapping[str, Any] | None, budget_tokens: int
    ) -> Prompts:
        """Render what is evaluated on, and a sample for the lengths."""
        renderer = Renderer(tokenizer, arguments)
        heldout, length, share = self.sample.prompts(renderer, budget_tokens)
        dropped = len(self.sample.rows) - len(heldout)
        rows = self.sample.rows
        if self.heldout is not None:
            rows = self.heldout
            heldout, dropped = render(rows, tokenizer, arguments, budget_tokens)
        keys = {row.key for row in rows}
        train = Streamed(self.lines, self.required, renderer, budget_tokens, keys, self.seed)
        train.mean_length, train.share = length, share
        return Prompts(train, heldout, dropped)


def open_rows(config: RunConfig, stack: ExitStack, should_stop: Callable[[], bool]) -> Rows:
    """Return a run's rows; ``stack`` closes their files. Raises what ``local_file`` raises, and DataError.

    Copies with broken rows are forgotten, so that the corrected source is read the next time.
    """
    folder = Path(config.run_dir) / FOLDER
    try:
        return _opened(config, folder, stack, should_stop)
    except DataError:
        discard(folder)
        raise


def _opened(config: RunConfig, folder: Path, stack: ExitStack, should_stop: Callable[[], bool]) -> Rows:
    required, seed = required_fields(config.spec.graders), config.effective.seed
    heldout = None
    if config.evaluation_path is not None:
        heldout = load_rows(local_file(config.evaluation_path, folder / "evaluation", should_stop), required)
    file = local_file(config.dataset_path, folder / "train", should_stop)
    with readable(file):
        size = file.stat().st_size
    if size > WHOLE_BYTES:
        return _streamed(file, folder, required, heldout, seed, stack)
    rows = load_rows(file, required)
    if heldout is not None:
        return WholeRows(without(rows, heldout), heldout, seed)
    return WholeRows(*split(rows, config.spec.evaluation), seed)


def _streamed(
    file: Path, folder: Path, required: Required, heldout: list[Row] | None, seed: int, stack: ExitStack
) -> StreamedRows:
    index = folder / "train.lines"
    if index_lines(file, index):
        log.warning("%s changed since this run began: it goes on with the rows as they are now", file)
    lines = Lines(file, index)
    stack.callback(lines.close)
    check_first(lines, required, WHOLE_BYTES)
    begun = WHOLE_BYTES >> 20
    log.info("%s: %d lines, checked beyond the first %d MiB when reached", file, len(lines), begun)
    return StreamedRows(lines, required, sample(lines, required), heldout, seed)
