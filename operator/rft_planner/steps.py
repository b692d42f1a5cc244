"""Steps of a run by the lengths of its rows: the batch rule of the trainer, which the plan counts by too.

Lengths are in tokens.
"""

MIN_HELD_OUT, MAX_HELD_OUT = 32, 256
"""Bounds of a held-out fraction, in rows."""


def first_expectation(max_tokens: int) -> float:
    """Return how long a completion is taken to be before any was seen: half of the longest."""
    return max_tokens / 2


def prompts_per_step(prompt: float, completion: float, rollouts: int, budget: int) -> int:
    """Return how many prompts of a length make a step: at least one, else what ``budget`` tokens hold.

    Each brings its rollouts: rollouts × (prompt + completion) tokens.
    """
    return max(1, int(budget // (rollouts * (prompt + completion))))


def steps_for(rows: int, prompts: int) -> int:
    """Return the steps that ``rows`` of one epoch take; the last may be short."""
    return -(-rows // prompts)


def held_out_rows(rows: int, fraction: float) -> int:
    """Return how many of ``rows`` are held out, as far as rows with the same prompt allow.

    It is the fraction within the bounds, and never more than half. Fewer than ``MIN_HELD_OUT`` are too few.
    """
    wanted = min(max(round(fraction * rows), MIN_HELD_OUT), MAX_HELD_OUT)
    return min(wanted, rows // 2)
