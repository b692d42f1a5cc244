"""Finds a canary whose scores fall while the reward rises. Then the policy may exploit errors of the graders.

A canary is a grader of weight 0: its scores do not change the reward.

Two windows of ``WINDOW`` points of the reward curve are compared. The later window has the last points of the
curve. All windows before these points are tried as the earlier window, and the one in which the canary's mean
score is highest is taken.

For the canary and for the reward, the difference of the means in the two windows is divided by its standard
error. The standard error comes from the variances within the windows (Welch's t). There is advice if all of
this holds:

- The canary's mean falls by at least ``least``, a parameter of ``largest_fall``.
- The canary's mean falls by at least ``CANARY_ERRORS`` standard errors.
- The mean reward rises by at least ``REWARD_ERRORS`` standard errors.

``CANARY_ERRORS`` is high for two reasons. The earlier window is chosen as the highest of many, and the
comparison is repeated after every step. This was simulated: the reward rose for 200 steps, and the canary was
noise with a standard deviation of 0.1. Of 60 such curves, 6 gave a false alarm with 5 standard errors, and
none with 6.

A trend within a window increases the window's variance. So a fall is found late rather than too early.
"""

import math
from collections.abc import Sequence
from statistics import fmean, variance
from typing import NamedTuple

from rft_api.status import RewardPoint

WINDOW = 8
"""Number of points of the reward curve in one window.

There is no advice if the points of the curve are too few for two windows.
"""
CANARY_ERRORS = 6.0
"""There is advice only if the mean score of the canary fell by at least this many standard errors."""
REWARD_ERRORS = 2.0
"""There is advice only if the mean reward rose by at least this many standard errors."""


class Fall(NamedTuple):
    """A canary that fell while the reward rose.

    - ``before``: the mean of the canary's scores in the earlier window.
    - ``after``: the mean of the canary's scores in the later window.
    - ``reward_before``: the mean of the reward in the earlier window.
    - ``reward_after``: the mean of the reward in the later window.
    """

    canary: str
    before: float
    after: float
    reward_before: float
    reward_after: float
    step: int
    """The last training step of the earlier window."""
    errors: float
    """The fall of the canary's mean score, divided by its standard error. It is infinite if the scores are
    constant in each of the two windows.
    """

    @property
    def size(self) -> float:
        """The canary's mean score in the earlier window minus its mean score in the later window."""
        return self.before - self.after


def largest_fall(points: Sequence[RewardPoint], canaries: Sequence[str], least: float) -> Fall | None:
    """Return the largest fall of a canary's mean score while the reward rose, or None if there is none.

    Only falls that meet the three conditions in the module's docstring count. ``least`` is the minimum by
    which a canary's mean score must fall.
    """
    falls = [found for name in canaries if (found := _fall(points, name, least)) is not None]
    return max(falls, key=lambda fall: fall.size, default=None)


def highest(points: Sequence[RewardPoint], canary: str) -> int | None:
    """Return the last step of the window in which the canary's mean score is highest.

    Return None if fewer than ``WINDOW`` points have a score of the canary.
    """
    scored = _scored(points, canary)
    if len(scored) < WINDOW:
        return None
    return scored[_highest([score for _, score in scored]) + WINDOW - 1][0].step


def _scored(points: Sequence[RewardPoint], canary: str) -> list[tuple[RewardPoint, float]]:
    """Return the points that have a score of the canary. Each point is paired with the canary's score.

    A point has no score if the canary failed on every completion of the step.
    """
    return [
        (point, point.graders[canary])
        for point in points
        if point.graders is not None and canary in point.graders
    ]


def _highest(scores: Sequence[float]) -> int:
    """Return the index at which the window with the highest mean begins.

    If several windows have this mean, return the index of the latest of them.
    """
    starts = range(len(scores) - WINDOW + 1)
    return max(starts, key=lambda start: (fmean(scores[start : start + WINDOW]), start))


def _fall(points: Sequence[RewardPoint], canary: str, least: float) -> Fall | None:
    scored = _scored(points, canary)
    if len(scored) < 2 * WINDOW:
        return None
    scores = [score for _, score in scored]
    rewards = [point.reward for point, _ in scored]
    start = _highest(scores[:-WINDOW])
    before = slice(start, start + WINDOW)
    fell = _errors(scores[-WINDOW:], scores[before])
    if fmean(scores[before]) - fmean(scores[-WINDOW:]) < least or fell < CANARY_ERRORS:
        return None
    if _errors(rewards[before], rewards[-WINDOW:]) < REWARD_ERRORS:
        return None
    return Fall(
        canary,
        fmean(scores[before]),
        fmean(scores[-WINDOW:]),
        fmean(rewards[before]),
        fmean(rewards[-WINDOW:]),
        scored[start + WINDOW - 1][0].step,
        fell,
    )


def _errors(lower: Sequence[float], higher: Sequence[float]) -> float:
    """Return the mean of ``higher`` minus that of ``lower``, divided by the difference's standard error."""
    difference = fmean(higher) - fmean(lower)
    error = math.sqrt((variance(lower) + variance(higher)) / WINDOW)
    if error < 1e-9:  # neither varies beyond rounding
        return math.copysign(math.inf, difference) if abs(difference) > 1e-6 else 0.0
    return difference / error
