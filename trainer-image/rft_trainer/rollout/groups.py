"""Groups: the rollouts of one prompt in one step, with their rewards and advantages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rft_graders.types import GradeItem, Score, ScoredBatch
from rft_trainer.data import Prompt
from rft_trainer.rollout.advantages import (
    NO_PENALTY,
    Normalization,
    Overlong,
    group_advantages,
    zero_variance,
)
from rft_trainer.rollout.engine import (
    Generated,
    Request,
    SamplingParameters,
    rollout_seed,
)
from rft_trainer.rollout.segments import Segment


@dataclass(frozen=True)
class Rollout:
    """One completion with its score. The length ``penalty`` is subtracted from the reward of the score."""

    generated: Generated
    score: Score
    penalty: float = 0.0

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments of a rollout of several turns. Empty if the rollout is a single answer."""
        return self.generated.episode.segments if self.generated.episode is not None else ()


@dataclass(frozen=True)
class Group:
    """The rollouts of a prompt.

    - ``accepted``: the graded rollouts. Empty if fewer than two rollouts were graded.
    - ``advantages``: the advantage of each accepted rollout.
    """

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    accepted: tuple[Rollout, ...]
    advantages: tuple[float, ...]

    @property
    def dropped(self) -> bool:
        """Whether the group is not used for training, because fewer than two rollouts were graded."""
        return not self.advantages

    @property
    def flat(self) -> bool:
        """Whether all rewards after the length penalty are equal. If so, all advantages are zero."""
        return not self.dropped and zero_variance([penalized(r) for r in self.accepted])


@dataclass(frozen=True)
class SampledBatch:
    """The groups of a step, in the order of the step's prompts.

    - ``rollout_seconds``: the time that sampling took, in seconds.
    - ``grade_seconds``: the time that grading took, in seconds.
    - ``adapter_version``: the version that sampled the groups. If a batch is refilled in its own step, this
      is the version that sampled the first groups, and the refills have the version of the step.
    - ``refilled``: number of groups that were added later (refills), because other groups have equal
      rewards.
    """

    groups: list[Group]
    scores: ScoredBatch
    rollout_seconds: float
    grade_seconds: float
    adapter_version: int = 0
    refilled: int = 0

    @property
    def kept(self) -> list[Group]:
        """The groups that have advantages, because at least two of their rollouts were graded."""
        return [group for group in self.groups if not group.dropped]

    @property
    def varied(self) -> list[Group]:
        """The groups with advantages whose rewards after the length penalty are not all equal."""
        return [group for group in self.kept if not group.flat]

    def joined(self, more: "SampledBatch") -> "SampledBatch":
        """Return this batch with the groups of ``more``, which were sampled as a refill."""
        return replace(
            self,
            groups=self.groups + more.groups,
            scores=ScoredBatch([*self.scores, *more.scores]),
            rollout_seconds=self.rollout_seconds + more.rollout_seconds,
            grade_seconds=self.grade_seconds + more.grade_seconds,
            refilled=self.refilled + len(more.groups),
        )


def reward(rollout: Rollout) -> float:
    """Return the reward of an accepted rollout, without the penalty for its length."""
    assert rollout.score.reward is not None
    return rollout.score.reward


def penalized(rollout: Rollout) -> float:
    """Return the reward of an accepted rollout after the penalty for its length."""
    return reward(rollout) - rollout.penalty


def rollout_requests(
    prompts: Sequence[Prompt],
    count: int,
    parameters: SamplingParameters,
    seed: int,
    purpose: int | str,
    adapter: str | None = None,
) -> list[Request]:
    """Return ``count`` requests for each prompt, in the order of the prompts.

    The seed of a request depends on four values: ``seed``, ``purpose`` (a step or a name), the line of the
    row, and the number of the rollout. ``adapter``: see ``Request``.
    """
    return [
        Request(prompt.token_ids, rollout_seed(seed, purpose, prompt.row.line, number), parameters, adapter)
        for prompt in prompts
        for number in range(count)
    ]


def grade_items(prompts: Sequence[Prompt], completions: Sequence[Generated]) -> list[GradeItem]:
    """Return the input of the graders: each completion with its prompt.

    For a rollout of several turns, the completion is the last answer. The messages are all messages before
    this answer. ``completions`` has the same number of completions for each prompt. The completions of one
    prompt follow each other.
    """
    count = len(completions) // max(1, len(prompts))
    repeated = [prompt for prompt in prompts for _ in range(count)]
    return [_item(prompt, completion) for prompt, completion in zip(repeated, completions, strict=True)]


def _item(prompt: Prompt, completion: Generated) -> GradeItem:
    episode = completion.episode
    if episode is None:
        return GradeItem(
            prompt.row.messages,
            completion.text,
            prompt.row.fields,
            inside_thought=prompt.opens_thought,
            token_ids=completion.token_ids,
        )
    answers = [place for place, message in enumerate(episode.messages) if message["role"] == "assistant"]
    before = episode.messages[: answers[-1]] if answers else episode.messages
    return GradeItem(
        before,
        completion.text,
        prompt.row.fields,
        inside_thought=prompt.opens_thought,
        environment=episode.reward,
    )


def form_groups(
    prompts: Sequence[Prompt],
    completions: Sequence[Generated],
    scores: Sequence[Score],
    normalization: Normalization,
    overlong: Overlong = NO_PENALTY,
) -> list[Group]:
    """Return a group for each prompt, with the advantages of its rollouts.

    Completions and scores are in the order of ``grade_items``.
    """
    by_prompt = [
        tuple(replace(one, penalty=overlong.penalty(len(one.generated.token_ids))) for one in rollouts)
        for rollouts in rollouts_by_prompt(prompts, completions, scores)
    ]
    return [
        group_of(prompt, rollouts, normalization) for prompt, rollouts in zip(prompts, by_prompt, strict=True)
    ]


def rollouts_by_prompt(
    prompts: Sequence[Prompt], completions: Sequence[Generated], scores: Sequence[Score]
) -> list[tuple[Rollout, ...]]:
    """Return the rollouts of each prompt. Completions and scores are in the order of ``grade_items``."""
    rollouts = [Rollout(generated, score) for generated, score in zip(completions, scores, strict=True)]
    count = len(rollouts) // max(1, len(prompts))
    return [tuple(rollouts[index * count : (index + 1) * count]) for index in range(len(prompts))]


def group_of(prompt: Prompt, rollouts: tuple[Rollout, ...], normalization: Normalization) -> Group:
    """Return the group of a prompt. If fewer than two rollouts are graded, it has no advantages."""
    accepted = tuple(rollout for rollout in rollouts if rollout.score.reward is not None)
    if len(accepted) < 2:
        return Group(prompt, rollouts, (), ())
    advantages = group_advantages([penalized(rollout) for rollout in accepted], normalization)
    return Group(prompt, rollouts, accepted, tuple(advantages))
