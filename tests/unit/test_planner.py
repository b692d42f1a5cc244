"""The plan of a job: the number of GPUs follows from the model's size and the accelerator's memory."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_api.sizes import parameter_count
from rft_api.status import Plan
from rft_api.validation import parse
from rft_planner.accelerators import ACCELERATORS, AMD, NVIDIA, resource_of
from rft_planner.plan import Unplannable, plan
from rft_planner.sizes import gib, quantity
from tests.manifests import manifest


def planned(name: str, **spec: Any) -> Plan:
    parameters = spec.pop("parameters", None)
    model = {"name": name} | ({"parameters": parameters} if parameters else {})
    return plan(parse(manifest(model=model, **spec)).spec, "uid")


@pytest.mark.parametrize(
    ("model", "at_most"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 1),
        ("Qwen/Qwen2.5-7B-Instruct", 1),
        ("Qwen/Qwen2.5-14B-Instruct", 2),
        ("Qwen/Qwen2.5-32B-Instruct", 4),
        ("Qwen/Qwen2.5-72B-Instruct", 8),
    ],
)
def test_models_fit_on_as_many_80_gb_gpus_as_in_public_practice(model: str, at_most: int) -> None:
    for kind in ("nvidia-a100-80gb", "nvidia-h100-80gb"):
        asked = planned(model, training={"loraRank": 32}, resources={"accelerator": {"name": kind}})
        assert 1 <= asked.gpus <= at_most


def test_a_model_that_fits_on_no_node_is_refused_with_the_sum_and_the_fix() -> None:
    with pytest.raises(
        Unplannable, match=r"on 8 GPUs, the most of a node, training needs .* and sampling .*on each"
    ) as refusal:
        planned("meta-llama/Llama-3.1-405B")
    assert refusal.value.reason == "DoesNotFit"
    for field in ("training.maxContextLength", "training.loraRank", "spec.resources.gpus"):
        assert field in str(refusal.value)


def test_the_plan_has_the_memory_parts_and_the_trainers_settings() -> None:
    made = planned("Qwen/Qwen2.5-7B")
    assert made.memory_parts is not None
    assert {part.name.split(":")[0] for part in made.memory_parts} == {"training", "sampling"}
    weights = next(part for part in made.memory_parts if part.name == "training: base weights")
    assert weights.mebibytes == pytest.approx(2 * 7.616e9 / 2**20, rel=0.001)
    assert (made.micro_batch_tokens, made.trainer_gpus, made.sampler_gpus) == (16_384, 1, 1)
    assert made.sampler_memory_share is not None


@pytest.mark.parametrize(
    ("model", "base", "said"),
    [
        ("Qwen/Qwen2.5-7B", "whole", r"each of the \d GPUs that train has the whole base model"),
        ("Qwen/Qwen2.5-72B", "divided", r"the \d GPUs that train divide .* would need 1\d\d\.\d GiB for tra"),
    ],
)
def test_a_plan_says_whether_the_gpus_that_train_divide_the_base(model: str, base: str, said: str) -> None:
    made = planned(model, resources={"gpus": 8})
    assert (made.trainer_gpus or 0) > 1
    assert made.trainer_base == base
    assert any(re.match(said, note) for note in made.notes or [])
    gathered = "training: gathered layers" in {part.name for part in made.memory_parts or []}
    assert gathered == (base == "divided")


def test_a_plan_for_the_cpu_has_no_gpu_settings() -> None:
    made = planned("Qwen/Qwen2.5-7B", resources={"accelerator": {"name": "cpu"}})
    assert (made.gpus, made.device, made.trainer_gpus, made.sampler_memory_share) == (0, "cpu", None, None)


def test_the_number_of_gpus_depends_on_the_accelerators_memory() -> None:
    def gpus(kind: str) -> int:
        return planned("Qwen/Qwen2.5-7B", resources={"accelerator": {"name": kind}}).gpus

    assert gpus("nvidia-l40s-48gb") > gpus("nvidia-h100-80gb") == gpus("nvidia-h200-141gb") == 1


def test_memory_in_the_spec_takes_precedence_over_the_catalogue() -> None:
    small = {"accelerator": {"name": "nvidia-h200-141gb", "memory": "36Gi"}}
    assert planned("Qwen/Qwen2.5-7B", resources=small).gpus == 2


def test_a_model_in_the_catalogue_needs_no_size_in_its_name() -> None:
    assert planned("microsoft/phi-4").gpus == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nvidia-h100", "write nvidia-h100-80gb, or for any other kind"),
        ("NVIDIA-H200-141GB", "write nvidia-h200-141gb"),
        ("tpu", "accelerator.memory, e.g. 48Gi"),
    ],
)
def test_the_error_for_an_unknown_accelerator_contains_the_fix(name: str, said: str) -> None:
    with pytest.raises(Unplannable) as refusal:
        planned("Qwen/Qwen2.5-7B", resources={"accelerator": {"name": name}})
    assert refusal.value.reason == "UnknownAccelerator"
    assert said in str(refusal.value)
    assert "spec.resources.accelerator" in str(refusal.value)


def test_the_error_for_an_unknown_model_names_the_field_to_set() -> None:
    with pytest.raises(Unplannable, match=r"spec\.model\.parameters") as refusal:
        planned("org/secret")
    assert refusal.value.reason == "UnknownModel"


def test_a_number_of_gpus_in_the_spec_is_used_even_for_an_unknown_accelerator() -> None:
    resources = {"gpus": 3, "accelerator": {"name": "tpu"}}
    assert planned("org/secret", resources=resources).gpus == 3


@settings(max_examples=50)
@given(st.floats(0.1, 500), st.floats(0.1, 500), st.sampled_from(sorted(ACCELERATORS)))
def test_more_parameters_never_need_fewer_gpus(one: float, other: float, kind: str) -> None:
    def gpus(billions: float) -> int:
        try:
            resources = {"accelerator": {"name": kind}}
            return planned("x", parameters=f"{billions:.3f}B", resources=resources).gpus
        except Unplannable:
            return 99

    assert gpus(min(one, other)) <= gpus(max(one, other))


def test_a_pod_requests_its_accelerators_extended_resource() -> None:
    assert resource_of(None) == resource_of("nvidia-h100-80gb") == resource_of("homemade") == NVIDIA
    assert resource_of("amd-mi300x-192gb") == AMD
    assert resource_of("nvidia-h100-80gb-mig-1g.10gb") == "nvidia.com/mig-1g.10gb"


def test_zero_gpus_select_the_cpu_and_a_small_model_fits_on_a_small_node() -> None:
    assert planned("org/secret", resources={"gpus": 0, "memory": "4Gi"}).device == "cpu"
    short = {"training": {"maxContextLength": 512}, "sampling": {"maxTokens": 256}}
    found = planned("SmolLM2-135M", resources={"accelerator": {"name": "cpu"}}, **short)
    assert (found.gpus, found.cpu) == (0, "1500m")
    assert quantity(found.memory or "") < quantity("8Gi")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 7e9),
        ("SmolLM2-135M", 135e6),
        ("Mixtral-8x7B", 56e9),
        ("org/model", None),
        ("1.5B", 1.5e9),
        ("org/model-0b", None),
    ],
)
def test_a_parameter_count_is_read_from_a_name(text: str, count: float | None) -> None:
    assert parameter_count(text) == count


def test_quantities_are_parsed_like_those_of_kubernetes() -> None:
    assert quantity("80Gi") == 80 * 2**30
    assert quantity("500m") == 0.5
    assert gib(2**30 + 1) == "2Gi"
    with pytest.raises(ValueError, match="quantity"):
        quantity("much")
