"""Canaries, graders of weight 0: finds the checkpoint to restore when the score of a canary falls."""

from collections.abc import Sequence

from rft_advice.canary import WINDOW, Fall, highest, largest_fall
from rft_api.lifecycle import Stop
from rft_api.status import RewardPoint


def fall(stop: Stop | None, points: Sequence[RewardPoint], canaries: Sequence[str]) -> Fall | None:
    """Return the largest fall of a canary's score while the reward rose, if it is at least ``stop.canary``.

    ``points``: the reward curve. ``canaries``: names of the graders of weight 0. Return None if there is no
    such fall, or if ``stop.canary`` is not set. ``rft_advice.canary`` has the exact rule.
    """
    if stop is None or stop.canary is None:
        return None
    return largest_fall(points, canaries, stop.canary)


def checkpoint_due(stop: Stop | None, step: int) -> bool:
    """Return whether ``step`` is the step after which a checkpoint is saved because of the canaries.

    It is the step ``WINDOW``: there the first ``WINDOW`` reward points usually end. The run restores this
    checkpoint if a canary falls later and its scores were highest in these points.
    """
    return stop is not None and stop.canary is not None and step == WINDOW


def last_before(checkpoints: Sequence[int], step: int) -> int | None:
    """Return the step of the newest checkpoint that was saved at ``step`` or before. If all checkpoints were
    saved later, return the step of the oldest one. Return None if there are no checkpoints.
    """
    return max((c for c in checkpoints if c <= step), default=min(checkpoints, default=None))


def kept(
    stop: Stop | None, points: Sequence[RewardPoint], canaries: Sequence[str], checkpoints: Sequence[int]
) -> set[int]:
    """Return the steps of the checkpoints to keep, because a run may restore them when a canary falls.

    A fall is measured from the canary's best window: the ``WINDOW`` successive reward points with the highest
    mean score. A window is compared only when ``WINDOW`` later points exist, so the best window may still
    change. So the checkpoint of each window that may become the best one is kept.
    """
    if stop is None or stop.canary is None:
        return set()
    ends = range(max(0, len(points) - WINDOW), len(points) + 1)
    steps = {highest(points[:end], name) for name in canaries for end in ends} - {None}
    return {found for step in steps if step and (found := last_before(checkpoints, step)) is not None}
