"""A number of GPUs set by hand: obeyed, and said where the plan would take another."""

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
def test_where_the_plan_agrees_or_cannot_know_nothing_is_said(agreed: RFTJobSpec) -> None:
    assert contradiction(agreed) is None


def test_another_number_than_the_plans_is_told_with_the_kind_it_is_for() -> None:
    assert contradiction(spec(gpus=4)) == (
        "spec.resources.gpus: 4 is obeyed; the plan for nvidia-h100-80gb needs 1"
    )
    said = contradiction(spec(gpus=4, accelerator={"memory": "96Gi"}))
    assert said == "spec.resources.gpus: 4 is obeyed; the plan for GPUs of 96Gi needs 1"


def test_a_number_that_does_not_hold_the_run_is_told_as_that() -> None:
    said = contradiction(spec("Qwen/Qwen2.5-32B", gpus=1)) or ""
    assert said.endswith(", and with that number the run does not fit")
    assert "holds the run" in (contradiction(spec("meta-llama/Llama-3.1-405B", gpus=16)) or "")


def test_on_a_cluster_the_nodes_decide_what_it_is_compared_with() -> None:
    nodes = [Node("n", {"nvidia.com/gpu.product": "NVIDIA-L40S"}, {"nvidia.com/gpu": 8.0})]
    asked = spec("Qwen/Qwen2.5-14B", gpus=16)
    said = contradiction(asked, lambda free: placed(free, "uid", nodes)) or ""
    assert "the plan for nvidia-l40s-48gb needs " in said
