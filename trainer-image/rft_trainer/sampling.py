"""From prompts to scored rollouts: requests, generation, grading, groups."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rft_trainer.advantages import Normalization, group_advantages, zero_variance
from rft_trainer.data import Prompt
from rft_trainer.layout import Sample
from rft_trainer.rewards.scorer import Scorer
from rft_trainer.rewards.types import GradeItem, Score, ScoredBatch
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
    """The accepted rollouts of a prompt with their advantages. ``dropped`` groups have none."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    accepted: tuple[Rollout, ...]
    advantages: tuple[float, ...]

    @property
    def dropped(self) -> bool:
        """Whether fewer than two rollouts were graded."""
        return not self.advantages

    @property
    def flat(self) -> bool:
        """Whether all rewards are equal."""
        return not self.dropped and zero_variance([reward(r) for r in self.accepted])

    def samples(self, mask_truncated: bool) -> list[Sample]:
        """What the update needs."""
        return [
            Sample(
                rollout.generated.token_ids,
                rollout.generated.logprobs,
                advantage,
                masked=mask_truncated and rollout.generated.truncated,
            )
            for rollout, advantage in zip(self.accepted, self.advantages, strict=True)
        ]


@dataclass(frozen=True)
class SampledBatch:
    """A step's groups, in the order of its prompts, and how long they took, in seconds."""

    groups: list[Group]
    scores: ScoredBatch
    rollout_seconds: float
    grade_seconds: float


def reward(rollout: Rollout) -> float:
    """Reward of an accepted rollout."""
    assert rollout.score.reward is not None
    return rollout.score.reward


def complete_and_score(
    prompts: Sequence[Prompt],
    requests: Sequence[Request],
    engine: RolloutEngine,
    scorer: Scorer,
    should_stop: Callable[[], bool],
) -> tuple[list[Rollout], ScoredBatch, float, float]:
    """Generate and grade one completion per request; also returns the seconds of both.

    ``prompts`` has the prompt of every request. Raises what engine and scorer raise.
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
    """Sample ``count`` rollouts of each prompt and turn their rewards into advantages."""
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
