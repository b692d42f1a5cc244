"""Compares the held-out rewards of two policies on one set of rows.

No other module of rft_run needs numpy.
"""

from collections.abc import Sequence

import numpy as np

from rft_api.status import PairedDifference

_MAX_DRAWS = 4_000_000
"""Maximum number of row indices that are drawn at once. This limits the memory to about 64 MB."""


def paired_bootstrap(
    base: Sequence[float], tuned: Sequence[float], seed: int, resamples: int = 10_000
) -> PairedDifference:
    """Return the mean of the differences, tuned score minus base score, with a 95 % interval.

    The interval comes from a percentile bootstrap over rows (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, section 13.3). The bootstrap draws ``resamples`` samples of the rows. ``seed`` is the
    seed of its random generator. Raises ValueError when the score lists are empty, differ in length or
    contain NaN or infinity.
    """
    if len(base) != len(tuned):
        raise ValueError(f"each row needs two scores, not {len(base)} base and {len(tuned)} tuned scores")
    if not base:
        raise ValueError("no rows to compare")
    differences = np.asarray(tuned, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError("a score is NaN or infinite")
    rows = len(differences)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    chunk = max(1, _MAX_DRAWS // rows)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.integers(rows, size=(size, rows))
        means[start : start + size] = differences[drawn].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return PairedDifference(mean=float(differences.mean()), low=float(low), high=float(high))
