"""Calculates how many prompts a step has, how many steps an epoch has, and how many rows are held out.

The trainer and the planner both use these formulas. Lengths are in tokens.
"""

MIN_HELD_OUT, MAX_HELD_OUT = 32, 256
"""Minimum and maximum of the number of rows that are held out from training for the evaluation."""

OTHERWISE = (
    "set spec.evaluation.dataset, whose rows may be few, or turn the evaluation off with"
    " spec.evaluation.fraction: 0"
)
"""The end of an error message about a dataset with too few rows to hold some out. It says what the user can
do instead of adding rows."""


def first_expectation(max_tokens: int, context: int | None = None) -> float:
    """Return the number of sampled tokens that a rollout is expected to have, before the first rollout.

    It is half of ``max_tokens``, the maximum for one rollout, but at most ``context``, the maximum context
    length. The turns of a rollout together may have a higher maximum than its context. None: no such limit.
    """
    return max_tokens / 2 if context is None else min(max_tokens / 2, context)


def prompts_per_step(prompt: float, completion: float, rollouts: int, budget: int) -> int:
    """Return the number of prompts in one step: as many as fit into ``budget`` tokens, but at least one.

    Each prompt needs rollouts × (prompt + completion) tokens. ``prompt`` and ``completion`` are mean lengths
    in tokens, and ``rollouts`` is the number of completions of each prompt.
    """
    return max(1, int(budget // (rollouts * (prompt + completion))))


def steps_for(rows: int, prompts: int) -> int:
    """Return the number of steps in one epoch, for ``rows`` training rows and ``prompts`` prompts in a step.

    The last step may have fewer prompts.
    """
    return -(-rows // prompts)


def held_out_rows(rows: int, fraction: float) -> int:
    """Return how many of ``rows`` rows should be held out from training, for the evaluation.

    The number is ``fraction`` of the rows, but at least 32 and at most 256, and never more than half of the
    rows. It is 0 if ``fraction`` is 0. The real number may differ a little, because rows with the same prompt
    stay together.
    """
    if fraction == 0:
        return 0
    wanted = min(max(round(fraction * rows), MIN_HELD_OUT), MAX_HELD_OUT)
    return min(wanted, rows // 2)
