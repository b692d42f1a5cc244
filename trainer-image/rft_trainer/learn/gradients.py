"""Computes the gradients of the micro-batches of one process, during an update.

Also computes old log-probs: the log-probs of sampled tokens by the weights before the batch's first optimizer
step.
"""

from collections import deque
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rft_planner import split
from rft_trainer.learn.logprobs import token_logprobs, unfiltered_logprobs
from rft_trainer.learn.objective import (
    FRESH,
    Denominators,
    LossInputs,
    LossSettings,
    MismatchBounds,
    compute_loss,
)
from rft_trainer.learn.packing import MicroBatch, PackedRow
from rft_trainer.learn.policy import Policy
from rft_trainer.learn.ranks import Team
from rft_trainer.learn.update_metrics import UpdateMetrics
from rft_trainer.rollout.filter import Filter

MICRO_BATCH_TOKENS = {"cpu": 1024, "cuda": split.MICRO_BATCH_TOKENS}
"""For each device: number of tokens of a forward pass if the plan of the run sets no number.

So many tokens are enough to keep the whole device busy.
"""


@dataclass(frozen=True)
class UpdateSettings:
    """Settings for the update with one batch. All lengths are in tokens.

    - ``filter``: the temperature, top-k and top-p with which the batch was sampled.
    - ``max_tokens``: maximum length of a completion.
    - ``micro_batch_tokens``: maximum size of a forward pass, with padding. A longer row is computed alone.
    - ``longest_shared_row``: maximum length of a row with several rollouts. None: no limit.
    - ``max_grad_norm``: gradients with a larger L2 norm are scaled down to this norm.
    - ``mask_truncated``: whether completions that were cut at ``maxTokens`` have no loss.
    - ``mini_batches``: number of mini-batches. Each has its own optimizer step.
    - ``stale``: bounds of the mismatch weight for a batch that was sampled with older weights.
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
        """Return a copy with the mismatch bounds ``stale``, for a batch sampled with older weights."""
        return replace(self, loss=replace(self.loss, mismatch=self.stale))


@dataclass(frozen=True)
class BeginOld:
    """Command to the other processes of distributed training: compute old log-probs of micro-batches.

    Old log-probs are those by the weights before the batch's first optimizer step. The micro-batches follow
    in ``Compute`` commands. ``filter``: the temperature, top-k and top-p of the log-probs.
    """

    filter: Filter


@dataclass(frozen=True)
class Begin:
    """Command to the other processes of distributed training: begin the gradients of a mini-batch.

    The micro-batches follow in ``Compute`` commands. ``denominators``: the numbers by which the loss of the
    mini-batch is divided. ``measured``: whether the old log-probs of the mini-batch are already computed.
    """

    settings: UpdateSettings
    denominators: Denominators
    measured: bool = False


@dataclass(frozen=True)
class Compute:
    """Command to one process of distributed training: compute the micro-batch ``rows``.

    It computes gradients after the command ``Begin``, and old log-probs after the command ``BeginOld``.
    """

    rows: list[PackedRow]


@dataclass(frozen=True)
class Finish:
    """Command to the other processes of distributed training: there are no more micro-batches."""


class OldLogprobs:
    """Computes and stores the old log-probs of this process's micro-batches.

    Old log-probs are those by the weights before the batch's first optimizer step. Each process of
    distributed training keeps its own log-probs. For the gradients, the process gets the same micro-batches
    again, in the same order.
    """

    def __init__(self, policy: Policy, order: BeginOld, team: Team) -> None:
        """Copy the adapter's weights from the leader (rank 0) to all processes. Compute no log-probs yet."""
        self._policy, self._filter = policy, order.filter
        self._found: deque[Tensor] = deque()
        team.broadcast([parameter.data for parameter in policy.trainable()])

    @torch.no_grad()
    def add(self, rows: list[PackedRow]) -> None:
        """Compute the old log-probs of a micro-batch, and store them. Raises torch.OutOfMemoryError."""
        batch = self._policy.batch(rows)
        hidden_N_H = self._policy.hidden(batch)
        self._found.append(
            token_logprobs(hidden_N_H, batch.target_N, self._policy.head, self._filter).filtered_N
        )

    def finish(self) -> None:
        """Do nothing. In ``Accumulation``, the method of this name sums over the processes.

        The processes call it for objects of either class, but old log-probs are not summed.
        """

    def take(self) -> Tensor:
        """Remove and return the old log-probs of the next micro-batch: one for each trained token."""
        return self._found.popleft()


class Accumulation:
    """Sums the gradients and the metrics of a mini-batch over the micro-batches of this process.

    The gradients are in the policy's parameters. ``finish`` sums over all processes of distributed training.
    """

    def __init__(self, policy: Policy, begin: Begin, team: Team, old: OldLogprobs | None = None) -> None:
        """Copy the adapter's weights from the leader (rank 0) to all processes, and clear the gradients.

        - ``begin``: the settings and denominators of the mini-batch's loss.
        - ``old``: the old log-probs, which are used only if ``begin.measured`` is true.
        """
        self.metrics = UpdateMetrics(kl=0.0 if begin.settings.loss.kl_beta > 0 else None)
        self._policy, self._begin, self._team = policy, begin, team
        self._old = old if begin.measured else None
        self._sums: dict[str, Tensor] = {}
        for parameter in policy.trainable():
            parameter.grad = None
        team.broadcast([parameter.data for parameter in policy.trainable()])

    def add(self, rows: list[PackedRow]) -> None:
        """Compute the gradients of a micro-batch, and add them to the sums. Raises torch.OutOfMemoryError.

        The sums of the metrics stay on the device until ``finish``. To read them here, the CPU would have to
        wait for the end of the micro-batch.
        """
        batch = self._policy.batch(rows)
        old_N = self._old.take() if self._old is not None else None
        for name, value in _backward(self._policy, batch, old_N, self._begin).items():
            # In float64, so that counts of tokens are exact.
            self._sums[name] = self._sums.get(name, 0) + value.detach().double()
        self.metrics.forward_tokens += batch.tokens_B_T.numel()

    def finish(self) -> None:
        """Sum gradients and metrics over all processes. The leader (rank 0) gets the sums."""
        for name, value in self._sums.items():
            self.metrics.set_sum(name, float(value))
        if self._team.size == 1:
            return
        for parameter in self._policy.trainable():
            if parameter.grad is None:  # this process computed no rows
                parameter.grad = torch.zeros_like(parameter)
            self._team.sum_to_leader([parameter.grad])
        sums = torch.tensor(self.metrics.sums(), dtype=torch.float64, device=self._policy.device)
        self._team.sum_to_leader([sums])
        self.metrics.set_sums(sums.tolist())


def _backward(policy: Policy, batch: MicroBatch, old_N: Tensor | None, begin: Begin) -> dict[str, Tensor]:
    """Compute the gradients of a micro-batch, and add them to those in the policy's parameters.

    Return the micro-batch's part of the sums of ``UpdateMetrics``, as tensors on the device. A key is the
    name of a metric. ``old_N``: the log-prob of each token before the batch's first optimizer step, in nats.
    None: the batch has had no optimizer step yet. Then the old log-probs are the current ones, without
    gradient.
    """
    settings = begin.settings
    penalized = settings.loss.kl_beta > 0
    current = token_logprobs(
        policy.hidden(batch), batch.target_N, policy.head, settings.filter, entropy=True, penalized=penalized
    )
    reference_N = None
    if penalized:
        with policy.reference():
            reference_N = unfiltered_logprobs(
                policy.hidden(batch), batch.target_N, policy.head, settings.filter.temperature
            )
    # The old policy is the trainer's policy before the batch's first optimizer step, even if an older adapter
    # version has sampled the batch. The log-probs of that version are used only for the mismatch weight.
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
            share_S=batch.share_S,
        ),
        settings.loss,
        begin.denominators,
    )
    outputs.loss.backward()  # type: ignore[no-untyped-call]
    assert current.entropy_N is not None
    sums = {
        "loss": outputs.loss.detach(),
        "clip_fraction": outputs.clipped_tokens,
        "mismatch_kl": outputs.mismatch_kl_sum,
        "bounded_fraction": outputs.bounded_tokens,
        "mismatch_mean_abs": ((old_N - batch.sampler_logprobs_N).abs() * batch.mask_N).sum(),
        "entropy": (current.entropy_N * batch.mask_N).sum(),
        "outside_filter_tokens": (current.outside_N * batch.mask_N).sum(),
        "tokens": batch.mask_N.sum(),
    }
    return sums if outputs.kl_sum is None else sums | {"kl": outputs.kl_sum}
