"""Computes log-probs of sampled tokens from hidden states, under temperature, top-k and top-p.

Logits are computed for completion tokens only, and for one chunk of tokens at a time. For 32k tokens and a
vocabulary of 152k, all logits together would take 20 GB. If gradients are needed, the gradients of a chunk's
log-probs are computed in the forward pass, while the chunk's logits are in memory. The backward pass only
multiplies these gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rft_planner.memory import LOGITS_CHUNK_TOKENS
from rft_trainer.rollout.filter import Filter, filter_set

CHUNK_TOKENS = LOGITS_CHUNK_TOKENS
"""Number of positions whose logits are in memory at the same time."""


@dataclass(frozen=True)
class TokenLogprobs:
    """Log-probs of N sampled tokens by the policy, in nats.

    - ``filtered_N``: log-probs after temperature, top-k and top-p.
    - ``unfiltered_N``: log-probs after temperature alone.
    - ``entropy_N``: entropy of the filtered distribution, in nats. None: it was not requested.
    - ``outside_N``: whether top-k or top-p would remove the token.
    """

    filtered_N: Tensor
    unfiltered_N: Tensor
    entropy_N: Tensor | None
    outside_N: Tensor


def unfiltered_logprobs(
    hidden_N_H: Tensor, target_N: Tensor, head: Callable[[Tensor], Tensor], temperature: float
) -> Tensor:
    """Return the log-probs (N) of N tokens with temperature, but without top-k and top-p, for the KL term.

    They are in nats and have no gradient.

    - ``hidden_N_H``: the hidden states that predict the tokens.
    - ``target_N``: the ids of the tokens.
    - ``head``: maps n hidden states (n, H) to logits (n, V) over a vocabulary of V tokens.
    """
    parts = []
    with torch.no_grad():
        for start in range(0, len(target_N), CHUNK_TOKENS):
            scaled_n_V = _scaled(head(hidden_N_H[start : start + CHUNK_TOKENS]), temperature)
            chosen_n = scaled_n_V.gather(1, target_N[start : start + CHUNK_TOKENS, None]).squeeze(1)
            parts.append(chosen_n - scaled_n_V.logsumexp(dim=1))
    return torch.cat(parts)


_Chunk = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Four values for each token of a chunk. They are as in ``TokenLogprobs``, but in another order: filtered
log-prob, unfiltered log-prob, whether top-k or top-p would remove the token, entropy. The entropy is None if
it was not requested.
"""


def token_logprobs(
    hidden_N_H: Tensor,
    target_N: Tensor,
    head: Callable[[Tensor], Tensor],
    settings: Filter,
    *,
    entropy: bool = False,
    penalized: bool = True,
) -> TokenLogprobs:
    """Return the log-probs of N sampled tokens, given the hidden states (N, H) that predict these tokens.

    The log-probs are computed after temperature, top-k and top-p. The choice of tokens by top-k and top-p has
    no gradient. The sampled token is always kept. Otherwise it could be removed if trainer and sampler round
    differently, and its log-prob would be minus infinity.

    - ``target_N``: the ids of the sampled tokens.
    - ``head``: maps n hidden states (n, H) to logits (n, V) over a vocabulary of V tokens, in float32 or
      float64. Each row of logits depends on one hidden state only. The weights of ``head`` get no gradients.
    - ``entropy``: whether to compute the entropy too.
    - ``penalized``: whether the unfiltered log-probs need gradients, for the KL term.
    """

    def one_chunk(hidden_n_H: Tensor, target_n: Tensor) -> _Chunk:
        scaled_n_V = _scaled(head(hidden_n_H), settings.temperature)
        return _from_logits(scaled_n_V, target_n, settings, entropy=entropy)

    parts: list[_Chunk] = []
    for start in range(0, len(target_N), CHUNK_TOKENS):
        chunk = (hidden_N_H[start : start + CHUNK_TOKENS], target_N[start : start + CHUNK_TOKENS])
        if torch.is_grad_enabled() and len(target_N) > CHUNK_TOKENS:
            parts.append(_GradientAhead.apply(*chunk, one_chunk, penalized))  # type: ignore[no-untyped-call]
        else:
            parts.append(one_chunk(*chunk))
    filtered, unfiltered, outside, entropies = zip(*parts, strict=True)
    return TokenLogprobs(
        torch.cat(filtered),
        torch.cat(unfiltered),
        torch.cat([part for part in entropies if part is not None]) if entropy else None,
        torch.cat(outside),
    )


def _scaled(logits_n_V: Tensor, temperature: float) -> Tensor:
    # A division by 1 is left out: it would read and write all logits once more in both passes.
    return logits_n_V if temperature == 1 else logits_n_V / temperature


class _GradientAhead(torch.autograd.Function):
    """Autograd function for the log-probs of a chunk of tokens. The forward pass also computes gradients.

    The log-prob of a token depends on one hidden state only. So the gradient of the sum of log-probs has a
    row for each token. The backward pass multiplies each row by one number, and needs no logits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_n_H: Tensor,
        target_n: Tensor,
        one_chunk: Callable[[Tensor, Tensor], _Chunk],
        penalized: bool,
    ) -> _Chunk:
        with torch.enable_grad():
            own_n_H = hidden_n_H.detach().requires_grad_()
            filtered_n, unfiltered_n, outside_n, entropy_n = one_chunk(own_n_H, target_n)
            both = penalized and unfiltered_n is not filtered_n
            (slope_n_H,) = torch.autograd.grad(filtered_n.sum(), own_n_H, retain_graph=both)
            slopes = [slope_n_H]
            if both:
                slopes += torch.autograd.grad(unfiltered_n.sum(), own_n_H)
        ctx.save_for_backward(*slopes)
        filtered_n, unfiltered_n = filtered_n.detach(), unfiltered_n.detach()
        without = [outside_n, entropy_n, None if penalized else unfiltered_n]
        ctx.mark_non_differentiable(*(one for one in without if one is not None))
        ctx.set_materialize_grads(False)
        return filtered_n, unfiltered_n, outside_n, entropy_n

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        slopes = ctx.saved_tensors
        found: Tensor | None = None
        for gradient_n, slope_n_H in zip(gradients[:2], (slopes[0], slopes[-1]), strict=True):
            if gradient_n is not None:
                part_n_H = gradient_n[:, None].to(slope_n_H.dtype) * slope_n_H
                found = part_n_H if found is None else found + part_n_H
        return found, None, None, None


def _from_logits(scaled_n_V: Tensor, target_n: Tensor, settings: Filter, *, entropy: bool) -> _Chunk:
    """Return four values for each of n tokens with the ids ``target_n``, see ``_Chunk``.

    They are the log-prob with and without top-k and top-p, whether top-k or top-p would remove the token, and
    the entropy if requested. ``scaled_n_V``: the logits that predict the tokens, divided by the temperature.
    """
    chosen_n = scaled_n_V.gather(1, target_n[:, None]).squeeze(1)
    unfiltered_n = chosen_n - scaled_n_V.logsumexp(dim=1)
    if settings.top_k == 0 and settings.top_p >= 1:
        entropy_n = _entropy(scaled_n_V) if entropy else None
        return unfiltered_n, unfiltered_n, torch.zeros_like(target_n, dtype=torch.bool), entropy_n

    index_n_K, kept_n_K = filter_set(scaled_n_V.detach(), settings)
    outside_n = ~((index_n_K == target_n[:, None]) & kept_n_K).any(dim=1)
    values_n_K = scaled_n_V.gather(1, index_n_K).masked_fill(~kept_n_K, -torch.inf)
    own_n_1 = chosen_n.masked_fill(~outside_n, -torch.inf)[:, None]
    joined_n_K1 = torch.cat([values_n_K, own_n_1], dim=1)
    filtered_n = chosen_n - joined_n_K1.logsumexp(dim=1)
    return filtered_n, unfiltered_n, outside_n, _entropy(joined_n_K1) if entropy else None


@torch.no_grad()
def _entropy(scores_n_K: Tensor) -> Tensor:
    """Return the entropy of each row of softmax(scores), in nats.

    A score of minus infinity counts as probability 0.
    """
    logprobs_n_K = scores_n_K.log_softmax(dim=1)
    return -(logprobs_n_K.exp() * logprobs_n_K.clamp(min=-1e9)).sum(dim=1)
