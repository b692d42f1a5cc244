"""Calculates the share of a step in which GPUs are idle, and says why they are idle."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from rft_api.job import RFTJobSpec
from rft_api.status import Effective
from rft_planner.accelerators import Device
from rft_planner.estimate import RowCounts, idle_share, prompts_of_step, step_seconds
from rft_planner.memory import MemoryDemand
from rft_planner.overlap import overlaps
from rft_planner.shapes import Shape
from rft_planner.speed import speed_of
from rft_planner.split import LITTLE_IDLE, Cost, Split, choices, fitted

_SAME = 0.005
"""Two idle shares count as equal if they differ by less than this number, because a plan shows two digits."""


@dataclass(frozen=True)
class StepCosts:
    """Estimates the cost of any division of a job's GPUs between training and sampling.

    The cost is the time of a step, and the share of the step in which GPUs are idle. To get it, call an
    instance with a division. ``derived`` are the parameters of the run, also the derived ones. ``rows`` are
    facts about the dataset, or None if they are not known.
    """

    spec: RFTJobSpec
    derived: Effective
    shape: Shape
    device: Device
    memory: float
    """Memory of one GPU, in bytes."""
    rows: RowCounts | None

    def __call__(self, split: Split) -> Cost:
        """Return the cost of a division: the seconds of a step, and the share with idle GPUs, from 0 to 1."""
        speed = speed_of(split, self.device, self.memory)
        step = step_seconds(self.spec, self.derived, self.shape, speed, self.rows)
        idle = idle_share(self.spec, speed, step, self.rows)
        return Cost(step.whole(overlaps(self.spec, speed.apart)), idle)

    @property
    def prompts(self) -> float:
        """Mean number of prompts in one step of the run."""
        return prompts_of_step(self.spec, self.rows)


class IdleTime(NamedTuple):
    """The share of a step in which GPUs are idle, from 0 to 1, and a sentence for the user about this share.

    The sentence is "" if the run has a single GPU.
    """

    share: float
    note: str


def idle_time(split: Split, costs: StepCosts, work: MemoryDemand, most: int) -> IdleTime:
    """Return the share of a step in which the GPUs are idle, with a note for the user about this share.

    ``split`` says which GPUs train and which sample. If the share is above 20 % (``LITTLE_IDLE``), the note
    gives the reason. The note may also name a larger number of GPUs, up to ``most``, with which the share
    would be at most 20 %.
    """
    share = round(costs(split).idle, 2)
    if split.gpus == 1:
        return IdleTime(share, "")
    note = f"GPUs have nothing to do for about {share:.0%} of a step"
    return IdleTime(
        share, note if share <= LITTLE_IDLE else f"{note}: {_reason(split, costs, work, most, share)}"
    )


def _reason(split: Split, costs: StepCosts, work: MemoryDemand, most: int, share: float) -> str:
    others = choices(split.gpus, costs.shape, work, costs.memory, costs)
    if min((cost.idle for _, cost in others), default=share) < share - _SAME:
        why = "other divisions of the GPUs have less idle time, but longer steps"
    else:
        why = "no other division that fits into the memory of the GPUs leaves them less idle"
        more = _enough(split.gpus, costs, work, most)
        if more is not None:
            why += f"; with spec.resources.gpus: {more} they would be less idle"
    prompts = costs.prompts
    if prompts >= split.samplers:
        return why
    needed = math.ceil(costs.spec.training.batch_size_tokens * split.samplers / prompts / 1024) * 1024
    return (
        f"{why}; a step has {prompts:.0f} prompts for {split.samplers} samplers, so"
        f" spec.training.batchSizeTokens: {needed} gives all of them work"
    )


def _enough(gpus: int, costs: StepCosts, work: MemoryDemand, most: int) -> int | None:
    """Return the smallest number of GPUs with which GPUs are idle for at most 20 % of a step.

    The number is above ``gpus`` and at most ``most``. Return ``None`` if there is no such number.
    """
    for more in range(gpus + 1, most + 1):
        split = fitted(more, costs.shape, work, costs.memory, costs)
        if split is not None and costs(split).idle <= LITTLE_IDLE:
            return more
    return None
