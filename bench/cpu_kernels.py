"""Slow attention functions that replace the GPU kernels in tests on a CPU. They get the same masks."""

from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.flex_attention import flex_attention as flex_operator
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import scaled_dot_product_attention

from rft_trainer.learn.attention import Kernels


def by_operator(
    _module: Any, query: Tensor, key: Tensor, value: Tensor, mask: BlockMask,
    scaling: float | None = None, softcap: float | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Compute ``flex_attention`` by torch's internal operator, which has gradients on a CPU too.

    Query, key and value have the shape (B, heads, T, D), the result has (B, T, heads, D).
    """

    def score(value: Tensor, *_indices: Tensor) -> Tensor:
        return value if softcap is None else softcap * torch.tanh(value / softcap)

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found: Tensor = flex_operator(query, key, value, score, mask.as_tuple(), scale, {})[0]
    return found.transpose(1, 2).contiguous(), None


def by_pairs(
    _module: Any, query: Tensor, key: Tensor, value: Tensor, mask: BlockMask,
    scaling: float | None = None, softcap: float | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Compute ``flex_attention`` with a dense mask from ``mask_mod``.

    It is faster than ``by_operator``, and has the same shapes.
    """
    index = torch.arange(query.shape[2])
    allowed = mask.mask_mod(index, index, index[:, None], index[None, :])
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    return (scores.masked_fill(~allowed, -torch.inf).softmax(dim=3) @ value).transpose(1, 2), None


def by_sequence(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, window: int | None,
    scale: float | None,
) -> Tensor:  # fmt: skip
    """Compute causal attention within each sequence.

    - ``query``, ``key``, ``value``: (T, heads, D), for T tokens of all sequences together.
    - ``starts``: the index of the first token of each sequence. The last entry is the number of all tokens.
    - ``longest``: the length of the longest sequence.
    - ``window``: the size of the sliding window, or None without a window.
    - ``scale``: the factor of the scores. None: 1 / the square root of the head's size.
    """
    parts = []
    for start, stop in zip(starts.tolist(), starts.tolist()[1:], strict=False):
        assert stop - start <= longest
        index = torch.arange(stop - start)
        distance = index[:, None] - index[None, :]
        mask = (distance >= 0) & (distance < (window or len(index)))
        own_query, own_key, own_value = (
            tensor[start:stop].transpose(0, 1)[None] for tensor in (query, key, value)
        )
        found = scaled_dot_product_attention(
            own_query, own_key, own_value, attn_mask=mask, scale=scale, enable_gqa=True
        )
        parts.append(found[0].transpose(0, 1))
    return torch.cat(parts)


ON_CPU = Kernels(blocks=by_pairs, sequences=by_sequence)
