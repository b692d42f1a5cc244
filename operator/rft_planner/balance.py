"""The count of GPUs with which sampling and training take equally long.

On GPUs of their own one role waits for the other: in turn, or for the slower one where generation overlaps
training. What is lost by that is least where both take the same time.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from rft_planner.memory import Workload
from rft_planner.shapes import Shape
from rft_planner.split import Split, divisions

NODE_GPUS = 8
"""GPUs of the usual node."""


class Step(NamedTuple):
    """Seconds of one step by phase."""

    sampling: float
    update: float

    def whole(self, overlapped: bool) -> float:
        """Seconds of the step: of both phases, or of the longer one where they overlap."""
        return max(self) if overlapped else sum(self)

    @property
    def uneven(self) -> float:
        """How far the phases are apart, as a ratio from 1."""
        long, short = max(self), min(self)
        return long / short if short > 0 else math.inf


def balanced(
    shape: Shape, work: Workload, memory: float, seconds: Callable[[Split], Step]
) -> tuple[Split, Step] | None:
    """Return the division of 2 to 8 GPUs whose phases are the most equal; of equals the one with fewer.

    ``seconds`` gives the time of a step on a division. ``None`` where no such count fits.
    """
    found = [
        (split, seconds(split))
        for count in range(2, NODE_GPUS + 1)
        for split in divisions(count, shape, work, memory)
    ]
    return min(found, key=lambda pair: round(pair[1].uneven, 2), default=None)
