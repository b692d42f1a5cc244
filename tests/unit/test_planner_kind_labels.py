"""Labels that clouds put on nodes name the kind of GPU.

The plan uses these labels to choose the nodes on which the pod may run.
"""

from typing import Any

import pytest

from rft_api.status import Plan
from rft_api.validation import parse
from rft_planner.accelerators import ACCELERATORS, NVIDIA
from rft_planner.inventory import Inventory
from rft_planner.kind_labels import TABLE, extended, meets
from rft_planner.nodes import Node, kinds_of, usable
from rft_planner.placement import placed
from tests.manifests import manifest

GKE = "cloud.google.com/gke-accelerator"
INSTANCE = "node.kubernetes.io/instance-type"
PRODUCT = "nvidia.com/gpu.product"


def node(labels: dict[str, str] | None = None, resource: str = NVIDIA) -> Node:
    return Node("n", labels or {}, {"cpu": 96.0, "memory": 1000 * 2.0**30, resource: 8.0})


def on(*nodes: Node, table: Any = TABLE, before: Plan | None = None, **resources: Any) -> Plan:
    spec = parse(manifest(model={"name": "Qwen/Qwen2.5-0.5B"}, resources=resources)).spec
    return placed(spec, "uid", Inventory(nodes, table), before)


def named(name: str) -> dict[str, Any]:
    return {"accelerator": {"name": name}}


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ({GKE: "nvidia-l4"}, "nvidia-l4-24gb"),
        ({GKE: "nvidia-tesla-a100"}, "nvidia-a100-40gb"),
        ({GKE: "nvidia-h100-mega-80gb"}, "nvidia-h100-80gb"),
        ({"karpenter.k8s.aws/instance-gpu-name": "l40s"}, "nvidia-l40s-48gb"),
        ({"eks.amazonaws.com/instance-gpu-name": "h200"}, "nvidia-h200-141gb"),
        ({"karpenter.k8s.aws/instance-gpu-name": "a100", INSTANCE: "p4d.24xlarge"}, "nvidia-a100-40gb"),
        ({INSTANCE: "p4de.24xlarge"}, "nvidia-a100-80gb"),
        ({INSTANCE: "Standard_NC48ads_A100_v4"}, "nvidia-a100-80gb"),
        ({INSTANCE: "Standard_NC40ads_H100_v5"}, "nvidia-h100-nvl-94gb"),
        ({GKE: "nvidia-l4", PRODUCT: "NVIDIA-L40S"}, "nvidia-l40s-48gb"),
    ],
)
def test_a_node_is_known_by_the_labels_of_its_cloud(labels: dict[str, str], name: str) -> None:
    assert [kind.name for kind in kinds_of(node(labels))] == [name]


@pytest.mark.parametrize(
    "labels",
    [
        {GKE: "nvidia-l4", "cloud.google.com/gke-gpu-sharing-strategy": "time-sharing"},
        {GKE: "nvidia-tesla-a100", "cloud.google.com/gke-gpu-partition-size": "1g.5gb"},
        {"karpenter.k8s.aws/instance-gpu-name": "a100"},
        {INSTANCE: "m5.large"},
        {},
    ],
)
def test_gpus_that_are_divided_shared_or_not_told_apart_are_unknown(labels: dict[str, str]) -> None:
    assert kinds_of(node(labels)) == []


def test_labels_of_a_cloud_say_nothing_about_another_resource() -> None:
    assert kinds_of(node({GKE: "nvidia-l4"}, "amd.com/gpu")) == []
    amd = node({INSTANCE: "Standard_ND96isr_MI300X_v5"}, "amd.com/gpu")
    assert [kind.name for kind in kinds_of(amd)] == ["amd-mi300x-192gb"]


def test_every_accelerator_in_the_table_is_in_the_catalogue_and_each_set_names_a_label() -> None:
    assert set(TABLE) <= set(ACCELERATORS)
    assert all(any(values for values in labels.values()) for sets in TABLE.values() for labels in sets)


def test_no_set_of_labels_means_two_accelerators() -> None:
    owners: dict[tuple[str, str], str] = {}
    for name, sets in TABLE.items():
        for labels in sets:
            for key, values in labels.items():
                for value in values:
                    assert owners.setdefault((key, value), name) == name


def test_a_named_accelerator_is_required_where_its_nodes_are() -> None:
    there = node({GKE: "nvidia-l4"})
    made = on(there, **named("nvidia-l4-24gb"))
    assert made.node_terms is not None
    assert meets(there.labels, made.node_terms)
    assert not meets({GKE: "nvidia-tesla-t4"}, made.node_terms)
    assert meets({PRODUCT: "NVIDIA-L4"}, made.node_terms)
    assert usable([there, node({GKE: "nvidia-tesla-t4"})], {}, [], terms=made.node_terms) == [there]


def test_a_named_accelerator_without_a_node_is_required_and_the_note_says_that_the_pod_waits() -> None:
    for nodes in ([node({GKE: "nvidia-tesla-t4"})], [Node("cpu", {}, {"cpu": 4.0})]):
        made = on(*nodes, **named("nvidia-l4-24gb"))
        assert made.node_terms is not None
        assert "waits until there is one" in (made.notes or [""])[0]


def test_nothing_is_required_of_nodes_that_no_label_tells_apart_or_that_are_not_read() -> None:
    for nodes in ([node()], []):
        assert on(*nodes, **named("nvidia-l4-24gb")).node_terms is None


def test_a_chosen_kind_is_required_where_there_are_others_and_stays_required() -> None:
    l4, t4 = node({GKE: "nvidia-l4"}), node({GKE: "nvidia-tesla-t4"})
    assert on(l4).node_terms is None
    first = on(l4, t4)
    assert first.node_terms is not None
    assert first.node_selector == {
        GKE: "nvidia-l4" if first.accelerator == "nvidia-l4-24gb" else "nvidia-tesla-t4"
    }
    again = on(l4 if first.accelerator == "nvidia-l4-24gb" else t4, before=first)
    assert again.node_terms == first.node_terms
    assert on(before=first).node_terms == first.node_terms


def test_a_label_of_the_users_node_selector_takes_precedence() -> None:
    made = on(node({GKE: "nvidia-l4"}), nodeSelector={GKE: "nvidia-l4"}, **named("nvidia-l4-24gb"))
    assert (made.node_terms, made.node_selector) == (None, None)


def test_one_instance_type_is_not_a_node_selector() -> None:
    made = on(node({INSTANCE: "g6.xlarge"}), node({INSTANCE: "g5.xlarge"}))
    assert made.node_selector is None
    assert made.node_terms is not None


def test_a_table_with_more_labels_knows_more_nodes() -> None:
    own = node({"example.com/gpu": "el-four"})
    assert kinds_of(own) == []
    table = extended({"nvidia-l4-24gb": ({"example.com/gpu": ("el-four",)},)})
    made = on(own, table=table, **named("nvidia-l4-24gb"))
    assert made.accelerator == "nvidia-l4-24gb"
    assert made.node_terms is not None
    assert meets(own.labels, made.node_terms)
    assert meets({GKE: "nvidia-l4"}, made.node_terms)
