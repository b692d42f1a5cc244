"""Computes the advantages of rollouts from the rewards of their group, and a penalty for long completions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Normalization = Literal["std", "none"]
_EPSILON = 1e-4
_SOFT_SHARE = 0.2
"""The penalty is above 0 only in this last share of ``max_tokens``: 4096 of 20480 tokens in DAPO's paper."""


@dataclass(frozen=True)
class Overlong:
    """DAPO's soft penalty for long completions (arXiv 2503.14476).

    - ``most``: the penalty at the maximum length. In the paper it is 1, and rewards are -1 or 1. Here rewards
      are from 0 to 1, so a penalty of 0.5 has the same effect as 1 in the paper.
    - ``max_tokens``: the maximum length of a completion, in tokens.
    """

    most: float = 0.0
    max_tokens: int = 1

    def penalty(self, tokens: int) -> float:
        """Return the penalty that is subtracted from the reward of a completion of this many tokens.

        It is 0 up to 80 % of ``max_tokens``. From there it rises linearly to ``most`` at ``max_tokens``.
        """
        soft = _SOFT_SHARE * self.max_tokens
        return self.most * min(1.0, max(0.0, (tokens - self.max_tokens) / soft + 1))


NO_PENALTY = Overlong()


def group_advantages(rewards_G: Sequence[float], normalization: Normalization) -> list[float]:
    """Return the advantage of each of a group's G rollouts: its reward minus the mean reward of the group.

    With ``normalization`` "std" this difference is divided by the group's standard deviation + 0.0001. The
    variance is the sum of squared differences divided by G - 1 for G rewards, as in DeepSeekMath
    (arXiv 2402.03300). With "none" the difference is not divided, as in Dr. GRPO (arXiv 2503.20783). Raises
    ValueError for fewer than two rewards.
    """
    if len(rewards_G) < 2:
        raise ValueError(f"advantages need at least two rewards in a group, not {len(rewards_G)}")
    mean = math.fsum(rewards_G) / len(rewards_G)
    centred = [reward - mean for reward in rewards_G]
    if normalization == "none":
        return centred
    variance = math.fsum(value * value for value in centred) / (len(rewards_G) - 1)
    return [value / (math.sqrt(variance) + _EPSILON) for value in centred]


def zero_variance(rewards_G: Sequence[float]) -> bool:
    """Return whether all rewards of a group are equal.

    If so, all advantages are 0, and only a KL term gives a gradient.
    """
    return max(rewards_G) == min(rewards_G)
