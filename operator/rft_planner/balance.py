"""Finds the number of GPUs for which the times of sampling and training differ least.

Sampling and training can have separate GPUs. Then the GPUs of the faster phase wait for the slower phase.
They wait least if sampling and training take the same time.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from rft_planner.accelerators import NODE_GPUS
from rft_planner.memory import MemoryDemand
from rft_planner.shapes import Shape
from rft_planner.split import Split, apart, preferred


class StepSeconds(NamedTuple):
    """The seconds of the two phases of a step: sampling the rollouts, and the update that trains on them."""

    sampling: float
    update: float

    def whole(self, overlapped: bool) -> float:
        """Return the seconds of the whole step: the sum of ``sampling`` and ``update``.

        With ``overlapped``, the two run at the same time, so the longer one is returned.
        """
        return max(self) if overlapped else sum(self)

    @property
    def uneven(self) -> float:
        """The longer time divided by the shorter time, of ``sampling`` and ``update``: 1 if they are equal.

        Infinite if the shorter time is 0.
        """
        long, short = max(self), min(self)
        return long / short if short > 0 else math.inf


def balanced(
    shape: Shape, work: MemoryDemand, memory: float, seconds: Callable[[Split], StepSeconds]
) -> tuple[Split, StepSeconds] | None:
    """Return the division of GPUs for which the times of sampling and update differ least, and these times.

    A division says how many GPUs train and how many sample. Divisions of 2 to 8 GPUs are compared, in which
    each GPU either trains or samples. If several are equally good, the one with the fewest GPUs is returned.
    Return ``None`` if the run fits into the memory of no division.

    - ``shape`` and ``work``: the model and the settings of the run, which decide the memory that it needs
    - ``memory``: the memory of one GPU, in bytes
    - ``seconds``: a function that returns the times of a step for a division
    """
    found = [
        (split, seconds(split))
        for count in range(2, NODE_GPUS + 1)
        for split in apart(count, shape, work, memory)
    ]
    chosen = preferred(found, lambda step: step.whole(overlapped=True))
    return min(chosen, key=lambda pair: round(pair[1].uneven, 2), default=None)
