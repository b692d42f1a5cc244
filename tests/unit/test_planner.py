"""The plan: GPUs by the model's size and the accelerator's memory."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_api.status import Plan
from rft_api.validation import parse
from rft_planner.accelerators import ACCELERATORS, AMD, NVIDIA, resource_of
from rft_planner.plan import Unplannable, plan
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
def test_80_gb_hold_what_they_hold_in_public_practice(model: str, at_most: int) -> None:
    for kind in ("nvidia-a100-80gb", "nvidia-h100-80gb"):
        assert 1 <= planned(model, resources={"accelerator": {"name": kind}}).gpus <= at_most


def test_the_accelerators_memory_decides() -> None:
    def gpus(kind: str) -> int:
        return planned("Qwen/Qwen2.5-7B", resources={"accelerator": {"name": kind}}).gpus

    assert gpus("nvidia-l4-24gb") > gpus("nvidia-l40s-48gb") > gpus("nvidia-h200-141gb") == 1


def test_given_memory_counts_before_the_catalogues() -> None:
    small = {"accelerator": {"name": "nvidia-h200-141gb", "memory": "24Gi"}}
    assert planned("Qwen/Qwen2.5-7B", resources=small).gpus > 1


def test_a_model_of_the_catalogue_needs_no_size_in_its_name() -> None:
    assert planned("microsoft/phi-4").gpus == planned("x", parameters="14.7B").gpus


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nvidia-h100", "write nvidia-h100-80gb, or for any other kind"),
        ("NVIDIA-H200-141GB", "write nvidia-h200-141gb"),
        ("tpu", "accelerator.memory, e.g. 48Gi"),
    ],
)
def test_an_unknown_accelerator_is_told_with_the_fix(name: str, said: str) -> None:
    with pytest.raises(Unplannable) as refusal:
        planned("Qwen/Qwen2.5-7B", resources={"accelerator": {"name": name}})
    assert refusal.value.reason == "UnknownAccelerator"
    assert said in str(refusal.value)
    assert "spec.resources.accelerator" in str(refusal.value)


def test_an_unknown_model_is_told_with_the_field_to_set() -> None:
    with pytest.raises(Unplannable, match=r"spec\.model\.parameters") as refusal:
        planned("org/secret")
    assert refusal.value.reason == "UnknownModel"


def test_what_fits_no_pod_is_told() -> None:
    with pytest.raises(Unplannable, match="more than 16 GPUs") as refusal:
        planned("meta-llama/Llama-3.1-405B", resources={"accelerator": {"name": "nvidia-t4-16gb"}})
    assert refusal.value.reason == "DoesNotFit"


def test_a_stated_count_is_obeyed_also_of_an_unknown_kind() -> None:
    resources = {"gpus": 3, "accelerator": {"name": "tpu"}}
    assert planned("org/secret", resources=resources).gpus == 3


@given(st.floats(0.1, 500), st.floats(0.1, 500), st.sampled_from(sorted(ACCELERATORS)))
def test_more_parameters_never_need_fewer_gpus(one: float, other: float, kind: str) -> None:
    def gpus(billions: float) -> int:
        try:
            resources = {"accelerator": {"name": kind}}
            return planned("x", parameters=f"{billions:.3f}B", resources=resources).gpus
        except Unplannable:
            return 99

    assert gpus(min(one, other)) <= gpus(max(one, other))


def test_a_pod_asks_for_its_accelerators_resource() -> None:
    assert resource_of(None) == resource_of("nvidia-h100-80gb") == resource_of("homemade") == NVIDIA
    assert resource_of("amd-mi300x-192gb") == AMD
    assert resource_of("nvidia-h100-80gb-mig-1g.10gb") == "nvidia.com/mig-1g.10gb"
