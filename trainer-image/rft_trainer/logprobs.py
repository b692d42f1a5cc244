"""Log-probabilities of sampled tokens under temperature, top-k and top-p, from hidden states.

Logits exist only at completion positions, a chunk at a time: for 32k tokens and a vocabulary of 152k they
would take 20 GB. While gradients are needed a chunk's logits are computed again in the backward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rft_planner.memory import LOGITS_CHUNK_TOKENS

CHUNK_TOKENS = LOGITS_CHUNK_TOKENS
"""Positions whose logits exist at once."""


@dataclass(frozen=True)
class Filter:
    """The processed distribution: temperature, then top-k (0 is off), then top-p (1 is off)."""

    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True)
class TokenLogprobs:
    """Per sampled token, in nats. ``outside_N`` marks those the filter alone would have removed."""

    filtered_N: Tensor
    unfiltered_N: Tensor
    entropy_N: Tensor
    outside_N: Tensor


def unfiltered_logprobs(
    hidden_N_H: Tensor, target_N: Tensor, head: Callable[[Tensor], Tensor], temperature: float
) -> Tensor:
    """Return log-probs (N) under temperature alone, for the KL's reference. Carries no gradient."""
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

    ``head`` maps (n, H) to logits (n, V), in float32 or wider. The filter set is made from detached logits
    and joined with the sampled token, so that a sampler whose rounding differs never gives an infinite
    log-prob.
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
    """Filtered and unfiltered log-prob, entropy and "outside" of each target."""
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
    """Entropy of softmax(scores), in nats; a score of minus infinity has no share."""
    logprobs_n_K = scores_n_K.log_softmax(dim=1)
    return -(logprobs_n_K.exp() * logprobs_n_K.clamp(min=-1e9)).sum(dim=1)


def filter_set(scaled_n_V: Tensor, settings: Filter) -> tuple[Tensor, Tensor]:
    """Return candidate token ids (n, K), most probable first, and which of them top-p keeps.

    Top-k comes first and top-p looks at the probabilities that are left, renormalized, as in vLLM's sampler;
    the most probable token always stays.
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
