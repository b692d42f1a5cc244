"""Training weights each token by its probability ratio between policy and sampler ("mismatch weight").

If an older version of the policy sampled the batch, these weights have a lower and an upper bound.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rft_run.steps import read_steps
from rft_trainer import setup
from rft_trainer.learn.gradients import UpdateSettings
from rft_trainer.rollout.engine import Generated, Request
from rft_trainer.rollout.transformers_engine import TransformersEngine
from rft_trainer.runtime import machine
from tests.trainer.loop_support import rewarded, run, with_spec
from tests.trainer.reference_support import Reference, Trained, apart, batches, completions

__all__ = ["batches"]
BOUNDS = {"staleTokenLow": 0.6, "staleTokenHigh": 1.5, "staleSequenceLow": 0.2, "staleSequenceHigh": 5.0}
SHIFTS = (0.8, -0.8, 2.2, -2.2)
"""Nats that are added to the sampler's log-probs of the first four rollouts, one number for each rollout.

The first two numbers keep a rollout within the bounds for a sequence. The other two do not. Larger numbers
would end the run, because the log-probs of sampler and trainer would differ too much.
"""


@pytest.fixture
def falsified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample batches ahead. The sampler returns wrong log-probs for each batch's first four rollouts."""
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    monkeypatch.setattr("rft_trainer.loop.Run._probe_sampler", lambda _self, _parts: None)
    monkeypatch.setattr(setup, "overlaps", lambda spec, gpus: True)
    generate = TransformersEngine.generate

    def shifted(
        engine: TransformersEngine, requests: Sequence[Request], *others: Callable[[], Any]
    ) -> list[Generated]:
        found = generate(engine, requests, *others)
        for number, shift in enumerate(SHIFTS):
            logprobs = tuple(value + shift for value in found[number].logprobs)
            found[number] = replace(found[number], logprobs=logprobs)
        return found

    monkeypatch.setattr(TransformersEngine, "generate", shifted)


def weight_of(was: Tensor, drawn: Tensor, *, stale: bool) -> list[float]:
    """Return for each token of a rollout the weight that corrects for the sampler ("mismatch weight").

    It is computed as the documentation of the spec's fields ``stale...`` says.
    - ``was``: the tokens' log-probs by the policy before the update.
    - ``drawn``: the tokens' log-probs by the sampler.
    - ``stale``: whether an older policy sampled the rollout.
    """
    ratios = (was - drawn).exp().tolist()
    if not stale:
        return [min(ratio, 2.0) for ratio in ratios]
    if not 0.2 <= float((was - drawn).mean().exp()) <= 5.0:
        return [0.0] * len(ratios)
    return [min(max(ratio, 0.6), 1.5) for ratio in ratios]


def test_only_a_stale_batch_has_the_bounds_of_the_spec_and_its_gradient_is_the_formulas(
    character_model: Path, tmp_path: Path, falsified: None, batches: list[Trained]
) -> None:
    asked = rewarded(
        character_model,
        tmp_path / "run",
        klBeta=0,
        maxGradNorm=1e9,
        batchSizeTokens=2048,
        cpuDtype="float32",
        **BOUNDS,
    )
    sampling = {"engine": "transformers", "maxTokens": 16, "temperature": 1.0, "numRollouts": 8, "topK": 0}
    run(with_spec(asked, sampling=sampling, stop={"maxSteps": 2}, preflight="off"))
    plain = Reference(character_model, tmp_path / "run" / "adapter")
    records = read_steps(tmp_path / "run" / "metrics.jsonl")
    assert [record.staleness for record in records] == [0, 1]
    for batch, record in zip(batches, records, strict=True):
        stale = record.staleness == 1
        old = plain.all_logprobs(batch.weights[0], batch.groups)
        rows = list(zip(completions(batch.groups), old, strict=True))
        weights = [weight_of(was, drawn, stale=stale) for (_, _, drawn, _), was in rows]
        ratios = [(was - drawn).exp().tolist() for (_, _, drawn, _), was in rows]
        bounded = [
            a != b
            for one, other in zip(weights, ratios, strict=True)
            for a, b in zip(one, other, strict=True)
        ]
        assert record.mismatch_bounded_fraction == pytest.approx(sum(bounded) / batch.metrics.tokens)
        assert not batch.groups[0].flat, "the group with false log-probs must have unequal rewards"
        if stale:
            flat = [weight for one in weights for weight in one]
            assert {0.0, 0.6, 1.5} <= set(flat), "some tokens must reach each bound"

        def loss(found: list[Tensor], weights: Any = weights, rows: Any = rows) -> Tensor:
            parts = [
                -(now * advantage * torch.tensor(weight, dtype=torch.float64)).sum()
                for now, weight, ((_, _, _, advantage), _) in zip(found, weights, rows, strict=True)
            ]
            return torch.stack(parts).sum() / sum(map(len, found))

        (gradients,) = batch.gradients
        assert apart(gradients, plain.gradients(batch.weights[0], loss, batch.groups)) < 1e-3


def test_a_batch_of_the_current_weights_keeps_its_bound(
    character_model: Path, tmp_path: Path, batches: list[Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    run(rewarded(character_model, tmp_path / "run", **BOUNDS))
    assert {record.staleness for record in read_steps(tmp_path / "run" / "metrics.jsonl")} == {0}
    bounds = {_bounds(batch.settings) for batch in batches}
    assert bounds == {(0.0, 2.0, 0.0, float("inf"))}


def _bounds(settings: UpdateSettings) -> tuple[float, float, float, float]:
    found = settings.loss.mismatch
    return found.token_low, found.token_high, found.sequence_low, found.sequence_high
