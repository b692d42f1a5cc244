"""Computes the distribution from which tokens are sampled, with temperature, then top-k, then top-p."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Filter:
    """How the distribution for sampling is made from logits: temperature, then top-k, then top-p.

    ``top_k`` 0 and ``top_p`` 1 are off.
    """

    temperature: float
    top_k: int
    top_p: float


def filter_set(scaled_n_V: Tensor, settings: Filter) -> tuple[Tensor, Tensor]:
    """Apply top-k, and then top-p, to n distributions of the next token. Return the tokens that are kept.

    - First result (n, K): the ids of the K tokens that top-k keeps, most probable first.
    - Second result (n, K): whether top-p keeps each of these tokens.
    - ``scaled_n_V``: the logits over the V tokens of the vocabulary, divided by the temperature.

    As in vLLM's sampler, top-p is applied to the renormalized probabilities after top-k. The most probable
    token is always kept.
    """
    size = settings.top_k or scaled_n_V.shape[1]
    values_n_K, index_n_K = scaled_n_V.topk(min(size, scaled_n_V.shape[1]), dim=1)
    if settings.top_p >= 1:
        return index_n_K, torch.ones_like(index_n_K, dtype=torch.bool)
    probabilities_n_K = values_n_K.softmax(dim=1)
    before_n_K = probabilities_n_K.cumsum(dim=1) - probabilities_n_K
    kept_n_K = before_n_K < settings.top_p
    kept_n_K[:, 0] = True
    return index_n_K, kept_n_K
