"""How many rows a training step has, and how many rows are held out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_planner.steps import first_expectation, held_out_rows, prompts_per_step, steps_for


@pytest.mark.parametrize(
    ("prompt", "rollouts", "max_tokens", "budget", "prompts"),
    [
        (100, 4, 200, 8000, 10),
        (100, 4, 200, 7999, 9),
        (100, 8, 200, 8000, 5),
        (5000, 8, 2048, 1024, 1),  # one prompt exceeds the budget, but a step has at least one
    ],
)
def test_a_step_has_as_many_prompts_as_fit_into_the_budget(
    prompt: float, rollouts: int, max_tokens: int, budget: int, prompts: int
) -> None:
    assert prompts_per_step(prompt, first_expectation(max_tokens), rollouts, budget) == prompts


def test_the_last_step_of_an_epoch_may_be_short() -> None:
    assert [steps_for(rows, 10) for rows in (0, 1, 10, 11)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("rows", "held"), [(10_000, 256), (1000, 100), (200, 32), (64, 32), (62, 31), (2, 1), (0, 0)]
)
def test_the_number_of_held_out_rows_is_within_limits_and_at_most_half(rows: int, held: int) -> None:
    assert held_out_rows(rows, 0.1) == held


def test_a_fraction_of_zero_holds_out_no_rows() -> None:
    assert held_out_rows(10_000, 0) == 0


@given(st.integers(0, 100_000), st.integers(0, 100_000), st.floats(0.001, 0.5))
def test_more_rows_never_leave_fewer_to_train_on(one: int, other: int, fraction: float) -> None:
    few, many = sorted((one, other))
    assert few - held_out_rows(few, fraction) <= many - held_out_rows(many, fraction)


@pytest.mark.parametrize(
    ("max_tokens", "context", "expected"),
    [(64, None, 32), (64, 512, 32), (8192, 512, 512), (8192, None, 4096)],
)
def test_a_rollout_is_not_expected_to_be_longer_than_its_context(
    max_tokens: int, context: int | None, expected: float
) -> None:
    assert first_expectation(max_tokens, context) == expected
