"""The bootstrap computes intervals for held-out rewards. They agree with distributions that are known."""

import math

import numpy as np
import pytest

from rft_run.bootstrap import mean_bootstrap, paired_bootstrap


def test_equal_scores_have_no_difference() -> None:
    result = paired_bootstrap([0.5, 1.0, 0.0], [0.5, 1.0, 0.0], seed=1)
    assert (result.mean, result.low, result.high) == (0.0, 0.0, 0.0)


def test_a_constant_improvement_has_no_width() -> None:
    result = paired_bootstrap([0.0, 0.25, 0.5], [0.25, 0.5, 0.75], seed=1)
    assert (result.mean, result.low, result.high) == (0.25, 0.25, 0.25)


def test_the_interval_agrees_with_the_binomial_distribution() -> None:
    # 40 of 100 rows rise from 0 to 1: resampled means are Binomial(100, 0.4) / 100, 95 % of which
    # lie between the exact quantiles 0.31 and 0.50.
    result = paired_bootstrap([0.0] * 100, [1.0] * 40 + [0.0] * 60, seed=3)
    assert result.mean == pytest.approx(0.4)
    assert result.low == pytest.approx(0.31, abs=0.011)
    assert result.high == pytest.approx(0.50, abs=0.011)


def test_the_interval_of_one_mean_is_that_of_a_difference_to_zero() -> None:
    scores = [1.0] * 40 + [0.0] * 60
    found, paired = mean_bootstrap(scores, seed=3), paired_bootstrap([0.0] * 100, scores, seed=3)
    assert found == (paired.mean, paired.low, paired.high)
    for wrong, said in (([], "no rows"), ([0.5, math.nan], "NaN or infinite")):
        with pytest.raises(ValueError, match=said):
            mean_bootstrap(wrong, seed=3)


def test_pairs_matter_and_not_only_the_two_means() -> None:
    base = np.random.default_rng(0).uniform(0, 0.9, 200)
    paired = paired_bootstrap(base.tolist(), (base + 0.05).tolist(), seed=1)
    shuffled = paired_bootstrap(base.tolist(), (base[::-1] + 0.05).tolist(), seed=1)
    assert paired.mean == pytest.approx(shuffled.mean)
    assert paired.high - paired.low < 1e-9
    assert shuffled.high - shuffled.low > 0.05


def test_the_same_seed_gives_the_same_interval() -> None:
    base, tuned = [0.0, 1.0, 0.0, 0.5], [1.0, 0.5, 0.5, 0.0]
    assert paired_bootstrap(base, tuned, seed=5) == paired_bootstrap(base, tuned, seed=5)


def test_many_rows_are_resampled_in_bounded_pieces() -> None:
    result = paired_bootstrap([0.0] * 50_000, [0.0, 1.0] * 25_000, seed=1, resamples=200)
    assert result.low < 0.5 < result.high
    assert result.high - result.low < 0.02


@pytest.mark.parametrize(
    ("base", "tuned"), [([], []), ([0.0], [0.0, 1.0]), ([math.nan], [0.0]), ([0.0], [math.inf])]
)
def test_what_cannot_be_compared_is_refused(base: list[float], tuned: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no rows|each row needs|NaN or infinite"):
        paired_bootstrap(base, tuned, seed=1)
