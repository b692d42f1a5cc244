"""Which prompts make a step: whole groups, chosen before anything is generated.

Choosing by what finishes first would favour short answers. So the batch is laid out from an expected
completion length, a moving average of what was trained on.
"""

import hashlib
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


def batch_size(
    prompt_lengths: Sequence[int], rollouts: int, expected_completion: float, budget_tokens: int
) -> int:
    """Return how many of the next prompts join: at least one, at most all that are left of the epoch.

    Prompts join while the sum of rollouts × (prompt + expected completion) stays within ``budget_tokens``.
    """
    total = 0.0
    for count, length in enumerate(prompt_lengths):
        total += rollouts * (length + expected_completion)
        if total > budget_tokens:
            return max(1, count)
    return len(prompt_lengths)


def next_expectation(expected: float, trained_lengths: Sequence[int]) -> float:
    """Move the expected completion length towards the mean of what was trained on."""
    if not trained_lengths:
        return expected
    return _MOMENTUM * expected + (1 - _MOMENTUM) * sum(trained_lengths) / len(trained_lengths)


def estimated_steps(
    prompt_lengths: Sequence[int],
    position: Position,
    epochs: int,
    rollouts: int,
    expected_completion: float,
    budget_tokens: int,
) -> int:
    """Estimate the steps that are left from ``position``, as if every prompt had the mean length."""
    if not prompt_lengths or position.epoch > epochs:
        return 0
    mean = sum(prompt_lengths) / len(prompt_lengths)
    prompts = prompts_per_step(mean, expected_completion, rollouts, budget_tokens)
    rows = len(prompt_lengths)
    later = (epochs - position.epoch) * steps_for(rows, prompts)
    return steps_for(rows - position.offset, prompts) + later
