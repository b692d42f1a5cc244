"""The update of a batch: for each mini-batch, gradients over all of its tokens, then a step of AdamW.

The policy ratio compares with the weights before the first of these steps. In the first mini-batch it is 1,
so its old log-probs are its own; those of the others are computed before the policy moves.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import torch
from torch import Tensor

from rft_planner import split
from rft_run.errors import MemoryExhausted, Preempted
from rft_trainer.learn.logprobs import token_logprobs, unfiltered_logprobs
from rft_trainer.learn.objective import (
    FRESH,
    Denominators,
    LossInputs,
    LossSettings,
    MismatchBounds,
    compute_loss,
    whole_batch,
)
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
    """Settings of a batch's update. All lengths are in tokens.

    ``max_tokens`` is the longest completion allowed, ``micro_batch_tokens`` the size of a forward pass.
    ``longest_shared_row`` limits rows with several rollouts; None: there is no plan of memory to keep to.
    ``mini_batches`` is the number of optimizer steps, ``stale`` the bounds of the mismatch weight for a batch
    that was sampled by older weights.
    """

    filter: Filter
    loss: LossSettings
    max_tokens: int
    micro_batch_tokens: int
    longest_shared_row: int | None
    max_grad_norm: float
    mask_truncated: bool
    mini_batches: int = 1
    stale: MismatchBounds = FRESH

    def for_stale(self) -> "UpdateSettings":
        """Return the settings for a batch that was sampled by older weights."""
        return replace(self, loss=replace(self.loss, mismatch=self.stale))


@dataclass
class UpdateMetrics:
    """Metrics of an update: means over the batch's unmasked completion tokens, log-probs in nats.

    ``loss`` and ``grad_norm`` are means over the mini-batches.
    """

    loss: float = 0.0
    kl: float | None = None
    entropy: float = 0.0
    clip_fraction: float = 0.0
    mismatch_kl: float = 0.0
    mismatch_mean_abs: float = 0.0
    outside_filter_tokens: int = 0
    bounded_fraction: float = 0.0
    grad_norm: float = 0.0
    steps: int = 0
    """Number of steps that the optimizer made."""
    forward_tokens: int = 0
    tokens: int = 0
    """Number of the unmasked completion tokens that the means are over."""

    @property
    def moved(self) -> bool:
        """Whether the adapter has changed."""
        return self.steps > 0

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
    "bounded_fraction",
)


@dataclass(frozen=True)
class BeginOld:
    """Order to all followers: old log-probs are computed, of the micro-batches that follow."""

    filter: Filter


@dataclass(frozen=True)
class Begin:
    """Order to all followers: a mini-batch begins. ``measured``: its old log-probs were computed before."""

    settings: UpdateSettings
    denominators: Denominators
    measured: bool = False


@dataclass(frozen=True)
class Compute:
    """Order to one follower: compute this micro-batch."""

    rows: list[PackedRow]


@dataclass(frozen=True)
class Finish:
    """Order to all followers: there are no more micro-batches."""


class OldLogprobs:
    """Log-probs by the weights before a batch's first step, of the micro-batches of this process.

    They stay in the process that computed them: the same rows are cut into the same micro-batches again, and
    each process gets the same ones in the same order.
    """

    def __init__(self, policy: Policy, order: BeginOld, team: Team) -> None:
        """Receive the leader's adapter weights."""
        self._policy, self._filter = policy, order.filter
        self._found: deque[Tensor] = deque()
        team.broadcast([parameter.data for parameter in policy.trainable()])

    @torch.no_grad()
    def add(self, rows: list[PackedRow]) -> None:
        """Compute those of a micro-batch. Raises torch.OutOfMemoryError."""
        batch = build(rows).to(self._policy.device)
        hidden_N_H = self._policy.hidden(batch)
        self._found.append(
            token_logprobs(hidden_N_H, batch.target_N, self._policy.head, self._filter).filtered_N
        )

    def finish(self) -> None:
        """Nothing is left to do: no process needs those of another."""

    def take(self) -> Tensor:
        """Return those of the next micro-batch (N), once."""
        return self._found.popleft()


class Accumulation:
    """Gradients and metric sums of a mini-batch, accumulated over the micro-batches of this process."""

    def __init__(self, policy: Policy, begin: Begin, team: Team, old: OldLogprobs | None = None) -> None:
        """Receive the leader's adapter weights and clear the gradients. ``old`` is used where measured."""
        self.metrics = UpdateMetrics(kl=0.0 if begin.settings.loss.kl_beta > 0 else None)
        self.seen = 0
        self._policy, self._begin, self._team = policy, begin, team
        self._old = old if begin.measured else None
        for parameter in policy.trainable():
            parameter.grad = None
        team.broadcast([parameter.data for parameter in policy.trainable()])

    def add(self, rows: list[PackedRow]) -> None:
        """Add the gradients of a micro-batch. Raises torch.OutOfMemoryError."""
        batch = build(rows).to(self._policy.device)
        old_N = self._old.take() if self._old is not None else None
        self.seen += _backward(self._policy, batch, old_N, self._begin, self.metrics)

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
    """Update the policy with the accepted rollouts of ``groups``: an optimizer step for each mini-batch.

    The policy stays unchanged when no group gives a gradient. Raises Preempted between micro-batches, before
    the policy has changed: an update that has made its first step is finished. Raises MemoryExhausted;
    MemberLost.
    """
    parts = [_mini_batch(policy, part, settings) for part in mini_batches(groups, settings.mini_batches)]
    made: list[Accumulation] = []
    try:
        old = old_logprobs(policy, parts[1:], followers, should_stop) if len(parts) > 1 else None
        for number, (rows, begin) in enumerate(parts):
            moved = any(work.metrics.moved for work in made)
            begin = replace(begin, measured=number > 0)
            work = accumulate(policy, rows, begin, followers, _never if moved else should_stop, old)
            _step(policy, optimizer, work.metrics, settings.max_grad_norm, has_rows=bool(rows))
            made.append(work)
    except torch.OutOfMemoryError as error:
        raise MemoryExhausted(
            f"a forward pass of {settings.micro_batch_tokens} tokens does not fit: {error}"
        ) from error
    return _combined(made)


def mini_batches(groups: Sequence[Group], count: int) -> list[Sequence[Group]]:
    """Cut a batch into ``count`` parts of whole groups; into one for each group where these are fewer.

    Their sizes differ by one group at most. Without groups there is one part, without any.
    """
    count = max(1, min(count, len(groups)))
    ends = [len(groups) * number // count for number in range(count + 1)]
    return [groups[start:end] for start, end in pairwise(ends)]


def _never() -> bool:
    return False


def _mini_batch(
    policy: Policy, groups: Sequence[Group], settings: UpdateSettings
) -> tuple[list[PackedRow], Begin]:
    """Return the rows of a mini-batch, and the order that begins it."""
    rows, lengths = _rows(policy, groups, settings)
    return rows, Begin(settings, whole_batch(lengths, settings.max_tokens))


def _step(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    metrics: UpdateMetrics,
    max_grad_norm: float,
    *,
    has_rows: bool,
) -> None:
    """Make an optimizer step with the gradients, unless there are none or they are not finite."""
    metrics.grad_norm = float(torch.nn.utils.clip_grad_norm_(policy.trainable(), max_grad_norm))
    if has_rows and math.isfinite(metrics.grad_norm):
        optimizer.step()
        metrics.steps = 1


def _combined(made: Sequence[Accumulation]) -> UpdateMetrics:
    """Return the metrics of a batch from those of its mini-batches."""
    parts = [work.metrics for work in made]
    whole = UpdateMetrics(kl=parts[0].kl)
    whole.set_sums([sum(column) for column in zip(*(part.sums() for part in parts), strict=True)])
    trained = [part for part, work in zip(parts, made, strict=True) if work.seen] or parts
    whole.loss = sum(part.loss for part in trained) / len(trained)
    whole.grad_norm = sum(part.grad_norm for part in trained) / len(trained)
    whole.steps = sum(part.steps for part in parts)
    _to_means(whole, sum(work.seen for work in made))
    return whole


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


def old_logprobs(
    policy: Policy,
    parts: Sequence[tuple[Sequence[PackedRow], Begin]],
    followers: Followers,
    should_stop: Callable[[], bool],
) -> OldLogprobs:
    """Compute the log-probs of all rows of these mini-batches by the current weights."""
    settings = parts[0][1].settings
    with followers.watched():
        order = BeginOld(settings.filter)
        followers.tell_all(order)
        old = OldLogprobs(policy, order, followers.team)
        for rows, _ in parts:
            _compute(old, rows, settings.micro_batch_tokens, followers, should_stop)
        followers.tell_all(Finish())
    return old


def accumulate(
    policy: Policy,
    rows: Sequence[PackedRow],
    begin: Begin,
    followers: Followers,
    should_stop: Callable[[], bool],
    old: OldLogprobs | None = None,
) -> Accumulation:
    """Compute the gradients of all rows of a mini-batch."""
    with followers.watched():
        followers.tell_all(begin)
        work = Accumulation(policy, begin, followers.team, old)
        _compute(work, rows, begin.settings.micro_batch_tokens, followers, should_stop)
        followers.tell_all(Finish())
        work.finish()
    return work


def _compute(
    work: OldLogprobs | Accumulation,
    rows: Sequence[PackedRow],
    max_tokens: int,
    followers: Followers,
    should_stop: Callable[[], bool],
) -> None:
    """Compute all rows, in rounds of one micro-batch per process."""
    for mine, *theirs in rounds(rows, max_tokens, followers.team.size):
        if should_stop():
            raise Preempted("asked to stop during an update")
        followers.tell([Compute(chunk) for chunk in theirs])
        work.add(mine)


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
    old_N: Tensor | None,
    begin: Begin,
    metrics: UpdateMetrics,
) -> int:
    """Add a micro-batch's gradients and metric sums; return the number of its unmasked tokens.

    ``old_N`` None: no step was made since the batch began, so the old policy is the current one.
    """
    settings = begin.settings
    current = token_logprobs(policy.hidden(batch), batch.target_N, policy.head, settings.filter)
    reference_N = None
    if settings.loss.kl_beta > 0:
        with policy.reference():
            reference_N = unfiltered_logprobs(
                policy.hidden(batch), batch.target_N, policy.head, settings.filter.temperature
            )
    # The old policy is the trainer's own, also where an older adapter version has sampled the batch: what
    # that one said came with the completions.
    old_N = current.filtered_N.detach() if old_N is None else old_N
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
        begin.denominators,
    )
    outputs.loss.backward()  # type: ignore[no-untyped-call]
    metrics.loss += float(outputs.loss.detach())
    if metrics.kl is not None:
        metrics.kl += outputs.kl_sum
    metrics.clip_fraction += outputs.clipped_tokens
    metrics.mismatch_kl += outputs.mismatch_kl_sum
    metrics.bounded_fraction += outputs.bounded_tokens
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
    metrics.bounded_fraction /= tokens
    if metrics.kl is not None:
        metrics.kl /= tokens
