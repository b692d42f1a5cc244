"""The advantages of rollouts are computed from the rewards of their group."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_trainer.rollout.advantages import group_advantages, zero_variance

rewards = st.lists(st.floats(0, 1), min_size=2, max_size=8)


def test_the_standard_deviation_is_the_unbiased_one() -> None:
    std = math.sqrt(0.5)
    assert group_advantages([1.0, 0.0], "std") == pytest.approx([0.5 / (std + 1e-4), -0.5 / (std + 1e-4)])


def test_without_normalization_only_the_mean_is_subtracted() -> None:
    assert group_advantages([1.0, 0.0, 0.5], "none") == pytest.approx([0.5, -0.5, 0.0])


@given(rewards)
def test_advantages_of_a_group_sum_to_zero(rewards_g: list[float]) -> None:
    assert sum(group_advantages(rewards_g, "none")) == pytest.approx(0, abs=1e-9)


@given(rewards)
def test_equal_rewards_give_zero_advantages(rewards_g: list[float]) -> None:
    equal = [rewards_g[0]] * len(rewards_g)
    assert zero_variance(equal)
    assert group_advantages(equal, "std") == pytest.approx([0.0] * len(equal), abs=1e-9)


def test_a_group_of_one_rollout_raises() -> None:
    with pytest.raises(ValueError, match="at least two"):
        group_advantages([1.0], "std")
