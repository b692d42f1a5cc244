"""Finds a canary whose scores fall while the reward rises. Then the policy may exploit errors of the graders.

A canary is a grader of weight 0: its scores do not change the reward.

Two windows of ``WINDOW`` points of the reward curve are compared. The later window has the last points of the
curve. The earlier window is the one before these points in which the canary's mean score is highest.

For the canary and for the reward, the difference of the means in the two windows is divided by its standard
error. The standard error comes from the variances within the windows (Welch's t). The user gets advice if
these three conditions are true:

- The canary's mean falls by at least ``least``, a parameter of ``largest_fall``.
- The canary's mean falls by at least ``CANARY_ERRORS`` standard errors.
- The mean reward rises by at least ``REWARD_ERRORS`` standard errors.

``CANARY_ERRORS`` is high for two reasons. The earlier window is chosen as the highest of many, and the
comparison is repeated after every step. A simulation showed that 6 is enough: the reward rose for 200 steps,
and the canary was noise with a standard deviation of 0.1. Of 60 such curves, 6 gave a false alarm with 5
standard errors, and none with 6.

A trend within a window increases the window's variance. So a fall is found late rather than too early.
"""

import math
from collections.abc import Sequence
from statistics import fmean, variance
from typing import NamedTuple

from rft_api.status import RewardPoint

WINDOW = 8
"""Number of points of the reward curve in each of the two windows that are compared. A curve with fewer
points than two windows gets no advice."""
CANARY_ERRORS = 6.0
"""The user gets advice only if the mean score of a canary (a grader of weight 0) fell by at least this many
standard errors."""
REWARD_ERRORS = 2.0
"""The user gets advice only if the mean reward rose by at least this many standard errors."""


class Fall(NamedTuple):
    """A canary (a grader of weight 0) whose mean score fell while the mean reward rose, from an earlier to a
    later window of the reward curve.

    - ``canary``: the name of the grader.
    - ``before``, ``after``: the canary's mean score in the earlier and in the later window.
    - ``reward_before``, ``reward_after``: the mean reward in the earlier and in the later window.
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
    """Return the canary (a grader of weight 0) whose mean score fell most while the reward rose. Return None
    if no canary fell significantly.

    - ``points``: the reward curve.
    - ``canaries``: the names of the canaries.
    - ``least``: smaller falls of the mean score are ignored. The docstring of the module has all conditions.
    """
    falls = [found for name in canaries if (found := _fall(points, name, least)) is not None]
    return max(falls, key=lambda fall: fall.size, default=None)


def highest(points: Sequence[RewardPoint], canary: str) -> int | None:
    """Return the last training step of the window of ``WINDOW`` points in which the mean score of the grader
    ``canary`` is highest. Of equal windows, the latest is taken.

    Return None if fewer than ``WINDOW`` points have a score of this grader.
    """
    scored = _scored(points, canary)
    if len(scored) < WINDOW:
        return None
    return scored[_highest([score for _, score in scored]) + WINDOW - 1][0].step


def _scored(points: Sequence[RewardPoint], canary: str) -> list[tuple[RewardPoint, float]]:
    """Return the points of a reward curve that have a score of the grader ``canary``, each with this score.

    A point has no score if the grader failed on every completion of the step.
    """
    return [
        (point, point.graders[canary])
        for point in points
        if point.graders is not None and canary in point.graders
    ]


def _highest(scores: Sequence[float]) -> int:
    """Return the index of the first score in the window of ``WINDOW`` scores with the highest mean. If
    several windows have this mean, take the latest one.
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
    """Return the mean of ``higher`` minus the mean of ``lower``, divided by the standard error of this
    difference. Both have ``WINDOW`` values. If neither varies, return plus or minus infinity, or 0 if the
    means are equal.
    """
    difference = fmean(higher) - fmean(lower)
    error = math.sqrt((variance(lower) + variance(higher)) / WINDOW)
    if error < 1e-9:  # the values in each sequence are equal, except for rounding
        return math.copysign(math.inf, difference) if abs(difference) > 1e-6 else 0.0
    return difference / error
