"""Makes the optimizer AdamW for the adapter's weights, and the schedule of its learning rate."""

import math
from collections.abc import Callable

import torch

from rft_api.parameters import Training


def make_optimizer(parameters: list[torch.nn.Parameter], training: Training) -> torch.optim.AdamW:
    """Return AdamW for these parameters, with betas 0.9 and 0.999.

    Learning rate and weight decay are those of ``training``. The optimizer's state has the dtype of the
    parameters: float32 for the adapter's weights.
    """
    return torch.optim.AdamW(
        parameters,
        lr=training.learning_rate,
        betas=(0.9, 0.999),
        weight_decay=training.weight_decay,
        foreach=True,
    )


class Schedule:
    """Sets the learning rate before each step: linear warm-up, then constant, linear or cosine decay to zero.

    The decay depends on the share of the run's steps that are done. The total number of steps is an estimate,
    which changes with the length of completions. If a higher estimate makes this share smaller, the learning
    rate does not rise again.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, training: Training) -> None:
        self._optimizer = optimizer
        self._peak = training.learning_rate
        self._warmup = training.warmup_steps
        self._shape = SHAPES[training.schedule]
        self._done = 0.0

    def set(self, step: int, total_steps: int) -> float:
        """Set and return the learning rate of a step.

        - ``step``: the number of the step, from 1.
        - ``total_steps``: the current estimate of the run's total number of steps.
        """
        decay_steps = max(1, total_steps - self._warmup)
        self._done = min(1.0, max(self._done, (step - 1 - self._warmup) / decay_steps))
        warm = min(1.0, step / self._warmup) if self._warmup else 1.0
        rate = self._peak * warm * self._shape(self._done)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def state_dict(self) -> dict[str, float]:
        """Return the state for a checkpoint: the share of the decay that is done, from 0 to 1."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the state that ``state_dict`` returned when a checkpoint was written."""
        self._done = state["done"]


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda _done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
"""For each schedule: a function that returns the factor of the peak learning rate, from 0 to 1.

Its argument is the share of the steps after the warm-up that are done, from 0 to 1.
"""
