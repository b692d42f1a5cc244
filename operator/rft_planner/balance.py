"""Finds the number of GPUs with which sampling and training take the same time.

If both roles have their own GPUs, one role waits for the other: they take turns, or the faster one waits
where generation overlaps training. The roles wait least when both take equally long.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from rft_planner.memory import MemoryDemand
from rft_planner.shapes import Shape
from rft_planner.split import Split, divisions

NODE_GPUS = 8
"""GPUs of a typical node."""


class StepSeconds(NamedTuple):
    """Seconds of each phase of one step."""

    sampling: float
    update: float

    def whole(self, overlapped: bool) -> float:
        """Seconds of the step: the sum of both phases, or the longer one if they overlap."""
        return max(self) if overlapped else sum(self)

    @property
    def uneven(self) -> float:
        """The longer phase divided by the shorter one; 1 means that both are equal."""
        long, short = max(self), min(self)
        return long / short if short > 0 else math.inf


def balanced(
    shape: Shape, work: MemoryDemand, memory: float, seconds: Callable[[Split], StepSeconds]
) -> tuple[Split, StepSeconds] | None:
    """Return the division of 2 to 8 GPUs with the most equal phases; among equals, the one with fewer GPUs.

    ``seconds`` returns the time of a step with a division. Returns ``None`` where no such division fits.
    """
    found = [
        (split, seconds(split))
        for count in range(2, NODE_GPUS + 1)
        for split in divisions(count, shape, work, memory)
    ]
    return min(found, key=lambda pair: round(pair[1].uneven, 2), default=None)
