"""One optimizer step: gradients of the objective over all tokens of a batch, then AdamW."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from rft_planner import split
from rft_run.errors import MemoryExhausted, Preempted
from rft_trainer.learn.logprobs import token_logprobs, unfiltered_logprobs
from rft_trainer.learn.objective import Denominators, LossInputs, LossSettings, compute_loss, whole_batch
from rft_trainer.learn.packing import (
    MicroBatch,
    PackedRow,
    build,
    completions_of,
    micro_batches,
    rows_of_group,
)
from rft_trainer.learn.policy import Policy
from rft_trainer.learn.ranks import Followers, Team
from rft_trainer.rollout.filter import Filter
from rft_trainer.rollout.groups import Group

MICRO_BATCH_TOKENS = {"cpu": 1024, "cuda": split.MICRO_BATCH_TOKENS}
"""Tokens of one forward pass, where the plan has no value: enough to keep the device busy."""


@dataclass(frozen=True)
class UpdateSettings:
    """Settings of an optimizer step. All lengths are in tokens.

    ``max_tokens`` is the longest completion allowed, ``micro_batch_tokens`` the size of a forward pass.
    ``longest_shared_row`` limits rows with several rollouts; None: there is no plan of memory to keep to.
    """

    filter: Filter
    loss: LossSettings
    max_tokens: int
    micro_batch_tokens: int
    longest_shared_row: int | None
    max_grad_norm: float
    mask_truncated: bool


@dataclass
class UpdateMetrics:
    """Metrics of an optimizer step: means over the batch's unmasked completion tokens, log-probs in nats."""

    loss: float = 0.0
    kl: float | None = None
    entropy: float = 0.0
    clip_fraction: float = 0.0
    mismatch_kl: float = 0.0
    mismatch_mean_abs: float = 0.0
    outside_filter_tokens: int = 0
    grad_norm: float = 0.0
    moved: bool = False
    """Whether the optimizer made its step; otherwise the adapter is unchanged."""
    forward_tokens: int = 0
    tokens: int = 0
    """Number of the unmasked completion tokens that the means are over."""

    def sums(self) -> list[float]:
        """Return the values that are summed over the processes of a team."""
        return [float(getattr(self, name) or 0) for name in _SUMS]

    def set_sums(self, values: Sequence[float]) -> None:
        """Set the values to their sums over all processes."""
        for name, value in zip(_SUMS, values, strict=True):
            if getattr(self, name) is not None:
                setattr(self, name, type(getattr(self, name))(value))


_SUMS = (
    "loss",
    "kl",
    "entropy",
    "clip_fraction",
    "mismatch_kl",
    "mismatch_mean_abs",
    "outside_filter_tokens",
    "forward_tokens",
)


@dataclass(frozen=True)
class Begin:
    """Order to all followers: a batch begins."""

    settings: UpdateSettings
    denominators: Denominators


@dataclass(frozen=True)
class Compute:
    """Order to one follower: compute this micro-batch."""

    rows: list[PackedRow]


@dataclass(frozen=True)
class Finish:
    """Order to all followers: the batch has no more micro-batches."""


class Accumulation:
    """Gradients and metric sums of a batch, accumulated over the micro-batches of this process."""

    def __init__(self, policy: Policy, begin: Begin, team: Team) -> None:
        """Receive the leader's adapter weights and clear the gradients."""
        self.metrics = UpdateMetrics(kl=0.0 if begin.settings.loss.kl_beta > 0 else None)
        self.seen = 0
        self._policy, self._begin, self._team = policy, begin, team
        for parameter in policy.trainable():
            parameter.grad = None
        team.broadcast([parameter.data for parameter in policy.trainable()])

    def add(self, rows: list[PackedRow]) -> None:
        """Add the gradients of a micro-batch. Raises torch.OutOfMemoryError."""
        batch = build(rows).to(self._policy.device)
        self.seen += _backward(
            self._policy, batch, self._begin.settings, self._begin.denominators, self.metrics
        )

    def finish(self) -> None:
        """Sum the gradients and metrics of all processes into the leader's."""
        if self._team.size == 1:
            return
        for parameter in self._policy.trainable():
            if parameter.grad is None:  # this process computed no rows
                parameter.grad = torch.zeros_like(parameter)
            self._team.sum_to_leader([parameter.grad])
        sums = torch.tensor(
            [*self.metrics.sums(), self.seen], dtype=torch.float64, device=self._policy.device
        )
        self._team.sum_to_leader([sums])
        *values, seen = sums.tolist()
        self.metrics.set_sums(values)
        self.seen = int(seen)


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    settings: UpdateSettings,
    should_stop: Callable[[], bool],
    followers: Followers,
) -> UpdateMetrics:
    """Make one optimizer step from the accepted rollouts of ``groups``.

    The policy stays unchanged when no group gives a gradient. Raises Preempted between micro-batches, before
    the policy has changed; MemoryExhausted; MemberLost.
    """
    rows, lengths = _rows(policy, groups, settings)
    begin = Begin(settings, whole_batch(lengths, settings.max_tokens))
    try:
        work = accumulate(policy, rows, begin, followers, should_stop)
    except torch.OutOfMemoryError as error:
        raise MemoryExhausted(
            f"a forward pass of {settings.micro_batch_tokens} tokens does not fit: {error}"
        ) from error
    metrics = work.metrics
    parameters = policy.trainable()
    metrics.grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm))
    metrics.moved = bool(rows) and math.isfinite(metrics.grad_norm)
    if metrics.moved:
        optimizer.step()
    _to_means(metrics, work.seen)
    return metrics


def _rows(
    policy: Policy, groups: Sequence[Group], settings: UpdateSettings
) -> tuple[list[PackedRow], list[int]]:
    """Return the rows of the groups, and the lengths in tokens of all unmasked completions."""
    rows: list[PackedRow] = []
    lengths: list[int] = []
    for group in groups:
        completions = completions_of(group, settings.mask_truncated)
        lengths += [len(completion.ids) for completion in completions if not completion.masked]
        if group.flat and settings.loss.kl_beta == 0:
            continue  # no gradient: advantages are 0 and there is no KL penalty; its tokens still count
        rows += rows_of_group(
            group.prompt.token_ids, completions, policy.hidden_size_for_packing, settings.longest_shared_row
        )
    return rows, lengths


def accumulate(
    policy: Policy,
    rows: Sequence[PackedRow],
    begin: Begin,
    followers: Followers,
    should_stop: Callable[[], bool],
) -> Accumulation:
    """Compute the gradients of all rows, in rounds of one micro-batch per process."""
    with followers.watched():
        followers.tell_all(begin)
        work = Accumulation(policy, begin, followers.team)
        for mine, *theirs in rounds(rows, begin.settings.micro_batch_tokens, followers.team.size):
            if should_stop():
                raise Preempted("asked to stop during an update")
            followers.tell([Compute(chunk) for chunk in theirs])
            work.add(mine)
        followers.tell_all(Finish())
        work.finish()
    return work


def rounds(rows: Sequence[PackedRow], max_tokens: int, processes: int) -> Iterator[list[list[PackedRow]]]:
    """Yield rounds of micro-batches, one per process.

    All processes must make the same number of forward passes, because each pass gathers the sharded layers
    from all of them. In the last round, processes without a micro-batch get a fully masked row.
    """
    chunks = micro_batches(rows, max_tokens)
    while found := list(islice(chunks, processes)):
        shortest = min(found[-1], key=lambda row: row.length)
        yield found + [[shortest.masked()] for _ in range(processes - len(found))]


def _backward(
    policy: Policy,
    batch: MicroBatch,
    settings: UpdateSettings,
    denominators: Denominators,
    metrics: UpdateMetrics,
) -> int:
    """Add a micro-batch's gradients and metric sums; return the number of its unmasked tokens."""
    current = token_logprobs(policy.hidden(batch), batch.target_N, policy.head, settings.filter)
    reference_N = None
    if settings.loss.kl_beta > 0:
        with policy.reference():
            reference_N = unfiltered_logprobs(
                policy.hidden(batch), batch.target_N, policy.head, settings.filter.temperature
            )
    # There is one optimizer step per batch, so the old policy of the ratio is the current one. The batch may
    # be sampled by the previous adapter version; its log-probabilities were returned with the completions.
    old_N = current.filtered_N.detach()
    outputs = compute_loss(
        LossInputs(
            logprobs_N=current.filtered_N,
            old_logprobs_N=old_N,
            sampler_logprobs_N=batch.sampler_logprobs_N,
            policy_logprobs_N=current.unfiltered_N,
            reference_logprobs_N=reference_N,
            advantages_S=batch.advantages_S,
            sequence_N=batch.sequence_N,
            mask_N=batch.mask_N,
        ),
        settings.loss,
        denominators,
    )
    outputs.loss.backward()  # type: ignore[no-untyped-call]
    metrics.loss += float(outputs.loss.detach())
    if metrics.kl is not None:
        metrics.kl += outputs.kl_sum
    metrics.clip_fraction += outputs.clipped_tokens
    metrics.mismatch_kl += outputs.mismatch_kl_sum
    metrics.mismatch_mean_abs += float(((old_N - batch.sampler_logprobs_N).abs() * batch.mask_N).sum())
    metrics.entropy += float((current.entropy_N * batch.mask_N).sum())
    metrics.outside_filter_tokens += int((current.outside_N * batch.mask_N).sum())
    metrics.forward_tokens += batch.tokens_B_T.numel()
    return int(batch.mask_N.sum())


def _to_means(metrics: UpdateMetrics, tokens: int) -> None:
    """Turn sums into means, by dividing by the number of unmasked tokens."""
    metrics.tokens = tokens
    tokens = max(1, tokens)
    metrics.entropy /= tokens
    metrics.clip_fraction /= tokens
    metrics.mismatch_kl /= tokens
    metrics.mismatch_mean_abs /= tokens
    if metrics.kl is not None:
        metrics.kl /= tokens
