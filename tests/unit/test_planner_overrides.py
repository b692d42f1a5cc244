"""The planner always uses the number of GPUs in the spec. If the job needs another number, it warns."""

from typing import Any

import pytest

from rft_api.job import RFTJobSpec
from rft_api.validation import parse
from rft_planner.nodes import Node
from rft_planner.overrides import contradiction
from rft_planner.placement import placed
from tests.manifests import manifest


def spec(model: str = "Qwen/Qwen2.5-7B", **resources: Any) -> RFTJobSpec:
    return parse(manifest(model={"name": model}, resources=resources)).spec


@pytest.mark.parametrize(
    "agreed",
    [
        spec(),
        spec(gpus=1),
        spec(gpus=0),
        spec("org/secret", gpus=3),
        spec(gpus=2, accelerator={"name": "homemade"}),
    ],
    ids=["no number", "the plan's", "the CPU", "an unknown model", "an unknown accelerator"],
)
def test_there_is_no_warning_if_the_plan_agrees_or_is_not_known(agreed: RFTJobSpec) -> None:
    assert contradiction(agreed) is None


def test_a_number_other_than_the_plans_gives_a_warning_with_the_kind_of_gpu() -> None:
    assert contradiction(spec(gpus=4)) == (
        "spec.resources.gpus: 4 is used; the plan for nvidia-h100-80gb needs 1"
    )
    said = contradiction(spec(gpus=4, accelerator={"memory": "96Gi"}))
    assert said == "spec.resources.gpus: 4 is used; the plan for GPUs of 96Gi needs 1"


def test_the_warning_says_if_the_run_does_not_fit_on_the_number() -> None:
    said = contradiction(spec("Qwen/Qwen2.5-32B", gpus=1)) or ""
    assert said.endswith(", and with that number the run does not fit")
    assert "no number of GPUs on which the run fits" in (
        contradiction(spec("meta-llama/Llama-3.1-405B", gpus=16)) or ""
    )


def test_on_a_cluster_the_number_is_compared_with_the_plan_for_its_nodes() -> None:
    nodes = [Node("n", {"nvidia.com/gpu.product": "NVIDIA-L40S"}, {"nvidia.com/gpu": 8.0})]
    asked = spec("Qwen/Qwen2.5-14B", gpus=16)
    said = contradiction(asked, lambda free: placed(free, "uid", nodes)) or ""
    assert "the plan for nvidia-l40s-48gb needs " in said
