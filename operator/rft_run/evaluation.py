"""Reads the held-out evaluations in a run's folder. Each evaluation is in a file such as
``evaluation/step-000042.json``.
"""

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field, ValidationError, model_validator

from rft_run import run_files
from rft_run.folder import RunFolder
from rft_run.record import Record, Whole


class UnreadableEvaluation(ValueError):
    """The file of a held-out evaluation is missing, or this release cannot read it. The message has the
    file's path.
    """


class EvaluationRecord(Record):
    """One held-out evaluation: the scores of one policy on the held-out rows.

    Each list has one item for each row, in the order of ``lines``. A score is the mean over the samples of a
    row, from 0 to 1. It is None if no sample of the row was graded.
    """

    step: Whole
    """The training step after which the policy was evaluated. 0 is the starting policy."""
    lines: list[Whole]
    """The line number of each row in the file of the dataset, counted from 1."""
    reward: list[float | None]
    """The reward of each row."""
    graders: dict[str, list[float | None]] = Field(default_factory=dict)
    """The scores of each grader, by the name of the grader."""
    completions: list[str] = Field(default_factory=list)
    """The text of the first sample of each row. An empty list if the file has no texts."""
    truncated: float | None = None
    """Share of the samples that were truncated at ``maxTokens``."""
    rows: list[str] = Field(default_factory=list)
    """The digest of each row's content. An empty list if an older release wrote the file."""

    @model_validator(mode="after")
    def _one_item_for_each_row(self) -> Self:
        lengths = [len(self.reward), *map(len, self.graders.values())]
        lengths += [len(texts) for texts in (self.completions, self.rows) if texts]
        if any(length != len(self.lines) for length in lengths):
            raise ValueError("the lists do not have one item for each row")
        return self

    @property
    def mean_reward(self) -> float | None:
        """Mean reward over the graded rows, or None if no row was graded."""
        return mean_score(self.reward)

    def rewards_by_row(self) -> Mapping[tuple[int, str], float]:
        """Return the reward of each graded row. The key is the row's line number and digest, so that the same
        row is found in another evaluation. The digest is "" if the file has no digests.
        """
        digests = self.rows if len(self.rows) == len(self.lines) else [""] * len(self.lines)
        pairs = zip(self.lines, digests, self.reward, strict=False)
        return {(line, digest): reward for line, digest, reward in pairs if reward is not None}


def mean_score(scores: Sequence[float | None]) -> float | None:
    """Return the mean of the scores that are not None. Return None if all scores are None, or there are no
    scores.
    """
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def read_evaluation(folder: RunFolder, step: int) -> EvaluationRecord:
    """Return the held-out evaluation after training step ``step``. Step 0 is the starting policy.

    Raises UnreadableEvaluation if the file is missing or invalid, and OSError if the disk fails.
    """
    path = folder.evaluation_of(step)
    try:
        return EvaluationRecord.model_validate(run_files.json_of(path, run_files.EVALUATION_BYTES))
    except ValidationError as error:
        raise UnreadableEvaluation(f"{path}: is not a held-out evaluation") from error
    except ValueError as error:
        raise UnreadableEvaluation(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise UnreadableEvaluation(f"{path}: there is no such evaluation") from error
