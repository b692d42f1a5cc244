"""Defines and reads the files of rollouts: for each training step, all completions with their scores.

The rollouts of a step are in one file of JSON lines, compressed with zstd. The file of step 42 is
``rollouts/step-000042.jsonl.zst``.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rft_run import run_files
from rft_run.record import Record, Whole


class UnreadableRollouts(ValueError):
    """The file with the rollouts of a step is missing or invalid. The message has its path and the reason."""


class RolloutRecord(Record):
    """A rollout: a completion that was sampled for a row of the dataset, with its scores and its reward."""

    step: Whole | None = None
    line: Whole
    """The line number of the row in the file of the dataset, counted from 1."""
    messages: list[dict[str, Any]] = Field(default_factory=list)
    fields: dict[str, Any] = Field(default_factory=dict)
    """The fields of the row other than its messages, such as the right answer. Graders read them."""
    completion: str
    reward: float | None = None
    """The reward of the rollout. None if the rollout was not used for training, because a grader failed."""
    graders: dict[str, float | None]
    """The score of each grader, from 0 to 1, by the name of the grader."""
    errors: dict[str, str] = Field(default_factory=dict)
    """The error message of each grader that failed, by the name of the grader."""
    printed: dict[str, str] = Field(default_factory=dict)
    """The text that the code of each python grader printed, by the name of the grader."""
    overlong_penalty: float | None = None
    """Penalty for a long completion. It is subtracted from ``reward`` before the advantage is computed."""
    advantage: float | None = None
    finish_reason: str | None = None
    tokens: Whole | None = None
    turns: list[dict[str, Any]] | None = None
    """The messages of a rollout of several turns, from the model's first message on. None for a rollout with
    a single answer."""
    limit: str | None = None
    """Name of the environment's limit that ended the rollout, such as ``maxTurns``. None if no limit did."""


def as_bytes(records: Sequence[RolloutRecord]) -> bytes:
    """Return the rollouts as the content of a file of JSON lines, before the compression."""
    return "".join(record.as_line() for record in records).encode()


def compressed(content: bytes) -> bytes:
    """Compress ``content``, the JSON lines of a file of rollouts, with zstd."""
    import zstandard  # only needed where rollouts are read or written

    return zstandard.ZstdCompressor().compress(content)


def read_rollouts(path: Path) -> list[RolloutRecord]:
    """Return all rollouts in the compressed file ``path``.

    Raises UnreadableRollouts if the file is missing or invalid.
    """
    return list(each_rollout(path))


def each_rollout(path: Path) -> Iterator[RolloutRecord]:
    """Yield the rollouts in the compressed file ``path`` one at a time, to save memory.

    Raises UnreadableRollouts if the file is missing or invalid.
    """
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=run_files.ROLLOUTS_WINDOW_BYTES)
    try:
        with run_files.opened(path) as file, io.BufferedReader(unpacker.stream_reader(file)) as stream:
            for line in run_files.lines(stream, run_files.ROLLOUTS_BYTES):
                if line != b"\n":
                    yield RolloutRecord.from_line(line)
    except (OSError, ValueError, zstandard.ZstdError) as error:
        problem = _problem(error) if isinstance(error, ValidationError) else error
        raise UnreadableRollouts(f"{path}: is not a file of rollouts: {problem}") from error


def _problem(error: ValidationError) -> str:
    """Return a message of one line about the first problem that pydantic found in a record of a rollout."""
    first = error.errors()[0]
    if first["type"] == "missing":
        return "a record lacks one of the fields line, completion and graders"
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]
