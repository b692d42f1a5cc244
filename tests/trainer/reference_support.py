"""Computes reference gradients in float64, one completion at a time, by the forward pass of transformers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from rft_trainer import loop
from rft_trainer.learn.gradients import UpdateSettings
from rft_trainer.learn.update import update
from rft_trainer.learn.update_metrics import UpdateMetrics
from rft_trainer.rollout.groups import Group

Weights = list[Tensor]


@dataclass
class Trained:
    """A batch on which the loop trained.

    ``weights``: the adapter's weights just before each optimizer step. ``gradients``: the gradients that each
    step uses.
    """

    groups: Sequence[Group]
    settings: UpdateSettings
    metrics: UpdateMetrics
    weights: list[Weights] = field(default_factory=list)
    gradients: list[Weights] = field(default_factory=list)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Trained]:
    """Return a list. The loop appends each batch on which it trains."""
    found: list[Trained] = []

    def watched(policy: Any, optimizer: Any, groups: Any, settings: Any, *others: Any) -> UpdateMetrics:
        batch = Trained(groups, settings, UpdateMetrics())

        def note(*_: object) -> None:
            batch.weights.append([one.detach().double() for one in policy.trainable()])
            batch.gradients.append([one.grad.double() for one in policy.trainable()])

        with optimizer.register_step_pre_hook(note):
            batch.metrics = update(policy, optimizer, groups, settings, *others)
        found.append(batch)
        return batch.metrics

    monkeypatch.setattr(loop, "update", watched)
    return found


def wide_norm(layer: Any, hidden: Tensor) -> Tensor:
    """Compute the RMS norm in the dtype of ``hidden``. transformers would compute it in float32."""
    mean = hidden.pow(2).mean(-1, keepdim=True)
    found: Tensor = layer.weight * (hidden * torch.rsqrt(mean + layer.variance_epsilon))
    return found


class Reference:
    """The model and an adapter in float64. ``using`` sets the adapter's weights."""

    def __init__(self, model: Path, adapter: Path) -> None:
        base: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
        self._model: Any = PeftModel.from_pretrained(base, str(adapter), is_trainable=True).double()

    def trainable(self) -> Weights:
        return [one for one in self._model.parameters() if one.requires_grad]

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr(LlamaRMSNorm, "forward", wide_norm)
            for own, given in zip(self.trainable(), weights, strict=True):
                own.copy_(given)
            with torch.enable_grad():
                yield

    def logprobs(self, prompt: Sequence[int], ids: Sequence[int]) -> Tensor:
        """Return the log-prob of each token of a completion, at temperature 1, without top-k and top-p."""
        logits = self._model(torch.tensor([[*prompt, *ids[:-1]]])).logits[0, len(prompt) - 1 :]
        return logits.log_softmax(1).gather(1, torch.tensor(ids)[:, None]).squeeze(1)

    def all_logprobs(self, weights: Weights, groups: Sequence[Group]) -> list[Tensor]:
        with self.using(weights), torch.no_grad():
            return [self.logprobs(prompt, ids) for prompt, ids, _, _ in completions(groups)]

    def gradients(self, weights: Weights, loss: Any, groups: Sequence[Group]) -> Weights:
        """Return the gradients of ``loss`` when the adapter has these ``weights``.

        ``loss`` gets a list with one tensor for each completion: the log-probs of the completion's tokens.
        """
        with self.using(weights):
            found = [self.logprobs(prompt, ids) for prompt, ids, _, _ in completions(groups)]
            return list(torch.autograd.grad(loss(found), self.trainable()))


def completions(groups: Sequence[Group]) -> list[tuple[Sequence[int], Sequence[int], Tensor, float]]:
    """Return a tuple for each accepted rollout: prompt tokens, completion tokens, the sampler's log-probs of
    these completion tokens, advantage.
    """
    return [
        (
            group.prompt.token_ids,
            one.generated.token_ids,
            torch.tensor(one.generated.logprobs, dtype=torch.float64),
            advantage,
        )
        for group in groups
        for one, advantage in zip(group.accepted, group.advantages, strict=True)
    ]


def apart(found: Weights, expected: Weights) -> float:
    """Return the largest difference of two gradients, divided by the maximum of ``abs(expected)``."""
    largest = max(float(one.abs().max()) for one in expected)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / largest
