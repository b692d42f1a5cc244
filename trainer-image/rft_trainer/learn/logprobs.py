"""Log-probabilities of sampled tokens under temperature, top-k and top-p, from hidden states.

Logits are computed for completion tokens only, and for one chunk of tokens at a time. For 32k tokens and a
vocabulary of 152k all logits together would take 20 GB. If gradients are needed, the backward pass computes
the logits of a chunk again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rft_planner.memory import LOGITS_CHUNK_TOKENS
from rft_trainer.rollout.filter import Filter, filter_set

CHUNK_TOKENS = LOGITS_CHUNK_TOKENS
"""Number of positions whose logits are in memory at the same time."""


@dataclass(frozen=True)
class TokenLogprobs:
    """Log-probs of the sampled tokens, in nats. ``outside_N`` marks tokens that the filter would remove."""

    filtered_N: Tensor
    unfiltered_N: Tensor
    entropy_N: Tensor
    outside_N: Tensor


def unfiltered_logprobs(
    hidden_N_H: Tensor, target_N: Tensor, head: Callable[[Tensor], Tensor], temperature: float
) -> Tensor:
    """Return log-probs (N) with temperature, but without top-k, top-p and gradient. For the KL penalty."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(target_N), CHUNK_TOKENS):
            scaled_n_V = head(hidden_N_H[start : start + CHUNK_TOKENS]) / temperature
            chosen_n = scaled_n_V.gather(1, target_N[start : start + CHUNK_TOKENS, None]).squeeze(1)
            parts.append(chosen_n - scaled_n_V.logsumexp(dim=1))
    return torch.cat(parts)


def token_logprobs(
    hidden_N_H: Tensor, target_N: Tensor, head: Callable[[Tensor], Tensor], settings: Filter
) -> TokenLogprobs:
    """Return log-probs of ``target_N`` given the hidden states that predict them.

    ``head`` maps (n, H) to logits (n, V), in float32 or float64. The set of tokens that the filter keeps is
    computed from detached logits, and the sampled token is always added to it. Otherwise, if the sampler
    rounds differently, the sampled token could be outside the set and have a log-prob of minus infinity.
    """

    def one_chunk(hidden_n_H: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _from_logits(head(hidden_n_H) / settings.temperature, target_n, settings)

    parts = []
    for start in range(0, len(target_N), CHUNK_TOKENS):
        chunk = (hidden_N_H[start : start + CHUNK_TOKENS], target_N[start : start + CHUNK_TOKENS])
        if torch.is_grad_enabled() and len(target_N) > CHUNK_TOKENS:
            parts.append(checkpoint(one_chunk, *chunk, use_reentrant=False))
        else:
            parts.append(one_chunk(*chunk))
    return TokenLogprobs(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _from_logits(
    scaled_n_V: Tensor, target_n: Tensor, settings: Filter
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return for each target: filtered and unfiltered log-prob, entropy, whether the filter removes it."""
    chosen_n = scaled_n_V.gather(1, target_n[:, None]).squeeze(1)
    unfiltered_n = chosen_n - scaled_n_V.logsumexp(dim=1)
    if settings.top_k == 0 and settings.top_p >= 1:
        entropy_n = _entropy(scaled_n_V)
        return unfiltered_n, unfiltered_n, entropy_n, torch.zeros_like(target_n, dtype=torch.bool)

    index_n_K, kept_n_K = filter_set(scaled_n_V.detach(), settings)
    outside_n = ~((index_n_K == target_n[:, None]) & kept_n_K).any(dim=1)
    values_n_K = scaled_n_V.gather(1, index_n_K).masked_fill(~kept_n_K, -torch.inf)
    own_n_1 = chosen_n.masked_fill(~outside_n, -torch.inf)[:, None]
    joined_n_K1 = torch.cat([values_n_K, own_n_1], dim=1)
    filtered_n = chosen_n - joined_n_K1.logsumexp(dim=1)
    entropy_n = _entropy(joined_n_K1)
    return filtered_n, unfiltered_n, entropy_n, outside_n


@torch.no_grad()
def _entropy(scores_n_K: Tensor) -> Tensor:
    """Return the entropy of softmax(scores), in nats. A score of minus infinity counts as probability 0."""
    logprobs_n_K = scores_n_K.log_softmax(dim=1)
    return -(logprobs_n_K.exp() * logprobs_n_K.clamp(min=-1e9)).sum(dim=1)
