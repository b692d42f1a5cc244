"""Calculates how many prompts a step has, and how many steps an epoch has, for the trainer and the planner.

Lengths are in tokens.
"""

MIN_HELD_OUT, MAX_HELD_OUT = 32, 256
"""Minimum and maximum of the number of held-out rows."""

OTHERWISE = (
    "set spec.evaluation.dataset, whose rows may be few, or turn the evaluation off with"
    " spec.evaluation.fraction: 0"
)
"""The end of a message that there are too few rows to hold some out: what the user can do instead of adding
rows."""


def first_expectation(max_tokens: int) -> float:
    """Return the expected number of sampled tokens of a rollout, for the time before the run's first rollout.

    It is half of the maximum ``max_tokens``.
    """
    return max_tokens / 2


def prompts_per_step(prompt: float, completion: float, rollouts: int, budget: int) -> int:
    """Return the number of prompts in one step: as many as fit into ``budget`` tokens, at least one.

    Each prompt needs rollouts × (prompt + completion) tokens. ``prompt`` and ``completion`` are mean lengths
    in tokens, and ``rollouts`` is the number of completions of each prompt.
    """
    return max(1, int(budget // (rollouts * (prompt + completion))))


def steps_for(rows: int, prompts: int) -> int:
    """Return the number of steps in one epoch of ``rows`` rows, with ``prompts`` prompts in a step.

    The last step may have fewer prompts.
    """
    return -(-rows // prompts)


def held_out_rows(rows: int, fraction: float) -> int:
    """Return how many of ``rows`` rows should be held out. Return 0 if ``fraction`` is 0.

    The number is ``fraction`` of the rows, but at least ``MIN_HELD_OUT`` and at most ``MAX_HELD_OUT``. It is
    never more than half of the rows. The real number may differ, because rows with the same prompt stay
    together.
    """
    if fraction == 0:
        return 0
    wanted = min(max(round(fraction * rows), MIN_HELD_OUT), MAX_HELD_OUT)
    return min(wanted, rows // 2)
