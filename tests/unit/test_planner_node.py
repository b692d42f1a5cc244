"""Plans for one node: what must be true for every model, kind of GPU and number of GPUs in the tables of
plans in the documentation.
"""

from itertools import product

import pytest

from rft_api.status import Plan
from rft_api.validation import parse
from rft_codegen.planning_table import NODE_COUNTS, NODE_KINDS, NODE_MODELS, WORKLOADS, node_plan
from rft_planner.accelerators import ACCELERATORS, Device
from rft_planner.memory import USABLE
from rft_planner.plan import Unplannable, plan
from rft_planner.sizes import quantity
from rft_planner.split import LITTLE_IDLE
from tests.manifests import manifest


def held(made: Plan, device: Device) -> tuple[float, float]:
    """Return the planned bytes of memory on a GPU that trains, and on a GPU that samples.

    If the same GPUs train and sample in turns, both numbers are the sum of the two.
    """
    parts = made.memory_parts or []
    trained, sampled = (
        sum(part.mebibytes for part in parts if part.name.startswith(role)) * 2**20
        for role in ("training", "sampling")
    )
    shared = (made.trainer_gpus or 0) + (made.sampler_gpus or 0) > made.gpus
    return (trained + sampled, trained + sampled) if shared else (trained, sampled)


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("model", NODE_MODELS)
def test_every_plan_keeps_to_the_node_its_memory_and_little_idle_time(model: str, workload: str) -> None:
    for kind, gpus in product(NODE_KINDS, NODE_COUNTS):
        device, made = ACCELERATORS[kind], node_plan(model, kind, gpus, workload)
        notes = made.notes or []
        assert made.gpus == gpus <= device.node
        if made.trainer_gpus is None or made.sampler_gpus is None:
            assert any(f"does not fit on {gpus} GPU" in note for note in notes)
            continue
        assert max(held(made, device)) <= USABLE * device.memory
        assert made.trainer_gpus <= gpus >= made.sampler_gpus
        assert made.sampler_gpus % (made.sampler_servers or 0) == 0
        assert made.sampler_cache_memory is not None
        assert quantity(made.sampler_cache_memory) < (made.sampler_memory_share or 0) * device.memory
        assert made.idle_share is not None
        (said,) = [note for note in notes if "nothing to do" in note] if gpus > 1 else [""]
        assert made.idle_share <= LITTLE_IDLE or ": " in said


@pytest.mark.parametrize("model", NODE_MODELS)
@pytest.mark.parametrize("kind", NODE_KINDS)
def test_a_derived_number_of_gpus_is_at_most_a_nodes(model: str, kind: str) -> None:
    asked = manifest(model={"name": NODE_MODELS[model]}, resources={"accelerator": {"name": kind}})
    try:
        gpus, said = plan(parse(asked).spec, "").gpus, "on 8 GPUs, the most of a node"
    except Unplannable as error:
        gpus, said = ACCELERATORS[kind].node, str(error)
    assert 1 <= gpus <= ACCELERATORS[kind].node
    assert "on 8 GPUs, the most of a node" in said


def test_70b_at_16k_on_a_node_of_h100_names_the_context_that_fits() -> None:
    model, given = {"name": "meta-llama/Llama-3.1-70B"}, {"maxContextLength": 16_384}
    with pytest.raises(Unplannable) as refusal:
        plan(parse(manifest(model=model, training=given)).spec, "")
    said = str(refusal.value)
    field = "spec.training.maxContextLength: "
    assert field in said
    fitting = int(said.split(field)[1].split(",")[0])
    made = plan(parse(manifest(model=model, training={"maxContextLength": fitting})).spec, "")
    assert made.gpus <= 8
    assert "spec.resources.accelerator.name: nvidia-h100-nvl-94gb" in said


def test_a_slice_is_planned_alone_because_a_program_sees_only_one() -> None:
    kind = "nvidia-h100-80gb-mig-1g.10gb"
    with pytest.raises(Unplannable, match="on 1 GPU, the most of a node"):
        plan(
            parse(
                manifest(model={"name": "Qwen/Qwen2.5-7B"}, resources={"accelerator": {"name": kind}})
            ).spec,
            "",
        )


def test_more_gpus_than_a_node_has_are_asked_for_only_by_the_spec_and_with_a_note() -> None:
    made = plan(parse(manifest(model={"name": "Qwen/Qwen2.5-7B"}, resources={"gpus": 12})).spec, "")
    assert made.gpus == 12
    assert any("at most 8 GPUs" in note for note in made.notes or [])


def test_a_plan_that_leaves_gpus_waiting_names_the_number_that_does_not() -> None:
    asked = manifest(model={"name": "Qwen/Qwen3-32B"})
    made = plan(parse(asked).spec, "")
    (said,) = [note for note in made.notes or [] if "nothing to do" in note]
    more = int(said.split("spec.resources.gpus: ")[1].split()[0])
    better = plan(parse(asked | {"spec": asked["spec"] | {"resources": {"gpus": more}}}).spec, "")
    assert (better.idle_share or 0) <= LITTLE_IDLE < (made.idle_share or 0)
