"""Several rollouts with the same prompt can be packed in one row, with one copy of the prompt.

The results are those of one row for each rollout, but fewer tokens are computed.
"""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rft_trainer.learn.packing import Completion, PackedRow, build, micro_batches, rows_of_group

PROMPT = (5, 6, 7, 8)


def completion(*ids: int) -> Completion:
    return Completion(ids, tuple(-float(i) for i in ids), advantage=float(len(ids)))


COMPLETIONS = (completion(9, 10, 11), completion(12), completion(13, 14))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return LlamaForCausalLM(config).eval()


def hidden(model: LlamaForCausalLM, rows: list[PackedRow]) -> torch.Tensor:
    batch = build(rows)
    output = model.model(
        input_ids=batch.tokens_B_T,
        position_ids=batch.positions_B_T,
        attention_mask=batch.attention_B_1_T_T,
        use_cache=False,
    )
    return output.last_hidden_state.flatten(0, 1)[batch.source_N]


def test_shared_separate_and_padded_rows_give_the_same_hidden_states(model: LlamaForCausalLM) -> None:
    wanted = torch.cat([hidden(model, [PackedRow(PROMPT, (one,))]) for one in COMPLETIONS])
    torch.testing.assert_close(hidden(model, [PackedRow(PROMPT, COMPLETIONS)]), wanted)
    torch.testing.assert_close(hidden(model, [PackedRow(PROMPT, (one,)) for one in COMPLETIONS]), wanted)
    mixed = hidden(model, [PackedRow(PROMPT, COMPLETIONS), PackedRow((1, 2), (completion(3, 4),))])
    torch.testing.assert_close(mixed[: len(wanted)], wanted)


def test_every_completion_token_is_a_target_of_its_sequence() -> None:
    batch = build([PackedRow(PROMPT, COMPLETIONS)])
    assert batch.target_N.tolist() == [9, 10, 11, 12, 13, 14]
    assert batch.sequence_N.tolist() == [0, 0, 0, 1, 2, 2]
    assert batch.advantages_S.tolist() == [3.0, 1.0, 2.0]
    assert batch.tokens_B_T.shape == (1, 4 + 2 + 0 + 1)


def test_masked_rollouts_stay_in_the_batch_without_loss() -> None:
    masked = Completion((9, 10), (0.0, 0.0), 1.0, masked=True)
    assert build([PackedRow(PROMPT, (masked, completion(3)))]).mask_N.tolist() == [0.0, 0.0, 1.0]


def test_a_prompt_is_shared_only_if_that_is_cheaper() -> None:
    assert len(rows_of_group(PROMPT * 10, COMPLETIONS, hidden_size=16)) == 1
    long = [Completion(tuple(range(400)), (0.0,) * 400, 0.0)] * 8
    assert len(rows_of_group(PROMPT, long, hidden_size=16)) == 8
    assert len(rows_of_group(PROMPT * 10, COMPLETIONS, hidden_size=None)) == 3
    (row,) = rows_of_group(PROMPT * 10, COMPLETIONS, hidden_size=16)
    assert len(rows_of_group(PROMPT * 10, COMPLETIONS, hidden_size=16, max_tokens=row.length)) == 1
    assert len(rows_of_group(PROMPT * 10, COMPLETIONS, hidden_size=16, max_tokens=row.length - 1)) == 3


def test_micro_batches_have_every_row_once_within_the_token_limit() -> None:
    rows = [PackedRow(tuple(range(length)), (completion(1),)) for length in (3, 50, 7, 200, 8, 49)]
    batches = list(micro_batches(rows, 100))
    assert sorted(row.length for batch in batches for row in batch) == sorted(row.length for row in rows)
    for batch in batches:
        assert len(batch) == 1 or max(row.length for row in batch) * len(batch) <= 100


def test_the_package_never_imports_vllm() -> None:
    sources = Path(__file__).parents[2].joinpath("trainer-image", "rft_trainer").rglob("*.py")
    lines = [line for source in sources for line in source.read_text().splitlines()]
    assert not [line for line in lines if line.strip().startswith(("import vllm", "from vllm"))]
