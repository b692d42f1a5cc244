"""Which checkpoint a run returns to when ``stop.canary`` ends it, and which ones are kept for that."""

from collections.abc import Sequence

from rft_advice.canary import WINDOW, Fall, highest, largest_fall
from rft_api.lifecycle import Stop
from rft_api.status import RewardPoint


def fall(stop: Stop | None, points: Sequence[RewardPoint], canaries: Sequence[str]) -> Fall | None:
    """Return the largest fall by ``stop.canary`` or more; None where there is none or it is not set."""
    if stop is None or stop.canary is None:
        return None
    return largest_fall(points, canaries, stop.canary)


def checkpoint_due(stop: Stop | None, step: int) -> bool:
    """Return whether a first checkpoint is due, so that there is one before any fall."""
    return stop is not None and stop.canary is not None and step == WINDOW


def last_before(checkpoints: Sequence[int], step: int) -> int | None:
    """Return the newest checkpoint up to a step, else the oldest one; None where there are none."""
    return max((c for c in checkpoints if c <= step), default=min(checkpoints, default=None))


def kept(
    stop: Stop | None, points: Sequence[RewardPoint], canaries: Sequence[str], checkpoints: Sequence[int]
) -> set[int]:
    """Return the checkpoints to keep: for each canary the last one before it could begin to fall.

    A fall that is found now or soon is measured from the highest window of one of these prefixes.
    """
    if stop is None or stop.canary is None:
        return set()
    ends = range(max(0, len(points) - WINDOW), len(points) + 1)
    steps = {highest(points[:end], name) for name in canaries for end in ends} - {None}
    return {found for step in steps if step and (found := last_before(checkpoints, step)) is not None}
