"""Computes how many prompts a training step has, before the step's completions are generated.

If the number were decided later, a step could train on the completions that finish first, and would favour
short answers. The number of prompts is computed from an expected completion length. This length is a moving
average over the completions of earlier steps.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from rft_planner.steps import prompts_per_step, steps_for
from rft_run.state import Position

_MOMENTUM = 0.8


def epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """Return the numbers from 0 to ``rows`` - 1 in the shuffled order in which an epoch uses the rows.

    The same arguments always give the same order.
    """
    digest = hashlib.sha256(f"order/{seed}/{epoch}".encode()).digest()
    order = list(range(rows))
    random.Random(int.from_bytes(digest[:8])).shuffle(order)
    return order


@dataclass
class TokenBudget:
    """The token budget of one step. Prompts are added while their rollouts fit into ``budget_tokens``.

    A prompt needs rollouts × (prompt length + expected completion length) tokens. The first prompt is always
    added. ``prompts`` is the number of added prompts.
    """

    rollouts: int
    expected_completion: float
    budget_tokens: int
    prompts: int = 0
    _tokens: float = 0.0

    def takes(self, prompt_length: int) -> bool:
        """Add a prompt of this length, in tokens, if it fits into the budget. Return whether it was added.

        After the first prompt that does not fit, all later prompts are refused too.
        """
        self._tokens += self.rollouts * (prompt_length + self.expected_completion)
        if self.prompts and self._tokens > self.budget_tokens:
            return False
        self.prompts += 1
        return True


def next_expectation(expected: float, trained_lengths: Sequence[int]) -> float:
    """Return the new moving average of the completion length, in tokens, after a training step.

    - ``expected``: the average before the step, in tokens.
    - ``trained_lengths``: the length of each completion of the step. If there are none, the average does not
      change.
    """
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
    """Estimate the number of training steps from ``position`` in the data to the end of the last epoch.

    All prompts are assumed to have the mean length.

    - ``rows``: number of rows of an epoch.
    - ``mean_length``: mean length of a prompt, in tokens.
    - ``epochs``: number of epochs of the run.
    - ``rollouts``: number of rollouts of each prompt.
    - ``expected_completion``: expected length of a completion, in tokens.
    - ``budget_tokens``: number of tokens of a step.
    - ``share``: share of the rows that is used for training. The other rows are held out, or their prompts
      are too long.
    """
    if not rows or position.epoch > epochs:
        return 0
    prompts = prompts_per_step(mean_length, expected_completion, rollouts, budget_tokens)

    def steps(places: int) -> int:
        return steps_for(math.ceil(share * places), prompts)

    return steps(rows - position.offset) + (epochs - position.epoch) * steps(rows)
