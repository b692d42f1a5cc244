"""Compares the held-out rewards of the tuned policy and of the base on the same rows."""

from collections.abc import Sequence

import numpy as np

from rft_api.status import PairedDifference

_MAX_DRAWS = 4_000_000
"""Row indices drawn at once: bounds the memory at about 64 MB, however many rows there are."""


def paired_bootstrap(
    base: Sequence[float], tuned: Sequence[float], seed: int, resamples: int = 10_000
) -> PairedDifference:
    """Return the mean of tuned minus base with its percentile bootstrap 95 % interval.

    Rows are resampled, each with both of its scores (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, section 13.3). Raises ValueError when the two are empty, differ in length or
    hold a NaN or an infinity.
    """
    if len(base) != len(tuned):
        raise ValueError(f"{len(base)} base scores and {len(tuned)} tuned scores are not pairs")
    if not base:
        raise ValueError("no rows to compare")
    differences = np.asarray(tuned, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError("a score is not finite")
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
