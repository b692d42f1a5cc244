"""Advantages within a group of rollouts of the same prompt."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Normalization = Literal["std", "none"]
_EPSILON = 1e-4
_SOFT_SHARE = 0.2
"""Share of ``max_tokens`` over which the penalty for length rises: 4096 of 20480 tokens in the paper."""


@dataclass(frozen=True)
class Overlong:
    """DAPO's soft penalty for long completions (arXiv 2503.14476): ``most`` for one of ``max_tokens``.

    The paper takes 1 where rewards are -1 or 1. Ours are from 0 to 1, so half of that weighs as much.
    """

    most: float = 0.0
    max_tokens: int = 1

    def penalty(self, tokens: int) -> float:
        """Return what is taken from the reward of a completion of this many tokens."""
        soft = _SOFT_SHARE * self.max_tokens
        return self.most * min(1.0, max(0.0, (tokens - self.max_tokens) / soft + 1))


NO_PENALTY = Overlong()


def group_advantages(rewards_G: Sequence[float], normalization: Normalization) -> list[float]:
    """Return each rollout's reward relative to its group, ``(r - mean)``, over ``(std + 1e-4)`` with "std".

    The standard deviation has one degree of freedom removed, as in DeepSeekMath (arXiv 2402.03300); without
    the division it is Dr. GRPO's (arXiv 2503.20783). Raises ValueError for fewer than two rewards.
    """
    if len(rewards_G) < 2:
        raise ValueError("a group has at least two rollouts")
    mean = math.fsum(rewards_G) / len(rewards_G)
    centred = [reward - mean for reward in rewards_G]
    if normalization == "none":
        return centred
    variance = math.fsum(value * value for value in centred) / (len(rewards_G) - 1)
    return [value / (math.sqrt(variance) + _EPSILON) for value in centred]


def zero_variance(rewards_G: Sequence[float]) -> bool:
    """Whether all rewards are equal: then all advantages are 0, and only a KL penalty gives a gradient."""
    return max(rewards_G) == min(rewards_G)
