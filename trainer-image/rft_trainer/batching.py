"""Which prompts make a step: whole groups, chosen before anything is generated.

Choosing by what finishes first would favour short answers. So the batch is laid out from an expected
completion length, a moving average of what was trained on.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from rft_planner.steps import prompts_per_step, steps_for

_MOMENTUM = 0.8


@dataclass(frozen=True)
class Position:
    """Where in the data the next batch begins: ``offset`` rows of ``epoch`` (from 1) are trained."""

    epoch: int = 1
    offset: int = 0


def epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """Shuffle row numbers by (seed, epoch) alone."""
    digest = hashlib.sha256(f"order/{seed}/{epoch}".encode()).digest()
    order = list(range(rows))
    random.Random(int.from_bytes(digest[:8])).shuffle(order)
    return order


@dataclass
class Room:
    """What is left of a step: prompts join while their rollouts stay within ``budget_tokens``.

    A prompt brings rollouts × (prompt + expected completion) tokens; the first always joins.
    """

    rollouts: int
    expected_completion: float
    budget_tokens: int
    prompts: int = 0
    _tokens: float = 0.0

    def takes(self, prompt_length: int) -> bool:
        """Whether one more prompt joins. None does after the first that did not."""
        self._tokens += self.rollouts * (prompt_length + self.expected_completion)
        if self.prompts and self._tokens > self.budget_tokens:
            return False
        self.prompts += 1
        return True


def next_expectation(expected: float, trained_lengths: Sequence[int]) -> float:
    """Move the expected completion length towards the mean of what was trained on."""
    if not trained_lengths:
        return expected
    return _MOMENTUM * expected + (1 - _MOMENTUM) * sum(trained_lengths) / len(trained_lengths)


def estimated_steps(
    rows: int,
    mean_length: float,
    position: Position,
    epochs: int,
    rollouts: int,
    expected_completion: float,
    budget_tokens: int,
    share: float = 1.0,
) -> int:
    """Estimate the steps that are left from ``position``, as if every prompt had the mean length.

    Of the ``rows`` of an epoch a ``share`` is trained on.
    """
    if not rows or position.epoch > epochs:
        return 0
    prompts = prompts_per_step(mean_length, expected_completion, rollouts, budget_tokens)

    def steps(places: int) -> int:
        return steps_for(math.ceil(share * places), prompts)

    return steps(rows - position.offset) + (epochs - position.epoch) * steps(rows)
