"""Packs completions into rows for one forward pass, with shared prompts and little padding.

A row is a prompt followed by one or more of its completions. Each completion attends only to the prompt and
to itself: a mask hides the other completions, and positions restart after the prompt. So the prompt of a
group of G rollouts is computed once, not G times. But the attention to hidden tokens is computed too, and
then discarded. For long completions this costs more time than the shared prompt saves. Then each rollout has
its own row and needs no mask.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rft_trainer.learn.flat import BLOCK, FlatRows, flat_rows, moved
from rft_trainer.rollout.groups import Group, Rollout
from rft_trainer.rollout.segments import Segment

HIDDEN_SKIPPED = 1.5
"""Assumed ratio of two times that attention needs for a pair of tokens.

It is the time in a row with several completions, divided by the time in a row with one completion, which has
a faster kernel. The value is a guess: it was not measured on a GPU yet. ``bench.gpu_check`` can measure it.
"""


@dataclass(frozen=True)
class Completion:
    """A completion to train on: the tokens of a graded rollout after its prompt, with its advantage.

    For a rollout of several turns, the tokens are those of one segment. A segment is a prompt and the tokens
    that follow it, up to a prompt that does not extend them.

    - ``ids``: the token ids after the prompt.
    - ``sampler_logprobs``: the log-prob of each token by the sampler, in nats.
    - ``masked``: whether all tokens are left out of the loss.
    - ``sampled``: for each token, whether the policy sampled it, so that it is trained. Other tokens are
      context, such as tool results. None: all tokens are trained.
    - ``share``: the share of the rollout's trained tokens that are in this segment.
    """

    ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]
    advantage: float
    masked: bool = False
    sampled: tuple[bool, ...] | None = None
    share: float = 1.0

    @property
    def trained(self) -> Sequence[int]:
        """The indices in ``ids`` of the tokens that the policy sampled. Only these tokens can have a loss."""
        if self.sampled is None:
            return range(len(self.ids))
        return [place for place, sampled in enumerate(self.sampled) if sampled]


@dataclass(frozen=True)
class PackedRow:
    """One row of a batch: a prompt, and the completions that share the prompt."""

    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]

    @property
    def length(self) -> int:
        """Number of tokens of the row in a forward pass.

        The last token of each completion is left out, because it predicts no token.
        """
        return len(self.prompt_ids) + sum(len(completion.ids) - 1 for completion in self.completions)

    def masked(self) -> "PackedRow":
        """Return a copy of the row in which all completions are masked: it is computed, but has no loss."""
        return replace(self, completions=tuple(replace(one, masked=True) for one in self.completions))


@dataclass(frozen=True)
class MicroBatch:
    """The tensors of a micro-batch: B rows of T tokens, with S completions and N trained tokens.

    - ``tokens_B_T``: the token ids of the rows.
    - ``target_N``: the ids of the trained tokens.
    - ``source_N``: for each token of ``target_N``, the index of the position that predicts it, in the
      flattened (B·T) positions.
    - ``positions_B_T``: the position of each token in its prompt and its own completion, from 0.
    - ``attention_B_1_T_T``: the mask. None: plain causal attention is correct.
    - ``sequence_N``: for each trained token, the index of its completion, 0 to S-1.
    - ``sampler_logprobs_N``: the log-prob of each trained token by the sampler, in nats.
    - ``mask_N``: 0 for tokens without loss, else 1.
    - ``advantages_S``, ``share_S``: ``advantage`` and ``share`` of each ``Completion``.
    - ``flat``: set if all rows are concatenated to a single row, for kernels that need no mask. Then B is 1.
    """

    tokens_B_T: Tensor
    positions_B_T: Tensor
    attention_B_1_T_T: Tensor | None
    source_N: Tensor
    target_N: Tensor
    sequence_N: Tensor
    sampler_logprobs_N: Tensor
    mask_N: Tensor
    advantages_S: Tensor
    share_S: Tensor
    flat: FlatRows | None = None

    def to(self, device: torch.device) -> "MicroBatch":
        """Return a copy with all tensors on a device. Copying to a GPU does not wait for its earlier work."""
        tensors = {
            name: moved(value, device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors, flat=self.flat and self.flat.to(device))


def completions_by_prompt(group: Group, mask_truncated: bool) -> dict[tuple[int, ...], list[Completion]]:
    """Return the completions of a group's graded rollouts. A key is the token ids of a prompt.

    A rollout with a single answer is one completion, and has the prompt of the group. A rollout of several
    turns has one completion for each of its segments, which may have other prompts. ``mask_truncated``:
    whether to mask the rollouts that were cut at ``maxTokens``.
    """
    found: dict[tuple[int, ...], list[Completion]] = {}
    for rollout, advantage in zip(group.accepted, group.advantages, strict=True):
        masked = mask_truncated and rollout.generated.truncated
        if not rollout.segments:
            single = Completion(rollout.generated.token_ids, rollout.generated.logprobs, advantage, masked)
            found.setdefault(group.prompt.token_ids, []).append(single)
        for segment in rollout.segments:
            found.setdefault(segment.prompt_ids, []).append(_of_segment(segment, rollout, advantage, masked))
    return found


def _of_segment(segment: Segment, rollout: Rollout, advantage: float, masked: bool) -> Completion:
    share = segment.trained / max(1, len(rollout.generated.token_ids))
    return Completion(segment.token_ids, segment.logprobs, advantage, masked, segment.sampled, share)


def rows_of_group(
    prompt_ids: Sequence[int],
    completions: Sequence[Completion],
    hidden_size: int | None,
    max_tokens: int | None = None,
    *,
    flat: bool = False,
) -> list[PackedRow]:
    """Return rows for completions of one prompt: one row for all, or a row for each, whichever costs less.

    The cost of a token is about 1 + row length / (6 · hidden size). The first term is the matrix products.
    The second term is attention to all tokens of the row, also to tokens that the mask hides.

    - ``hidden_size``: the hidden size of the model. None: the model accepts no custom mask, so each
      completion has its own row.
    - ``max_tokens``: maximum length of a shared row. None: no limit.
    - ``flat``: whether the attention kernel skips tokens that the mask hides. Then the second term counts
      only pairs of tokens of which one attends to the other. In a row with several completions each such pair
      costs ``HIDDEN_SKIPPED`` times as much.
    """
    kept = [completion for completion in completions if completion.trained]
    single = [PackedRow(tuple(prompt_ids), (completion,)) for completion in kept]
    if hidden_size is None or len(kept) < 2:
        return single
    shared = PackedRow(tuple(prompt_ids), tuple(kept))

    def cost(row: PackedRow) -> float:
        pairs = _visible(row) if flat else row.length * row.length
        slower = HIDDEN_SKIPPED if flat and row is shared else 1.0
        return row.length + slower * pairs / (6 * hidden_size)

    fits = max_tokens is None or shared.length <= max_tokens
    return [shared] if fits and cost(shared) < sum(map(cost, single)) else single


def _visible(row: PackedRow) -> float:
    """Estimate the number of pairs of tokens of a row of which one attends to the other."""
    prompt = len(row.prompt_ids)
    return prompt * prompt / 2 + sum(
        seen * (prompt + seen / 2) for seen in (len(one.ids) - 1 for one in row.completions)
    )


def micro_batches(
    rows: Sequence[PackedRow], max_tokens: int, *, flat: bool = False
) -> Iterator[list[PackedRow]]:
    """Divide rows into micro-batches: lists of rows with at most ``max_tokens`` tokens, including padding.

    Rows are sorted by length, longest first, because rows of similar length need little padding. A row longer
    than ``max_tokens`` gets a micro-batch of its own. ``flat``: the rows of a micro-batch are concatenated,
    so they are not padded.
    """
    batch: list[PackedRow] = []
    for row in sorted(rows, key=lambda row: -row.length):
        tokens = (
            sum(one.length for one in [*batch, row])
            if flat
            else (len(batch) + 1) * (batch or [row])[0].length
        )
        if batch and tokens > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def build(rows: Sequence[PackedRow], pad_id: int = 0, *, flat: bool = False) -> MicroBatch:
    """Return the tensors of a micro-batch with these rows, on the CPU.

    ``pad_id``: the token id of padding. ``flat``: whether to concatenate all rows to a single row, for
    attention kernels that need no mask.
    """
    width = max(row.length for row in rows)
    tokens_B_T = torch.full((len(rows), width), pad_id, dtype=torch.long)
    positions_B_T = torch.arange(width).repeat(len(rows), 1)
    segments_B_T = torch.zeros((len(rows), width), dtype=torch.long)
    source: list[int] = []
    target: list[int] = []
    sequence: list[int] = []
    sampler: list[float] = []
    mask: list[float] = []
    advantages: list[float] = []
    shares: list[float] = []
    for index, row in enumerate(rows):
        prompt = len(row.prompt_ids)
        tokens_B_T[index, :prompt] = torch.tensor(row.prompt_ids)
        start = prompt
        for number, completion in enumerate(row.completions, start=1):
            seen = len(completion.ids) - 1
            stop = start + seen
            tokens_B_T[index, start:stop] = torch.tensor(completion.ids[:-1], dtype=torch.long)
            positions_B_T[index, start:stop] = torch.arange(prompt, prompt + seen)
            segments_B_T[index, start:stop] = number
            # The prompt's last token predicts the first token of every completion.
            sources = [index * width + prompt - 1, *range(index * width + start, index * width + stop)]
            trained = completion.trained
            source += [sources[place] for place in trained]
            target += [completion.ids[place] for place in trained]
            sequence += [len(advantages)] * len(trained)
            sampler += [completion.sampler_logprobs[place] for place in trained]
            mask += [0.0 if completion.masked else 1.0] * len(trained)
            advantages.append(completion.advantage)
            shares.append(completion.share)
            start = stop
    shared = any(len(row.completions) > 1 for row in rows)
    batch = MicroBatch(
        tokens_B_T=tokens_B_T,
        positions_B_T=positions_B_T,
        attention_B_1_T_T=_siblings_hidden(segments_B_T) if shared and not flat else None,
        source_N=torch.tensor(source),
        target_N=torch.tensor(target),
        sequence_N=torch.tensor(sequence),
        sampler_logprobs_N=torch.tensor(sampler, dtype=torch.float32),
        mask_N=torch.tensor(mask),
        advantages_S=torch.tensor(advantages, dtype=torch.float32),
        share_S=torch.tensor(shares, dtype=torch.float32),
    )
    return _flattened(batch, segments_B_T, [row.length for row in rows], shared, pad_id) if flat else batch


def _flattened(
    batch: MicroBatch, segments_B_T: Tensor, lengths: Sequence[int], shared: bool, pad_id: int
) -> MicroBatch:
    """Return ``batch`` with its rows concatenated to one, and padded at the end to a multiple of ``BLOCK``.

    The padding is a separate row, and no token of another row attends to it. ``segments_B_T``: for each
    token, 0 if it is in the prompt, else the number of its completion, from 1. ``lengths``: the number of
    tokens of each row. ``shared``: whether a row has several completions.
    """
    width = segments_B_T.shape[1]
    lengths_B_1 = torch.tensor(lengths)[:, None]
    used_B_T = torch.arange(width)[None] < lengths_B_1
    total = sum(lengths)
    padding = torch.arange(-total % BLOCK)
    row_B_T = torch.arange(len(lengths))[:, None].expand(-1, width)

    def joined(values_B_T: Tensor, padded: Tensor) -> Tensor:
        return torch.cat([values_B_T[used_B_T], padded])

    position_T = joined(batch.positions_B_T, padding)
    shift_B = torch.arange(len(lengths)) * width - (lengths_B_1[:, 0].cumsum(0) - lengths_B_1[:, 0])
    return replace(
        batch,
        tokens_B_T=joined(batch.tokens_B_T, torch.full_like(padding, pad_id))[None],
        positions_B_T=position_T[None],
        source_N=batch.source_N - shift_B[batch.source_N // width],
        flat=flat_rows(
            joined(row_B_T, torch.full_like(padding, len(lengths))),
            joined(segments_B_T, torch.zeros_like(padding)),
            position_T,
            shared=shared,
        ),
    )


def _siblings_hidden(segments_B_T: Tensor) -> Tensor:
    """Return an attention mask (B, 1, T, T) that hides the completions of a row from each other.

    True means that the query attends to the key.
    A token attends to itself, to earlier tokens of its prompt, and to earlier tokens of its own completion.
    ``segments_B_T``: for each token, 0 if it is in the prompt, else the number of its completion, from 1.
    """
    width = segments_B_T.shape[1]
    causal_T_T = torch.ones((width, width), dtype=torch.bool).tril()
    same_B_T_T = segments_B_T[:, :, None] == segments_B_T[:, None, :]
    prompt_B_T_T = (segments_B_T == 0)[:, None, :]
    return (causal_T_T & (same_B_T_T | prompt_B_T_T))[:, None]
