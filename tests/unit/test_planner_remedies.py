"""The message about a pod that fits on no node: what the pod needs, what nodes have, which changes help."""

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rft_api.job import RFTJobSpec
from rft_api.status import Plan
from rft_api.validation import parse
from rft_planner.nodes import Node, Taint
from rft_planner.placement import needs, placed
from rft_planner.plan import Unplannable, plan
from rft_planner.remedies import FieldValue, NodeSpace, Remedy, remedies
from rft_planner.unschedulable import explain_unschedulable
from tests.manifests import manifest

GIB = 2.0**30
SAID = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
L4, L40S = "NVIDIA-L4", "NVIDIA-L40S"


def node(gpus: int = 2, cpu: float = 96, memory: float = 1000, product: str = L40S, **facts: Any) -> Node:
    allocatable = {"cpu": float(cpu), "memory": memory * GIB, "nvidia.com/gpu": float(gpus)}
    return Node("gpu-1", {"nvidia.com/gpu.product": product}, allocatable, **facts)


def document(model: str, changes: Remedy = (), **fields: Any) -> dict[str, Any]:
    """Return a manifest for the model, after a user has made these ``changes``."""
    made = manifest(model={"name": model}, **fields)
    for path, value in changes:
        _, section, field = path.split(".")
        made["spec"][section] = {**made["spec"].get(section, {}), field: value}
    return made


def spec(model: str = "Qwen/Qwen2.5-7B", **fields: Any) -> RFTJobSpec:
    return parse(document(model, **fields)).spec


def said(asked: RFTJobSpec, *nodes: Node, made: Plan | None = None) -> str:
    made = made or placed(asked, "uid", nodes)
    return explain_unschedulable(asked, made, nodes, needs(made), SAID)


def found(asked: RFTJobSpec, *nodes: Node) -> list[Remedy]:
    made = placed(asked, "uid", nodes)
    return remedies(asked, made, NodeSpace(nodes, "nvidia.com/gpu"))


H100 = "NVIDIA-H100-80GB-HBM3"
LONG = {"training": {"maxContextLength": 32768, "loraRank": 32}, "sampling": {"numRollouts": 8}}


# The message.


def test_the_message_has_the_pods_needs_the_largest_node_and_a_fix() -> None:
    asked = spec(resources={"gpus": 4, "memory": "90Gi"})
    message = said(asked, node(gpus=2, cpu=8, memory=62))
    assert message.startswith(
        "The pod needs 4 nvidia.com/gpu, 16 CPU, 90Gi; the largest node that the pod may use, gpu-1,"
        " has 2 nvidia.com/gpu, 8 CPU, 62Gi. The pod fits with spec.resources.gpus: 2 "
    )
    assert message.endswith(f"The scheduler: {SAID}")


def test_the_message_covers_missing_cpus_too() -> None:
    message = said(spec(), node(gpus=2, cpu=3, memory=1000))
    assert "has 2 nvidia.com/gpu, 3 CPU" in message
    assert (
        "The pod fits with spec.resources.cpu: 3 (spec.resources can change while the job is suspended)"
        in message
    )


def test_too_much_memory_in_the_spec_is_replaced_by_the_plans() -> None:
    asked = spec("Qwen/Qwen2.5-0.5B", resources={"memory": "300Gi"})
    (remedy,) = found(asked, node(memory=64))
    assert [change.path for change in remedy] == ["spec.resources.memory"]
    assert fits("Qwen/Qwen2.5-0.5B", remedy, [node(memory=64)], resources={"memory": "300Gi"})


def test_resources_in_the_spec_that_fit_are_kept() -> None:
    fields: dict[str, Any] = {"resources": {"gpus": 2, "memory": "1Gi", "cpu": "128"}}
    assert found(spec(**fields), node(gpus=2)) == [(FieldValue("spec.resources.cpu", "96"),)]


def test_if_no_parameter_lowers_the_memory_the_message_names_the_needed_node() -> None:
    message = said(spec("Qwen/Qwen2.5-32B"), node(gpus=8, memory=8))
    named = "training.maxContextLength, training.loraRank, sampling.numRollouts"
    assert f"lower values of one or two of {named}" in message
    assert message.count("It would fit with a node with ") == 1


def test_no_change_is_proposed_if_the_pod_only_waits_for_other_pods() -> None:
    message = said(spec(), node(gpus=8))
    assert "a node is large enough, so the pod waits until other pods on this node end" in message
    assert "fits with" not in message


def test_another_reason_of_the_scheduler_is_passed_on_unchanged() -> None:
    asked, reason = spec(), '0/1 nodes are available: 1 persistentvolumeclaim "runs" not found.'
    made = placed(asked, "uid", [node(gpus=8)])
    message = explain_unschedulable(asked, made, [node(gpus=8)], needs(made), reason)
    assert message.endswith(f"; a node is large enough. The scheduler: {reason}")


def test_if_no_node_may_be_used_the_message_names_the_selector() -> None:
    message = said(spec(resources={"nodeSelector": {"pool": "none"}}), node())
    assert "no ready node that has the labels of the pod's node selector" in message


def test_without_gpus_in_the_cluster_the_message_proposes_the_cpu() -> None:
    message = said(spec(), Node("cpu-1", {}, {"cpu": 64.0, "memory": 500 * GIB}))
    assert "No node that the pod may use has nvidia.com/gpu" in message
    assert "spec.resources.accelerator.name: cpu" in message


def test_without_known_nodes_only_the_schedulers_message_is_shown() -> None:
    asked = spec(resources={"gpus": 4, "memory": "90Gi"})
    made = plan(asked, "uid")
    message = explain_unschedulable(asked, made, (), {}, SAID)
    assert message == f"The pod needs 4 nvidia.com/gpu, 16 CPU, 90Gi. The scheduler: {SAID}"


def test_only_nodes_that_the_pod_may_use_are_compared() -> None:
    tainted = Node("big", {}, {"nvidia.com/gpu": 16.0, "cpu": 96.0}, (Taint("team", "a"),))
    message = said(spec(resources={"gpus": 4}), node(gpus=2), tainted)
    assert "the largest node that the pod may use, gpu-1, has 2 nvidia.com/gpu" in message


def test_the_requests_of_other_containers_are_subtracted() -> None:
    asked, nodes = spec("Qwen/Qwen2.5-0.5B"), [node(gpus=1, cpu=4)]
    made = placed(asked, "uid", nodes)
    wanted = needs(made) | {"cpu": needs(made)["cpu"] + 0.1}
    assert "The pod needs 1 nvidia.com/gpu, 4.1 CPU" in explain_unschedulable(
        asked, made, nodes, wanted, SAID
    )
    assert "The pod fits with spec.resources.cpu: 3" in explain_unschedulable(
        asked, made, nodes, wanted, SAID
    )


# The remedies.


def fits(model: str, remedy: Remedy, nodes: list[Node], **fields: Any) -> bool:
    """Return whether the job's new plan fits on a node, after the changes in ``remedy``."""
    made = placed(parse(document(model, remedy, **fields)).spec, "uid", nodes)
    held = made.memory_parts is not None
    return held and any(
        all(n.allocatable.get(name, 0) >= amount for name, amount in needs(made).items()) for n in nodes
    )


def test_each_parameter_is_lowered_alone_and_no_more_than_needed() -> None:
    model, nodes = "Qwen/Qwen2.5-14B", [node(gpus=3, product=H100)]
    asked = spec(model, **LONG)
    assert placed(asked, "uid", nodes).gpus == 4
    answers = found(asked, *nodes)
    assert [change.path.split(".")[-1] for (change,) in answers] == [
        "maxContextLength",
        "loraRank",
        "numRollouts",
    ]
    for (change,) in answers:
        assert fits(model, (change,), nodes, **LONG)
        higher = higher_value(change)
        assert higher is None or not fits(model, (higher,), nodes, **LONG)


def higher_value(change: FieldValue) -> FieldValue | None:
    value = int(change.value)
    if change.path.endswith("numRollouts"):
        return change._replace(value=value + 1) if value < 7 else None
    if change.path.endswith("loraRank"):
        return change._replace(value=2 * value) if value < 16 else None
    return change._replace(value=value * 4 // 3 if value % 3 else value // 3 * 4)


def test_if_no_single_parameter_is_enough_two_are_lowered() -> None:
    model, nodes = "Qwen/Qwen2.5-14B", [node(gpus=1, product=H100)]
    (remedy,) = found(spec(model, **LONG), *nodes)
    assert {change.path for change in remedy} == {
        "spec.sampling.numRollouts",
        "spec.training.maxContextLength",
    }
    assert fits(model, remedy, nodes, **LONG)
    for change in remedy:
        assert not fits(model, (change,), nodes, **LONG)


def test_if_no_parameter_helps_an_accelerator_and_a_model_size_are_proposed() -> None:
    asked = spec("Qwen/Qwen2.5-7B")
    message = said(asked, node(gpus=1, product=L4))
    assert "It would fit with GPUs of the kind nvidia-" in message
    named = message.split("GPUs of the kind ")[1].split()[0]
    assert placed(spec("Qwen/Qwen2.5-7B", resources={"accelerator": {"name": named}}), "uid").gpus == 1
    size = message.split("a model of up to ")[1].split()[0]
    smaller = manifest(
        model={"name": "x", "parameters": size.removesuffix("parameters")},
        resources={"accelerator": {"name": "nvidia-l4-24gb"}},
    )
    assert plan(parse(smaller).spec, "").gpus == 1


def test_too_many_gpus_in_the_spec_are_replaced_by_the_plans_number() -> None:
    fields = {"resources": {"gpus": 4}}
    (remedy,) = found(spec("Qwen/Qwen2.5-0.5B", **fields), node(gpus=2))
    assert remedy == (FieldValue("spec.resources.gpus", 1),)


MODELS = ["Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-14B", "Qwen/Qwen2.5-32B"]


@settings(max_examples=12, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    product=st.sampled_from([L4, L40S, H100]),
    gpus=st.integers(1, 4),
    cpu=st.integers(1, 64),
    context=st.sampled_from([4096, 8192, 32768]),
    rank=st.sampled_from([8, 32]),
    by_hand=st.none() | st.integers(1, 8),
)
def test_every_proposed_remedy_fits_when_it_is_planned_again(
    model: str, product: str, gpus: int, cpu: int, context: int, rank: int, by_hand: int | None
) -> None:
    fields: dict[str, Any] = {
        "training": {"maxContextLength": context, "loraRank": rank},
        "resources": {"gpus": by_hand} if by_hand else {},
    }
    nodes = [node(gpus=gpus, cpu=cpu, product=product)]
    try:
        assume(not fits(model, (), nodes, **fields))
        answers = found(spec(model, **fields), *nodes)
    except Unplannable:
        assume(False)
    holds = placed(spec(model, **fields), "uid", nodes).memory_parts is not None
    for remedy in answers:
        assert fits(model, remedy, nodes, **fields) or not holds
