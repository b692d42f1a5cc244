"""Runs with several optimizer steps per batch agree with a simple implementation in float64."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rft_api.parameters import Objective
from rft_run.errors import Preempted
from rft_run.steps import read_steps
from rft_trainer.learn import update as update_module
from rft_trainer.learn.gradients import OldLogprobs
from rft_trainer.learn.update import mini_batches
from rft_trainer.rollout.engine import Generated
from rft_trainer.rollout.transformers_engine import TransformersEngine
from rft_trainer.runtime import machine
from tests.trainer.loop_support import rewarded, run, with_spec
from tests.trainer.reference_support import Reference, Trained, Weights, apart, batches, completions

__all__ = ["batches"]
FAR = {"loraAlpha": 256, "loraRank": 4, "maxGradNorm": 1e9, "klBeta": 0, "cpuDtype": "float32"}
"""Settings with which the first optimizer step moves the policy by more than the clip distances."""
PLAIN = {"refillRounds": 0, "overlongPenalty": 0}
COMPARED: tuple[Objective, ...] = ("grpo", "dapo", "cispo")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)


def one_step(model: Path, folder: Path, maximum: int = 1, **training: Any) -> None:
    asked = rewarded(model, folder, **FAR, **PLAIN, **training)
    sampling = {"engine": "transformers", "maxTokens": 16, "temperature": 1.0, "numRollouts": 8, "topK": 0}
    run(with_spec(asked, sampling=sampling, stop={"maxSteps": maximum}, preflight="off"))


def plain_loss(
    objective: Objective, groups: Sequence[Any], old: list[Tensor], found: list[Tensor]
) -> tuple[Tensor, int]:
    """Return the loss of a mini-batch by the papers' formulas, and the number of clipped tokens.

    - ``old``: the log-probs of each completion's tokens before the update.
    - ``found``: the log-probs of the same tokens with the present weights.
    """
    low, high = {"grpo": (0.8, 1.2), "dapo": (0.8, 1.28), "cispo": (0.0, 1.28)}[objective]
    losses: list[Tensor] = []
    clipped_tokens = 0
    rows = zip(completions(groups), old, found, strict=True)
    for (_, _, sampler, advantage), before, now in rows:
        for own, was, drawn in zip(now, before, sampler, strict=True):
            ratio = (own - was).exp()
            weight = (was - drawn).exp().clamp(max=2.0)
            clipped = ratio.clamp(low, high)
            if objective == "cispo":
                gain = clipped.detach() * advantage * own
                clipped_tokens += int(clipped != ratio)
            else:
                gain = torch.minimum(ratio * advantage, clipped * advantage)
                clipped_tokens += int(clipped * advantage < ratio * advantage)
            losses.append(-gain * weight)
    return torch.stack(losses).sum() / len(losses), clipped_tokens


def test_each_objective_has_its_own_gradient_in_the_second_update_and_it_is_the_papers(
    character_model: Path, tmp_path: Path, batches: list[Trained]
) -> None:
    second: dict[str, Weights] = {}
    for objective in COMPARED:
        one_step(character_model, tmp_path / objective, objective=objective, updatesPerBatch=2)
        batch = batches[-1]
        plain = Reference(character_model, tmp_path / objective / "adapter")
        clipped = 0
        parts = mini_batches(batch.groups, 2)
        assert len(batch.gradients) == len(parts) == 2
        for part, weights, gradients in zip(parts, batch.weights, batch.gradients, strict=True):
            old = plain.all_logprobs(batch.weights[0], part)
            counts: list[int] = []

            def loss(found: list[Tensor], part: Any = part, old: Any = old, counts: Any = counts) -> Tensor:
                value, count = plain_loss(objective, part, old, found)  # noqa: B023
                counts.append(count)
                return value

            assert apart(gradients, plain.gradients(weights, loss, part)) < 1e-3
            clipped += counts[0]
        second[objective] = batch.gradients[1]
        (record,) = read_steps(tmp_path / objective / "metrics.jsonl")
        assert record.updates == 2
        assert record.clip_fraction == pytest.approx(clipped / batch.metrics.tokens)
        assert clipped > 0
    for one, other in (("grpo", "dapo"), ("grpo", "cispo"), ("dapo", "cispo")):
        assert apart(second[one], second[other]) > 0.01, (one, other)
    assert apart(batches[0].gradients[0], batches[1].gradients[0]) == 0, (
        "in the first update all ratios are 1, so the objectives have the same gradient"
    )


def test_one_update_clips_nothing_and_the_objectives_have_the_same_gradient(
    character_model: Path, tmp_path: Path, batches: list[Trained]
) -> None:
    for objective in COMPARED:
        one_step(character_model, tmp_path / objective, objective=objective)
        (record,) = read_steps(tmp_path / objective / "metrics.jsonl")
        assert (record.updates, record.clip_fraction) == (1, 0)
    first, *others = batches
    assert all(apart(other.gradients[0], first.gradients[0]) < 1e-5 for other in others)


def test_a_batch_is_cut_into_whole_groups_of_nearly_equal_number() -> None:
    groups: Any = list(range(7))

    def cut(count: int, into: Any = groups) -> list[list[Any]]:
        return [list(part) for part in mini_batches(into, count)]

    assert cut(1) == [groups]
    assert cut(3) == [[0, 1], [2, 3], [4, 5, 6]]
    assert list(chain(*cut(4))) == groups
    assert cut(4, groups[:2]) == [[0], [1]], "each mini-batch needs at least one group"
    assert cut(4, []) == [[]]


def test_a_batch_of_one_group_has_one_update_and_the_step_says_so(
    character_model: Path, tmp_path: Path
) -> None:
    asked = rewarded(character_model, tmp_path / "run", updatesPerBatch=4)
    # At first the run expects 62 tokens per completion. With 8 rollouts, two groups would exceed 1024 tokens.
    sampling = {"engine": "transformers", "maxTokens": 124, "temperature": 1.0, "numRollouts": 8}
    run(with_spec(asked, sampling=sampling, stop={"maxSteps": 1}, preflight="off"))
    (record,) = read_steps(tmp_path / "run" / "metrics.jsonl")
    assert (record.groups, record.updates) == (1, 1)


def test_completions_that_are_all_masked_move_nothing(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = TransformersEngine.generate

    def cut(*arguments: Any) -> list[Generated]:
        return [replace(one, finish_reason="length") for one in generate(*arguments)]

    monkeypatch.setattr(TransformersEngine, "generate", cut)
    asked = rewarded(character_model, tmp_path / "run", updatesPerBatch=2, maskTruncated=True)
    run(with_spec(asked, stop={"maxSteps": 1}, preflight="off"))
    (record,) = read_steps(tmp_path / "run" / "metrics.jsonl")
    assert (record.truncated_fraction, record.updates) == (1, 0)
    assert record.forward_tokens, "rewards differ, so tokens are computed"
    assert record.entropy is None, "all tokens are masked"


@pytest.mark.parametrize("moment", ["while the old log-probs are computed", "after the first update"])
def test_a_run_that_is_stopped_within_a_batch_ends_as_one_that_was_not(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def asked(name: str) -> Any:
        return rewarded(character_model, tmp_path / name, deterministic=True, updatesPerBatch=3)

    run(asked("whole"))
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True

    with monkeypatch.context() as patch:
        add, step = OldLogprobs.add, update_module._step

        def add_and_stop(*arguments: Any) -> None:
            add(*arguments)
            stop()

        def step_and_stop(*arguments: Any) -> None:
            step(*arguments)
            stop()

        if moment == "after the first update":
            patch.setattr(update_module, "_step", step_and_stop)
        else:
            patch.setattr(OldLogprobs, "add", add_and_stop)
        with pytest.raises(Preempted):
            run(asked("cut"), lambda: stopped)
    first = 1 if moment == "after the first update" else 0
    records = read_steps(tmp_path / "cut" / "metrics.jsonl")
    assert [(record.step, record.updates) for record in records] == [(1, 3)] * first
    run(asked("cut"))
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "cut" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    assert [record.loss for record in read_steps(tmp_path / "cut" / "metrics.jsonl")] == [
        record.loss for record in read_steps(tmp_path / "whole" / "metrics.jsonl")
    ]
