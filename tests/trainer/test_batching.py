"""The prompts of a training step: which ones, in which order, and how many."""

from hypothesis import given
from hypothesis import strategies as st

from rft_run.state import Position
from rft_trainer.data.batching import TokenBudget, epoch_order, estimated_steps, next_expectation


def batch_size(prompts: list[int], rollouts: int, expected: float, budget: int) -> int:
    room = TokenBudget(rollouts, expected, budget)
    for length in prompts:
        if not room.takes(length):
            break
    return room.prompts


lengths = st.lists(st.integers(1, 200), min_size=1, max_size=60)


@given(st.integers(1, 200), st.integers(0, 2**31 - 1), st.integers(1, 10))
def test_an_epoch_has_every_row_once_in_an_order_given_by_seed_and_epoch(
    rows: int, seed: int, epoch: int
) -> None:
    order = epoch_order(rows, seed, epoch)
    assert sorted(order) == list(range(rows))
    assert order == epoch_order(rows, seed, epoch)


def test_different_epochs_and_seeds_have_different_orders() -> None:
    assert len({tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in (1, 2)}) == 6


@given(lengths, st.integers(2, 8), st.floats(0, 500), st.integers(1024, 20000))
def test_a_step_has_as_many_prompts_as_fit_into_the_budget_and_at_least_one(
    prompts: list[int], rollouts: int, expected: float, budget: int
) -> None:
    count = batch_size(prompts, rollouts, expected, budget)
    assert 1 <= count <= len(prompts)

    def cost(n: int) -> float:
        total = 0.0
        for length in prompts[:n]:
            total += rollouts * (length + expected)
        return total

    assert count == 1 or cost(count) <= budget
    assert count == len(prompts) or cost(count + 1) > budget


def test_the_expected_length_moves_towards_the_lengths_of_the_last_step() -> None:
    assert next_expectation(100.0, [50, 50]) == 90.0
    assert next_expectation(100.0, []) == 100.0


@given(st.integers(1, 80), st.integers(1, 4), st.integers(2, 8))
def test_the_estimated_number_of_steps_is_exact_for_equal_prompts(
    rows: int, epochs: int, rollouts: int
) -> None:
    prompts, made, position = [30] * rows, 0, Position()
    estimate = estimated_steps(rows, 30, position, epochs, rollouts, 10, 1024)
    while position.epoch <= epochs:
        count = batch_size(prompts[position.offset :], rollouts, 10, 1024)
        offset = position.offset + count
        position = Position(position.epoch, offset) if offset < rows else Position(position.epoch + 1)
        made += 1
    assert made == estimate
