"""Inputs and outputs of the scorer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rft_api.graders import Grader
from rft_graders.thought import answer


@dataclass(frozen=True)
class GradeItem:
    """One completion and its row. ``row_fields`` are the row's fields except the messages.

    ``inside_thought`` says that the prompt ends inside the thought of a thinking model.
    """

    prompt_messages: Sequence[Mapping[str, Any]]
    completion: str
    row_fields: Mapping[str, Any]
    inside_thought: bool = False
    token_ids: Sequence[int] | None = None
    """The completion's tokens; None: not known."""

    def read_by(self, grader: Grader) -> str | None:
        """Return what a grader is given of the completion; None if it reads an answer and there is none."""
        return answer(self.completion, inside=self.inside_thought) if grader.reads_answer else self.completion

    def row(self) -> dict[str, Any]:
        """Return the row as graders get it."""
        return {**self.row_fields, "messages": list(self.prompt_messages)}


@dataclass(frozen=True)
class Score:
    """One completion's result. A reward of None means that the rollout is dropped.

    ``per_grader`` has the scores in 0…1, after scale mapping; graders whose error drops the rollout have
    none, nor has a canary that failed. ``errors`` has one sentence for every grader that failed.
    """

    reward: float | None
    per_grader: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)
    """What the code of python graders printed, by grader; those that printed nothing are left out."""
    canaries: frozenset[str] = frozenset()
    """The graders of weight 0, whose errors count for nothing."""

    @property
    def failures(self) -> dict[str, str]:
        """The errors of graders that make the reward."""
        return {name: error for name, error in self.errors.items() if name not in self.canaries}


class ScoredBatch(list[Score]):
    """Scores in the order of the items, with statistics for the loop and the status."""

    @property
    def error_ratio(self) -> float:
        """Share of the completions with an error of a grader that makes the reward; 0 for an empty batch."""
        return sum(bool(score.failures) for score in self) / len(self) if self else 0.0

    @property
    def mostly_errors(self) -> bool:
        """Whether more than half of the completions have an error: the run should pause."""
        return self.error_ratio > 0.5

    @property
    def error_counts(self) -> dict[str, int]:
        """Errors of each grader that makes the reward; graders without one are left out."""
        return _count(name for score in self for name in score.failures)

    @property
    def canary_error_counts(self) -> dict[str, int]:
        """Errors of each canary; those without one are left out."""
        return _count(name for score in self for name in score.errors if name in score.canaries)

    @property
    def first_errors(self) -> dict[str, str]:
        """The first error message of each grader that makes the reward, for messages to users."""
        first: dict[str, str] = {}
        for score in self:
            for name, message in score.failures.items():
                first.setdefault(name, message)
        return first

    @property
    def grader_means(self) -> dict[str, float]:
        """Mean score per grader over the completions it scored."""
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
