"""The benchmark of the update counts FLOPs correctly, and its updates change the adapter."""

from pathlib import Path

import pytest

from bench.update import (
    LAYOUTS,
    ROLLOUTS,
    SETTINGS,
    TINY,
    Case,
    config_of,
    line,
    measure,
    needed_flops,
    random_model,
    shape_named,
)
from rft_planner.modelconfig import from_config
from rft_planner.speed import Update, attention_flops, linear_flops
from rft_trainer.learn.packing import Completion, PackedRow, build

PLAIN = Update(ROLLOUTS, adapter=1000, reference=False)


def row(prompt: int, completions: int, completion: int) -> PackedRow:
    each = Completion((5,) * completion, (0.0,) * completion, 1.0)
    return PackedRow((5,) * prompt, (each,) * completions)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-4B", TINY])
def test_a_model_has_the_shape_of_its_name(name: str) -> None:
    assert from_config(config_of(shape_named(name)).to_dict()) == shape_named(name)


def test_attention_operations_are_counted_for_every_pair_that_the_mask_allows() -> None:
    shape, shared = shape_named(TINY), row(256, 4, 65)
    mask = build([shared]).attention_B_1_T_T
    assert mask is not None
    # A token's attention to itself counts as half a pair, as in the formulas for whole sequences.
    attention = 3 * attention_flops(shape, 1, int(mask.sum()) - shared.length / 2)
    weights = 2 * linear_flops(shape, shared.length) + 6 * 1000 * shared.length
    assert needed_flops(shape, [shared], PLAIN) == pytest.approx(weights + attention)


def test_a_reference_policy_adds_one_forward_pass() -> None:
    shape, rows = shape_named(TINY), [row(16, 1, 17)] * 3
    reference = Update(ROLLOUTS, adapter=1000, reference=True)
    more = needed_flops(shape, rows, reference) - needed_flops(shape, rows, PLAIN)
    seen = 16 * 16 / 2 + 16 * (16 + 16 / 2)
    assert more == pytest.approx(3 * (linear_flops(shape, 32) + attention_flops(shape, 1, seen)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_benchmark_trains_every_rollout_in_the_chosen_layout(
    layout: str, settings: str, tmp_path: Path
) -> None:
    case = Case(TINY, 128, 8, layout, settings)
    found = measure(case, random_model(TINY, tmp_path, "cpu"), None, updates=2)
    assert len(found.seconds) == 2
    assert found.tokens == ROLLOUTS * (case.prompt + case.completion)
    if layout == "long":  # the last token of a completion predicts no token, so it is not computed
        assert found.computed == found.tokens - ROLLOUTS
    else:
        assert found.computed == case.prompt + ROLLOUTS * (case.completion - 1)
    assert f"| {layout} | {settings} |" in line(found)
    assert found.utilisation is None
    assert found.held is None
