"""One optimizer step: every token of the batch through the objective, then AdamW."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rft_planner import split
from rft_trainer.errors import MemoryExhausted, Preempted
from rft_trainer.layout import MicroBatch, Row, build, micro_batches, rows_of_group
from rft_trainer.logprobs import Filter, token_logprobs, unfiltered_logprobs
from rft_trainer.objective import Denominators, LossInputs, LossSettings, compute_loss, whole_batch
from rft_trainer.policy import Policy
from rft_trainer.sampling import Group

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


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    settings: UpdateSettings,
    should_stop: Callable[[], bool],
) -> UpdateMetrics:
    """Make one optimizer step from the accepted rollouts of ``groups``.

    Nothing changes when there is nothing to learn from. Raises Preempted between micro-batches, before
    anything moved; MemoryExhausted.
    """
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
    denominators = whole_batch(lengths, settings.max_tokens)
    metrics = UpdateMetrics(kl=0.0 if settings.loss.kl_beta > 0 else None)
    optimizer.zero_grad(set_to_none=True)
    seen = 0
    try:
        for chunk in micro_batches(rows, settings.micro_batch_tokens):
            if should_stop():
                raise Preempted("asked to stop during an update")
            batch = build(chunk).to(policy.device)
            seen += _backward(policy, batch, settings, denominators, metrics)
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryExhausted(
            f"a forward pass of {settings.micro_batch_tokens} tokens does not fit: {error}"
        ) from error
    parameters = policy.trainable()
    metrics.grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm))
    metrics.moved = bool(rows) and math.isfinite(metrics.grad_norm)
    if metrics.moved:
        optimizer.step()
    _to_means(metrics, seen)
    return metrics


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
    # One update per batch and no overlap: the policy that laid the batch out is the current one.
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
    metrics.outside_filter_tokens += int(current.outside_N.sum())
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
