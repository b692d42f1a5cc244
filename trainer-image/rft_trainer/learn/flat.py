"""Concatenates the rows of a micro-batch to one sequence, and says which of its tokens attend to each other.

Kernels for GPUs need this form. It has no padding between rows of different lengths. It also has no mask with
an entry for each pair of tokens: such a mask would need 256 MiB for a row of 16,384 tokens. Instead, the
pairs of query and key are divided into blocks of 128 x 128. A block mask says for each block whether the
query attends to the key in no pair, in some pairs or in all pairs. A kernel skips the blocks with no such
pair. It checks single pairs only in the blocks with some such pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Number of queries, and of keys, in a block. It is the default of ``flex_attention``."""
_UNLIMITED = 2**31 - 1

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A function that returns whether a query attends to a key. Arguments: indices of batch, head, query, key."""


@dataclass(frozen=True)
class FlatRows:
    """Describes T tokens of several concatenated rows, so that attention can be computed without a mask.

    A row is a prompt and one or more of its completions. All tensors except ``runs_P_4`` are int32.

    - ``text_T``: for each token, the number of its text. A text is the prompt of a row, or one of its
      completions. The texts of all rows are numbered together.
    - ``prompt_T``: for each token, the number of the text that is the prompt of its row.
    - ``position_T``: for each token, its position in the prompt and its own completion, from 0.
    - ``starts_R1``: R + 1 numbers for R rows: the index of each row's first token, and T at the end.
    - ``longest``: number of tokens of the longest row.
    - ``shared``: whether a prompt has several completions.
    - ``runs_P_4``: four numbers (int64) for each of P texts: the text's number, the number of its row's
      prompt, the position of its first token, and the index of this token among the T tokens. This tensor
      stays on the CPU.
    """

    text_T: Tensor
    prompt_T: Tensor
    position_T: Tensor
    starts_R1: Tensor
    longest: int
    shared: bool
    runs_P_4: Tensor

    @property
    def length(self) -> int:
        """Number of tokens of all rows together."""
        return len(self.text_T)

    def to(self, device: torch.device) -> "FlatRows":
        """Return a copy with the tensors on a device. ``runs_P_4`` stays on the CPU: no kernel reads it."""
        return replace(
            self,
            text_T=moved(self.text_T, device),
            prompt_T=moved(self.prompt_T, device),
            position_T=moved(self.position_T, device),
            starts_R1=moved(self.starts_R1, device),
        )


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device, without waiting for the GPU's earlier work."""
    if device.type != "cuda":
        return tensor.to(device)
    # A copy from memory that is not pinned waits until the GPU has done all its work.
    return tensor.pin_memory().to(device, non_blocking=True)


def flat_rows(row_T: Tensor, segment_T: Tensor, position_T: Tensor, *, shared: bool) -> FlatRows:
    """Return a description of T tokens of concatenated rows, from which their attention is computed.

    A row is a prompt and one or more of its completions.

    - ``row_T``: for each token, the number of its row.
    - ``segment_T``: for each token, 0 if it is in the prompt, else the number of its completion in the row,
      from 1.
    - ``position_T``: for each token, its position in the prompt and its own completion, from 0.
    - ``shared``: whether a prompt has several completions.
    """
    width = int(segment_T.max()) + 1
    text_T = row_T * width + segment_T
    begins_T = torch.ones_like(text_T, dtype=torch.bool)
    begins_T[1:] = (text_T[1:] != text_T[:-1]) | (position_T[1:] != position_T[:-1] + 1)
    first_P = begins_T.nonzero()[:, 0]
    new_row_T = torch.ones_like(begins_T)
    new_row_T[1:] = row_T[1:] != row_T[:-1]
    starts_R1 = torch.cat([new_row_T.nonzero()[:, 0], torch.tensor([len(row_T)])])
    columns = (text_T[first_P], row_T[first_P] * width, position_T[first_P], first_P)
    return FlatRows(
        text_T=text_T.int(),
        prompt_T=(row_T * width).int(),
        position_T=position_T.int(),
        starts_R1=starts_R1.int(),
        longest=int(starts_R1.diff().max()),
        shared=shared,
        runs_P_4=torch.stack(columns, dim=1),
    )


def mask_mod(rows: FlatRows, window: int | None) -> MaskMod:
    """Return a function that says whether one token of ``rows`` (the query) attends to another (the key).

    A token attends to itself, to earlier tokens of its own prompt or completion, and to the prompt of its
    row. With an attention window, the key must also be less than ``window`` tokens before the query. None: no
    window.
    """
    text_T, prompt_T, position_T = rows.text_T, rows.prompt_T, rows.position_T

    def attends(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (text_T[query] == text_T[key]) | (prompt_T[query] == text_T[key])
        return seen & (query >= key)

    if window is None:
        return attends
    limit = window

    def attends_nearby(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return attends(batch, head, query, key) & (position_T[query] - position_T[key] < limit)

    return attends_nearby


def covered(rows: FlatRows, window: int | None, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Return two boolean tables (I, J): which of I blocks of queries attend to which of J blocks of keys.

    - First table: whether at least one query of block i attends to at least one key of block j.
    - Second table: whether every query of block i attends to every key of block j.
    - ``window``: the attention window in tokens. None: no window.
    - ``block``: number of queries, and of keys, in a block.

    Both tables are exact. They are computed from the first and last token of each text in each block, without
    a loop over pairs of tokens.
    """
    pieces_Q_6 = _pieces(rows, block)
    text, prompt, position, first, last, number = pieces_Q_6.unbind(dim=1)
    end = position + last - first
    own = text[:, None] == text[None, :]
    other = (prompt[:, None] == text[None, :]) & ~own
    limit = _UNLIMITED if window is None else window
    nearest = (position[:, None] - end[None, :]).clamp(min=0)
    farthest = end[:, None] - position[None, :]
    some = ((own & (first[None, :] <= last[:, None])) | other) & (nearest < limit)
    every = ((own & (last[None, :] <= first[:, None])) | other) & (farthest < limit)
    count = -(-rows.length // block)
    member_Q_I = torch.nn.functional.one_hot(number, count).float()
    found = member_Q_I.T @ some.float() @ member_Q_I > 0
    gaps = member_Q_I.T @ (~every).float() @ member_Q_I > 0
    return found, ~gaps


def _pieces(rows: FlatRows, block: int) -> Tensor:
    """Return a table (Q, 6) of Q pieces of texts: prompts and completions, split at the ends of blocks.

    The columns are the number of the text, the number of its prompt, the position of the piece's first token,
    the index of its first token, the index of its last token, and the number of its block.
    """
    first_P = rows.runs_P_4[:, 3].contiguous()
    edges = torch.arange(0, rows.length, block)
    first_Q = torch.cat([first_P, edges]).unique()  # type: ignore[no-untyped-call]
    last_Q = torch.cat([first_Q[1:], torch.tensor([rows.length])]) - 1
    run_Q = torch.searchsorted(first_P, first_Q, right=True) - 1
    text, prompt, position, start = rows.runs_P_4[run_Q].unbind(dim=1)
    return torch.stack([text, prompt, position + first_Q - start, first_Q, last_Q, first_Q // block], dim=1)


def block_mask(rows: FlatRows, window: int | None, block: int = BLOCK) -> BlockMask:
    """Return the mask for ``flex_attention`` on the device of ``rows``.

    ``window``: the attention window in tokens. None: no window. ``block``: number of queries, and of keys, in
    a block. The memory of the mask grows with (number of tokens / block)².
    """
    found, full = covered(rows, window, block)
    device = rows.text_T.device
    some, some_index = (moved(value, device) for value in _ordered(found & ~full))
    every, every_index = (moved(value, device) for value in _ordered(full))
    return BlockMask.from_kv_blocks(
        some, some_index, every, every_index,
        BLOCK_SIZE=block, mask_mod=mask_mod(rows, window), seq_lengths=(rows.length, rows.length),
    )  # fmt: skip


def _ordered(chosen_I_J: Tensor) -> tuple[Tensor, Tensor]:
    """Convert a boolean table of I query blocks and J key blocks into the two tensors of a ``BlockMask``.

    - First result (1, 1, I): how many key blocks are chosen for each query block.
    - Second result (1, 1, I, J): the numbers of the key blocks for each query block, the chosen ones first.
    - ``chosen_I_J``: whether a key block is chosen for a query block.
    """
    index_I_J = chosen_I_J.int().argsort(dim=1, descending=True, stable=True)
    return chosen_I_J.sum(dim=1).int()[None, None], index_I_J.int()[None, None].contiguous()


def visible_pairs(rows: FlatRows) -> int:
    """Count the pairs of query and key in which the query attends to the key, without attention windows."""
    text_P, prompt_P, position_P, first_P = rows.runs_P_4.unbind(dim=1)
    length_P = torch.cat([first_P[1:], torch.tensor([rows.length])]) - first_P
    own_P = length_P * (length_P + 1) // 2
    before_P = torch.where(text_P == prompt_P, 0, position_P)
    return int((own_P + length_P * before_P).sum())
