"""``rollouts/step-000042.jsonl.zst``: every completion of a step with its scores, compressed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rft_run.record import Record


class UnreadableRollouts(ValueError):
    """A file of rollouts cannot be read. The message says why."""


class RolloutRecord(Record):
    """A completion, its prompt, its scores and its reward."""

    step: int | None = None
    line: int
    """The line of the row in the dataset, counted from 1."""
    messages: list[dict[str, Any]] = Field(default_factory=list)
    fields: dict[str, Any] = Field(default_factory=dict)
    """The row's other fields, which graders read."""
    completion: str
    reward: float | None = None
    """None: the completion could not be graded, and was not used for training."""
    graders: dict[str, float | None]
    """Score by grader, from 0 to 1."""
    errors: dict[str, str] = Field(default_factory=dict)
    """Errors of the graders that failed, by grader."""
    printed: dict[str, str] = Field(default_factory=dict)
    """What the code of python graders printed, by grader."""
    overlong_penalty: float | None = None
    """What was taken from the reward for its length, before the advantage."""
    advantage: float | None = None
    finish_reason: str | None = None
    tokens: int | None = None


def compressed(records: Sequence[RolloutRecord]) -> bytes:
    """Return the compressed content of a step's file of rollouts."""
    import zstandard  # only needed where rollouts are read or written

    return zstandard.ZstdCompressor().compress("".join(record.as_line() for record in records).encode())


def read_rollouts(path: Path) -> list[RolloutRecord]:
    """Return the rollouts of a step. Raises UnreadableRollouts, also where there is no such file."""
    import zstandard

    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            lines = stream.read().decode().split("\n")
        return [RolloutRecord.from_line(line) for line in lines if line]
    except (OSError, ValueError, zstandard.ZstdError) as error:
        problem = _problem(error) if isinstance(error, ValidationError) else error
        raise UnreadableRollouts(f"{path}: is not a file of rollouts: {problem}") from error


def _problem(error: ValidationError) -> str:
    """Return the first problem of a record as one line."""
    first = error.errors()[0]
    if first["type"] == "missing":
        return "a record has no line, completion or graders"
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]
