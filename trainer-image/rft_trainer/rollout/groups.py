"""Forms groups: the rollouts of one prompt in one training step, with their rewards and advantages."""

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
    """A sampled completion with its score by the graders.

    ``penalty``: a penalty for long completions. It is subtracted from the reward in ``score``.
    """

    generated: Generated
    score: Score
    penalty: float = 0.0

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The token sequences (segments) of a rollout of several turns. Empty if it is a single answer."""
        return self.generated.episode.segments if self.generated.episode is not None else ()


@dataclass(frozen=True)
class Group:
    """The rollouts of one prompt in one training step, with their advantages.

    - ``accepted``: the rollouts for which the graders gave a reward. Empty if there are fewer than two.
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
    """The sampled and graded groups of a training step, in the order of the step's prompts.

    - ``rollout_seconds``: the time that sampling took, in seconds.
    - ``grade_seconds``: the time that grading took, in seconds.
    - ``adapter_version``: the number of the adapter version that sampled the first groups. Groups that are
      added when the batch's own step has begun are sampled by the version of that step.
    - ``refilled``: number of groups that were added later, to replace groups in which all rewards are equal.
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
        """Return a batch with the groups of this batch and of ``more``. Times are added.

        ``more``: groups that were sampled later, to replace groups in which all rewards are equal.
        """
        return replace(
            self,
            groups=self.groups + more.groups,
            scores=ScoredBatch([*self.scores, *more.scores]),
            rollout_seconds=self.rollout_seconds + more.rollout_seconds,
            grade_seconds=self.grade_seconds + more.grade_seconds,
            refilled=self.refilled + len(more.groups),
        )


def reward(rollout: Rollout) -> float:
    """Return the reward of a graded rollout, without the penalty for its length."""
    assert rollout.score.reward is not None
    return rollout.score.reward


def penalized(rollout: Rollout) -> float:
    """Return the reward of a graded rollout minus the penalty for its length."""
    return reward(rollout) - rollout.penalty


def rollout_requests(
    prompts: Sequence[Prompt],
    count: int,
    parameters: SamplingParameters,
    seed: int,
    purpose: int | str,
    adapter: str | None = None,
) -> list[Request]:
    """Return ``count`` requests to the sampler for each prompt, in the order of the prompts.

    The seed of a request depends on four values: ``seed``, ``purpose`` (the number of a step, or a name), the
    line of the prompt in the dataset, and the number of the rollout, from 0. ``adapter``: the name of the
    adapter that samples. None: the sampler's current adapter.
    """
    return [
        Request(prompt.token_ids, rollout_seed(seed, purpose, prompt.row.line, number), parameters, adapter)
        for prompt in prompts
        for number in range(count)
    ]


def grade_items(prompts: Sequence[Prompt], completions: Sequence[Generated]) -> list[GradeItem]:
    """Return the input of the graders: one item for each completion, with the messages of its prompt.

    For a rollout of several turns, the item has the last answer, and all messages before this answer.
    ``completions``: all completions of the first prompt, then all of the second prompt, and so on. Each
    prompt has the same number of completions.
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

    - ``completions``, ``scores``: those of the first prompt, then those of the second prompt, and so on. Each
      prompt has the same number of them.
    - ``normalization``: whether advantages are divided by the standard deviation of the group's rewards.
    - ``overlong``: the penalty for long completions, which is subtracted from their rewards.
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
    """Return the rollouts of each prompt, without length penalties.

    ``completions`` and ``scores`` are those of the first prompt, then those of the second prompt, and so on.
    Each prompt has the same number of them.
    """
    rollouts = [Rollout(generated, score) for generated, score in zip(completions, scores, strict=True)]
    count = len(rollouts) // max(1, len(prompts))
    return [tuple(rollouts[index * count : (index + 1) * count]) for index in range(len(prompts))]


def group_of(prompt: Prompt, rollouts: tuple[Rollout, ...], normalization: Normalization) -> Group:
    """Return the group with these rollouts of a prompt, and compute their advantages.

    If fewer than two rollouts have a reward, the group has no advantages, and is not used for training.
    """
    accepted = tuple(rollout for rollout in rollouts if rollout.score.reward is not None)
    if len(accepted) < 2:
        return Group(prompt, rollouts, (), ())
    advantages = group_advantages([penalized(rollout) for rollout in accepted], normalization)
    return Group(prompt, rollouts, accepted, tuple(advantages))
