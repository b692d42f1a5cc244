"""Summarizes the reward curve of a run by a few mean values, which are robust against noise."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from rft_api.status import Reward, RewardPoint

MIN_POINTS = 8
"""Smallest number of points of a reward curve for which there is advice: two for each quarter of the curve.
"""
WINDOW = 3
"""Number of neighbouring points of the curve in each value of the moving average. Single points vary, because
each step has different prompts."""


class Curve(NamedTuple):
    """A summary of a run's reward curve: the mean rewards of several parts of the curve."""

    quarters: tuple[float, float, float, float]
    """Mean reward of each quarter of the curve."""
    start: float
    """Mean reward of the first ``WINDOW`` points of the curve."""
    end: float
    """Mean reward of the last ``WINDOW`` points of the curve."""
    peak: float
    """The highest value of the moving average over ``WINDOW`` points."""
    peak_step: int
    """The training step in the middle of the ``WINDOW`` points whose mean is ``peak``."""


def curve_of(reward: Reward | None) -> Curve | None:
    """Return the summary of a run's reward curve, or ``None`` if the curve has fewer than ``MIN_POINTS``
    points.
    """
    points = reward.history if reward is not None else []
    if len(points) < MIN_POINTS:
        return None
    smooth = [(_mean(points[i : i + WINDOW]), i) for i in range(len(points) - WINDOW + 1)]
    peak, index = max(smooth)
    edges = [round(i * len(points) / 4) for i in range(5)]
    first, second, third, fourth = (_mean(points[a:b]) for a, b in pairwise(edges))
    return Curve(
        (first, second, third, fourth), smooth[0][0], smooth[-1][0], peak, points[index + WINDOW // 2].step
    )


def epoch_means(reward: Reward | None, epochs: int, steps: int) -> list[float] | None:
    """Return the mean reward of each epoch of a run, or ``None`` if an epoch has fewer than two points of the
    reward curve.

    ``steps`` is the number of steps of the whole run. All epochs are assumed to have equally many steps.
    """
    points = reward.history if reward is not None else []
    length = steps / epochs
    by_epoch = [[p for p in points if i * length < p.step <= (i + 1) * length] for i in range(epochs)]
    return [_mean(part) for part in by_epoch] if all(len(part) >= 2 for part in by_epoch) else None


def _mean(points: Sequence[RewardPoint]) -> float:
    return fmean(point.reward for point in points)
