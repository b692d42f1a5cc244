"""A run stops if the log-probs of sampler and trainer differ too much.

Both the KL and the mean absolute difference must be above their limits.
"""

from rft_run.mismatch import LEAST_TOKENS, STOP_KL, STOP_MEAN_ABS, Mismatch


def test_a_run_stops_where_both_means_are_above_their_bounds_over_enough_tokens() -> None:
    assert Mismatch(2 * STOP_KL, 2 * STOP_MEAN_ABS, LEAST_TOKENS).too_large
    assert not Mismatch(2 * STOP_KL, STOP_MEAN_ABS, LEAST_TOKENS).too_large
    assert not Mismatch(STOP_KL, 2 * STOP_MEAN_ABS, LEAST_TOKENS).too_large
    assert not Mismatch(2 * STOP_KL, 2 * STOP_MEAN_ABS, LEAST_TOKENS - 1).too_large


def test_a_mismatch_is_told_with_its_numbers() -> None:
    said = str(Mismatch(0.25, 0.5, 100))
    assert said == ("over 100 sampled tokens mismatchKl is 0.25 and log-probs differ by 0.5 nats on average")
