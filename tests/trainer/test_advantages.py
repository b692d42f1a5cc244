"""Advantages within a group."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_trainer.rollout.advantages import group_advantages, zero_variance

rewards = st.lists(st.floats(0, 1), min_size=2, max_size=8)


def test_the_standard_deviation_has_one_degree_of_freedom_removed() -> None:
    std = math.sqrt(0.5)
    assert group_advantages([1.0, 0.0], "std") == pytest.approx([0.5 / (std + 1e-4), -0.5 / (std + 1e-4)])


def test_without_normalization_only_the_mean_is_taken_away() -> None:
    assert group_advantages([1.0, 0.0, 0.5], "none") == pytest.approx([0.5, -0.5, 0.0])


@given(rewards)
def test_advantages_of_a_group_sum_to_nothing(rewards_g: list[float]) -> None:
    assert sum(group_advantages(rewards_g, "none")) == pytest.approx(0, abs=1e-9)


@given(rewards)
def test_equal_rewards_teach_nothing(rewards_g: list[float]) -> None:
    equal = [rewards_g[0]] * len(rewards_g)
    assert zero_variance(equal)
    assert group_advantages(equal, "std") == pytest.approx([0.0] * len(equal), abs=1e-9)


def test_a_single_rollout_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(ValueError, match="at least two"):
        group_advantages([1.0], "std")
