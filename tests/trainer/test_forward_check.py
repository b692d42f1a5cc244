"""The policy checks whether its model obeys the mask of rows in which rollouts share a prompt.

The check accepts the errors of rounding, and finds a model that ignores the mask.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rft_api.parameters import Training
from rft_run.errors import ModelError
from rft_trainer.learn import packing
from rft_trainer.learn.forward_check import (
    CheckedTexts,
    LogitDifference,
    checked_texts,
    hides,
    is_rounding,
    logit_difference,
)
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.runtime.models import resolve

DTYPES = ("float32", "bfloat16")


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return resolve("HuggingFaceTB/SmolLM2-135M-Instruct")


def policy(folder: Path, dtype: str) -> Policy:
    return Policy(PolicyOptions(folder, Training(), "cpu", dtype, seed=0))


def causal_alone(segments_B_T: Tensor) -> Tensor:
    """Return a causal mask that does not hide the other completions of a row, as if the model ignored it."""
    width = segments_B_T.shape[1]
    return torch.ones((len(segments_B_T), 1, width, width), dtype=torch.bool).tril()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_real_model_shares_prompts_in_either_dtype(
    smollm2: Path, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert policy(smollm2, dtype).shares_prompts
    assert "computes its prompt again" not in caplog.text


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_ignored_mask_is_found_in_either_dtype(
    smollm2: Path, dtype: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(packing, "_siblings_hidden", causal_alone)
    assert not policy(smollm2, dtype).shares_prompts
    assert "each rollout computes its prompt again" in caplog.text


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_ignored_mask_of_a_random_model_is_found(
    character_model: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert policy(character_model, dtype).shares_prompts
    monkeypatch.setattr(packing, "_siblings_hidden", causal_alone)
    assert not policy(character_model, dtype).shares_prompts


def test_a_joined_text_predicts_the_tokens_of_the_shared_row() -> None:
    texts = CheckedTexts((1, 2, 3), ((4, 5, 6), (7,), (8, 9)))
    tokens, places = texts.joined()
    assert tokens == (1, 2, 3, 4, 5, 8)
    assert places == packing.build([texts.row()]).source_N.tolist()


def test_the_texts_have_enough_tokens_for_a_tokenizer_with_long_tokens() -> None:
    class LongTokens:
        """A tokenizer that makes only three tokens of any text."""

        def encode(self, _text: str, *, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return [5, 6, 7]

    texts = checked_texts(LongTokens())
    assert len(texts.prompt) == 16
    assert [len(ids) for ids in texts.completions] == [12, 3, 10]
    assert texts.prompt[:4] == (5, 6, 7, 5)


def test_a_tokenizer_without_tokens_is_refused() -> None:
    class NoTokens:
        """A tokenizer whose vocabulary has no part of the text."""

        def encode(self, _text: str, *, add_special_tokens: bool) -> list[int]:
            return []

    with pytest.raises(ModelError, match="gives no tokens"):
        checked_texts(NoTokens())


@pytest.mark.parametrize(
    ("dtype", "found", "expected"),
    [
        (torch.float32, LogitDifference(9e-3, 1e-4), True),
        (torch.float32, LogitDifference(2e-2, 1e-4), False),
        (torch.bfloat16, LogitDifference(1.5, 0.04), True),
        (torch.bfloat16, LogitDifference(1.5, 0.2), False),
        (torch.bfloat16, LogitDifference(math.nan, math.nan), False),
        (torch.float32, LogitDifference(math.nan, math.nan), False),
    ],
)
def test_only_small_differences_are_rounding(
    dtype: torch.dtype, found: LogitDifference, expected: bool
) -> None:
    assert is_rounding(found, dtype) == expected


@pytest.mark.parametrize(
    ("dtype", "mean", "visible", "expected"),
    [
        (torch.float32, 1e-7, 0.0, True),
        (torch.float32, 1e-4, 1e-4, False),
        (torch.float32, 1e-4, 1e-3, True),
        (torch.bfloat16, 0.03, 0.43, True),
        (torch.bfloat16, 0.03, 0.05, False),
        (torch.bfloat16, 0.00005, 0.0001, True),
        (torch.bfloat16, 0.03, math.nan, False),
    ],
)
def test_a_mask_must_hide_more_than_rounding_changes(
    dtype: torch.dtype, mean: float, visible: float, expected: bool
) -> None:
    assert hides(LogitDifference(mean, mean), LogitDifference(visible, visible), dtype) == expected


def test_a_deviation_is_relative_and_nan_stays_nan() -> None:
    found = logit_difference(torch.tensor([[2.0, -3.0]]), torch.tensor([[1.0, -3.0]]))
    assert found == LogitDifference(0.5, 0.25)
    assert math.isnan(logit_difference(torch.tensor([math.nan]), torch.zeros(1)).mean)
