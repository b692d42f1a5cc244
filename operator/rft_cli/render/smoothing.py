"""Smooths curves for charts by a centred mean, and reduces the number of their points. Pure functions."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from rft_cli.render.plot import Point

DRAWN = 300
"""Maximum number of points of a drawn line. A screen cannot show more."""
SHARE = 20
"""The window of a centred mean has 1/``SHARE`` of the points of its curve, but at least ``LEAST_WINDOW``."""
LEAST_WINDOW = 5
"""Minimum number of points in the window of a centred mean, except near the ends of the curve."""


class Smoothed(NamedTuple):
    """One point of a smoothed curve: the mean of the values in a window of points around ``x``.

    ``low`` and ``high`` are the lowest and the highest value in this window.
    """

    x: float
    mean: float
    low: float
    high: float


def window_of(count: int) -> int:
    """Return how many points the window of a centred mean has, for a curve of ``count`` points.

    The number is odd, so that the window has the same number of points on both sides.
    """
    return max(LEAST_WINDOW, count // SHARE) | 1


def smoothed(points: Sequence[Point]) -> list[Smoothed]:
    """Return the centred mean of a curve, at most at 300 (``DRAWN``) evenly spaced points.

    The centred mean at a point is the mean over a window of points around this point. Near both ends of the
    curve the window has fewer points, but at least half of its usual number.
    """
    half = window_of(len(points)) // 2
    found = []
    for index in spread(len(points)):
        near = [y for _, y in points[max(0, index - half) : index + half + 1]]
        found.append(Smoothed(points[index][0], math.fsum(near) / len(near), min(near), max(near)))
    return found


def centred_mean(points: Sequence[Point]) -> list[Point]:
    """Return a smoothed copy of a curve, with at most 300 (``DRAWN``) points.

    The value at a point is the mean over a window of points around this point.
    """
    return [(point.x, point.mean) for point in smoothed(points)]


def thinned(points: Sequence[Point]) -> list[Point]:
    """Return a curve with at most 300 (``DRAWN``) points: the same one, or means of neighbouring points."""
    if len(points) <= DRAWN:
        return list(points)
    edges = [index * len(points) // DRAWN for index in range(DRAWN + 1)]
    parts = [points[start:end] for start, end in itertools.pairwise(edges)]
    return [(_mean([x for x, _ in part]), _mean([y for _, y in part])) for part in parts]


def spread(count: int) -> list[int]:
    """Return at most 300 (``DRAWN``) evenly spaced indices from 0 to ``count`` - 1, including both ends."""
    if count <= DRAWN:
        return list(range(count))
    return [round(i * (count - 1) / (DRAWN - 1)) for i in range(DRAWN)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
