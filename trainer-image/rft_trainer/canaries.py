"""Finds the checkpoint to restore when the score of a canary falls while the reward rises.

A canary is a grader of weight 0: its score is measured, but does not change the reward.
"""

from collections.abc import Sequence

from rft_advice.canary import WINDOW, Fall, highest, largest_fall
from rft_api.lifecycle import Stop
from rft_api.status import RewardPoint


def fall(stop: Stop | None, points: Sequence[RewardPoint], canaries: Sequence[str]) -> Fall | None:
    """Return the largest fall of a canary's mean score while the reward rose. None: there is no such fall.

    A canary is a grader of weight 0. A fall counts only if it is at least ``stop.canary``. If ``stop.canary``
    is not set, return None. ``rft_advice.canary`` has the exact rule.

    - ``points``: the reward curve, with the mean score of each grader.
    - ``canaries``: the names of the canaries.
    """
    if stop is None or stop.canary is None:
        return None
    return largest_fall(points, canaries, stop.canary)


def checkpoint_due(stop: Stop | None, step: int) -> bool:
    """Return whether an extra checkpoint must be saved after ``step``. True only if ``step`` is ``WINDOW``.

    The reason is ``stop.canary``: if the score of a canary (a grader of weight 0) falls, the run restores the
    checkpoint from before the fall. Mean scores over ``WINDOW`` steps are compared, so the earliest
    checkpoint that may be needed is usually that of step ``WINDOW``. Without ``stop.canary`` return False.
    """
    return stop is not None and stop.canary is not None and step == WINDOW


def last_before(checkpoints: Sequence[int], step: int) -> int | None:
    """Return the step of the newest checkpoint that was saved at ``step`` or earlier.

    If all checkpoints are later, return the step of the oldest one. If there are no checkpoints, return None.
    ``checkpoints``: the steps that have a checkpoint.
    """
    return max((c for c in checkpoints if c <= step), default=min(checkpoints, default=None))


def kept(
    stop: Stop | None, points: Sequence[RewardPoint], canaries: Sequence[str], checkpoints: Sequence[int]
) -> set[int]:
    """Return the steps of the checkpoints that the run may restore later, if the score of a canary falls.

    A canary is a grader of weight 0. Its best window is the ``WINDOW`` successive points of the reward curve
    with its highest mean score. If the score falls, the run restores the checkpoint at the end of the best
    window. It is not known yet how many of the newest ``WINDOW`` points will count. So the best window is
    determined for the curve up to each of these points. Without ``stop.canary`` the result is empty.

    - ``points``: the reward curve, with the mean score of each grader.
    - ``canaries``: the names of the canaries.
    - ``checkpoints``: the steps that have a checkpoint.
    """
    if stop is None or stop.canary is None:
        return set()
    ends = range(max(0, len(points) - WINDOW), len(points) + 1)
    steps = {highest(points[:end], name) for name in canaries for end in ends} - {None}
    return {found for step in steps if step and (found := last_before(checkpoints, step)) is not None}
