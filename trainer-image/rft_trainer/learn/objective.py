"""Computes the loss of a micro-batch with a pure function: LossInputs -> LossOutputs.

All objectives use the same code, with different data: each objective is an entry of ``OBJECTIVES``. An
optimizer step is made on a mini-batch. The loss of a mini-batch is the sum over its micro-batches. Each loss
in this sum is divided by a denominator of the whole mini-batch. So the loss does not depend on how the
mini-batch is divided into micro-batches.

The formulas, by their number at arXiv:

- GRPO: 2402.03300
- DAPO: 2503.14476
- GSPO: 2507.18071
- Dr. GRPO: 2503.20783
- CISPO: 2506.13585
- truncated importance sampling (the mismatch weight): 2508.03501

A rollout of several turns is one sequence: the sampled tokens of all its turns, without tool results and
other context. If it has several segments, their token losses are summed as if they were one sequence. Two
values are computed for each segment, because segments are different texts with their own likelihoods: the
sequence ratio of GSPO, and the sequence bounds of the mismatch weight.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rft_api.parameters import LossAggregation, Objective
from rft_trainer.rollout.advantages import Normalization

MISMATCH_CAP = 2.0
"""Upper bound of the mismatch weight of a token.

The weight is the token's probability in the trainer, divided by its probability in the sampler.
"""


@dataclass(frozen=True)
class MismatchBounds:
    """Limits of the mismatch weight: a token's probability in the trainer, divided by that in the sampler.

    A token's weight is limited to the range from ``token_low`` to ``token_high``. A sequence's weights become
    0 if their geometric mean is less than ``sequence_low`` or greater than ``sequence_high``.
    """

    token_low: float = 0.0
    token_high: float = MISMATCH_CAP
    sequence_low: float = 0.0
    sequence_high: float = math.inf


FRESH = MismatchBounds()
"""Limits of the mismatch weight for a batch that was sampled with the current weights."""


@dataclass(frozen=True)
class ObjectiveShape:
    """The formulas of one objective, such as GRPO or GSPO. The numbers in them are in ``LossSettings``.

    - ``normalization``: how rewards become advantages, see ``group_advantages``.
    - ``ratio``: whether each token has its own importance ratio, or a sequence has one ratio for all tokens.
    """

    normalization: Normalization
    ratio: Literal["token", "sequence"]
    surrogate: Literal["clipped", "weighted"]
    """How the gain of a token is computed. The loss of a token is -gain × mismatch weight + KL term.

    - "clipped": the smaller one of ratio × A and clipped ratio × A
    - "weighted": clipped ratio, without gradient, × A × log pi

    A is the advantage, and pi is the probability of the token. The ratio is pi divided by the token's
    probability before the batch's first optimizer step.
    """


OBJECTIVES: dict[Objective, ObjectiveShape] = {
    "grpo": ObjectiveShape("std", "token", "clipped"),
    "dapo": ObjectiveShape("std", "token", "clipped"),
    "gspo": ObjectiveShape("std", "sequence", "clipped"),
    "drGrpo": ObjectiveShape("none", "token", "clipped"),
    "cispo": ObjectiveShape("std", "token", "weighted"),
}


@dataclass(frozen=True)
class LossSettings:
    """The settings of the loss: the formulas of an objective, and the numbers in them.

    - ``clip_low``, ``clip_high``: the importance ratio is clipped to the range from 1 - ``clip_low`` to
      1 + ``clip_high``. If ``clip_low`` is None, there is no lower limit.
    - ``kl_beta``: weight of the KL term. 0: there is no KL term.
    - ``aggregation``: how the losses of tokens become one number, see ``_aggregate``.
    - ``mismatch``: limits of the weights that correct for different probabilities in trainer and sampler.
    """

    shape: ObjectiveShape
    clip_low: float | None
    clip_high: float
    kl_beta: float
    aggregation: LossAggregation
    mismatch: MismatchBounds = FRESH


@dataclass(frozen=True)
class Denominators:
    """Numbers of a mini-batch by which its loss is divided. The aggregation decides which of them are used.

    - ``tokens``: number of unmasked tokens.
    - ``sequences``: number of unmasked completions.
    - ``max_tokens``: maximum number of tokens of a completion.
    """

    tokens: int
    sequences: int
    max_tokens: int


@dataclass(frozen=True)
class LossInputs:
    """The inputs of the loss: data of all N trained tokens of a micro-batch, which belong to S completions.

    Log-probs are those of the sampled tokens, in nats. The first three tensors are log-probs after
    temperature, top-k and top-p. The next two are unfiltered (after temperature alone), for the KL term. A
    completion is called a sequence here.

    - ``logprobs_N``: by the current policy, with gradient.
    - ``old_logprobs_N``: by the policy before the batch's first optimizer step.
    - ``sampler_logprobs_N``: as the sampler returned them.
    - ``policy_logprobs_N``: by the current policy, unfiltered.
    - ``reference_logprobs_N``: by the reference, unfiltered. None: there is no reference.
    - ``advantages_S``: the advantage of each sequence.
    - ``sequence_N``: the index of each token's sequence, 0 to S-1.
    - ``mask_N``: 0 for tokens without loss, else 1.
    - ``share_S``: each sequence's share of the trained tokens of its rollout. None: each share is 1.
    """

    logprobs_N: Tensor
    old_logprobs_N: Tensor
    sampler_logprobs_N: Tensor
    policy_logprobs_N: Tensor
    reference_logprobs_N: Tensor | None
    advantages_S: Tensor
    sequence_N: Tensor
    mask_N: Tensor
    share_S: Tensor | None = None


@dataclass(frozen=True)
class LossOutputs:
    """The result of the loss function for a micro-batch. Each field is a tensor of one number.

    All fields except ``loss`` are sums over the unmasked tokens of the micro-batch.

    - ``loss``: the micro-batch's part of the loss of its mini-batch.
    - ``kl_sum``: the KL between policy and reference, in nats. None: there is no reference.
    - ``clipped_tokens``: the number of tokens whose loss was changed by the clipping of the ratio.
    - ``mismatch_kl_sum``: the KL between sampler and trainer, in nats.
    - ``bounded_tokens``: the number of tokens whose mismatch weight a bound has changed. Either the token's
      weight was set to a bound, or the mean of its sequence is out of bounds and all weights of the sequence
      are 0.
    """

    loss: Tensor
    kl_sum: Tensor | None
    clipped_tokens: Tensor
    mismatch_kl_sum: Tensor
    bounded_tokens: Tensor


def compute_loss(inputs: LossInputs, settings: LossSettings, denominators: Denominators) -> LossOutputs:
    """Return a micro-batch's part of the loss of its mini-batch, and sums for the metrics.

    ``denominators``: the numbers of the whole mini-batch by which the loss is divided.
    """
    lengths_S = _sum_by_sequence(inputs.mask_N, inputs)
    log_ratio_N = inputs.logprobs_N - inputs.old_logprobs_N
    if settings.shape.ratio == "sequence":
        mean_S = _sum_by_sequence(log_ratio_N * inputs.mask_N, inputs) / lengths_S.clamp(min=1)
        log_ratio_N = mean_S[inputs.sequence_N]
    ratio_N = log_ratio_N.exp()
    low = 1 - settings.clip_low if settings.clip_low is not None else 0.0
    clipped_N = ratio_N.clamp(low, 1 + settings.clip_high)
    advantages_N = inputs.advantages_S[inputs.sequence_N]
    if settings.shape.surrogate == "clipped":
        gain_N = torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
        binding_N = clipped_N * advantages_N < ratio_N * advantages_N
    else:
        gain_N = clipped_N.detach() * advantages_N * inputs.logprobs_N
        binding_N = clipped_N != ratio_N

    mismatch_N = (inputs.old_logprobs_N - inputs.sampler_logprobs_N).detach()
    weight_N = _mismatch_weight(mismatch_N, lengths_S, inputs, settings.mismatch)
    loss_N = -gain_N * weight_N
    kl_sum = None
    if inputs.reference_logprobs_N is not None:
        kl_N = k3(inputs.policy_logprobs_N, inputs.reference_logprobs_N)
        loss_N = loss_N + settings.kl_beta * kl_N
        kl_sum = (kl_N.detach() * inputs.mask_N).sum()
    return LossOutputs(
        loss=_aggregate(loss_N, lengths_S, inputs, settings.aggregation, denominators),
        kl_sum=kl_sum,
        clipped_tokens=(binding_N * inputs.mask_N).sum(),
        mismatch_kl_sum=(k3(torch.zeros_like(mismatch_N), mismatch_N) * inputs.mask_N).sum(),
        bounded_tokens=((weight_N != mismatch_N.exp()) * inputs.mask_N).sum(),
    )


def _mismatch_weight(
    mismatch_N: Tensor, lengths_S: Tensor, inputs: LossInputs, bounds: MismatchBounds
) -> Tensor:
    """Return each token's mismatch weight: its probability in the trainer divided by that in the sampler.

    The weights are limited by ``bounds``. ``mismatch_N``: the logarithm of each token's weight before that.
    ``lengths_S``: number of unmasked tokens of each sequence.
    """
    weight_N = mismatch_N.exp().clamp(bounds.token_low, bounds.token_high)
    if bounds.sequence_low <= 0 and bounds.sequence_high == math.inf:
        return weight_N
    mean_S = (_sum_by_sequence(mismatch_N * inputs.mask_N, inputs) / lengths_S.clamp(min=1)).exp()
    kept_S = (mean_S >= bounds.sequence_low) & (mean_S <= bounds.sequence_high)
    return weight_N * kept_S[inputs.sequence_N]


def k3(policy_N: Tensor, reference_N: Tensor) -> Tensor:
    """Return Schulman's non-negative estimate k3 of KL(policy || reference) for each token, in nats.

    The arguments are log-probs of the sampled tokens, in nats. k3 is from J. Schulman, Approximating KL
    Divergence (2020). Its mean is the KL only if ``policy`` itself has drawn the tokens, without filters.
    Here the estimate is biased, for three reasons:

    - Tokens are drawn with top-k and top-p.
    - A batch may be sampled with older weights.
    - The first optimizer step of a batch changes the policy for the later steps.

    The estimate is still 0 if both policies are equal.
    """
    log_ratio_N = reference_N - policy_N
    return log_ratio_N.exp() - log_ratio_N - 1


def _aggregate(
    loss_N: Tensor,
    lengths_S: Tensor,
    inputs: LossInputs,
    aggregation: LossAggregation,
    denominators: Denominators,
) -> Tensor:
    """Return the micro-batch's part of the mini-batch's loss, from the losses of its unmasked tokens.

    - "token": the sum of the losses, divided by the mini-batch's number of unmasked tokens
    - "sequence": the sum over the sequences of mean loss × ``share_S``, divided by the mini-batch's number of
      unmasked completions
    - "maxTokens": the sum of the losses, divided by the product of two numbers: the mini-batch's number of
      unmasked completions, and the maximum length of a completion in tokens
    """
    masked_N = loss_N * inputs.mask_N
    if aggregation == "token":
        return masked_N.sum() / denominators.tokens
    if aggregation == "maxTokens":
        return masked_N.sum() / (denominators.sequences * denominators.max_tokens)
    means_S = _sum_by_sequence(masked_N, inputs) / lengths_S.clamp(min=1)
    if inputs.share_S is not None:
        means_S = means_S * inputs.share_S
    return means_S.sum() / denominators.sequences


def _sum_by_sequence(values_N: Tensor, inputs: LossInputs) -> Tensor:
    """Sum the values of N tokens within each of S sequences (completions). Return the S sums."""
    zeros_S = torch.zeros_like(inputs.advantages_S, dtype=values_N.dtype)
    return zeros_S.index_add(0, inputs.sequence_N, values_N)


def settings_for(
    objective: Objective,
    clip_low: float | None,
    clip_high: float,
    kl_beta: float,
    aggregation: LossAggregation,
) -> LossSettings:
    """Return the loss settings of an objective for a batch that was sampled with the current weights.

    - ``clip_low``, ``clip_high``: the importance ratio is clipped to the range from 1 - ``clip_low`` to
      1 + ``clip_high``. If ``clip_low`` is None, there is no lower limit.
    - ``kl_beta``: weight of the KL term. 0: there is no KL term.
    """
    return LossSettings(OBJECTIVES[objective], clip_low, clip_high, kl_beta, aggregation)


def whole_batch(lengths: Sequence[int], max_tokens: int) -> Denominators:
    """Return the numbers by which the loss of a mini-batch is divided. Counts of 0 are replaced by 1.

    - ``lengths``: number of trained tokens of each unmasked completion.
    - ``max_tokens``: maximum number of tokens of a completion.
    """
    return Denominators(max(1, sum(lengths)), max(1, len(lengths)), max_tokens)
