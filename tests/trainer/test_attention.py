"""The two forms of attention for GPUs, ``sequences`` and ``blocks``, give the same results as dense masks.

The tests run both forms and the dense masks on the CPU.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import AutoModelForCausalLM
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from bench.cpu_kernels import ON_CPU, by_operator, by_sequence
from bench.tiny_models import WINDOW, config_of, write_model
from rft_api.parameters import Training
from rft_run.errors import ConfigurationError
from rft_trainer.learn import attention
from rft_trainer.learn.attention import DENSE, Forms, Kernels
from rft_trainer.learn.flat import FlatRows, block_mask, covered, mask_mod, visible_pairs
from rft_trainer.learn.gradients import Accumulation, Begin, UpdateSettings
from rft_trainer.learn.masks import within
from rft_trainer.learn.objective import settings_for, whole_batch
from rft_trainer.learn.packing import Completion, PackedRow, build, micro_batches, rows_of_group
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.learn.ranks import ALONE
from rft_trainer.rollout.filter import Filter
from rft_trainer.runtime.loading import attention_implementation

FORMS = Forms("sequences", "blocks")


def completion(length: int, first: int = 5) -> Completion:
    return Completion(tuple(3 + (first + 7 * i * i) % 11 for i in range(length)), (-1.0,) * length, 1.0)


def row(prompt: int, *lengths: int) -> PackedRow:
    own = completion(prompt, prompt).ids
    return PackedRow(own, tuple(completion(length, index) for index, length in enumerate(lengths)))


ROWS = st.lists(
    st.builds(
        lambda prompt, lengths: row(prompt, *lengths),
        st.integers(1, 40),
        st.lists(st.integers(1, 30), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=4,
)


def flat(rows: Sequence[PackedRow]) -> FlatRows:
    found = build(rows, flat=True).flat
    assert found is not None
    return found


def pairs(rows: FlatRows, window: int | None) -> Tensor:
    """Return (T, T), by ``mask_mod``: True where the row's token attends to the column's token."""
    index = torch.arange(rows.length)
    return mask_mod(rows, window)(index, index, index[:, None], index[None, :])


def dense(rows: Sequence[PackedRow], window: int | None) -> Tensor:
    """Return (T, T), by dense masks without padding: True where the row's token attends to the column's."""
    rule: Any = causal_mask_function if window is None else sliding_window_causal_mask_function(window)
    blocks = []
    for one in rows:
        batch = build([one, one])  # two equal rows; only the mask of the first is used
        allowed = batch.attention_B_1_T_T
        if allowed is None:
            length = batch.tokens_B_T.shape[1]
            allowed = torch.ones(2, 1, length, length, dtype=torch.bool).tril()
        blocks.append(within(rule, allowed, batch.positions_B_T)[0, 0])
    return torch.block_diag(*blocks).bool()


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, window=st.one_of(st.none(), st.integers(1, 50)), block=st.sampled_from([4, 16, 128]))
def test_the_rule_for_pairs_is_the_dense_mask_and_its_blocks_are_exact(
    rows: list[PackedRow], window: int | None, block: int
) -> None:
    found = flat(rows)
    attends = pairs(found, window)
    used = sum(one.length for one in rows)
    assert torch.equal(attends[:used, :used], dense(rows, window))
    assert not attends[:used, used:].any()
    assert not attends[used:, :used].any()
    count = found.length // block
    tiles = attends.reshape(count, block, count, block).permute(0, 2, 1, 3).flatten(2)
    some, every = covered(found, window, block)
    assert torch.equal(some, tiles.any(dim=2))
    assert torch.equal(every, tiles.all(dim=2))
    # The kernel gets two lists of blocks: those in which it must check each pair of tokens, and full ones.
    given_to_kernel = block_mask(found, window, block)
    listed = torch.zeros_like(some)
    for numbers, indices in (
        (given_to_kernel.kv_num_blocks, given_to_kernel.kv_indices),
        (given_to_kernel.full_kv_num_blocks, given_to_kernel.full_kv_indices),
    ):
        assert numbers is not None
        assert indices is not None
        for query, number in enumerate(numbers[0, 0].tolist()):
            listed[query, indices[0, 0, query, :number].long()] = True
    assert torch.equal(listed, some)
    if window is None:
        assert visible_pairs(found) == int(attends.sum())


def random_parts(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a random query, key and value in float64, with ``requires_grad``.

    - The query has the shape (1, 4, ``length``, 8).
    - The key and the value have the shape (1, 2, ``length``, 8).
    """
    draw = torch.Generator().manual_seed(1)
    shapes = ((1, 4, length, 8), (1, 2, length, 8), (1, 2, length, 8))
    return tuple(
        torch.randn(*shape, generator=draw, dtype=torch.float64, requires_grad=True) for shape in shapes
    )  # type: ignore[return-value]


def with_gradients(output: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=output.dtype)
    return [output, *torch.autograd.grad((output * weights).sum(), list(parts))]


@pytest.mark.parametrize("window", [None, 1, 20])
def test_the_operator_of_flex_attention_has_the_output_and_the_gradients_of_the_dense_mask(
    window: int | None,
) -> None:
    found = flat([row(70, 30, 1, 60), row(10, 50), row(5, 4, 4)])
    parts = random_parts(found.length)
    given_mask = block_mask(found, window)
    output = by_operator(None, *parts, given_mask)[0].transpose(1, 2)
    expected = scaled_dot_product_attention(*parts, attn_mask=pairs(found, window), enable_gqa=True)
    for one, wanted in zip(with_gradients(output, parts), with_gradients(expected, parts), strict=True):
        torch.testing.assert_close(one, wanted, atol=1e-9, rtol=0)


@pytest.mark.parametrize("window", [None, 1, 20])
def test_rows_by_their_starts_and_positions_equal_separate_sequences(window: int | None) -> None:
    rows = [row(70, 30), row(10, 50), row(1, 1), row(5, 90)]
    found = flat(rows)
    assert not found.shared
    assert found.longest == 99
    for start, stop in zip(found.starts_R1[:-1].tolist(), found.starts_R1[1:].tolist(), strict=True):
        assert found.position_T[start:stop].tolist() == list(range(stop - start))
    parts = random_parts(found.length)
    query, key, value = (part[0].transpose(0, 1) for part in parts)
    lines = by_sequence(query, key, value, found.starts_R1, found.longest, window, None)
    output = lines.transpose(0, 1)[None]
    expected = scaled_dot_product_attention(*parts, attn_mask=pairs(found, window), enable_gqa=True)
    for one, wanted in zip(with_gradients(output, parts), with_gradients(expected, parts), strict=True):
        torch.testing.assert_close(one, wanted, atol=1e-9, rtol=0)


class _Made(TorchDispatchMode):
    """Sums the bytes of all tensors that operations return, also of tensors that are soon deleted."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_flatten(result)[0]:
            if isinstance(value, Tensor):
                self.total += value.numel() * value.element_size()
        return result


def test_the_mask_of_16384_tokens_takes_less_than_20_megabytes_to_build() -> None:
    rows = [row(512, 3969, 3969, 3969, 3969)]
    batch = build(rows, flat=True)
    assert batch.attention_B_1_T_T is None
    assert batch.flat is not None
    assert batch.flat.length == 16_384
    with _Made() as made:
        for window in (None, 1024):
            block_mask(batch.flat, window)
    assert 0 < made.total < 20e6


@pytest.fixture(scope="module", params=["llama", "mistral", "gemma2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp(request.param)
    write_model(config_of(request.param), target)
    return target


def policy_of(folder: Path) -> Policy:
    return Policy(PolicyOptions(folder, Training(lora_rank=4, lora_alpha=8), "cpu", "float32", 0))


def results(policy: Policy, rows: list[PackedRow]) -> list[Tensor]:
    """Return the hidden states of the rows, and the gradients of the adapter's B matrices."""
    hidden_N_H = policy.hidden(policy.batch(rows))
    draw = torch.Generator().manual_seed(3)
    loss = (hidden_N_H * torch.randn(hidden_N_H.shape, generator=draw)).sum()
    return [hidden_N_H, *torch.autograd.grad(loss, policy.output_factors())]


def test_a_model_computes_the_same_in_the_forms_for_gpus(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "KERNELS", ON_CPU)
    policy = policy_of(folder)
    assert policy.forms == DENSE
    cases = [[row(30, 20, 9), row(4, 2 * WINDOW)], [row(6, 2 * WINDOW), row(40, 3), row(2, 1)]]
    expected = [results(policy, rows) for rows in cases]
    # The kernel for sequences has no soft capping, which gemma2 needs.
    forms = Forms("blocks", "blocks") if policy.config.model_type == "gemma2" else FORMS
    policy._use(forms)
    assert policy.forms == forms
    for rows, wanted in zip(cases, expected, strict=True):
        for one, other in zip(results(policy, rows), wanted, strict=True):
            scale = float(other.detach().abs().max())
            torch.testing.assert_close(one, other, atol=1e-4 * scale, rtol=0)


def test_dense_masks_are_used_where_a_kernel_fails_or_is_wrong(
    character_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any) -> Tensor:
        raise RuntimeError("no kernel image for this GPU")

    def unmasked(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
        query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
        return scaled_dot_product_attention(query, key, value)[0].transpose(0, 1)

    def forward_only(*arguments: Any) -> Tensor:
        found = by_sequence(*arguments)
        if found.requires_grad:
            found.register_hook(failing)
        return found

    policy = policy_of(character_model)
    kernels = (failing, "no kernel image"), (unmasked, "logits differ"), (forward_only, "no kernel image")
    for kernel, reason in kernels:
        caplog.clear()
        monkeypatch.setattr(attention, "KERNELS", Kernels(ON_CPU.blocks, kernel))
        policy._use(FORMS)
        assert policy.forms == DENSE
        assert policy.shares_prompts
        assert reason in caplog.text
        assert len(policy.hidden(policy.batch([row(4, 3, 2)]))) == 5


@pytest.mark.parametrize(
    ("model_type", "dtype", "has_sequences", "expected"),
    [
        ("llama", torch.bfloat16, True, FORMS),
        ("mistral", torch.float16, True, FORMS),
        ("llama", torch.bfloat16, False, Forms("blocks", "blocks")),
        ("llama", torch.float32, True, DENSE),
        ("gemma2", torch.bfloat16, True, Forms("blocks", "blocks")),
        ("gpt_oss", torch.bfloat16, True, Forms("blocks", "blocks")),
        ("gemma3", torch.bfloat16, True, DENSE),
    ],
)
def test_the_forms_suit_the_architecture(
    model_type: str, dtype: torch.dtype, has_sequences: bool, expected: Forms
) -> None:
    settings = config_of(model_type)
    with torch.device("meta"):
        kind: Any = AutoModelForCausalLM
        model = kind.from_config(settings, attn_implementation=attention_implementation(settings))
    assert attention.suited(model, dtype, has_sequences) == expected
    assert attention.choose(model, torch.device("cpu"), dtype) == DENSE


def test_the_variable_that_asks_for_dense_masks_takes_no_other_value() -> None:
    with pytest.raises(ConfigurationError, match="RFT_ATTENTION=flash: the only valid value is dense"):
        attention.choose(None, torch.device("cuda"), torch.bfloat16, {"RFT_ATTENTION": "flash"})
    assert attention.choose(None, torch.device("cuda"), torch.bfloat16, {"RFT_ATTENTION": "dense"}) == DENSE


def test_rows_one_after_another_fill_a_micro_batch_without_padding() -> None:
    rows = [row(10, 1), *[row(1, 1)] * 90]
    assert [len(batch) for batch in micro_batches(rows, 100, flat=True)] == [91]
    assert [len(batch) for batch in micro_batches(rows, 100)] == [10, 81]


def test_a_prompt_is_shared_more_often_where_hidden_pairs_cost_nothing() -> None:
    prompt, long = (5,) * 200, [completion(400)] * 8
    assert len(rows_of_group(prompt, long, hidden_size=16)) == 8
    assert len(rows_of_group(prompt, long, hidden_size=16, flat=True)) == 8
    assert len(rows_of_group(prompt, long, hidden_size=256)) == 8
    assert len(rows_of_group(prompt, long, hidden_size=256, flat=True)) == 1


def test_nothing_in_the_loop_of_micro_batches_waits_for_a_number(
    character_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's meta device tensors have no values, so code that reads a number from a tensor fails."""

    def blocks(_module: Any, query: Tensor, *_: Any, **_arguments: Any) -> tuple[Tensor, None]:
        return query.transpose(1, 2), None

    monkeypatch.setattr(attention, "KERNELS", Kernels(blocks, lambda query, *_: query))
    policy = policy_of(character_model)
    policy.forms = FORMS
    policy._inner.set_attn_implementation(attention.NAME)
    policy._model.to("meta")
    policy.device = torch.device("meta")
    loss = settings_for("grpo", 0.2, 0.2, 0.05, "token")
    settings = UpdateSettings(Filter(0.9, 8, 0.95), loss, 16, 1024, None, 1.0, True)
    begin = Begin(settings, whole_batch([3, 2, 4], 16))
    work = Accumulation(policy, begin, ALONE)
    for rows in ([row(4, 3, 2)], [row(4, 4)]):
        work.add(rows)
    with pytest.raises(RuntimeError, match=r"meta"):
        float(work._sums["loss"])
