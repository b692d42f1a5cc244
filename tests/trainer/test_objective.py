"""The loss equals that of a simple implementation, which computes the papers' formulas token by token."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from rft_api.effective import OBJECTIVE_DEFAULTS
from rft_api.parameters import LossAggregation, Objective
from rft_trainer.learn.objective import (
    MISMATCH_CAP,
    LossInputs,
    LossSettings,
    compute_loss,
    settings_for,
    whole_batch,
)

NAMES: tuple[Objective, ...] = ("grpo", "dapo", "gspo", "drGrpo", "cispo")


def defaults(name: Objective, **changes: Any) -> LossSettings:
    own = OBJECTIVE_DEFAULTS[name]
    settings = settings_for(name, own.clip_low, own.clip_high, own.kl_beta, own.loss_aggregation)
    return replace(settings, **changes)


def batch(lengths: list[int], seed: int = 0, spread: float = 0.4) -> LossInputs:
    rng = random.Random(seed)
    count = sum(lengths)

    def values(low: float, high: float) -> torch.Tensor:
        return torch.tensor([rng.uniform(low, high) for _ in range(count)], dtype=torch.float64)

    now = values(-3, -0.1)
    return LossInputs(
        logprobs_N=now.clone().requires_grad_(),
        old_logprobs_N=now + values(-spread, spread),
        sampler_logprobs_N=now + values(-1, 1),
        policy_logprobs_N=now - 0.1,
        reference_logprobs_N=now + values(-0.5, 0.5),
        advantages_S=torch.tensor([rng.uniform(-2, 2) for _ in lengths], dtype=torch.float64),
        sequence_N=torch.tensor([s for s, n in enumerate(lengths) for _ in range(n)]),
        mask_N=torch.ones(count, dtype=torch.float64),
        share_S=torch.ones(len(lengths)),
    )


def plain_loss(x: LossInputs, s: LossSettings, tokens: int, sequences: int, max_tokens: int) -> float:
    """Return the loss by the papers' formulas, computed token by token.

    - ``tokens`` is the number of tokens of the whole batch.
    - ``sequences`` is the number of sequences of the whole batch.
    - ``max_tokens`` is the maximum number of tokens of a completion.

    ``s.aggregation`` says which of these numbers divide the sum.
    """
    total = 0.0
    for sequence in range(len(x.advantages_S)):
        index = [i for i in range(len(x.sequence_N)) if x.sequence_N[i] == sequence and x.mask_N[i] > 0]
        if not index:
            continue
        advantage = float(x.advantages_S[sequence])
        log_ratios = [(x.logprobs_N[i] - x.old_logprobs_N[i]).item() for i in index]
        if s.shape.ratio == "sequence":
            log_ratios = [sum(log_ratios) / len(log_ratios)] * len(index)
        losses = []
        for i, log_ratio in zip(index, log_ratios, strict=True):
            ratio = math.exp(log_ratio)
            low = 0.0 if s.clip_low is None else 1 - s.clip_low
            clipped = min(max(ratio, low), 1 + s.clip_high)
            if s.shape.surrogate == "clipped":
                gain = min(ratio * advantage, clipped * advantage)
            else:
                gain = clipped * advantage * x.logprobs_N[i].item()
            weight = min(math.exp(float(x.old_logprobs_N[i] - x.sampler_logprobs_N[i])), MISMATCH_CAP)
            assert x.reference_logprobs_N is not None
            d = float(x.reference_logprobs_N[i] - x.policy_logprobs_N[i])
            losses.append(-gain * weight + s.kl_beta * (math.exp(d) - d - 1))
        if s.aggregation == "sequence":
            total += sum(losses) / len(losses) / sequences
        elif s.aggregation == "token":
            total += sum(losses) / tokens
        else:
            total += sum(losses) / (sequences * max_tokens)
    return total


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("aggregation", ["token", "sequence", "maxTokens"])
def test_the_loss_agrees_with_the_formulas_of_the_papers(
    name: Objective, aggregation: LossAggregation
) -> None:
    lengths = [3, 1, 5]
    inputs = batch(lengths)
    settings = defaults(name, aggregation=aggregation, kl_beta=0.02)
    loss = compute_loss(inputs, settings, whole_batch(lengths, 8)).loss.detach()
    assert loss.item() == pytest.approx(plain_loss(inputs, settings, 9, 3, 8), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_dividing_a_batch_into_micro_batches_changes_neither_loss_nor_gradient(name: Objective) -> None:
    lengths = [3, 1, 5, 2]
    whole = batch(lengths)
    settings = defaults(name, kl_beta=0.01)
    denominators = whole_batch(lengths, 8)
    loss = compute_loss(whole, settings, denominators).loss
    (gradient,) = torch.autograd.grad(loss, whole.logprobs_N)
    parts = 0.0
    gradients: list[torch.Tensor] = []
    for first, last in ((0, 2), (2, 4)):
        chosen = (whole.sequence_N >= first) & (whole.sequence_N < last)
        part = LossInputs(
            **{
                name: (value[chosen] if name.endswith("_N") else value[first:last]).detach()
                for name, value in vars(whole).items()
                if value is not None
            }
        )
        part = replace(part, sequence_N=part.sequence_N - first)
        part.logprobs_N.requires_grad_()
        share = compute_loss(part, settings, denominators).loss
        parts += share.item()
        gradients += torch.autograd.grad(share, part.logprobs_N)
    assert parts == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(torch.cat(gradients), gradient)


@pytest.mark.parametrize("name", NAMES)
def test_on_policy_the_gradient_of_each_token_is_its_advantage(name: Objective) -> None:
    lengths = [4, 4]
    inputs = batch(lengths)
    old = inputs.logprobs_N.detach().clone()
    inputs = replace(inputs, old_logprobs_N=old, sampler_logprobs_N=old)
    settings = defaults(name, kl_beta=0.0, aggregation="token")
    outputs = compute_loss(inputs, settings, whole_batch(lengths, 8))
    (gradient,) = torch.autograd.grad(outputs.loss, inputs.logprobs_N)
    torch.testing.assert_close(gradient, -inputs.advantages_S[inputs.sequence_N] / 8)
    assert outputs.clipped_tokens == 0


def test_the_mismatch_weight_has_no_gradient_and_an_upper_bound() -> None:
    inputs = batch([1], spread=0.0)
    far = replace(inputs, sampler_logprobs_N=inputs.old_logprobs_N - 5)
    settings = defaults("grpo", kl_beta=0.0)
    near = replace(inputs, sampler_logprobs_N=inputs.old_logprobs_N)
    ratio = (
        compute_loss(far, settings, whole_batch([1], 8)).loss
        / compute_loss(near, settings, whole_batch([1], 8)).loss
    )
    assert ratio.item() == pytest.approx(MISMATCH_CAP)


def test_masked_tokens_have_no_loss() -> None:
    inputs = batch([2, 3])
    masked = replace(inputs, mask_N=torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    settings = defaults("grpo")
    loss = compute_loss(masked, settings, whole_batch([2], 8)).loss
    (gradient,) = torch.autograd.grad(loss, masked.logprobs_N)
    assert gradient[2:].abs().sum() == 0
    assert gradient[:2].abs().sum() > 0


def test_the_kl_is_zero_if_the_reference_equals_the_policy() -> None:
    inputs = batch([4])
    same = replace(inputs, reference_logprobs_N=inputs.policy_logprobs_N)
    assert compute_loss(same, defaults("grpo"), whole_batch([4], 8)).kl_sum == 0
