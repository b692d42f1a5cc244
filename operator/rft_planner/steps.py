"""The rule by which rows are grouped into steps. The trainer and the plan both use it.

Lengths are in tokens.
"""

MIN_HELD_OUT, MAX_HELD_OUT = 32, 256
"""Limits of the number of held-out rows."""


def first_expectation(max_tokens: int) -> float:
    """Return the completion length that is expected before any completion is known: half of the maximum."""
    return max_tokens / 2


def prompts_per_step(prompt: float, completion: float, rollouts: int, budget: int) -> int:
    """Return how many prompts of a length make one step: as many as fit into ``budget`` tokens, at least one.

    Each prompt needs rollouts × (prompt + completion) tokens.
    """
    return max(1, int(budget // (rollouts * (prompt + completion))))


def steps_for(rows: int, prompts: int) -> int:
    """Return the number of steps for one epoch of ``rows``. The last step may have fewer prompts."""
    return -(-rows // prompts)


def held_out_rows(rows: int, fraction: float) -> int:
    """Return the number of held-out rows. Rows with the same prompt stay together, so it may differ.

    It is the fraction of the rows, within the limits, and at most half of the rows. Fewer rows than
    ``MIN_HELD_OUT`` are too few.
    """
    wanted = min(max(round(fraction * rows), MIN_HELD_OUT), MAX_HELD_OUT)
    return min(wanted, rows // 2)
