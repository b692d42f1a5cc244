"""How a cluster's nodes affect a plan: which nodes a job may use, and which kind of GPU is chosen."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_api.job import RFTJobSpec
from rft_api.resources import Toleration
from rft_api.status import Plan
from rft_api.validation import parse
from rft_planner.accelerators import ACCELERATORS
from rft_planner.nodes import VISIBLE, Node, Taint, kinds_of, usable
from rft_planner.placement import needs, placed
from rft_planner.plan import Unplannable
from rft_planner.sizes import quantity
from tests.manifests import manifest

GIB = 2.0**30
H100, T4, L40S = "NVIDIA-H100-80GB-HBM3", "Tesla-T4", "NVIDIA-L40S"
PRODUCT = "nvidia.com/gpu.product"


def node(name: str = "gpu-1", product: str | None = H100, gpus: int = 8, **labels: str) -> Node:
    named = {PRODUCT: product} if product is not None else {}
    return Node(
        name,
        named | {key.replace("__", "/").replace("_", "."): value for key, value in labels.items()},
        {"cpu": 96.0, "memory": 1000 * GIB, "nvidia.com/gpu": float(gpus)},
    )


def spec(model: str = "Qwen/Qwen2.5-7B", **fields: Any) -> RFTJobSpec:
    return parse(manifest(model={"name": model}, **fields)).spec


def on(*nodes: Node, before: Plan | None = None, model: str = "Qwen/Qwen2.5-7B", **fields: Any) -> Plan:
    return placed(spec(model, **fields), "uid", nodes, before)


def first_note(made: Plan) -> str:
    assert made.notes is not None
    return made.notes[0]


# Kinds of GPU from labels.


@pytest.mark.parametrize(
    ("resource", "labels", "name"),
    [
        ("nvidia.com/gpu", {PRODUCT: H100}, "nvidia-h100-80gb"),
        ("nvidia.com/gpu", {PRODUCT: f"{H100}-MIG-1g.10gb"}, "nvidia-h100-80gb-mig-1g.10gb"),
        ("nvidia.com/mig-1g.10gb", {PRODUCT: H100}, "nvidia-h100-80gb-mig-1g.10gb"),
        (
            "nvidia.com/mig-2g.20gb",
            {PRODUCT: H100, "nvidia.com/mig-2g.20gb.product": "NVIDIA-A100-SXM4-80GB-MIG-2g.20gb"},
            "nvidia-a100-80gb-mig-2g.20gb",
        ),
        ("amd.com/gpu", {"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}, "amd-mi300x-192gb"),
    ],
)
def test_a_product_label_names_a_kind_of_the_catalogue(
    resource: str, labels: Mapping[str, str], name: str
) -> None:
    (kind,) = kinds_of(Node("n", labels, {resource: 2.0}))
    assert (kind.name, kind.resource, kind.memory) == (name, resource, ACCELERATORS[name].memory)
    assert kind.label is not None
    assert labels[kind.label[0]] == kind.label[1]


@pytest.mark.parametrize(
    ("resource", "labels", "memory"),
    [
        ("nvidia.com/gpu", {PRODUCT: "NVIDIA-New", "nvidia.com/gpu.memory": "40960"}, 40 * GIB),
        ("nvidia.com/gpu", {"nvidia.com/gpu.memory": "40960"}, 40 * GIB),
        ("nvidia.com/mig-7g.80gb", {PRODUCT: H100, "nvidia.com/mig-7g.80gb.memory": "81920"}, 80 * GIB),
        ("amd.com/gpu", {"amd.com/gpu.vram": "64G"}, 64 * GIB),
    ],
)
def test_for_an_unknown_product_the_memory_label_is_used(
    resource: str, labels: Mapping[str, str], memory: float
) -> None:
    (kind,) = kinds_of(Node("n", labels, {resource: 1.0}))
    assert (kind.name, kind.memory) == (None, VISIBLE * memory)


@pytest.mark.parametrize(
    "silent",
    [
        node(product=None),
        node(product="NVIDIA-New"),
        node(product="NVIDIA-New", nvidia_com__gpu_memory="much"),
        node(gpus=0),
        node(product=f"{H100}-SHARED"),
        node(nvidia_com__gpu_replicas="4"),
        Node("no-gpus", {PRODUCT: H100}, {"cpu": 8.0}),
    ],
    ids=["no labels", "unknown product", "no number", "no GPU left", "shared", "replicas", "no resource"],
)
def test_a_node_without_the_memory_of_one_gpu_in_its_labels_has_no_kind(silent: Node) -> None:

    assert kinds_of(silent) == []


# Nodes that a job may use.

TAINT = Taint("team", "a")


@pytest.mark.parametrize(
    ("taint", "toleration", "may"),
    [
        (TAINT, None, False),
        (TAINT, {"key": "team", "value": "a"}, True),
        (TAINT, {"key": "team", "value": "b"}, False),
        (TAINT, {"key": "team", "operator": "Exists"}, True),
        (TAINT, {"operator": "Exists"}, True),
        (TAINT, {"key": "team", "value": "a", "effect": "NoExecute"}, False),
        (replace(TAINT, effect="PreferNoSchedule"), None, True),
        (replace(TAINT, effect="NoExecute"), None, False),
        (Taint("nvidia.com/gpu", "present"), None, True),
    ],
)
def test_taints_and_tolerations_match_as_the_scheduler_matches_them(
    taint: Taint, toleration: dict[str, Any] | None, may: bool
) -> None:
    tolerations = [Toleration(**toleration)] if toleration is not None else []
    found = usable([replace(node(), taints=(taint,))], {}, tolerations, "nvidia.com/gpu")
    assert bool(found) is may


def test_cordoned_nodes_and_nodes_without_the_selected_labels_are_left_out() -> None:
    pool = node("b", pool="train")
    found = usable([node("a"), pool, replace(pool, name="c", schedulable=False)], {"pool": "train"}, [])
    assert [n.name for n in found] == ["b"]


# The choice of the kind of GPU.


def test_the_plan_is_for_the_kind_in_the_nodes_label() -> None:
    made = on(node(product=L40S))
    named = on(resources={"accelerator": {"name": "nvidia-l40s-48gb"}})
    assert (made.accelerator, made.gpu_resource, made.gpus) == (
        "nvidia-l40s-48gb",
        "nvidia.com/gpu",
        named.gpus,
    )
    assert first_note(made) == "planned for nvidia-l40s-48gb: chosen by the labels of the cluster's nodes"
    assert made.memory_parts == named.memory_parts


def test_without_labels_the_plan_is_for_the_default_and_has_a_note() -> None:
    made = on(node(product=None))
    assert made.accelerator == "nvidia-h100-80gb"
    assert first_note(made) == (
        "planned for nvidia-h100-80gb: no node that the job may use has a label with the kind of its GPUs"
    )
    assert on() == made
    assert made.node_selector is None


def test_the_kind_that_needs_the_fewest_gpus_is_chosen() -> None:
    made = on(node("a", L40S), node("b", L40S), node("c", H100))
    assert (made.accelerator, made.gpus) == ("nvidia-h100-80gb", 1)


def test_among_equal_kinds_the_one_with_more_nodes_is_chosen_then_the_first_by_name() -> None:
    small = "HuggingFaceTB/SmolLM2-135M"
    assert on(node("a", T4), node("b", L40S), node("c", L40S), model=small).accelerator == "nvidia-l40s-48gb"
    assert on(node("a", T4), node("b", L40S), model=small).accelerator == "nvidia-l40s-48gb"


def test_a_kind_that_fits_on_one_node_is_preferred_to_fewer_gpus_that_do_not_fit() -> None:
    big = "Qwen/Qwen2.5-14B"
    alone = on(node(product=H100), model=big).gpus
    assert alone > 1
    made = on(node("a", H100, gpus=alone - 1), node("b", "NVIDIA-A100-SXM4-80GB"), model=big)
    assert made.accelerator == "nvidia-a100-80gb"


def test_a_kind_on_which_the_job_does_not_fit_is_not_chosen() -> None:
    assert on(node("a", T4), node("b", T4), node("c", H100)).accelerator == "nvidia-h100-80gb"


def test_if_the_job_fits_on_no_kind_the_error_is_about_the_largest() -> None:
    with pytest.raises(Unplannable) as refusal:
        on(node("a", T4), node("b", L40S), model="meta-llama/Llama-3.1-405B")
    assert refusal.value.reason == "DoesNotFit"
    assert str(refusal.value).startswith(
        "planned for nvidia-l40s-48gb, the largest kind of GPU in the cluster: meta-llama/Llama-3.1-405B"
    )
    with pytest.raises(Unplannable, match=r"^the size of org/secret is not known"):
        on(node("a", T4), model="org/secret")


def test_nodes_that_the_job_may_not_use_are_ignored() -> None:
    tainted = replace(node("a", H100), taints=(TAINT,))
    assert on(tainted, node("b", L40S)).accelerator == "nvidia-l40s-48gb"
    selector = {"nodeSelector": {"pool": "x"}}
    assert (
        on(node("a", H100), node("b", L40S, pool="x"), resources=selector).accelerator == "nvidia-l40s-48gb"
    )


def test_nodes_with_another_operating_system_are_ignored() -> None:
    other = replace(node("a", H100), labels={PRODUCT: H100, "kubernetes.io/os": "windows"})
    linux = replace(node("b", L40S), labels={PRODUCT: L40S, "kubernetes.io/os": "linux"})
    assert on(other, linux).accelerator == "nvidia-l40s-48gb"


def test_no_kind_is_chosen_if_the_spec_sets_accelerator_memory_or_the_cpu() -> None:
    named = on(node(product=L40S), resources={"accelerator": {"name": "nvidia-h100-80gb"}})
    assert (named.accelerator, named.node_selector) == ("nvidia-h100-80gb", None)
    assert "the pod waits until there is one" in first_note(named)
    assert on(node(product=L40S), resources={"accelerator": {"memory": "80Gi"}}).accelerator is None
    for resources in ({"gpus": 0}, {"accelerator": {"name": "cpu"}}):
        assert on(node(), resources=resources).device == "cpu"


def test_a_gpu_number_in_the_spec_is_used_with_a_kind_on_which_the_job_fits() -> None:
    made = on(node("a", T4), node("b", H100), resources={"gpus": 1})
    assert (made.accelerator, made.gpus) == ("nvidia-h100-80gb", 1)


# The node selector of the pod.


def test_with_several_kinds_the_plan_selects_nodes_of_the_chosen_one() -> None:
    both = (node("a", L40S), node("b", H100))
    assert on(*both).node_selector == {PRODUCT: H100}
    named = on(*both, resources={"accelerator": {"name": "nvidia-l40s-48gb"}})
    assert named.node_selector == {PRODUCT: L40S}
    assert on(node("b", H100)).node_selector is None
    assert on(node("b", H100), node("c", None)).node_selector == {PRODUCT: H100}


def test_the_users_own_selector_for_the_label_is_kept() -> None:
    mine = {"nodeSelector": {PRODUCT: L40S}}
    made = on(node("a", L40S), node("b", H100), resources=mine)
    assert (made.accelerator, made.node_selector) == ("nvidia-l40s-48gb", None)


def test_slices_with_the_single_strategy_are_requested_as_whole_gpus() -> None:
    sliced = Node("n", {PRODUCT: f"{H100}-MIG-3g.40gb"}, {"nvidia.com/gpu": 2.0, "cpu": 9.0, "memory": 1e12})
    for resources in ({}, {"accelerator": {"name": "nvidia-h100-80gb-mig-3g.40gb"}}):
        made = on(sliced, model="Qwen/Qwen2.5-0.5B", resources=resources)
        assert (made.accelerator, needs(made)["nvidia.com/gpu"]) == ("nvidia-h100-80gb-mig-3g.40gb", 1)


# The kind of GPU that an earlier plan chose is kept.


def test_new_nodes_do_not_change_an_earlier_choice() -> None:
    first = on(node("a", L40S))
    assert on(node("b", H100)).gpus < first.gpus
    assert on(node("a", L40S), node("b", H100), before=first).accelerator == "nvidia-l40s-48gb"


def test_removed_nodes_change_a_choice_only_if_there_is_another_kind() -> None:
    first = on(node("a", "NVIDIA-New", nvidia_com__gpu_memory="81920"))
    assert first.accelerator == "NVIDIA-New"
    assert on(before=first) == first
    assert on(node("b", H100), before=first).accelerator == "nvidia-h100-80gb"


def test_a_node_selector_is_kept_when_the_other_kind_disappears() -> None:
    first = on(node("a", L40S), node("b", H100))
    assert on(node("b", H100), before=first) == first
    assert on(before=first) == first


KINDS = st.lists(
    st.tuples(st.sampled_from([H100, T4, L40S, "NVIDIA-A10", "NVIDIA-H200"]), st.integers(1, 8)), max_size=6
)


@settings(max_examples=20, deadline=None)
@given(KINDS, st.sampled_from(["Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-32B"]), st.randoms())
def test_the_choice_is_kept_and_does_not_depend_on_the_order_of_nodes(
    offered: list[tuple[str, int]], model: str, random: Any
) -> None:
    nodes = [node(f"n{number}", product, gpus) for number, (product, gpus) in enumerate(offered)]
    try:
        made = on(*nodes, model=model)
    except Unplannable:
        return
    shuffled = random.sample(nodes, len(nodes))
    assert on(*shuffled, model=model) == made
    assert on(*shuffled, model=model, before=made) == made
    assert made.gpu_memory is None or quantity(made.gpu_memory) > 0
