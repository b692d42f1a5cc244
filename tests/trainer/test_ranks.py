"""Training in several processes, connected by gloo, has the same results as training in one process."""

import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from rft_api.parameters import Training
from rft_api.status import Plan, TrainerBase
from rft_graders.types import Score
from rft_run.errors import MemoryExhausted, ModelError
from rft_trainer.data import Prompt, Row
from rft_trainer.engines import base_divided
from rft_trainer.learn.gradients import Begin, UpdateSettings
from rft_trainer.learn.objective import settings_for, whole_batch
from rft_trainer.learn.packing import Completion, PackedRow, micro_batches
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.learn.ranks import ALONE, Followers, MemberLost, _error_of
from rft_trainer.learn.update import accumulate, rounds, update
from rft_trainer.learn.update_metrics import UpdateMetrics
from rft_trainer.loop import Run
from rft_trainer.rollout.engine import Generated
from rft_trainer.rollout.filter import Filter
from rft_trainer.rollout.groups import Group, Rollout
from rft_trainer.runtime import machine
from rft_trainer.runtime.device import set_deterministic
from tests.trainer.loop_support import config, run, with_spec

SETTINGS = UpdateSettings(
    filter=Filter(1.0, 5, 1.0),
    loss=settings_for("grpo", 0.2, 0.2, 0.01, "token"),
    max_tokens=16,
    micro_batch_tokens=48,
    longest_shared_row=48,
    max_grad_norm=1.0,
    mask_truncated=False,
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def some_rows(count: int) -> list[PackedRow]:
    draw = random.Random(7)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(2, 15) for _ in range(length))

    def completion() -> Completion:
        length = draw.randrange(2, 12)
        return Completion(tokens(length), tuple(-draw.random() for _ in range(length)), draw.gauss(0, 1))

    return [PackedRow(tokens(draw.randrange(3, 9)), (completion(), completion())) for _ in range(count)]


@contextmanager
def team(size: int, options: PolicyOptions) -> Iterator[tuple[Followers, Policy]]:
    followers = Followers(size, "cpu", None)
    try:
        with followers.watched():
            yield followers, Policy(options, followers.gather(options))
    finally:
        followers.close()


def gradients(
    policy: Policy, followers: Followers, rows: list[PackedRow], settings: UpdateSettings = SETTINGS
) -> tuple[list[Tensor], Any]:
    lengths = [len(one.ids) for row in rows for one in row.completions]
    work = accumulate(policy, rows, Begin(settings, whole_batch(lengths, 16)), followers, lambda: False)
    return [parameter.grad.clone() for parameter in policy.trainable() if parameter.grad is not None], work


@pytest.fixture(scope="module")
def warm_start(character_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warm")
    policy = Policy(PolicyOptions(character_model, Training(lora_rank=4, lora_alpha=8), "cpu", "float32", 5))
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    policy.save_adapter(folder)
    return folder


@pytest.mark.parametrize("divided", [True, False], ids=["divided", "whole"])
@pytest.mark.parametrize("warm", [False, True], ids=["new", "warm"])
def test_two_processes_compute_the_gradients_of_one_with_a_divided_and_with_a_whole_base(
    character_model: Path, warm_start: Path, divided: bool, warm: bool
) -> None:
    training, rows = Training(lora_rank=4, lora_alpha=8), some_rows(7)
    start = warm_start if warm else None
    options = PolicyOptions(character_model, training, "cpu", "float32", 3, start, divided=divided)
    alone = Policy(options)
    with team(2, options) as (followers, together):
        assert any(isinstance(value, DTensor) for value in together._model.parameters()) == divided
        # In the second round the follower must use the weights that the leader changed.
        for _ in range(2):
            expected, counted = gradients(alone, Followers(1, "cpu", None), rows)
            found, counted_together = gradients(together, followers, rows)
            assert len(found) == len(expected) > 0
            assert max(float(gradient.abs().max()) for gradient in expected) > 1e-4
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)
            assert counted_together.metrics.tokens == counted.metrics.tokens
            wanted = dict(zip(range(20), counted.metrics.sums(), strict=False))
            got = dict(zip(range(20), counted_together.metrics.sums(), strict=False))
            wanted.pop(7), got.pop(7)  # this sum also counts the padding rows of the last round
            assert got == pytest.approx(wanted, rel=1e-4, abs=1e-6)
            with torch.no_grad():
                for policy in (alone, together):
                    for number, parameter in enumerate(policy.trainable()):
                        parameter.add_(0.01 * (number % 3 - 1))


def some_groups(count: int) -> list[Group]:
    draw = random.Random(3)
    groups: list[Group] = []
    for row in some_rows(count):
        rollouts = tuple(
            Rollout(Generated(one.ids, one.sampler_logprobs, "", "stop"), Score(draw.random()))
            for one in row.completions
        )
        advantages = tuple(one.advantage for one in row.completions)
        groups.append(Group(Prompt(Row(1, [], {}, ""), row.prompt_ids), rollouts, rollouts, advantages))
    return groups


@pytest.mark.parametrize("divided", [True, False], ids=["divided", "whole"])
def test_two_updates_of_a_batch_divided_over_processes_are_those_of_one_process(
    character_model: Path, divided: bool
) -> None:
    """Each process keeps the old log-probs of its own micro-batches, also if their number is odd."""
    training = Training(lora_rank=4, lora_alpha=256)
    options = PolicyOptions(character_model, training, "cpu", "float32", 3, divided=divided)
    settings = replace(SETTINGS, mini_batches=2)
    alone = Policy(options)

    def updated(policy: Policy, followers: Followers) -> list[UpdateMetrics]:
        optimizer = torch.optim.SGD(policy.trainable(), lr=0.05)
        batches = [some_groups(7), some_groups(5)]
        return [update(policy, optimizer, one, settings, lambda: False, followers) for one in batches]

    expected = updated(alone, Followers(1, "cpu", None))
    with team(2, options) as (followers, together):
        found = updated(together, followers)
        for one, other in zip(together.trainable(), alone.trainable(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    for made, wanted in zip(found, expected, strict=True):
        assert made.steps == wanted.steps == 2
        assert made.tokens == wanted.tokens
        assert made.clip_fraction == wanted.clip_fraction > 0
        assert made.loss == pytest.approx(wanted.loss, rel=1e-3)
        assert made.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-3)


def test_a_distributed_deterministic_update_is_bitwise_reproducible(character_model: Path) -> None:
    """The second training process uses all cores, but its threads must add numbers in a fixed order."""
    prompt, *drawn = some_rows(200)
    shared = [PackedRow(prompt.prompt_ids, tuple(one for row in drawn for one in row.completions))] * 2
    settings = replace(SETTINGS, micro_batch_tokens=4096, longest_shared_row=4096)
    training = Training(lora_rank=4, lora_alpha=8, deterministic=True)
    options = PolicyOptions(character_model, training, "cpu", "float32", 3)
    set_deterministic(True, "cpu")
    with team(2, options) as (followers, divided):
        found = [gradients(divided, followers, shared, settings)[0] for _ in range(8)]
    for again in found[1:]:
        assert all(map(torch.equal, again, found[0]))


def test_a_distributed_run_agrees_with_one_process_and_its_adapter_can_be_loaded(
    character_model: Path, tmp_path: Path
) -> None:
    def rows(name: str, processes: int) -> list[dict[str, Any]]:
        wanted = config(character_model, tmp_path / name, maxContextLength=128)
        run(wanted.model_copy(update={"plan": Plan(trainer_gpus=processes)}))
        return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]

    for one, other in zip(rows("alone", 1), rows("divided", 2), strict=True):
        for key in ("step", "reward", "loss", "gradNorm", "kl", "entropy", "completionTokens"):
            assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-6), key
    PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(character_model), str(tmp_path / "divided" / "adapter")
    )


def test_a_run_goes_on_from_checkpoints_with_a_divided_and_with_a_whole_base(
    character_model: Path, tmp_path: Path
) -> None:
    def trained(name: str, steps: int, made: Plan) -> Run:
        asked = config(character_model, tmp_path / name, maxContextLength=128)
        asked = with_spec(asked, evaluation={"fraction": 0}, stop={"maxSteps": steps})
        return run(asked.model_copy(update={"plan": made}))

    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]

    trained("alone", 3, Plan(trainer_gpus=1))
    bases: tuple[TrainerBase, ...] = ("divided", "whole", "divided")
    for step, base in enumerate(bases):
        resumed = trained("changed", step + 1, Plan(trainer_gpus=2, trainer_base=base))
        assert resumed.monitors.status.resumed_from_step == step
    for one, other in zip(rows("alone"), rows("changed"), strict=True):
        for key in ("step", "reward", "loss", "gradNorm", "kl", "entropy", "completionTokens"):
            assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-6), key


def test_a_plan_of_an_older_release_divides_the_base(character_model: Path, tmp_path: Path) -> None:
    asked = config(character_model, tmp_path)
    older = Plan.model_validate({"gpus": 4, "device": "cuda", "trainerGpus": 2, "samplerGpus": 2})
    assert base_divided(asked)
    assert base_divided(asked.model_copy(update={"plan": older}))
    for base in ("divided", "whole"):
        planned = older.model_copy(update={"trainer_base": base})
        assert base_divided(asked.model_copy(update={"plan": planned})) == (base == "divided")


def test_a_killed_follower_ends_the_update_and_is_named(character_model: Path) -> None:
    options = PolicyOptions(character_model, Training(lora_rank=4, lora_alpha=8), "cpu", "float32", 3)
    with team(2, options) as (followers, policy):
        os.kill(followers._members[0][0].pid, signal.SIGKILL)
        with pytest.raises(MemberLost, match="training process 1 was killed by SIGKILL"):
            gradients(policy, followers, some_rows(7))


def test_the_error_of_a_follower_that_cannot_start_is_raised(tmp_path: Path) -> None:
    options = PolicyOptions(tmp_path / "nothing", Training(), "cpu", "float32", 3)
    with pytest.raises(ModelError, match="nothing"), team(2, options):
        pass


def test_followers_end_with_their_leader(character_model: Path) -> None:
    options = PolicyOptions(character_model, Training(lora_rank=4, lora_alpha=8), "cpu", "float32", 3)
    with team(2, options) as (followers, _policy):
        process = followers._members[0][0]
        followers._closing = True  # so that the end of the process is no error
        followers._members[0][1].close()
        assert process.wait(30) == 0


def test_out_of_memory_in_a_follower_raises_memory_exhausted() -> None:
    assert isinstance(_error_of(2, 13, "CUDA out of memory"), MemoryExhausted)
    assert str(_error_of(2, 1, "")) == "training process 2 ended with code 1"


@given(st.integers(0, 30), st.integers(1, 9), st.integers(20, 200))
def test_all_processes_make_equally_many_passes_and_every_row_counts_once(
    count: int, processes: int, tokens: int
) -> None:
    rows = some_rows(count)
    made = list(rounds(rows, tokens, processes))
    assert all(len(one) == processes for one in made)
    chunks = [chunk for one in made for chunk in one]
    counting = [row for chunk in chunks for row in chunk if not all(one.masked for one in row.completions)]
    assert sorted(map(hash, counting)) == sorted(map(hash, rows))
    assert len(made) == -(-len(list(micro_batches(rows, tokens))) // processes)


def test_a_team_of_one_process_changes_no_tensor() -> None:
    tensor = torch.ones(3)
    ALONE.broadcast([tensor])
    ALONE.sum_to_leader([tensor])
    assert tensor.tolist() == [1, 1, 1]
