"""How a job's GPUs are divided between training and sampling."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_planner.accelerators import ACCELERATORS
from rft_planner.catalogue import CATALOGUE
from rft_planner.memory import (
    USABLE,
    MemoryDemand,
    base_weights,
    gathered_layers,
    sampling,
    total,
    training,
)
from rft_planner.shapes import Shape, estimated
from rft_planner.sizes import GIB
from rft_planner.split import (
    LITTLE_IDLE,
    MAX_GPUS,
    Cost,
    Costs,
    Split,
    choices,
    divisions,
    fitted,
    micro_batches,
    shared,
    smallest,
    tensor_parallel,
)


@pytest.mark.parametrize(
    ("model", "gpus", "size"),
    [
        ("Qwen/Qwen2.5-7B", 1, 1),
        ("Qwen/Qwen2.5-7B", 3, 2),  # 28 heads, 4 key-value heads
        ("Qwen/Qwen2.5-7B", 7, 4),
        ("Qwen/Qwen2.5-0.5B", 7, 2),  # 14 heads, but 2 key-value heads cannot be split over 7
        ("meta-llama/Llama-3.1-70B", 7, 4),
        ("meta-llama/Llama-3.1-70B", 15, 8),
        ("Qwen/Qwen3-30B-A3B", 3, 2),
        ("HuggingFaceTB/SmolLM2-135M", 2, 1),  # 9 heads
    ],
)
def test_tensor_parallel_size_is_the_largest_that_divides_heads_and_columns(
    model: str, gpus: int, size: int
) -> None:
    assert tensor_parallel(gpus, CATALOGUE[model]) == size


@pytest.mark.parametrize("shape", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_every_model_has_a_tensor_parallel_size(shape: Shape) -> None:
    for gpus in range(1, 17):
        size = tensor_parallel(gpus, shape)
        assert 1 <= size <= gpus
        assert shape.heads % size == 0


def work(rank: int = 32, context: int = 4096, rollouts: int = 8) -> MemoryDemand:
    return MemoryDemand(rank, context, rollouts)


@pytest.mark.parametrize("kind", ["nvidia-a100-80gb", "nvidia-h200-141gb"])
@pytest.mark.parametrize("model", CATALOGUE)
def test_a_division_that_fits_has_parts_within_the_memory(model: str, kind: str) -> None:
    memory = ACCELERATORS[kind].memory
    split = smallest(CATALOGUE[model], work(), memory)
    if split is None:
        shape, usable = CATALOGUE[model], USABLE * memory
        assert not any(
            total(training(shape, work(), work().context, MAX_GPUS - size)) <= usable
            and total(sampling(shape, work(), size)) <= usable
            for size in {tensor_parallel(count, shape) for count in range(1, MAX_GPUS)}
        )
        assert not any(shared(MAX_GPUS, shape, work(), memory))
        return
    trained = sum(part.bytes for part in split.parts if part.name.startswith("training"))
    sampled = sum(part.bytes for part in split.parts if part.name.startswith("sampling"))
    assert trained <= USABLE * memory
    assert sampled <= split.sampler_share * memory + 0.01 * memory
    if split.shared:
        assert trained + split.sampler_share * memory <= USABLE * memory
        assert split.sampler_gpus == split.gpus >= split.trainers
    else:
        assert split.trainers + split.sampler_gpus == split.gpus
    assert split.micro_batch >= work().context
    assert split.samplers * split.tensor_parallel == split.sampler_gpus


def costs_of(sampling_seconds: float, update_seconds: float) -> Costs:
    """Return a function that computes the cost of a split.

    One GPU alone would sample for ``sampling_seconds`` and train for ``update_seconds`` in each step. The
    GPUs of a role divide this work equally.
    """

    def costs(split: Split) -> Cost:
        sampled, updated = sampling_seconds / split.sampler_gpus, update_seconds / split.trainers
        whole = sampled + updated if split.shared else max(sampled, updated)
        worked = sampled * split.sampler_gpus + updated * split.trainers
        return Cost(whole, 1 - worked / (split.gpus * whole))

    return costs


def test_several_small_samplers_are_chosen_where_the_model_fits_on_one_gpu() -> None:
    small, memory = CATALOGUE["Qwen/Qwen3-0.6B"], ACCELERATORS["nvidia-h100-80gb"].memory
    split = fitted(8, small, work(), memory, costs_of(70, 10))
    assert split is not None
    assert (split.trainers, split.sampler_gpus, split.samplers, split.shared) == (1, 7, 7, False)


def test_gpus_do_both_in_turns_where_separate_roles_would_wait() -> None:
    small, memory = CATALOGUE["Qwen/Qwen3-0.6B"], ACCELERATORS["nvidia-h100-80gb"].memory
    split = fitted(2, small, work(), memory, costs_of(100, 1))
    assert split is not None
    assert (split.trainers, split.sampler_gpus, split.samplers, split.shared) == (1, 2, 2, True)
    assert costs_of(100, 1)(split).idle < LITTLE_IDLE


def test_a_batch_is_divided_so_that_every_trainer_has_a_micro_batch() -> None:
    asked = MemoryDemand(8, 2048, 4, batch=16_384)
    assert micro_batches(asked)[0] == 16_384
    assert micro_batches(asked, 4)[0] == 4096
    assert micro_batches(asked, 100) == [2048], "a micro-batch must have room for the longest sequence"


def test_training_is_divided_if_it_does_not_fit_on_one_gpu() -> None:
    split = smallest(CATALOGUE["Qwen/Qwen2.5-72B"], work(), ACCELERATORS["nvidia-h100-80gb"].memory)
    assert split is not None
    assert (split.gpus, split.trainers, split.sampler_gpus) == (8, 4, 4)
    parts = {part.name: part.bytes for part in split.parts}
    embeddings = 2 * 2 * 152_064 * 8192
    assert parts["training: base weights"] == pytest.approx(
        (2 * 72.7e9 - embeddings) / 4 + embeddings, rel=0.01
    )
    assert "training: gathered layers" in parts


def test_memory_for_the_adapters_of_several_batches_is_counted_where_roles_are_apart() -> None:
    one, four = (
        [
            (split.shared, split.roles, part.bytes)
            for split in divisions(4, CATALOGUE["Qwen/Qwen2.5-7B"], demand, 80 * GIB)
            for part in split.parts
            if part.name == "sampling: adapter slots"
        ]
        for demand in (work(), replace(work(), adapters=4))
    )
    assert {in_turn for in_turn, *_ in one} == {False, True}
    for (in_turn, roles, alone), (_, other, several) in zip(one, four, strict=True):
        assert roles == other
        assert several == pytest.approx(alone if in_turn else 2.5 * alone)


def divides(model: str, gpus: int, costs: Costs | None = None) -> set[bool]:
    """Return which kinds of splits ``choices`` returns, among those in which several GPUs train.

    True: each of these GPUs has a part of the base model. False: each has the whole base model.
    """
    found = choices(gpus, CATALOGUE[model], work(), ACCELERATORS["nvidia-h100-80gb"].memory, costs)
    return {split.divided for split, _ in found if split.trainers > 1}


def test_a_base_that_fits_is_whole_on_each_gpu_that_trains_and_a_larger_one_is_divided() -> None:
    assert divides("Qwen/Qwen2.5-7B", 4) == {False}
    assert divides("Qwen/Qwen2.5-72B", 8) == {True}
    # On GPUs that sample and train in turns there is no room for the whole base. On separate GPUs there is.
    assert divides("Qwen/Qwen2.5-14B", 4) == {False, True}


def costs_by_base(whole_seconds: float) -> Costs:
    """Return a function that computes the cost of a split.

    A step takes 1 s if the base model is divided among the GPUs that train. It takes ``whole_seconds`` if
    each of these GPUs has the whole base model.
    """
    return lambda split: Cost(1.0 if split.divided else whole_seconds, 0.0)


def test_a_base_that_fits_is_divided_only_where_the_step_is_then_much_shorter() -> None:
    assert divides("Qwen/Qwen2.5-7B", 4, costs_by_base(1.09)) == {False}
    # Some divisions keep the whole base: a divided one would not leave more room for rows or for sampling.
    assert divides("Qwen/Qwen2.5-7B", 4, costs_by_base(1.11)) == {False, True}
    assert divides("Qwen/Qwen2.5-72B", 8, costs_by_base(0.5)) == {True}


@pytest.mark.parametrize("shape", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_a_whole_base_needs_the_memory_of_training_on_one_gpu_and_buffers(shape: Shape) -> None:
    alone = training(shape, work(), 4096)
    whole, divided = (training(shape, work(), 4096, 4, divided) for divided in (False, True))
    assert total(whole) == pytest.approx(total(alone) + GIB)
    names = {part.name for part in whole} - {part.name for part in alone}
    assert names == {"training: communication buffers"}
    assert total(whole) - total(divided) == pytest.approx(
        base_weights(shape) - base_weights(shape, 4) - gathered_layers(shape)
    )


@pytest.mark.parametrize("shape", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_the_shards_of_the_base_together_have_all_its_weights(shape: Shape) -> None:
    alone = base_weights(shape)
    for gpus in range(2, MAX_GPUS):
        assert alone / gpus < base_weights(shape, gpus) < alone
        assert gpus * base_weights(shape, gpus) >= alone


def test_on_a_single_gpu_the_sampler_gets_a_share() -> None:
    split = fitted(1, CATALOGUE["Qwen/Qwen2.5-7B"], work(), ACCELERATORS["nvidia-h100-80gb"].memory)
    assert split is not None
    assert 0.25 < split.sampler_share < 0.6


SHAPES = st.sampled_from(sorted(CATALOGUE)).map(lambda name: CATALOGUE[name])
MEMORY = st.floats(10e9, 400e9)


def gpus(shape: Shape, workload: MemoryDemand, memory: float) -> float:
    split = smallest(shape, workload, memory)
    return split.gpus if split is not None else float("inf")


@given(
    SHAPES, MEMORY, st.integers(1, 32), st.integers(1, 32), st.integers(512, 32_768), st.integers(512, 32_768)
)
def test_more_rank_or_context_never_needs_fewer_gpus(
    shape: Shape, memory: float, rank: int, other_rank: int, context: int, other_context: int
) -> None:
    ranks, contexts = sorted((rank, other_rank)), sorted((context, other_context))
    assert gpus(shape, work(ranks[0], contexts[0]), memory) <= gpus(
        shape, work(ranks[1], contexts[1]), memory
    )


@given(SHAPES, MEMORY, st.integers(2, 64), st.integers(2, 64))
def test_more_rollouts_never_need_fewer_gpus(shape: Shape, memory: float, one: int, other: int) -> None:
    few, many = sorted((one, other))
    assert gpus(shape, work(rollouts=few), memory) <= gpus(shape, work(rollouts=many), memory)


@given(MEMORY, st.floats(1e7, 1e12), st.floats(1e7, 1e12))
def test_more_parameters_never_need_fewer_gpus(memory: float, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert gpus(estimated(small), work(), memory) <= gpus(estimated(large), work(), memory)


@given(SHAPES, MEMORY, MEMORY)
def test_more_memory_never_needs_more_gpus(shape: Shape, one: float, other: float) -> None:
    little, much = sorted((one, other))
    assert gpus(shape, work(), much) <= gpus(shape, work(), little)


def test_memory_sums_are_cached_for_equal_runs_only() -> None:
    shape, other = CATALOGUE["Qwen/Qwen2.5-7B"], CATALOGUE["Qwen/Qwen2.5-0.5B"]
    assert training(shape, work(), 4096, 2) is training(shape, work(), 4096, 2)
    assert sampling(shape, work(), 2) is sampling(shape, work(), 2)
    totals = {total(training(each, work(), tokens, 2)) for each in (shape, other) for tokens in (4096, 8192)}
    assert len(totals) == 4
