"""Attention masks of rows in which several completions share a prompt.

A model may have several kinds of attention: causal, within a sliding window, or within a chunk. For each kind
transformers makes a mask by a rule, which compares the positions of two tokens in the row. But in a row with
a shared prompt, a completion may be far from its prompt. So this module applies the rule to other positions:
those in the text of the prompt and one completion.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

ATTENTION_IMPLEMENTATIONS = ("sdpa", "eager")
"""The attention implementations of transformers, by name, for which this module makes masks."""

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A function that returns whether a query attends to a key, as a boolean tensor.

The arguments are four integer tensors, in this order: row, head, position of the query, position of the key.
They are broadcast against each other.
"""


@dataclass(frozen=True)
class _Rows:
    """The B rows of the current forward pass, padded to T tokens. Completions of a row share their prompt.

    - ``allowed_B_1_T_T``: for each query and key, whether the query may attend to the key. A token may attend
      to itself, to earlier tokens of its prompt, and to earlier tokens of its own completion.
    - ``positions_B_T``: the position of each token in its text. A text is a prompt and one completion, so the
      positions of every completion continue those of the prompt.
    """

    allowed_B_1_T_T: Tensor
    positions_B_T: Tensor


_SHARED: ContextVar[_Rows | None] = ContextVar("shared_rows", default=None)


@contextmanager
def sharing(allowed_B_1_T_T: Tensor | None, positions_B_T: Tensor) -> Iterator[Tensor | None]:
    """In the ``with`` block, every forward pass computes attention with the mask of these B rows of T tokens.

    - ``allowed_B_1_T_T``: whether a query may attend to a key. None: no row has a shared prompt. Then the
      model's usual causal mask is used, and None is yielded.
    - ``positions_B_T``: the position of each token in the text of its prompt and its own completion.

    Yields the ``attention_mask`` (B, T) for the model, which has only ones. Without it, transformers would
    treat each restart of the positions as the beginning of a new text.
    """
    if allowed_B_1_T_T is None:
        yield None
        return
    token = _SHARED.set(_Rows(allowed_B_1_T_T, positions_B_T))
    try:
        yield torch.ones_like(positions_B_T)
    finally:
        _SHARED.reset(token)


def within(rule: Rule, allowed_B_1_T_T: Tensor, positions_B_T: Tensor) -> Tensor:
    """Return the boolean attention mask (B, 1, T, T) of B rows of T tokens.

    An entry is True if both ``allowed_B_1_T_T`` and ``rule`` permit the query to attend to the key. ``rule``
    is that of the model's attention, such as a sliding window. It is applied to the positions of query and
    key in ``positions_B_T``.
    """
    row_B_1_1_1 = torch.arange(len(positions_B_T), device=positions_B_T.device)[:, None, None, None]
    head = torch.zeros_like(row_B_1_1_1[:1])
    query_B_1_T_1, key_B_1_1_T = positions_B_T[:, None, :, None], positions_B_T[:, None, None, :]
    return rule(row_B_1_1_1, head, query_B_1_T_1, key_B_1_1_T) & allowed_B_1_T_T


def _for_shared_rows(usual: Callable[..., Any], *, floats: bool) -> Callable[..., Any]:
    def make(*args: Any, **arguments: Any) -> Any:
        rows = _SHARED.get()
        if rows is None:
            return usual(*args, **arguments)
        mask_B_1_T_T = within(arguments["mask_function"], rows.allowed_B_1_T_T, rows.positions_B_T)
        # On the CPU the mask is converted to floats here too. Otherwise every layer would make its own float
        # copy.
        if not floats and mask_B_1_T_T.device.type != "cpu":
            return mask_B_1_T_T
        added_B_1_T_T = torch.zeros(mask_B_1_T_T.shape, dtype=arguments["dtype"], device=mask_B_1_T_T.device)
        return added_B_1_T_T.masked_fill_(~mask_B_1_T_T, -torch.inf)

    return make


for _name in ATTENTION_IMPLEMENTATIONS:
    AttentionMaskInterface.register(
        _name, _for_shared_rows(ALL_MASK_ATTENTION_FUNCTIONS[_name], floats=_name == "eager")
    )
