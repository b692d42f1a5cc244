"""Chooses the checkpoint that a run restores when ``stop.canary`` ends it, and those it keeps for this."""

from collections.abc import Sequence

from rft_advice.canary import WINDOW, Fall, highest, largest_fall
from rft_api.lifecycle import Stop
from rft_api.status import RewardPoint


def fall(stop: Stop | None, points: Sequence[RewardPoint], canaries: Sequence[str]) -> Fall | None:
    """Return the largest fall of a canary by at least ``stop.canary``, or None."""
    if stop is None or stop.canary is None:
        return None
    return largest_fall(points, canaries, stop.canary)


def checkpoint_due(stop: Stop | None, step: int) -> bool:
    """Return whether to save an early checkpoint: ``stop.canary`` needs one from before a canary can fall."""
    return stop is not None and stop.canary is not None and step == WINDOW


def last_before(checkpoints: Sequence[int], step: int) -> int | None:
    """Return the newest checkpoint up to ``step``; if all are later, the oldest; None without checkpoints."""
    return max((c for c in checkpoints if c <= step), default=min(checkpoints, default=None))


def kept(
    stop: Stop | None, points: Sequence[RewardPoint], canaries: Sequence[str], checkpoints: Sequence[int]
) -> set[int]:
    """Return the steps of the checkpoints to keep: for each canary, the last one before it can begin to fall.

    A fall begins after the window with the canary's highest mean. Which window that is depends on how many of
    the newest points are left out. So every such window of the last ``WINDOW`` points counts.
    """
    if stop is None or stop.canary is None:
        return set()
    ends = range(max(0, len(points) - WINDOW), len(points) + 1)
    steps = {highest(points[:end], name) for name in canaries for end in ends} - {None}
    return {found for step in steps if step and (found := last_before(checkpoints, step)) is not None}
