"""Finds the number of GPUs for which the times of sampling and training differ least.

If sampling and training have separate GPUs, the GPUs of the faster one of the two wait for the slower one.
They wait least if both take the same time.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from rft_planner.accelerators import NODE_GPUS
from rft_planner.memory import MemoryDemand
from rft_planner.shapes import Shape
from rft_planner.split import Split, apart, preferred


class StepSeconds(NamedTuple):
    """The seconds that sampling and the update take in one training step."""

    sampling: float
    update: float

    def whole(self, overlapped: bool) -> float:
        """Return the seconds of the step: the sum of both phases, or the longer phase if they overlap."""
        return max(self) if overlapped else sum(self)

    @property
    def uneven(self) -> float:
        """Time of the longer phase divided by the time of the shorter phase. It is 1 if both are equal."""
        long, short = max(self), min(self)
        return long / short if short > 0 else math.inf


def balanced(
    shape: Shape, work: MemoryDemand, memory: float, seconds: Callable[[Split], StepSeconds]
) -> tuple[Split, StepSeconds] | None:
    """Return the division of GPUs for which the times of sampling and update differ least, and these times.
    Return ``None`` if the run fits on no division.

    The divisions have 2 to 8 GPUs, and each GPU belongs to one role only. If several divisions are equally
    good, the one with the fewest GPUs is returned.

    - ``memory``: the memory of one GPU, in bytes.
    - ``seconds``: a function that returns the times of a step for a division.
    """
    found = [
        (split, seconds(split))
        for count in range(2, NODE_GPUS + 1)
        for split in apart(count, shape, work, memory)
    ]
    chosen = preferred(found, lambda step: step.whole(overlapped=True))
    return min(chosen, key=lambda pair: round(pair[1].uneven, 2), default=None)
