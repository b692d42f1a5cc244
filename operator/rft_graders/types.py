"""Types for scoring: a completion with its row, and the scores and the reward of a completion."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rft_api.graders import Grader
from rft_graders.client import Graded
from rft_graders.thought import answer


@dataclass(frozen=True)
class GradeItem:
    """A completion to score, with the row of the dataset from which its prompt comes.

    - ``row_fields``: all fields of the row except the messages.
    - ``inside_thought``: whether the prompt ends with <think>, so that the completion begins inside a
      thought.
    """

    prompt_messages: Sequence[Mapping[str, Any]]
    completion: str
    row_fields: Mapping[str, Any]
    inside_thought: bool = False
    token_ids: Sequence[int] | None = None
    """The token ids of the completion. None: they are not known."""
    environment: Graded | None = None
    """The reward that the environment gave this rollout, or its error. None for a job without an
    environment."""

    def read_by(self, grader: Grader) -> str | None:
        """Return the text that a grader reads: the completion, or only the answer after the model's thought.

        Return None if the grader reads only the answer, and the completion has no answer.
        """
        return answer(self.completion, inside=self.inside_thought) if grader.reads_answer else self.completion

    def row(self) -> dict[str, Any]:
        """Return the row that graders get: the fields of the row and the prompt's messages."""
        return {**self.row_fields, "messages": list(self.prompt_messages)}


@dataclass(frozen=True)
class Score:
    """The scores and the reward of one completion. If the reward is None, the rollout is dropped.

    - ``per_grader``: for each grader, its score from 0 to 1. A grader is left out if its error drops the
      rollout, or if it is a canary (a grader of weight 0) that failed.
    - ``errors``: for each grader that failed, one message.
    """

    reward: float | None
    per_grader: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)
    """The text that python graders printed, by grader's name. Graders that printed nothing are left out."""
    forged: dict[str, int] = field(default_factory=dict)
    """The number of forged replies of each grader, by the grader's name. A forged reply was not written by
    the grader's worker, and was refused. Graders without forged replies are left out.
    """
    canaries: frozenset[str] = frozenset()
    """Names of the graders of weight 0. Their scores and errors do not change the reward."""

    @property
    def failures(self) -> dict[str, str]:
        """The error of each failed grader, by the grader's name. Canaries, the graders of weight 0, are left
        out.
        """
        return {name: error for name, error in self.errors.items() if name not in self.canaries}


class ScoredBatch(list[Score]):
    """The scores of a batch of completions, in the order of the completions, with statistics for the training
    loop.
    """

    @property
    def error_ratio(self) -> float:
        """The fraction of completions for which a grader with a weight above 0 failed. It is 0 for an empty
        batch.
        """
        return sum(bool(score.failures) for score in self) / len(self) if self else 0.0

    @property
    def mostly_errors(self) -> bool:
        """Whether graders with a weight above 0 failed for more than half of the completions."""
        return self.error_ratio > 0.5

    @property
    def error_counts(self) -> dict[str, int]:
        """The number of errors of each grader with a weight above 0. Graders without errors are left out."""
        return _count(name for score in self for name in score.failures)

    @property
    def canary_error_counts(self) -> dict[str, int]:
        """The number of errors of each canary, a grader of weight 0. Canaries without errors are left out."""
        return _count(name for score in self for name in score.errors if name in score.canaries)

    @property
    def forged_counts(self) -> dict[str, int]:
        """The number of forged replies of each grader: replies that the grader's worker did not write.

        Graders without forged replies are left out.
        """
        counts: dict[str, int] = {}
        for score in self:
            for name, count in score.forged.items():
                counts[name] = counts.get(name, 0) + count
        return counts

    @property
    def first_errors(self) -> dict[str, str]:
        """The first error message of each failed grader with a weight above 0, by the grader's name. Messages
        to users quote these errors.
        """
        first: dict[str, str] = {}
        for score in self:
            for name, message in score.failures.items():
                first.setdefault(name, message)
        return first

    @property
    def grader_means(self) -> dict[str, float]:
        """The mean score of each grader, by the grader's name. Completions without its score do not count."""
        values: dict[str, list[float]] = {}
        for score in self:
            for name, value in score.per_grader.items():
                values.setdefault(name, []).append(value)
        return {name: sum(scores) / len(scores) for name, scores in values.items()}


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
