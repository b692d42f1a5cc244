"""``bench.account`` counts the FLOPs of an update, and the bytes that it moves, for two variants of it."""

import pytest
import torch

from bench.account import (
    AFTER,
    BEFORE,
    PHASES,
    Account,
    Attention,
    Count,
    Phase,
    counted,
    lines,
    rows_of,
    subject_of,
)
from bench.update import TINY, config_of, shape_named
from rft_planner.accelerators import ACCELERATORS
from rft_planner.speed import attention_flops

H100 = ACCELERATORS["nvidia-h100-80gb"]
SHAPE = shape_named(TINY)
RANK = 16
PROMPT, COMPLETION, ROLLOUTS = 64, 65, 4


@pytest.fixture(scope="module")
def shared() -> dict[str, dict[Phase, Count]]:
    rows = rows_of(PROMPT, COMPLETION, ROLLOUTS, shared=True)
    return {
        name: counted(subject_of(config_of(SHAPE), RANK), rows, way, H100)
        for name, way in (("before", BEFORE), ("after", AFTER))
    }


def test_an_operation_reads_its_arguments_and_writes_its_result() -> None:
    account = Account(H100, RANK)
    left, right = (torch.empty(8, 32, device="meta") for _ in range(2))
    with account:
        left @ right.T  # the transposition is a view, which moves no bytes
        left.add_(right)
    assert account.counts["products"].flops == 2 * 8 * 8 * 32
    assert account.counts["products"].bytes == 4 * (2 * 8 * 32 + 8 * 8)
    assert account.counts["element-wise"].bytes == 4 * 3 * 8 * 32
    with account, account.during("head"):
        left @ torch.empty(32, RANK, device="meta")
    assert account.counts["head"].flops == 2 * 8 * 32 * RANK


def test_products_and_attention_are_those_of_the_formulas(shared: dict[str, dict[Phase, Count]]) -> None:
    tokens = PROMPT + ROLLOUTS * (COMPLETION - 1)
    weights = SHAPE.layers * (
        SHAPE.hidden * SHAPE.head_dim * 2 * (SHAPE.heads + SHAPE.kv_heads)
        + 3 * SHAPE.hidden * SHAPE.intermediate
    )
    # Each weight matrix is multiplied three times: in the forward pass, in its recomputation, and for the
    # gradients of inputs. The flat row is padded to whole blocks of 128 tokens.
    padded = -(-tokens // 128) * 128
    for found in shared.values():
        assert found["products"].flops == pytest.approx(3 * 2 * weights * padded, rel=0.01)
    pairs = PROMPT * (PROMPT + 1) / 2 + ROLLOUTS * (COMPLETION - 1) * (PROMPT + COMPLETION / 2)
    each = attention_flops(SHAPE, 1, 1) * (2 + 2.5)
    assert shared["before"]["attention"].flops == pytest.approx(each * tokens**2)
    padding = (padded - tokens) * (padded - tokens + 1) / 2
    assert shared["after"]["attention"].flops == pytest.approx(each * (pairs + padding))


def test_the_changes_save_bytes_in_the_phases_that_they_are_about(
    shared: dict[str, dict[Phase, Count]],
) -> None:
    before, after = shared["before"], shared["after"]
    assert after["adapter"].bytes < 0.6 * before["adapter"].bytes
    assert after["element-wise"].bytes < 0.8 * before["element-wise"].bytes
    assert after["head"].flops == pytest.approx(before["head"].flops * 2 / 3)
    assert after["attention"].bytes < before["attention"].bytes
    for phase in ("products", "optimizer"):
        assert after[phase].flops == before[phase].flops


def test_a_dense_mask_is_read_once_for_each_head() -> None:
    kernel = Attention(tokens=100, heads=4, kv_heads=2, head_dim=8, pairs=5000, masked=False)
    masked = Attention(tokens=100, heads=4, kv_heads=2, head_dim=8, pairs=5000, masked=True)
    assert kernel.forward() == (4 * 4 * 8 * 5000, 100 * 8 * 2 * (4 + 2 + 2 + 4))
    assert masked.forward()[1] - kernel.forward()[1] == 2 * 4 * 100 * 100
    assert masked.backward()[1] - kernel.backward()[1] == 2 * 4 * 100 * 100


def test_the_table_has_a_line_for_each_phase_their_sum_and_the_speed(
    shared: dict[str, dict[Phase, Count]],
) -> None:
    found = list(lines("tiny", "shared", 1000, shared["before"], shared["after"]))
    assert [line.split(" | ")[2] for line in found] == [*PHASES, "sum", "**tokens/s**"]
    assert all(line.count("|") == found[0].count("|") for line in found)
