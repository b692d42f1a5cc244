"""Reads and writes the rollouts of a step: every completion with its scores, compressed.

The file of a step is called like ``rollouts/step-000042.jsonl.zst``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rft_run.record import Record


class UnreadableRollouts(ValueError):
    """A file of rollouts cannot be read. The message says why."""


class RolloutRecord(Record):
    """A rollout: a completion with its prompt, its scores and its reward."""

    step: int | None = None
    line: int
    """The line of the row in the dataset, counted from 1."""
    messages: list[dict[str, Any]] = Field(default_factory=list)
    fields: dict[str, Any] = Field(default_factory=dict)
    """The other fields of the row, which graders read."""
    completion: str
    reward: float | None = None
    """The reward. None if the completion could not be graded, and so was not used for training."""
    graders: dict[str, float | None]
    """The score of each grader, from 0 to 1, by the name of the grader."""
    errors: dict[str, str] = Field(default_factory=dict)
    """The errors of the graders that failed, by the name of the grader."""
    printed: dict[str, str] = Field(default_factory=dict)
    """The output that the code of python graders printed, by the name of the grader."""
    overlong_penalty: float | None = None
    """Penalty for a long completion. It is subtracted from the reward before the advantage is computed."""
    advantage: float | None = None
    finish_reason: str | None = None
    tokens: int | None = None


def compressed(records: Sequence[RolloutRecord]) -> bytes:
    """Return the compressed content of the file with the rollouts of a step."""
    import zstandard  # only needed where rollouts are read or written

    return zstandard.ZstdCompressor().compress("".join(record.as_line() for record in records).encode())


def read_rollouts(path: Path) -> list[RolloutRecord]:
    """Return the rollouts of a step. Raises UnreadableRollouts, also if there is no file for the step."""
    import zstandard

    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            lines = stream.read().decode().split("\n")
        return [RolloutRecord.from_line(line) for line in lines if line]
    except (OSError, ValueError, zstandard.ZstdError) as error:
        problem = _problem(error) if isinstance(error, ValidationError) else error
        raise UnreadableRollouts(f"{path}: is not a file of rollouts: {problem}") from error


def _problem(error: ValidationError) -> str:
    """Return the first problem of an invalid record in one line."""
    first = error.errors()[0]
    if first["type"] == "missing":
        return "a record has no line, completion or graders"
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]
