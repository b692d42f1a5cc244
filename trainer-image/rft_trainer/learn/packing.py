"""Packs completions into rows for one forward pass, with shared prompts and little padding.

A row is a prompt followed by one or more of its completions. Each completion attends to the prompt and to
itself only: a mask hides the other completions, and positions restart after the prompt. So the prompt of a
group of G rollouts is computed once, not G times. For long completions the masked part of the attention costs
more time than the shared prompt saves. Then each rollout is a row of its own and needs no mask.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rft_trainer.rollout.groups import Group, Rollout
from rft_trainer.rollout.segments import Segment


@dataclass(frozen=True)
class Completion:
    """The parts of an accepted rollout, or of one of its segments, that the loss needs.

    ``sampler_logprobs``: the log-prob of each token by the sampler, in nats. ``masked``: whether its tokens
    are left out of the loss. ``sampled``: which tokens are trained, the others are context; None: all of
    them. ``share``: this segment's part of the trained tokens of its rollout.
    """

    ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]
    advantage: float
    masked: bool = False
    sampled: tuple[bool, ...] | None = None
    share: float = 1.0

    @property
    def trained(self) -> Sequence[int]:
        """The places of the trained tokens in ``ids``."""
        if self.sampled is None:
            return range(len(self.ids))
        return [place for place, sampled in enumerate(self.sampled) if sampled]


@dataclass(frozen=True)
class PackedRow:
    """One row of a batch: a prompt, and the completions that share it."""

    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]

    @property
    def length(self) -> int:
        """Number of tokens to compute. The last token of a completion predicts nothing and is left out."""
        return len(self.prompt_ids) + sum(len(completion.ids) - 1 for completion in self.completions)

    def masked(self) -> "PackedRow":
        """Return the same row with all its completions masked: it is computed, but has no loss."""
        return replace(self, completions=tuple(replace(one, masked=True) for one in self.completions))


@dataclass(frozen=True)
class MicroBatch:
    """Tensors for B rows of T tokens. Together the rows have S completions with N trained tokens.

    ``source_N``: for each ``target_N``, the index of the position that predicts it, in the flattened (B·T)
    positions. ``attention_B_1_T_T``: None where plain causal attention is correct.
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

    def to(self, device: torch.device) -> "MicroBatch":
        """Copy the tensors to a device."""
        moved = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return MicroBatch(**moved)


def completions_by_prompt(group: Group, mask_truncated: bool) -> dict[tuple[int, ...], list[Completion]]:
    """Return a group's accepted rollouts, by the prompt that they share. Single answers have only one prompt.

    ``mask_truncated``: mask the rollouts that were cut at ``maxTokens``.
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
) -> list[PackedRow]:
    """Return the rows of a group: one row for all rollouts, or one for each, whichever costs less.

    The cost of a token is about 1 + row length / (6 · hidden size). The first term is the matrix products,
    the second one attention. ``hidden_size``: None for a model that accepts no custom mask; then each rollout
    has its own row. ``max_tokens``: maximum length of a shared row; None: no limit.
    """
    kept = [completion for completion in completions if completion.trained]
    single = [PackedRow(tuple(prompt_ids), (completion,)) for completion in kept]
    if hidden_size is None or len(kept) < 2:
        return single
    shared = PackedRow(tuple(prompt_ids), tuple(kept))

    def cost(row: PackedRow) -> float:
        return row.length * (1 + row.length / (6 * hidden_size))

    fits = max_tokens is None or shared.length <= max_tokens
    return [shared] if fits and cost(shared) < sum(map(cost, single)) else single


def micro_batches(rows: Sequence[PackedRow], max_tokens: int) -> Iterator[list[PackedRow]]:
    """Yield micro-batches of at most ``max_tokens`` tokens, padding included.

    Rows are sorted by length, longest first, because rows of similar length need little padding. A row longer
    than ``max_tokens`` is a micro-batch of its own.
    """
    batch: list[PackedRow] = []
    for row in sorted(rows, key=lambda row: -row.length):
        if batch and batch[0].length * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def build(rows: Sequence[PackedRow], pad_id: int = 0) -> MicroBatch:
    """Return the tensors of a micro-batch, on the CPU."""
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
    return MicroBatch(
        tokens_B_T=tokens_B_T,
        positions_B_T=positions_B_T,
        attention_B_1_T_T=_siblings_hidden(segments_B_T) if shared else None,
        source_N=torch.tensor(source),
        target_N=torch.tensor(target),
        sequence_N=torch.tensor(sequence),
        sampler_logprobs_N=torch.tensor(sampler, dtype=torch.float32),
        mask_N=torch.tensor(mask),
        advantages_S=torch.tensor(advantages, dtype=torch.float32),
        share_S=torch.tensor(shares, dtype=torch.float32),
    )


def _siblings_hidden(segments_B_T: Tensor) -> Tensor:
    """Return the mask that hides other completions. True: a token attends. The prompt is segment 0."""
    width = segments_B_T.shape[1]
    causal_T_T = torch.ones((width, width), dtype=torch.bool).tril()
    same_B_T_T = segments_B_T[:, :, None] == segments_B_T[:, None, :]
    prompt_B_T_T = (segments_B_T == 0)[:, None, :]
    return (causal_T_T & (same_B_T_T | prompt_B_T_T))[:, None]
