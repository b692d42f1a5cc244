"""Finds the checkpoint to restore when the score of a canary falls. A canary is a grader of weight 0."""

from collections.abc import Sequence

from rft_advice.canary import WINDOW, Fall, highest, largest_fall
from rft_api.lifecycle import Stop
from rft_api.status import RewardPoint


def fall(stop: Stop | None, points: Sequence[RewardPoint], canaries: Sequence[str]) -> Fall | None:
    """Return the largest fall of a canary's score while the reward rose.

    Return None if this fall is less than ``stop.canary``, or if ``stop.canary`` is not set.
    ``rft_advice.canary`` has the exact rule.

    - ``points``: the reward curve.
    - ``canaries``: the names of the graders of weight 0.
    """
    if stop is None or stop.canary is None:
        return None
    return largest_fall(points, canaries, stop.canary)


def checkpoint_due(stop: Stop | None, step: int) -> bool:
    """Return whether a checkpoint must be saved after ``step``, because a canary may fall later.

    This is true only for one step: the step at which the first ``WINDOW`` points of the reward curve usually
    end. If the scores of a canary are highest in these points and fall later, the run restores the checkpoint
    of this step.
    """
    return stop is not None and stop.canary is not None and step == WINDOW


def last_before(checkpoints: Sequence[int], step: int) -> int | None:
    """Return the step of the newest checkpoint that was saved at ``step`` or before.

    If all checkpoints were saved later, return the step of the oldest checkpoint. If there are no
    checkpoints, return None. ``checkpoints``: the steps that have a checkpoint.
    """
    return max((c for c in checkpoints if c <= step), default=min(checkpoints, default=None))


def kept(
    stop: Stop | None, points: Sequence[RewardPoint], canaries: Sequence[str], checkpoints: Sequence[int]
) -> set[int]:
    """Return the steps of the checkpoints that must be kept, because a run may restore them later.

    The best window of a canary is the ``WINDOW`` successive points of the reward curve in which the canary's
    mean score is highest. If the canary falls, the run restores the checkpoint at the end of this window. The
    newest ``WINDOW`` points do not count for the best window until more points follow. So a later window may
    still become the best one, and the checkpoint of each such window is kept too.

    - ``points``, ``canaries``: as in ``fall``.
    - ``checkpoints``: the steps that have a checkpoint.
    """
    if stop is None or stop.canary is None:
        return set()
    ends = range(max(0, len(points) - WINDOW), len(points) + 1)
    steps = {highest(points[:end], name) for name in canaries for end in ends} - {None}
    return {found for step in steps if step and (found := last_before(checkpoints, step)) is not None}
