"""Turns prompts into groups of scored rollouts: requests, generation, grading, advantages."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rft_graders.scorer import Scorer
from rft_graders.types import GradeItem, Score, ScoredBatch
from rft_trainer.data import Prompt
from rft_trainer.rollout.advantages import Normalization, group_advantages, zero_variance
from rft_trainer.rollout.engine import (
    Generated,
    Request,
    RolloutEngine,
    SamplingParameters,
    rollout_seed,
)


@dataclass(frozen=True)
class Rollout:
    """One completion with its score."""

    generated: Generated
    score: Score


@dataclass(frozen=True)
class Group:
    """The rollouts of a prompt, and the accepted (graded) ones with their advantages."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    accepted: tuple[Rollout, ...]
    advantages: tuple[float, ...]

    @property
    def dropped(self) -> bool:
        """Whether the group is not trained on, because fewer than two rollouts were graded."""
        return not self.advantages

    @property
    def flat(self) -> bool:
        """Whether all rewards are equal, so that all advantages are zero."""
        return not self.dropped and zero_variance([reward(r) for r in self.accepted])


@dataclass(frozen=True)
class SampledBatch:
    """A step's groups, in the order of its prompts, and the time they took, in seconds."""

    groups: list[Group]
    scores: ScoredBatch
    rollout_seconds: float
    grade_seconds: float


def reward(rollout: Rollout) -> float:
    """Return the reward of an accepted rollout."""
    assert rollout.score.reward is not None
    return rollout.score.reward


def complete_and_score(
    prompts: Sequence[Prompt],
    requests: Sequence[Request],
    engine: RolloutEngine,
    scorer: Scorer,
    should_stop: Callable[[], bool],
) -> tuple[list[Rollout], ScoredBatch, float, float]:
    """Generate and grade one completion per request; also return the seconds that each of the two took.

    ``prompts`` are the prompts of the requests, in the same order. Raises the errors of engine and scorer.
    """
    started = time.monotonic()
    generated = engine.generate(requests, should_stop)
    rolled = time.monotonic()
    items = [
        GradeItem(prompt.row.messages, completion.text, prompt.row.fields)
        for prompt, completion in zip(prompts, generated, strict=True)
    ]
    scores = scorer.score(items, should_stop)
    rollouts = [Rollout(g, s) for g, s in zip(generated, scores, strict=True)]
    return rollouts, scores, rolled - started, time.monotonic() - rolled


def sample_batch(
    prompts: Sequence[Prompt],
    count: int,
    parameters: SamplingParameters,
    normalization: Normalization,
    seed: int,
    step: int,
    engine: RolloutEngine,
    scorer: Scorer,
    should_stop: Callable[[], bool],
) -> SampledBatch:
    """Sample ``count`` rollouts of each prompt, grade them and compute their advantages."""
    repeated = [prompt for prompt in prompts for _ in range(count)]
    requests = [
        Request(prompt.token_ids, rollout_seed(seed, step, prompt.row.line, index % count), parameters)
        for index, prompt in enumerate(repeated)
    ]
    rollouts, scores, rollout_seconds, grade_seconds = complete_and_score(
        repeated, requests, engine, scorer, should_stop
    )
    groups = [
        _group(prompt, tuple(rollouts[index * count : (index + 1) * count]), normalization)
        for index, prompt in enumerate(prompts)
    ]
    return SampledBatch(groups, scores, rollout_seconds, grade_seconds)


def _group(prompt: Prompt, rollouts: tuple[Rollout, ...], normalization: Normalization) -> Group:
    accepted = tuple(rollout for rollout in rollouts if rollout.score.reward is not None)
    if len(accepted) < 2:
        return Group(prompt, rollouts, (), ())
    advantages = group_advantages([reward(rollout) for rollout in accepted], normalization)
    return Group(prompt, rollouts, accepted, tuple(advantages))
