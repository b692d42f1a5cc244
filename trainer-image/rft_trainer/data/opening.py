"""Opens a run's datasets: small files are read completely before the start, large ones row by row."""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rft_api.sources import Dataset
from rft_graders.row_fields import Required, required_fields
from rft_run.config import RunConfig
from rft_run.errors import DataError
from rft_run.folder import RunFolder
from rft_run.rows import RowLayout
from rft_run.rows.tool_calls import ToolStyle
from rft_trainer.data.lines import Lines, index_lines
from rft_trainer.data.rendering import Renderer, Tokenizer
from rft_trainer.data.rows import Prompt, Row
from rft_trainer.data.run_rendering import CURRENT, Rendering
from rft_trainer.data.source import discard, local_file, readable
from rft_trainer.data.streamed import Sample, Streamed, check_first, sample
from rft_trainer.data.training import InMemory, TrainingPrompts
from rft_trainer.data.unpacking import as_json_lines
from rft_trainer.data.whole import load_rows, render, split, without

log = logging.getLogger(__name__)

DATASET, EVALUATION = "spec.dataset", "spec.evaluation.dataset"

WHOLE_BYTES = 32 << 20
"""Files up to this number of bytes are checked completely before the start of a run.

A larger file is checked only up to this number of bytes."""


@dataclass(frozen=True)
class Prompts:
    """The prompts for training and evaluation.

    ``dropped`` is the number of prompts that were too long. Prompts that are not read yet are not counted.
    """

    train: TrainingPrompts
    heldout: list[Prompt]
    dropped: int


class Rows(Protocol):
    """The interface of a run's rows. For large files only some of the rows are checked before the start."""

    @property
    def files(self) -> Mapping[str, Path]:
        """The local file of each dataset. A key is the field of the manifest that names the dataset."""

    def rendered(
        self,
        tokenizer: Tokenizer,
        arguments: Mapping[str, Any] | None,
        budget_tokens: int,
        tool_style: ToolStyle = "template",
    ) -> Prompts:
        """Render the rows with the model's chat template.

        ``arguments``: the job's ``chatTemplateArgs``. ``tool_style``: see ``Renderer``. Prompts of more than
        ``budget_tokens`` tokens are dropped.

        Raises:
            DataError: the chat template refuses a row, or every prompt is too long.
            ConfigurationError: the tokenizer has no chat template.
        """


@dataclass(frozen=True)
class WholeRows:
    """The rows of datasets in small files, all in memory. ``train`` is empty if nothing is trained."""

    train: list[Row]
    heldout: list[Row]
    seed: int
    files: Mapping[str, Path]
    rendering: Rendering = CURRENT

    def rendered(
        self,
        tokenizer: Tokenizer,
        arguments: Mapping[str, Any] | None,
        budget_tokens: int,
        tool_style: ToolStyle = "template",
    ) -> Prompts:
        """Render all rows with the chat template of the model."""
        train: list[Prompt] = []
        dropped = 0
        if self.train:
            train, dropped = render(
                self.train, tokenizer, arguments, budget_tokens, self.rendering, tool_style
            )
        if not self.heldout:
            return Prompts(InMemory(train, self.seed), [], dropped)
        heldout, more = render(self.heldout, tokenizer, arguments, budget_tokens, self.rendering, tool_style)
        return Prompts(InMemory(train, self.seed), heldout, dropped + more)


@dataclass(frozen=True)
class StreamedRows:
    """The rows of a dataset in a large file. A row is read when it is needed.

    ``heldout`` contains the rows of a separate evaluation dataset. It is None if there is no such dataset:
    then the rows of ``sample`` are held out. It is empty if the evaluation is off.
    """

    lines: Lines
    required: Required
    sample: Sample
    heldout: list[Row] | None
    seed: int
    layout: RowLayout
    files: Mapping[str, Path]
    rendering: Rendering = CURRENT

    def rendered(
        self,
        tokenizer: Tokenizer,
        arguments: Mapping[str, Any] | None,
        budget_tokens: int,
        tool_style: ToolStyle = "template",
    ) -> Prompts:
        """Render the held-out rows, and a sample of the training rows to estimate the length of prompts."""
        renderer = Renderer(tokenizer, arguments, self.rendering, tool_style)
        heldout, length, share = self.sample.prompts(renderer, budget_tokens)
        dropped = len(self.sample.rows) - len(heldout)
        rows = self.sample.rows
        if self.heldout is not None:
            rows, heldout, dropped = self.heldout, [], 0
            if rows:
                heldout, dropped = render(
                    rows, tokenizer, arguments, budget_tokens, self.rendering, tool_style
                )
        keys = {row.key for row in rows}
        train = Streamed(self.lines, self.required, renderer, budget_tokens, keys, self.seed, self.layout)
        train.mean_length, train.share = length, share
        return Prompts(train, heldout, dropped)


def open_rows(config: RunConfig, stack: ExitStack, should_stop: Callable[[], bool]) -> Rows:
    """Return the rows of a run. ``stack`` closes their files.

    After a DataError the copies of remote files are removed, so that the next attempt reads the remote files
    again. Raises DataError and the errors of ``local_file``.
    """
    folder = RunFolder(Path(config.run_dir)).data
    try:
        return _opened(config, folder, stack, should_stop)
    except DataError:
        discard(folder)
        raise


def open_heldout(config: RunConfig, stack: ExitStack, should_stop: Callable[[], bool]) -> Rows:
    """Return the rows for an evaluation without training. The held-out rows are those of a training run.

    The training dataset is read only if it has the held-out rows. Raises the errors of ``open_rows``.
    """
    if config.evaluation_path is None:
        return open_rows(config, stack, should_stop)
    run = RunFolder(Path(config.run_dir))
    file, heldout = _evaluation_rows(config, config.evaluation_path, run.data, should_stop)
    return WholeRows([], heldout, config.effective.seed, {EVALUATION: file}, Rendering.of_run(run))


def _evaluation_rows(
    config: RunConfig, source: str, folder: Path, should_stop: Callable[[], bool]
) -> tuple[Path, list[Row]]:
    """Return the local file and the rows of the separate evaluation dataset at ``source``."""
    dataset = config.spec.evaluation.dataset or Dataset()
    file, layout = _found(source, dataset, folder / "evaluation", EVALUATION, should_stop)
    return file, load_rows(file, required_fields(config.spec.graders), layout)


def _found(
    source: str, dataset: Dataset, folder: Path, field: str, should_stop: Callable[[], bool]
) -> tuple[Path, RowLayout]:
    """Return the local file of a dataset, as JSON lines, and the format and column names of its rows."""
    layout = RowLayout.of(dataset, field)
    return as_json_lines(local_file(source, folder, should_stop), layout, folder, should_stop), layout


def _opened(config: RunConfig, folder: Path, stack: ExitStack, should_stop: Callable[[], bool]) -> Rows:
    required, seed = required_fields(config.spec.graders), config.effective.seed
    files: dict[str, Path] = {}
    rendering = Rendering.of_run(RunFolder(Path(config.run_dir)))
    heldout: list[Row] | None = [] if config.spec.evaluation.is_off else None
    if config.evaluation_path is not None:
        files[EVALUATION], heldout = _evaluation_rows(config, config.evaluation_path, folder, should_stop)
    file, layout = _found(config.dataset_path, config.spec.dataset, folder / "train", DATASET, should_stop)
    files[DATASET] = file
    with readable(file):
        size = file.stat().st_size
    if size > WHOLE_BYTES:
        lines = _indexed(file, folder, stack)
        check_first(lines, required, WHOLE_BYTES, layout)
        begun = WHOLE_BYTES >> 20
        said = "%s: %d lines; lines after the first %d MiB are checked when they are used"
        log.info(said, file, len(lines), begun)
        of_all = sample(lines, required, layout)
        return StreamedRows(lines, required, of_all, heldout, seed, layout, files, rendering)
    rows = load_rows(file, required, layout)
    if heldout:
        return WholeRows(without(rows, heldout), heldout, seed, files, rendering)
    return WholeRows(*split(rows, config.spec.evaluation), seed, files, rendering)


def _indexed(file: Path, folder: Path, stack: ExitStack) -> Lines:
    index = folder / "train.lines"
    index_lines(file, index)
    lines = Lines(file, index)
    stack.callback(lines.close)
    return lines
