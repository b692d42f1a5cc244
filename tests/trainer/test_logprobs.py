"""Log-probs after temperature, top-k and top-p equal those of a simple implementation in plain Python."""

import math

import pytest
import torch

from rft_trainer.learn import logprobs
from rft_trainer.learn.logprobs import token_logprobs, unfiltered_logprobs
from rft_trainer.rollout.filter import Filter

VOCABULARY = 23


@pytest.fixture
def logits_n_v() -> torch.Tensor:
    return torch.randn(7, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 2


def plain(logits: list[float], token: int, settings: Filter) -> tuple[float, float, bool]:
    """Compute three values after temperature, top-k and top-p, for one row of logits:

    - the log-prob of ``token``;
    - the entropy of the distribution over the kept tokens, in nats;
    - whether top-k or top-p removes ``token``. If so, it counts as kept in the first two values.
    """
    weights = {i: math.exp(value / settings.temperature) for i, value in enumerate(logits)}
    ranked = sorted(weights, key=lambda i: -weights[i])[: settings.top_k or len(logits)]
    total, mass = sum(weights[i] for i in ranked), 0.0
    kept: list[int] = []
    for i in ranked:
        if not kept or mass < settings.top_p:
            kept.append(i)
        mass += weights[i] / total
    outside = token not in kept
    chosen = [*kept, token] if outside else kept
    z = sum(weights[i] for i in chosen)
    entropy = -sum(weights[i] / z * math.log(weights[i] / z) for i in chosen)
    return math.log(weights[token] / z), entropy, outside


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.7), (6, 0.5), (1, 1.0), (100, 0.9)])
@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_every_filter_agrees_with_the_plain_implementation(
    logits_n_v: torch.Tensor, top_k: int, top_p: float, temperature: float
) -> None:
    settings = Filter(temperature, top_k, top_p)
    targets = torch.tensor([0, 3, 5, 22, 7, 11, 1])
    found = token_logprobs(logits_n_v, targets, lambda hidden: hidden, settings, entropy=True)
    assert found.entropy_N is not None
    for row, target in enumerate(targets.tolist()):
        logprob, entropy, outside = plain(logits_n_v[row].tolist(), target, settings)
        assert float(found.filtered_N[row]) == pytest.approx(logprob, abs=1e-4)
        assert float(found.entropy_N[row]) == pytest.approx(entropy, abs=1e-4)
        assert bool(found.outside_N[row]) == outside


def test_log_probs_for_the_kl_use_temperature_but_no_filter(logits_n_v: torch.Tensor) -> None:
    targets = torch.tensor([0, 3, 5, 22, 7, 11, 1])
    wanted = (logits_n_v / 0.7).log_softmax(1).gather(1, targets[:, None])[:, 0]
    found = token_logprobs(logits_n_v, targets, lambda hidden: hidden, Filter(0.7, 4, 0.5))
    torch.testing.assert_close(found.unfiltered_N, wanted)
    torch.testing.assert_close(unfiltered_logprobs(logits_n_v, targets, lambda h: h, 0.7), wanted)


@pytest.mark.parametrize("settings", [Filter(0.9, 6, 0.8), Filter(0.9, 0, 1.0)])
@pytest.mark.parametrize("penalized", [True, False])
def test_chunks_change_neither_values_nor_gradients(
    logits_n_v: torch.Tensor, monkeypatch: pytest.MonkeyPatch, settings: Filter, penalized: bool
) -> None:
    targets = torch.tensor([0, 3, 5, 22, 7, 11, 1])
    results = []
    for size in (1024, 2):
        monkeypatch.setattr(logprobs, "CHUNK_TOKENS", size)
        hidden = logits_n_v.double().requires_grad_()
        passes: list[int] = []

        def head(part: torch.Tensor, passes: list[int] = passes) -> torch.Tensor:
            passes.append(len(part))
            return part * 1.5

        assert token_logprobs(hidden, targets, head, settings).entropy_N is None
        passes.clear()
        found = token_logprobs(hidden, targets, head, settings, entropy=True, penalized=penalized)
        assert found.entropy_N is not None
        assert not found.entropy_N.requires_grad
        loss = (found.filtered_N * torch.arange(7)).sum()
        loss = loss + found.unfiltered_N.square().sum() if penalized else loss
        (gradient,) = torch.autograd.grad(loss, hidden)
        results.append((found.filtered_N.detach(), found.unfiltered_N.detach(), gradient))
        assert sum(passes) == 7  # the backward pass computes no logits again
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
