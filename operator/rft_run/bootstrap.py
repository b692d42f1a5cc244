"""Computes 95 % confidence intervals by bootstrap: for the mean held-out score of a policy, and for the
difference between the scores of two policies.

Only this module of rft_run needs numpy.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rft_api.status import PairedDifference

_MAX_DRAWS = 4_000_000
"""Maximum number of row indices that the bootstrap draws in one numpy call. This limits its memory to about
64 MB."""


class MeanScore(NamedTuple):
    """The mean score over the held-out rows, and the lower and upper end of its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def mean_bootstrap(scores: Sequence[float], seed: int, resamples: int = 10_000) -> MeanScore:
    """Return the mean of ``scores``, with a 95 % confidence interval from a percentile bootstrap over rows.

    - ``scores`` has one score for each row.
    - ``seed`` is the seed of the random generator.
    - ``resamples`` is the number of bootstrap samples. Each has as many rows as ``scores``.

    Raises ValueError if there are no scores, or if a score is NaN or infinite.
    """
    if not scores:
        raise ValueError("no rows")
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a score is NaN or infinite")
    rows = len(values)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    chunk = max(1, _MAX_DRAWS // rows)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.integers(rows, size=(size, rows))
        means[start : start + size] = values[drawn].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return MeanScore(float(values.mean()), float(low), float(high))


def paired_bootstrap(
    base: Sequence[float], tuned: Sequence[float], seed: int, resamples: int = 10_000
) -> PairedDifference:
    """Return the mean difference between the scores of the tuned and of the base model, with a 95 % interval.

    The difference of a row is its tuned score minus its base score. The interval comes from a percentile
    bootstrap over rows (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3).

    - ``base`` and ``tuned`` have one score for each row, in the same order of rows.
    - ``seed`` is the seed of the random generator.
    - ``resamples`` is the number of bootstrap samples. Each has as many rows as ``base``.

    Raises ValueError if the two lists are empty, differ in length, or contain NaN or infinity.
    """
    if len(base) != len(tuned):
        raise ValueError(f"each row needs two scores, not {len(base)} base and {len(tuned)} tuned scores")
    if not base:
        raise ValueError("no rows to compare")
    differences = [after - before for before, after in zip(base, tuned, strict=True)]
    found = mean_bootstrap(differences, seed, resamples)
    return PairedDifference(mean=found.mean, low=found.low, high=found.high)
