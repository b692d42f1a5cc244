"""One optimizer step: every token of the batch through the objective, then AdamW."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from rft_planner import split
from rft_trainer.errors import MemoryExhausted, Preempted
from rft_trainer.layout import MicroBatch, Row, build, micro_batches, rows_of_group
from rft_trainer.logprobs import Filter, token_logprobs, unfiltered_logprobs
from rft_trainer.objective import Denominators, LossInputs, LossSettings, compute_loss, whole_batch
from rft_trainer.policy import Policy
from rft_trainer.sampling import Group
from rft_trainer.team import Followers, Team

MICRO_BATCH_TOKENS = {"cpu": 1024, "cuda": split.MICRO_BATCH_TOKENS}
"""Tokens of one forward pass where the plan does not say: enough to fill the device."""


@dataclass(frozen=True)
class UpdateSettings:
    """What an update is made with.

    ``max_tokens`` is the longest completion allowed, ``micro_batch_tokens`` the size of a forward pass, and
    ``longest_shared_row`` limits rows of several rollouts where memory is planned.
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
    """Means over the batch's unmasked completion tokens, log-probs in nats."""

    loss: float = 0.0
    kl: float | None = None
    entropy: float = 0.0
    clip_fraction: float = 0.0
    mismatch_kl: float = 0.0
    mismatch_mean_abs: float = 0.0
    outside_filter_tokens: int = 0
    grad_norm: float = 0.0
    moved: bool = False
    """Whether the optimizer stepped; otherwise the adapter is what it was."""
    forward_tokens: int = 0

    def sums(self) -> list[float]:
        """What adds up over the processes of a team."""
        return [float(getattr(self, name) or 0) for name in _SUMS]

    def set_sums(self, values: Sequence[float]) -> None:
        """Take the sums over all processes."""
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
    """Order to a team: a batch begins."""

    settings: UpdateSettings
    denominators: Denominators


@dataclass(frozen=True)
class Compute:
    """Order to a follower: a micro-batch of its own."""

    rows: list[Row]


@dataclass(frozen=True)
class Finish:
    """Order to a team: the batch has no more micro-batches."""


class Accumulation:
    """Gradients and sums of a batch, as far as this process computes them."""

    def __init__(self, policy: Policy, begin: Begin, team: Team) -> None:
        """Take the leader's adapter and start from no gradient."""
        self.metrics = UpdateMetrics(kl=0.0 if begin.settings.loss.kl_beta > 0 else None)
        self.seen = 0
        self._policy, self._begin, self._team = policy, begin, team
        for parameter in policy.trainable():
            parameter.grad = None
        team.broadcast([parameter.data for parameter in policy.trainable()])

    def add(self, rows: list[Row]) -> None:
        """Compute a micro-batch. Raises torch.OutOfMemoryError."""
        batch = build(rows).to(self._policy.device)
        self.seen += _backward(
            self._policy, batch, self._begin.settings, self._begin.denominators, self.metrics
        )

    def finish(self) -> None:
        """Bring everyone's gradients and sums to the leader."""
        if self._team.size == 1:
            return
        for parameter in self._policy.trainable():
            if parameter.grad is None:  # not touched by any row of this process
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

    Nothing changes when there is nothing to learn from. Raises Preempted between micro-batches, before
    anything moved; MemoryExhausted; MemberLost.
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


def _rows(policy: Policy, groups: Sequence[Group], settings: UpdateSettings) -> tuple[list[Row], list[int]]:
    """Lay the groups out; also returns the lengths of all unmasked completions."""
    rows: list[Row] = []
    lengths: list[int] = []
    for group in groups:
        samples = group.samples(settings.mask_truncated)
        lengths += [len(sample.completion_ids) for sample in samples if not sample.masked]
        if group.flat and settings.loss.kl_beta == 0:
            continue  # counted in the denominator; the policy term is zero and nothing else is left
        rows += rows_of_group(
            group.prompt.token_ids, samples, policy.hidden_size_for_packing, settings.longest_shared_row
        )
    return rows, lengths


def accumulate(
    policy: Policy,
    rows: Sequence[Row],
    begin: Begin,
    followers: Followers,
    should_stop: Callable[[], bool],
) -> Accumulation:
    """Compute every micro-batch, a round of one for each process at a time."""
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


def rounds(rows: Sequence[Row], max_tokens: int, processes: int) -> Iterator[list[list[Row]]]:
    """Yield micro-batches, one for each process at a time.

    All processes make the same number of passes, because each gathers the layers from all. In the last round
    those without a micro-batch get a row that counts nothing.
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
    """Add a micro-batch's gradients and sums; returns its unmasked tokens."""
    current = token_logprobs(policy.hidden(batch), batch.target_N, policy.head, settings.filter)
    reference_N = None
    if settings.loss.kl_beta > 0:
        with policy.reference():
            reference_N = unfiltered_logprobs(
                policy.hidden(batch), batch.target_N, policy.head, settings.filter.temperature
            )
    # One update per batch, so the policy before it is the current one. What sampled the batch may be a
    # version behind: its log-probabilities came with the completions.
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
    """Divide the sums by the tokens they were taken over."""
    tokens = max(1, tokens)
    metrics.entropy /= tokens
    metrics.clip_fraction /= tokens
    metrics.mismatch_kl /= tokens
    metrics.mismatch_mean_abs /= tokens
    if metrics.kl is not None:
        metrics.kl /= tokens
