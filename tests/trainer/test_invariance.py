"""Training on equal rollouts gives the same adapter, even if batches are divided or runs interrupted."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from bench.cpu_kernels import ON_CPU
from rft_api.parameters import Training
from rft_graders.types import Score
from rft_run.folder import RunFolder
from rft_run.state import RunState
from rft_trainer.checkpoint import Checkpoints, Fence
from rft_trainer.data import Prompt, Row
from rft_trainer.learn import attention
from rft_trainer.learn.attention import Forms
from rft_trainer.learn.gradients import UpdateSettings
from rft_trainer.learn.objective import settings_for
from rft_trainer.learn.optimizer import Schedule, make_optimizer
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.learn.ranks import Followers
from rft_trainer.learn.update import update
from rft_trainer.rollout.advantages import group_advantages
from rft_trainer.rollout.engine import Generated
from rft_trainer.rollout.filter import Filter
from rft_trainer.rollout.groups import Group, Rollout

STEPS = 20
TOLERANCE = {"float64": 1e-8, "float32": 1e-4}
"""Largest allowed difference of an adapter weight, divided by the largest change of a weight in training."""
CLIPPED, UNCLIPPED = 0.05, 1e9
"""Two limits for the gradient norm. The norm exceeds the first limit in every step, the second in none."""

SETTINGS = UpdateSettings(
    filter=Filter(0.9, 8, 0.95),
    loss=settings_for("grpo", 0.2, 0.2, 0.05, "token"),
    max_tokens=16,
    micro_batch_tokens=1024,
    longest_shared_row=None,
    max_grad_norm=CLIPPED,
    mask_truncated=True,
)
TRAINING = Training(lora_rank=4, lora_alpha=8, learning_rate=5e-4, schedule="cosine", warmup_steps=3)

Batch = list[Group]


@dataclass(frozen=True)
class Way:
    """A way to compute the training steps. All ways must give the same adapter."""

    micro_batch_tokens: int = 1024
    order: Callable[[Batch, random.Random], Batch] = lambda batch, _: batch
    """A function that returns a batch in the order in which it is trained. It may use random numbers."""
    shares_prompts: bool = True
    flat: bool = False
    restart_after: int | None = None
    """After this step the state is saved, and loaded into a new policy and a new optimizer. None: never."""


def shuffled(batch: Batch, draw: random.Random) -> Batch:
    """Return the groups in another order, and the rollouts of each group in another order."""
    return [_reordered(group, draw) for group in draw.sample(batch, len(batch))]


def _reordered(group: Group, draw: random.Random) -> Group:
    pairs = list(zip(group.accepted, group.advantages, strict=True))
    rollouts, advantages = zip(*draw.sample(pairs, len(pairs)), strict=True)
    return replace(group, rollouts=rollouts, accepted=rollouts, advantages=advantages)


WAYS = {
    "micro-batches of 96 tokens": Way(micro_batch_tokens=96),
    "every row accumulated alone": Way(micro_batch_tokens=1),
    "another order of groups and rollouts": Way(order=shuffled, micro_batch_tokens=96),
    "a prompt for every rollout": Way(shares_prompts=False),
    "rows one after another, as on a GPU": Way(micro_batch_tokens=96, flat=True),
    "a restart in the middle": Way(restart_after=10),
    "all of it at once": Way(96, shuffled, shares_prompts=False, restart_after=7),
}
WITHOUT_CLIPPING = ("a restart in the middle", "all of it at once")


def recorded(steps: int) -> list[Batch]:
    """Return ``steps`` batches of invented rollouts with different lengths.

    Some rollouts are truncated, and one group of each batch has equal rewards.
    """
    draw = random.Random(11)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw.randrange(1, 15) for _ in range(draw.randint(least, most)))

    def rollout(value: float) -> Rollout:
        ids = tokens(1, 10)
        sampled = tuple(-3 * draw.random() for _ in ids)
        ending = "length" if draw.random() < 0.1 else "stop"
        return Rollout(Generated(ids, sampled, "", ending), Score(value))  # type: ignore[arg-type]

    def group(rewards: Sequence[float]) -> Group:
        rollouts = tuple(map(rollout, rewards))
        prompt = Prompt(Row(1, [], {}, ""), tokens(8, 20))
        return Group(prompt, rollouts, rollouts, tuple(group_advantages(rewards, "std")))

    return [[group([1.0, 0.0, draw.random()]), group([0.5] * 3), group([0.0, 1.0])] for _ in range(steps)]


def fresh(model: Path, dtype: str) -> tuple[Policy, torch.optim.Optimizer, Schedule]:
    policy = Policy(PolicyOptions(model, TRAINING, "cpu", dtype, 3))
    optimizer = make_optimizer(policy.trainable(), TRAINING)
    return policy, optimizer, Schedule(optimizer, TRAINING)


def trained(
    model: Path, folder: Path, dtype: str, norm: float, way: Way
) -> tuple[Tensor, Tensor, list[float]]:
    """Train in this way. Return three values:

    - the adapter's weights before the training, as a vector;
    - the adapter's weights after the training, as a vector;
    - the gradient norm of each step.

    ``norm`` is the limit for the gradient norm.
    """
    folder.mkdir(parents=True)
    settings = replace(SETTINGS, micro_batch_tokens=way.micro_batch_tokens, max_grad_norm=norm)
    checkpoints, draw, norms = (
        Checkpoints(RunFolder(folder), 1, Fence(RunFolder(folder))),
        random.Random(5),
        [],
    )
    policy, optimizer, schedule = fresh(model, dtype)
    before = flat(policy)
    for step, batch in enumerate(recorded(STEPS), start=1):
        policy.shares_prompts = policy.shares_prompts and way.shares_prompts
        if way.flat and not policy.forms.flat:
            policy._use(Forms("sequences", "blocks"))
            assert policy.forms.flat
        schedule.set(step, STEPS)
        groups = way.order(batch, draw)
        made = update(policy, optimizer, groups, settings, lambda: False, Followers(1, "cpu", None))
        norms.append(made.grad_norm)
        if step == way.restart_after:
            checkpoints.save(RunState(step=step), policy, optimizer, schedule)
            policy, optimizer, schedule = fresh(model, dtype)
            assert checkpoints.load_latest(policy, optimizer, schedule) == RunState(step=step)
    return before, flat(policy), norms


def flat(policy: Policy) -> Tensor:
    return torch.cat([parameter.detach().double().flatten() for parameter in policy.trainable()])


def wide_norm(layer: Any, hidden: Tensor) -> Tensor:
    """Compute the RMS norm in the dtype of ``hidden``. The float32 of transformers is not exact enough."""
    mean = hidden.pow(2).mean(-1, keepdim=True)
    found: Tensor = layer.weight * (hidden * torch.rsqrt(mean + layer.variance_epsilon))
    return found


@pytest.mark.parametrize("norm", [CLIPPED, UNCLIPPED], ids=["clipped", "unclipped"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_adapter_does_not_depend_on_how_the_steps_are_computed(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, norm: float
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(attention, "KERNELS", ON_CPU)
    if dtype == "float64":
        monkeypatch.setattr(LlamaRMSNorm, "forward", wide_norm)
    before, expected, norms = trained(character_model, tmp_path / "plain", dtype, norm, Way())
    assert all((found > norm) == (norm == CLIPPED) for found in norms)
    total = (expected - before).abs().max()
    for name in WAYS if norm == CLIPPED else WITHOUT_CLIPPING:
        _, found, _ = trained(character_model, tmp_path / name, dtype, norm, WAYS[name])
        difference = float((found - expected).abs().max() / total)
        assert difference < TOLERANCE[dtype], name


def test_a_group_with_equal_rewards_costs_no_forward_pass_without_a_kl_penalty(
    character_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, optimizer, _ = fresh(character_model, "float32")
    monkeypatch.setattr(Policy, "hidden", None)
    settings = replace(SETTINGS, loss=settings_for("grpo", 0.2, 0.2, 0.0, "token"))
    groups = [batch[1] for batch in recorded(2)]
    made = update(policy, optimizer, groups, settings, lambda: False, Followers(1, "cpu", None))
    assert (made.forward_tokens, made.steps) == (0, 0)
    assert made.entropy is None, "no entropy is computed, so it must be None, not 0"
