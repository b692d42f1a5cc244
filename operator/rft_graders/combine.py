"""Combines the scores of a completion into its reward: their weighted mean Σ wᵢsᵢ / Σ wᵢ, where grader i has
the score sᵢ and the weight wᵢ.
"""

import math
from collections.abc import Mapping, Sequence

from rft_api.graders import Grader, Scale
from rft_graders.types import Score
from rft_run.errors import UserCodeError

_ROUNDING = 1e-9
"""How far a score may be outside its scale because of rounding, as a fraction of the scale's width.

For example, a mean of scores of 1.0 may be 1.0000000000000002."""


def normalized(raw: object, scale: Scale | None) -> float:
    """Convert a raw score, which a grader has returned, to a score from 0 to 1.

    ``scale``: the range of raw scores that is mapped to 0 to 1. None: the raw score is from 0 to 1 already.
    Raises ValueError if the raw score is not a finite number, or is outside the scale. But with
    ``scale.clip``, a raw score outside the scale becomes 0 or 1.
    """
    low, high = (scale.min, scale.max) if scale is not None else (0.0, 1.0)
    if not isinstance(raw, bool | int | float):
        raise ValueError(f"the score is a {type(raw).__name__}, not a number")
    try:
        value = float(raw)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"the score is {value}, not a finite number")
    position = (value - low) / (high - low)
    if scale is not None and scale.clip:
        position = min(max(position, 0.0), 1.0)
    if not -_ROUNDING <= position <= 1 + _ROUNDING:
        raise ValueError(f"the score {value:g} is outside the grader's scale, {low:g}…{high:g}")
    return min(max(position, 0.0), 1.0)


def combine(graders: Sequence[Grader], outcomes: Mapping[str, float | ValueError]) -> Score:
    """Combine the scores of one completion. Return the scores, and the reward, which is their weighted mean.

    ``outcomes`` has for each grader its score from 0 to 1, or its error. The ``onError`` of a grader decides
    about its error: ``zero`` counts the score as 0, ``drop`` makes the reward None, and ``fail`` raises
    UserCodeError. An error of a canary, which is a grader of weight 0, does not change the reward.
    """
    scores: dict[str, float] = {}
    errors: dict[str, str] = {}
    for grader in graders:
        outcome = outcomes[grader.name]
        if isinstance(outcome, float):
            scores[grader.name] = outcome
            continue
        errors[grader.name] = str(outcome)
        if grader.is_canary:
            continue
        if grader.error_policy == "fail":
            raise UserCodeError(f"grader {grader.name} failed and its onError is fail: {outcome}")
        if grader.error_policy == "zero":
            scores[grader.name] = 0.0
    canaries = frozenset(grader.name for grader in graders if grader.is_canary)
    weighted = [grader for grader in graders if not grader.is_canary]
    if any(grader.name not in scores for grader in weighted):
        return Score(None, scores, errors, canaries=canaries)
    total = math.fsum(grader.weight for grader in weighted)
    reward = math.fsum(grader.weight * scores[grader.name] for grader in weighted) / total
    return Score(min(max(reward, 0.0), 1.0), scores, errors, canaries=canaries)
