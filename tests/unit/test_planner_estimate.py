"""The estimate before a run starts: its steps, tokens, GPU-hours and cost."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_api.status import Estimate
from rft_api.validation import parse
from rft_planner.accelerators import ACCELERATORS
from rft_planner.catalogue import CATALOGUE
from rft_planner.estimate import ASSUMED_PROMPT, Found, RowCounts, estimate, evaluations
from rft_planner.memory import MemoryDemand
from rft_planner.overlap import adapters_in_use
from rft_planner.plan import plan
from rft_planner.shapes import Shape
from rft_planner.speed import (
    GATHERED,
    Lengths,
    Speed,
    Update,
    group_flops,
    sampling_seconds,
    speed_of,
    update_seconds,
    weights_read,
)
from rft_planner.split import smallest
from tests.manifests import manifest

MODEL = "Qwen/Qwen2.5-7B"
H100 = ACCELERATORS["nvidia-h100-80gb"]


def spec(**given: Any) -> RFTJobSpec:
    return parse(manifest(**given)).spec


def speed(model: str = MODEL) -> Speed:
    split = smallest(CATALOGUE[model], MemoryDemand(32, 4096, 8), H100.memory)
    assert split is not None
    return speed_of(split, H100, H100.memory)


USUAL = speed()


def found(
    given: RFTJobSpec, rows: RowCounts | None, shape: Shape = CATALOGUE[MODEL], fast: Speed | None = USUAL
) -> Found:
    return estimate(given, effective(given, "uid"), shape, fast, rows)


def test_steps_and_tokens_follow_from_rows_lengths_and_epochs() -> None:
    given = spec(
        training={"epochs": 2, "batchSizeTokens": 8000},
        sampling={"numRollouts": 4, "maxTokens": 200},
    )
    made = found(given, RowCounts(train=95, evaluation=32, prompt_tokens=100)).estimate
    assert (made.prompts_per_step, made.steps_per_epoch, made.steps) == (10, 10, 20)
    assert (made.prompt_tokens, made.completion_tokens) == (2 * 95 * 4 * 100, 2 * 95 * 4 * 100)


def turns(**environment: Any) -> RFTJobSpec:
    return spec(
        training={"epochs": 1, "batchSizeTokens": 8000, "maxContextLength": 2048},
        sampling={"numRollouts": 4, "maxTokens": 200},
        environment={"python": {"inline": "x"}, **environment},
    )


def test_an_environment_counts_the_tokens_of_all_turns() -> None:
    rows = RowCounts(train=95, evaluation=32, prompt_tokens=100)
    made = found(turns(maxTurns=4), rows)
    assert made.estimate.prompts_per_step == 4
    assert made.estimate.completion_tokens == 95 * 4 * 400
    assert found(turns(maxTurns=8, maxTokens=800), rows).estimate == made.estimate
    assert "half of 800 tokens in all their turns" in made.notes[0]
    assert made.notes[1].startswith("a rollout has up to 4 turns with 800 sampled tokens in all, and 16")
    assert "2048 tokens long" in found(turns(maxTurns=20), rows).notes[2]


def test_few_rollouts_at_once_take_longer() -> None:
    rows = RowCounts(train=95, evaluation=32, prompt_tokens=100)
    one, sixteen = (found(turns(maxTurns=4, concurrency=n), rows).estimate for n in (1, 16))
    assert one.sampling_seconds is not None
    assert sixteen.sampling_seconds is not None
    assert one.sampling_seconds > 6 * sixteen.sampling_seconds
    assert one.update_seconds == sixteen.update_seconds


def test_max_steps_may_end_the_run_within_an_epoch() -> None:
    given = spec(
        training={"epochs": 2, "batchSizeTokens": 8000},
        sampling={"numRollouts": 4, "maxTokens": 200},
        stop={"maxSteps": 12},
    )
    made = found(given, RowCounts(train=95, evaluation=32, prompt_tokens=100))
    assert made.estimate.steps == 12
    assert made.estimate.prompt_tokens == (95 + 2 * 10) * 4 * 100
    assert made.notes[0].startswith("12 steps, by stop.maxSteps, of about 20 steps")


def test_without_rows_the_steps_are_known_only_with_max_steps() -> None:
    unbounded = found(spec(), None)
    assert unbounded.estimate.steps is None
    assert unbounded.estimate.gpu_hours is None
    assert unbounded.estimate.seconds_per_step is not None
    assert any("stop.maxSteps" in note for note in unbounded.notes)
    bounded = found(spec(stop={"maxSteps": 30}), None)
    assert bounded.estimate.steps == 30
    assert bounded.estimate.gpu_hours is not None
    assert any(f"{ASSUMED_PROMPT} tokens" in note for note in bounded.notes)


def test_with_separate_gpus_the_phases_overlap_unless_the_job_forbids_it() -> None:
    apart = replace(USUAL, gpus=2)
    rows = RowCounts(1000, 100, 100)

    def made(fast: Speed, **training: Any) -> Estimate:
        return found(spec(training=training), rows, fast=fast).estimate

    def parts(one: Estimate) -> tuple[float, float]:
        assert one.sampling_seconds is not None
        assert one.update_seconds is not None
        return one.sampling_seconds, one.update_seconds

    alone, together = made(USUAL), made(apart)
    assert alone.seconds_per_step == pytest.approx(sum(parts(alone)), rel=0.05)
    assert together.seconds_per_step == max(parts(together))
    assert made(apart, maxStaleness=4) == together
    for forbidden in (
        {"maxStaleness": 0},
        {"deterministic": True},
        {"deterministic": True, "maxStaleness": 4},
    ):
        in_turn = made(apart, **forbidden)
        assert in_turn.seconds_per_step == pytest.approx(sum(parts(in_turn)), rel=0.05)
        assert in_turn.gpu_hours is not None
        assert together.gpu_hours is not None
        assert together.gpu_hours < in_turn.gpu_hours


@pytest.mark.parametrize(
    ("fields", "apart", "adapters"),
    [
        ({}, True, 1),
        ({"training": {"maxStaleness": 4}}, True, 4),
        ({"training": {"maxStaleness": 4}}, False, 1),
        ({"training": {"maxStaleness": 4, "deterministic": True}}, True, 1),
        ({"training": {"maxStaleness": 0}}, True, 1),
        ({"training": {"maxStaleness": 4}, "sampling": {"engine": "transformers"}}, True, 1),
        ({"training": {"maxStaleness": 4}, "environment": {"python": {"inline": "x"}}}, True, 1),
    ],
)
def test_the_sampler_uses_an_adapter_for_each_batch_that_is_in_it(
    fields: dict[str, Any], apart: bool, adapters: int
) -> None:
    assert adapters_in_use(spec(**fields), apart) == adapters


def test_the_plan_has_memory_for_the_adapters_of_all_batches() -> None:
    def slots(most: int) -> float:
        given = spec(model={"name": MODEL}, training={"maxStaleness": most}, resources={"gpus": 3})
        made = plan(given, "uid")
        assert (made.trainer_gpus, made.sampler_gpus) == (1, 2), "the roles must be apart"
        return next(p.mebibytes for p in made.memory_parts or [] if p.name == "sampling: adapter slots")

    assert slots(4) == pytest.approx(2.5 * slots(1), rel=0.01)


def test_without_known_rates_there_are_no_hours() -> None:
    made = found(spec(), RowCounts(1000, 100, 100), fast=None).estimate
    assert made.steps is not None
    assert (made.seconds_per_step, made.gpu_hours, made.cost) == (None, None, None)


def test_the_cost_is_hours_times_price() -> None:
    priced = spec(resources={"pricePerGpuHour": 2.5})
    made = found(priced, RowCounts(1000, 100, 100)).estimate
    assert made.gpu_hours is not None
    assert made.cost == pytest.approx(2.5 * made.gpu_hours, rel=0.1)
    assert found(spec(), RowCounts(1000, 100, 100)).estimate.cost is None


def test_the_estimate_has_hours_for_the_longest_completions_too() -> None:
    made = found(spec(), RowCounts(1000, 100, 100))
    assert made.estimate.gpu_hours is not None
    assert made.estimate.gpu_hours_if_longest is not None
    assert made.estimate.gpu_hours_if_longest > made.estimate.gpu_hours
    assert any("not measured" in note and "2048 tokens" in note for note in made.notes)


def test_a_note_names_max_gpu_hours_if_it_may_end_the_run() -> None:
    def said(hours: float) -> bool:
        notes = found(spec(stop={"maxGpuHours": hours}), RowCounts(1000, 100, 100)).notes
        return any("spec.stop.maxGpuHours" in note for note in notes)

    assert said(0.01)
    assert not said(1000)


@pytest.mark.parametrize(
    ("every", "steps", "count"), [(None, 100, 2), (10, 100, 11), (10, 9, 2), (10, 11, 3)]
)
def test_evaluations_are_counted_before_after_and_during_the_run(
    every: int | None, steps: int, count: int
) -> None:
    evaluation = {} if every is None else {"everySteps": every}
    assert evaluations(spec(evaluation=evaluation).evaluation, steps) == count


SIZES = st.sampled_from(sorted(CATALOGUE))
TOKENS = ("prompt_tokens", "completion_tokens")
HOURS = ("gpu_hours", "gpu_hours_if_longest", "cost")
ROUNDED = 1.1
"""Estimates are rounded to two digits, so two almost equal estimates may differ by up to this factor."""


def never_less(few: Estimate, many: Estimate) -> None:
    for name in (*TOKENS, *HOURS):
        assert getattr(few, name) <= getattr(many, name), name


def almost_not_less(few: Estimate, many: Estimate) -> None:
    """Check that the estimate ``many`` has at least as many tokens as the estimate ``few``.

    The hours and the cost of ``many`` may be lower than those of ``few``, but only by the amount of one
    step. The reason is the first batch, which is sampled before any training. If ``many`` has smaller steps
    than ``few``, this batch takes less time.
    """
    assert few.steps is not None
    for name in TOKENS:
        assert getattr(few, name) <= getattr(many, name), name
    for name in HOURS:
        assert getattr(few, name) <= (1 + 1 / few.steps) * ROUNDED * getattr(many, name), name


class Amounts(NamedTuple):
    rows: int
    epochs: int
    rollouts: int
    max_tokens: int


AMOUNTS = st.builds(
    Amounts, st.integers(1, 100_000), st.integers(1, 10), st.integers(2, 8), st.integers(16, 8192)
)


def run(amounts: Amounts, prompt: float, model: str, staleness: int) -> Estimate:
    given = spec(
        training={"epochs": amounts.epochs, "klBeta": 0.001, "maxStaleness": staleness},
        sampling={"numRollouts": amounts.rollouts, "maxTokens": amounts.max_tokens},
        resources={"pricePerGpuHour": 1},
    )
    fast = Speed(4, 2, 2, H100.bf16_flops, H100.bandwidth, 16_384, 20e9)
    return found(given, RowCounts(amounts.rows, 64, prompt), CATALOGUE[model], fast).estimate


@pytest.mark.parametrize(
    ("staleness", "holds"),
    [pytest.param(0, never_less, id="in turn"), pytest.param(1, almost_not_less, id="overlapped")],
)
@settings(deadline=None)
@example(Amounts(15, 1, 2, 16), Amounts(15, 1, 3, 16), "HuggingFaceTB/SmolLM2-1.7B", 721)
@given(AMOUNTS, AMOUNTS, SIZES, st.integers(1, 4000))
def test_more_rows_epochs_rollouts_or_tokens_never_take_fewer_hours(
    staleness: int,
    holds: Callable[[Estimate, Estimate], None],
    one: Amounts,
    other: Amounts,
    model: str,
    prompt: int,
) -> None:
    less = Amounts(*map(min, one, other))
    few = run(less, prompt, model, staleness)
    for name, value in zip(Amounts._fields, map(max, one, other), strict=True):
        holds(few, run(less._replace(**{name: value}), prompt, model, staleness))


@settings(deadline=None)
@given(SIZES, st.floats(1, 10), st.floats(1, 10))
def test_faster_gpus_never_take_more_hours(model: str, flops: float, bandwidth: float) -> None:
    given, rows = spec(), RowCounts(1000, 100, 200)
    slow = Speed(2, 1, 1, 1e14, 1e12, 16_384, 20e9)
    fast = replace(slow, flops=flops * 1e14, bandwidth=bandwidth * 1e12)
    before = found(given, rows, CATALOGUE[model], slow).estimate.gpu_hours
    after = found(given, rows, CATALOGUE[model], fast).estimate.gpu_hours
    assert before is not None
    assert after is not None
    assert after <= before


def test_a_divided_base_costs_time_where_gathering_its_layers_takes_longer_than_computing() -> None:
    shape, lengths = CATALOGUE[MODEL], Lengths(1024, 1024, 2048)
    whole = Speed(4, 2, 2, H100.bf16_flops, H100.bandwidth, 16_384, 20e9)

    def seconds(link: float | None, reference: bool = False) -> float:
        update = Update(4, 0, reference=reference)
        return update_seconds(shape, replace(whole, link=link), lengths, 8, update)

    assert seconds(H100.link) == seconds(None)
    # Each of the two trainers computes two of the four micro-batches. For each pass of a micro-batch it
    # receives the other half of the layers, in bfloat16. There are two passes, forward and backward. A
    # reference policy adds a third one.
    layers = shape.parameters - 2 * shape.embedding_parameters
    for reference, times in ((False, 2), (True, 3)):
        gathered = 2 * times * 2 * layers / 2
        assert seconds(1e9, reference) == pytest.approx(gathered / (1e9 * GATHERED), rel=1e-4)
        assert seconds(1e9, reference) > 2 * seconds(None, reference)


def test_the_reference_policy_costs_a_forward_pass() -> None:
    def seconds(beta: float) -> float:
        made = found(spec(training={"klBeta": beta}), RowCounts(1000, 100, 100)).estimate.update_seconds
        assert made is not None
        return made

    assert 1.2 < seconds(0.001) / seconds(0) < 1.4


@pytest.mark.parametrize(("updates", "share"), [(2, 1 / 2), (4, 3 / 4)])
def test_updates_after_the_first_cost_a_forward_pass_of_their_rows(updates: int, share: float) -> None:
    def seconds(**training: Any) -> float:
        made = found(spec(training=training), RowCounts(1000, 100, 100)).estimate.update_seconds
        assert made is not None
        return made

    one, reference = seconds(klBeta=0), seconds(klBeta=0.001)
    wanted = one + share * (reference - one)
    assert seconds(klBeta=0, updatesPerBatch=updates) == pytest.approx(wanted, rel=0.05)


def test_a_step_of_one_prompt_has_one_update() -> None:
    def made(updates: int) -> Estimate:
        training = {"batchSizeTokens": 1024, "maxContextLength": 1024, "updatesPerBatch": updates}
        given = spec(training=training, sampling={"maxTokens": 900})
        return found(given, RowCounts(1000, 100, 100)).estimate

    assert made(1).prompts_per_step == 1
    assert made(4) == made(1)


def test_refills_sample_up_to_their_rounds_and_never_more_than_the_epochs_rows() -> None:
    def most(rounds: int, steps: int) -> float:
        given = spec(training={"refillRounds": rounds}, stop={"maxSteps": steps})
        made = found(given, RowCounts(1000, 100, 100)).estimate
        assert made.gpu_hours_if_longest is not None
        return made.gpu_hours_if_longest

    assert most(0, 20) < most(1, 20) < most(3, 20)
    usual = found(spec(training={"refillRounds": 3}), RowCounts(1000, 100, 100))
    plain = found(spec(), RowCounts(1000, 100, 100))
    assert usual.estimate == plain.estimate, "each row is sampled once per epoch, with or without refills"
    assert any("refillRounds 3" in note and "4 times" in note for note in usual.notes)
    assert not any("refill" in note for note in plain.notes)


def test_a_shared_row_is_cheaper_for_short_completions_of_a_long_prompt() -> None:
    shape, update = CATALOGUE[MODEL], Update(8, 0, reference=False)
    lengths = Lengths(2000, 50, 100)
    shared = group_flops(shape, speed(), lengths, update)
    apart = group_flops(shape, replace(speed(), micro_batch=2050), lengths, update)
    assert apart / shared > 5


def test_a_mixture_reads_only_the_experts_in_use() -> None:
    mixture = CATALOGUE["Qwen/Qwen3-30B-A3B"]
    assert weights_read(mixture, 1) == pytest.approx(2 * mixture.active_parameters, rel=0.01)
    assert weights_read(mixture, 256) == pytest.approx(2 * mixture.parameters, rel=0.01)


def test_the_estimated_training_rate_is_near_a_published_one() -> None:
    # prime-rl published 6,229 tokens/s for LoRA on a 4B model with 16k tokens on one H100. Our estimate is
    # lower, because our formula also counts the pairs of tokens that the causal mask hides.
    one = Speed(1, 1, 1, H100.bf16_flops, H100.bandwidth, 16_384, 0)
    shape = CATALOGUE["Qwen/Qwen3-4B"]
    made = group_flops(shape, one, Lengths(0, 16_384, 16_384), Update(1, 0, reference=False))
    rate = 16_384 * 0.25 * H100.bf16_flops / made
    assert 0.5 < rate / 6229 < 1


@pytest.mark.parametrize(("kind", "share"), [("nvidia-h100-80gb", 0.27), ("nvidia-l4-24gb", 0.81)])
def test_the_estimated_decoding_time_is_within_twice_a_published_one(kind: str, share: float) -> None:
    # ``share`` is from Chen 2026: the fraction of the memory bandwidth that models of 7B to 8B reach when
    # they decode one sequence.
    device, shape = ACCELERATORS[kind], CATALOGUE[MODEL]
    one = Speed(1, 1, 1, device.bf16_flops, device.bandwidth, 16_384, 1e9)
    planned = sampling_seconds(shape, one, Lengths(2048, 100, 100), 1, 0, 1) / 100
    published = 2 * shape.parameters / device.bandwidth / share
    assert 0.5 < planned / published < 2


ROWS_OF_A_RUN = RowCounts(train=1000, evaluation=100, prompt_tokens=100)


def in_plan(resources: dict[str, Any], shape: Shape | None = None) -> Estimate:
    given = spec(model={"name": MODEL}, resources=resources)
    made = plan(given, "uid", shape=shape, rows=ROWS_OF_A_RUN).estimate
    assert made is not None
    return made


def test_the_plan_has_the_estimate_and_its_notes() -> None:
    made = plan(spec(model={"name": MODEL}), "uid", rows=ROWS_OF_A_RUN)
    assert made.estimate is not None
    assert made.estimate.steps == made.estimate.steps_per_epoch
    assert made.estimate.gpu_hours is not None
    assert any("GPU-hours" in note for note in made.notes or [])


@pytest.mark.parametrize(
    "resources",
    [{"gpus": 0}, {"accelerator": {"name": "cpu"}}, {"accelerator": {"memory": "79Gi"}}],
)
def test_the_cpu_and_unknown_kinds_have_steps_and_tokens_but_no_hours(resources: dict[str, Any]) -> None:
    made = in_plan(resources)
    assert made.steps is not None
    assert made.completion_tokens is not None
    assert (made.seconds_per_step, made.gpu_hours) == (None, None)


def test_a_faster_accelerator_takes_fewer_hours() -> None:
    fast = in_plan({"accelerator": {"name": "nvidia-h200-141gb"}}).gpu_hours
    slow = in_plan({"accelerator": {"name": "nvidia-a100-80gb"}}).gpu_hours
    assert fast is not None
    assert slow is not None
    assert fast < slow


def test_a_given_shape_takes_precedence_over_the_models_name() -> None:
    small, own = in_plan({}, CATALOGUE["Qwen/Qwen2.5-0.5B"]).gpu_hours, in_plan({}).gpu_hours
    assert small is not None
    assert own is not None
    assert small < own


def test_no_completion_is_expected_to_be_longer_than_the_context() -> None:
    made = found(
        turns(maxTurns=64, maxTokens=64 * 200), RowCounts(train=95, evaluation=32, prompt_tokens=100)
    )
    assert made.estimate.completion_tokens is not None
    assert made.estimate.completion_tokens / (95 * 4) <= 2048
    assert made.estimate.gpu_hours is not None
    assert made.estimate.gpu_hours_if_longest is not None
    assert made.estimate.gpu_hours_if_longest >= made.estimate.gpu_hours
