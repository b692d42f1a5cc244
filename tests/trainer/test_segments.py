"""Rollouts of several turns: context tokens have no loss, and all segments of a rollout are one sequence."""

import math

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from rft_api.parameters import LossAggregation
from rft_graders.types import Score
from rft_trainer.data import Prompt, Row
from rft_trainer.learn.logprobs import token_logprobs
from rft_trainer.learn.objective import LossInputs, LossOutputs, compute_loss, settings_for, whole_batch
from rft_trainer.learn.packing import MicroBatch, PackedRow, build, completions_by_prompt, rows_of_group
from rft_trainer.rollout.engine import Generated
from rft_trainer.rollout.filter import Filter
from rft_trainer.rollout.groups import Group, Rollout, group_of
from rft_trainer.rollout.segments import Episode, Segment

PROMPT = (5, 6, 7)
MAX_TOKENS = 16


def segment(*parts: tuple[bool, tuple[int, ...]], prompt: tuple[int, ...] = PROMPT) -> Segment:
    sampled = tuple(flag for flag, ids in parts for _ in ids)
    ids = tuple(token for _, tokens in parts for token in tokens)
    return Segment(prompt, ids, tuple(-2.0 if flag else 0.0 for flag in sampled), sampled)


def rollout(reward: float, *segments: Segment) -> Rollout:
    drawn = tuple(
        token for one in segments for token, own in zip(one.token_ids, one.sampled, strict=True) if own
    )
    return Rollout(Generated(drawn, (-2.0,) * len(drawn), "", "stop", Episode(segments)), Score(reward))


TWO_TURNS = segment((True, (8, 9)), (False, (10, 11, 12)), (True, (13, 14, 15)))
FORKED = (segment((True, (8, 9, 20))), segment((True, (16,)), (False, (3,)), (True, (2,)), prompt=(5, 6, 17)))


@pytest.fixture(scope="module")
def group() -> Group:
    rollouts = (rollout(1.0, TWO_TURNS), rollout(0.0, *FORKED))
    return group_of(Prompt(Row(1, [], {}, ""), PROMPT), rollouts, "std")


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return LlamaForCausalLM(config).double().eval()


def rows(group: Group, hidden_size: int | None) -> list[PackedRow]:
    by_prompt = completions_by_prompt(group, mask_truncated=False)
    return [row for prompt, found in by_prompt.items() for row in rows_of_group(prompt, found, hidden_size)]


def hidden_of(model: LlamaForCausalLM, batch: MicroBatch) -> Tensor:
    output = model.model(
        input_ids=batch.tokens_B_T,
        position_ids=batch.positions_B_T,
        attention_mask=batch.attention_B_1_T_T,
        use_cache=False,
    )
    return output.last_hidden_state.flatten(0, 1)


def loss_of(
    model: LlamaForCausalLM, group: Group, aggregation: LossAggregation, hidden_size: int | None
) -> LossOutputs:
    batch = build(rows(group, hidden_size))
    found = token_logprobs(
        hidden_of(model, batch)[batch.source_N], batch.target_N, model.lm_head, Filter(1, 0, 1)
    )
    inputs = LossInputs(
        logprobs_N=found.filtered_N,
        old_logprobs_N=found.filtered_N.detach(),
        sampler_logprobs_N=found.filtered_N.detach(),
        policy_logprobs_N=found.unfiltered_N,
        reference_logprobs_N=None,
        advantages_S=batch.advantages_S.double(),
        sequence_N=batch.sequence_N,
        mask_N=batch.mask_N.double(),
        share_S=batch.share_S.double(),
    )
    lengths = [len(one.generated.token_ids) for one in group.accepted]
    settings = settings_for("grpo", 0.2, 0.2, 0.0, aggregation)
    return compute_loss(inputs, settings, whole_batch(lengths, MAX_TOKENS))


def reference_loss(model: LlamaForCausalLM, group: Group, aggregation: LossAggregation) -> Tensor:
    """Return the loss of a group: the sum of -advantage * log-prob / divisor over the sampled tokens.

    ``aggregation`` determines the divisor. Each segment is computed alone, without the trainer's packing and
    objective.
    """
    total = torch.zeros((), dtype=torch.float64)
    all_tokens = sum(len(one.generated.token_ids) for one in group.accepted)
    for one, advantage in zip(group.accepted, group.advantages, strict=True):
        tokens = len(one.generated.token_ids)
        divisor = {"token": all_tokens, "sequence": tokens * 2, "maxTokens": MAX_TOKENS * 2}[aggregation]
        for part in one.segments:
            text = torch.tensor([part.prompt_ids + part.token_ids])
            logprobs = model(input_ids=text).logits[0].log_softmax(1)
            for place, own in enumerate(part.sampled, start=len(part.prompt_ids)):
                if own:
                    total = total - advantage * logprobs[place - 1, text[0, place]] / divisor
    return total


@pytest.mark.parametrize("aggregation", ["token", "sequence", "maxTokens"])
@pytest.mark.parametrize("hidden_size", [None, 16])
def test_gradients_are_those_of_the_sampled_tokens_of_the_whole_rollout(
    model: LlamaForCausalLM, group: Group, aggregation: LossAggregation, hidden_size: int | None
) -> None:
    model.zero_grad()
    reference_loss(model, group, aggregation).backward()
    wanted = {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }
    model.zero_grad()
    loss_of(model, group, aggregation, hidden_size).loss.backward()
    for name, weight in model.named_parameters():
        if name in wanted:
            torch.testing.assert_close(weight.grad, wanted[name], atol=1e-6, rtol=1e-5)


def test_context_tokens_have_no_gradient_at_all(model: LlamaForCausalLM) -> None:
    lone = group_of(
        Prompt(Row(1, [], {}, ""), PROMPT), (rollout(1.0, TWO_TURNS), rollout(0.0, TWO_TURNS)), "none"
    )
    (row, _) = rows(lone, None)
    batch = build([row])
    assert batch.target_N.tolist() == [8, 9, 13, 14, 15]
    hidden = hidden_of(model, batch).detach().requires_grad_()
    logits = model.lm_head(hidden)
    logits.retain_grad()
    logits[batch.source_N].log_softmax(1).gather(1, batch.target_N[:, None]).sum().backward()
    assert logits.grad is not None
    predicted = batch.source_N.tolist()
    others = [place for place in range(len(logits)) if place not in predicted]
    assert len(others) == 3 + 2  # 3 positions before a context token, 2 before a prompt token
    assert torch.count_nonzero(logits.grad[others]) == 0
    assert all(torch.count_nonzero(logits.grad[place]) > 0 for place in predicted)


def test_segments_of_a_rollout_have_its_advantage_and_share_its_weight(group: Group) -> None:
    batch = build(rows(group, None))
    assert batch.advantages_S[1] == batch.advantages_S[2] == -batch.advantages_S[0]
    assert math.isclose(float(batch.share_S[1:].sum()), 1.0)
    assert batch.share_S.tolist() == pytest.approx([1.0, 3 / 5, 2 / 5])
