"""Checks the policy's forward passes against the model's own, by the logits of a few short completions.

In float32, two correct ways to compute the same logits differ by about 1e-5. In bfloat16 they differ by
rounding alone: with SmolLM2-135M by 0.03 on average and by 0.6 at most (``logit_difference``). So the largest
difference says nothing in bfloat16, and the mean is compared.

In a row with a shared prompt, a mask hides the completions from each other. The check must fail if a model
ignores this mask. With a text of special tokens, the logits are nearly the same without the mask: the largest
difference was 0.002. So the texts are sentences, and ``hides`` also compares with the logits that the model
gives if each completion sees the completions before it.
"""

from itertools import cycle, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rft_run.errors import ModelError
from rft_trainer.learn.packing import Completion, PackedRow

WINDOW = 8
"""Size in tokens to which attention windows are shortened for the check."""
_LARGEST = 1e-2
"""Largest difference of logits that counts as rounding in float32 and wider."""
_MEAN = 0.1
"""Mean difference of logits that counts as rounding in bfloat16 and float16."""
_NEGLIGIBLE = {torch.float64: 1e-9, torch.float32: 1e-5}
"""For each dtype: if the mean difference of logits is at most this number, the mask counts as correct.

This is so even if the logits would differ as little without a mask.
"""
_NEGLIGIBLE_ROUNDED = 1e-4
"""In bfloat16 and float16: if the mean difference of logits is at most this number, the mask is correct."""
_SHARE = 1 / 4
"""Largest allowed mean difference of logits for a row with a shared prompt, as a share of another difference.

The other one is the mean difference that appears if each completion sees the completions before it.
"""
_PROMPT = 2 * WINDOW
"""Length in tokens of the prompt with which forward passes are checked."""
_COMPLETIONS = (12, 3, 10)
"""Lengths in tokens of the completions with which forward passes are checked.

The longest completion is longer than ``WINDOW``.
"""
_TEXT = (
    "What is the capital of France, and how many people live there today? Please answer in one short"
    " sentence. The capital is Paris, a city on the river Seine with about two million people."
)


class CheckedTexts(NamedTuple):
    """A short text to check forward passes with: the token ids of a prompt and of several completions."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    def row(self, *numbers: int) -> PackedRow:
        """Return a row of the prompt and the completions with these indices. No index: all completions.

        Log-probs and advantages of the completions are 0, because only logits are compared.
        """
        ids = [self.completions[number] for number in numbers] if numbers else self.completions
        return PackedRow(self.prompt, tuple(Completion(one, (0.0,) * len(one), 0.0) for one in ids))

    def joined(self) -> tuple[tuple[int, ...], list[int]]:
        """Return one text of the prompt and all completions, and the positions that predict its tokens.

        In this text each completion sees the prompt and the completions before it. First result: the token
        ids. Second result: the indices of the positions that predict the tokens of the completions, one
        completion after another. The first token of every completion is predicted by the end of the prompt.
        """
        tokens, places = list(self.prompt), list[int]()
        for ids in self.completions:
            places += [len(self.prompt) - 1, *range(len(tokens), len(tokens) + len(ids) - 1)]
            tokens += ids[:-1]
        return tuple(tokens), places


def checked_texts(tokenizer: Any) -> CheckedTexts:
    """Return token ids with which forward passes are checked: a prompt and completions of fixed lengths.

    They are those of an English text.
    Raises ModelError if the tokenizer gives no tokens for the text.
    """
    ids = tokenizer.encode(_TEXT, add_special_tokens=False)
    if not ids:
        raise ModelError("the tokenizer gives no tokens for an English sentence; check tokenizer.json")
    taken = islice(cycle(ids), _PROMPT + sum(_COMPLETIONS))
    prompt = tuple(islice(taken, _PROMPT))
    return CheckedTexts(prompt, tuple(tuple(islice(taken, length)) for length in _COMPLETIONS))


class LogitDifference(NamedTuple):
    """The largest and the mean difference between two tensors of logits. NaN if a logit is NaN.

    Each difference is divided by 1 + the absolute value of the expected logit.
    """

    largest: float
    mean: float


def logit_difference(found_N_V: Tensor, expected_N_V: Tensor) -> LogitDifference:
    """Return how much two tensors of logits (N, V) differ, for N tokens and a vocabulary of V tokens.

    Each difference is divided by 1 + the absolute value of the expected logit.
    """
    differences_N_V = (found_N_V - expected_N_V).abs() / (1 + expected_N_V.abs())
    return LogitDifference(float(differences_N_V.max()), float(differences_N_V.mean()))


def is_rounding(found: LogitDifference, dtype: torch.dtype) -> bool:
    """Return whether rounding in the model's dtype can explain the difference ``found`` of logits."""
    return found.mean <= _MEAN if _rounds(dtype) else found.largest <= _LARGEST


def hides(found: LogitDifference, visible: LogitDifference, dtype: torch.dtype) -> bool:
    """Return whether the mask of a row with several completions hides the completions from each other.

    The logits of separate rows, with one completion each, are the expected ones.

    - ``found``: how much the logits of the row with several completions differ from the expected logits.
    - ``visible``: how much the logits of a text in which each completion sees the completions before it
      differ from the expected logits.
    - ``dtype``: the dtype of the model.
    """
    negligible = _NEGLIGIBLE.get(dtype, _NEGLIGIBLE_ROUNDED)
    return is_rounding(found, dtype) and (found.mean <= negligible or found.mean <= _SHARE * visible.mean)


def _rounds(dtype: torch.dtype) -> bool:
    return dtype not in _NEGLIGIBLE
