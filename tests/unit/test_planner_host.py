"""The memory of a run on a CPU: what is recommended, the minimum, and which memory requests are refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_api.status import Plan
from rft_api.validation import parse
from rft_planner import host
from rft_planner.container import FORCE_ANNOTATION, memory_check_disabled
from rft_planner.memory import MemoryDemand
from rft_planner.plan import Unplannable, plan
from rft_planner.shapes import Shape
from rft_planner.sizes import mib, quantity
from tests.manifests import manifest

SMALL = Shape(30, 576, 1536, 9, 3, 64, 49_152, tied=True, context=8192)
SHORT: dict[str, Any] = {"training": {"maxContextLength": 256}, "sampling": {"maxTokens": 128}}


def on_cpu(memory: str | None = None, *, force: bool = False, **spec: Any) -> Plan:
    resources = {"gpus": 0} | ({"memory": memory} if memory else {})
    document = manifest(model={"name": "SmolLM2-135M"}, resources=resources, **(SHORT | spec))
    return plan(parse(document).spec, "uid", force_memory=force)


def run(
    context: int = 256, rank: int = 8, rollouts: int = 4, batch: int = 4096, **changes: Any
) -> host.HostRun:
    usual: dict[str, Any] = {
        "max_tokens": 128, "batch_tokens": batch, "reference": True, "sorts": False,
        "unfiltered": False, "in_process": False,
    }  # fmt: skip
    return host.HostRun(work=MemoryDemand(rank, context, rollouts), **(usual | changes))


def least(shape: Shape, of: host.HostRun) -> float:
    return list(host.sizes(shape, of))[-1].memory


def test_a_plan_for_the_cpu_has_the_sum_the_minimum_and_the_trainers_settings() -> None:
    made = on_cpu()
    assert made.memory_parts is not None
    assert quantity(made.memory or "") == pytest.approx(
        2**20 * sum(part.mebibytes for part in made.memory_parts), abs=2**21
    )
    assert quantity(made.least_memory or "") < quantity(made.memory or "")
    assert (made.micro_batch_tokens, made.sampler_cache_tokens, made.forced) == (1024, 32_768, False)
    weights = next(part for part in made.memory_parts if part.name == "sampling: base weights")
    assert weights.mebibytes == pytest.approx(4 * 134.5e6 / 2**20, rel=0.001)


def test_less_memory_than_recommended_gives_smaller_micro_batch_and_cache() -> None:
    comfortable = on_cpu()
    between = (quantity(comfortable.memory or "") + quantity(comfortable.least_memory or "")) / 2
    made = on_cpu(mib(between))
    assert made.memory == mib(between)
    assert 256 <= (made.micro_batch_tokens or 0) < 1024
    assert any("are recommended" in note for note in made.notes or [])


def test_the_minimum_is_a_micro_batch_of_one_sequence_and_a_cache_for_one_group() -> None:
    made = on_cpu(on_cpu().least_memory)
    assert (made.micro_batch_tokens, made.sampler_cache_tokens, made.forced) == (256, 4 * 256, False)


def test_three_quarters_of_the_minimum_are_refused_with_sum_and_parameters() -> None:
    short = mib(0.75 * quantity(on_cpu().least_memory or ""))
    with pytest.raises(Unplannable, match=f"spec.resources.memory: {short} is less than the") as refusal:
        on_cpu(short)
    assert refusal.value.reason == "DoesNotFit"
    for said in (
        "saved activations",
        "training.maxContextLength",
        "training.loraRank",
        "sampling.numRollouts",
    ):
        assert said in str(refusal.value)


def test_too_little_memory_is_accepted_if_forced_and_noted_in_the_plan() -> None:
    short = mib(0.75 * quantity(on_cpu().least_memory or ""))
    made = on_cpu(short, force=True)
    assert (made.memory, made.forced, made.micro_batch_tokens) == (short, True, 256)
    assert any("likely to run out of memory" in note for note in made.notes or [])
    assert on_cpu(force=True).forced is False


@pytest.mark.parametrize(
    ("value", "forced"), [("true", True), ("false", False), ("yes", False), (None, False)]
)
def test_only_the_annotation_value_true_disables_the_check(value: str | None, forced: bool) -> None:
    assert memory_check_disabled({FORCE_ANNOTATION: value} if value else {}) is forced
    assert memory_check_disabled(None) is False


def test_an_unknown_model_on_the_cpu_needs_its_size_or_the_memory() -> None:
    document = manifest(model={"name": "org/secret"}, resources={"gpus": 0})
    with pytest.raises(Unplannable, match=r"spec\.resources\.memory") as refusal:
        plan(parse(document).spec, "uid")
    assert refusal.value.reason == "UnknownModel"


def test_adapting_only_attention_or_having_no_reference_needs_less_memory() -> None:
    whole = on_cpu()
    attention = on_cpu(training=SHORT["training"] | {"loraTargets": "attention"})
    assert quantity(attention.least_memory or "") < quantity(whole.least_memory or "")
    assert least(SMALL, run(reference=False)) < least(SMALL, run())


def test_top_p_without_top_k_needs_more_memory_for_sorting() -> None:
    sorting = on_cpu(sampling=SHORT["sampling"] | {"topK": 0, "topP": 0.9})
    assert quantity(sorting.least_memory or "") > quantity(on_cpu().least_memory or "")


SHAPES = st.builds(
    Shape,
    layers=st.integers(1, 40), hidden=st.sampled_from([64, 576, 2048]), intermediate=st.integers(64, 8192),
    heads=st.sampled_from([1, 8, 32]), kv_heads=st.just(1), head_dim=st.sampled_from([64, 128]),
    vocabulary=st.integers(16, 200_000),
)  # fmt: skip


@given(SHAPES, st.sampled_from(["context", "rank", "rollouts"]), st.integers(1, 64), st.integers(1, 64))
def test_more_context_rank_or_rollouts_never_need_less_memory(
    shape: Shape, what: str, one: int, other: int
) -> None:
    scale = {"context": 64, "rank": 1, "rollouts": 1}[what]
    smaller, larger = (run(**{what: scale * value}) for value in sorted((one, other)))
    assert least(shape, smaller) <= least(shape, larger)


@given(SHAPES, st.integers(1, 8192), st.integers(2, 8), st.integers(1024, 65_536))
def test_possible_sizes_decrease_from_the_recommended_to_the_minimum(
    shape: Shape, context: int, rollouts: int, batch: int
) -> None:
    found = list(host.sizes(shape, run(context=context, rollouts=rollouts, batch=batch)))
    memories = [size.memory for size in found]
    assert memories == sorted(memories, reverse=True)
    assert found[-1].micro_batch == context
    assert found[-1].cache_tokens == min(rollouts * context, found[0].cache_tokens)


def test_grader_and_tracker_processes_are_part_of_the_sum() -> None:
    plain = quantity(on_cpu().memory or "")
    symbolic = [{"name": "right", "math": {}}, {"name": "shape", "jsonSchema": {"schema": "{}"}}]
    with_workers = on_cpu(graders=symbolic, tracking={"tensorboard": {}})
    found = next(part for part in with_workers.memory_parts or [] if part.name == "graders and trackers")
    assert found.mebibytes == 4 * 190 + 35
    assert quantity(with_workers.memory or "") > plain
