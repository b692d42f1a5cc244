"""Advantages within a group of rollouts of the same prompt."""

import math
from collections.abc import Sequence
from typing import Literal

Normalization = Literal["std", "none"]
_EPSILON = 1e-4


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
