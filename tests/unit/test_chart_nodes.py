"""The chart lets the operator list nodes, and gives the operator no other rights on nodes.

The right to list nodes can be turned off.
"""

from typing import Any

import pytest

from rft_operator.settings import from_env
from tests.unit.chart_support import one, rendered

Json = dict[str, Any]
NAME = "rft-rft-operator"
RIGHT = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}
SINGLE = "watch.namespaces={team}"
OFF = "nodes.read=false"


def of_nodes(documents: list[Json]) -> list[tuple[str, Json]]:
    """Return each rule about nodes, with the kind of its role: ``Role`` or ``ClusterRole``."""
    return [
        (d["kind"], rule)
        for d in documents
        if d["kind"] in ("Role", "ClusterRole")
        for rule in d["rules"]
        if "nodes" in rule["resources"]
    ]


@pytest.mark.parametrize("values", [(), (SINGLE,)], ids=["all namespaces", "single namespaces"])
def test_the_operator_may_list_nodes_and_nothing_else_of_them(values: tuple[str, ...]) -> None:
    assert of_nodes(rendered(*values)) == [("ClusterRole", RIGHT)]


@pytest.mark.parametrize("values", [(OFF,), (OFF, SINGLE)], ids=["all namespaces", "single namespaces"])
def test_the_right_to_list_nodes_can_be_turned_off(values: tuple[str, ...]) -> None:
    assert of_nodes(rendered(*values)) == []


def test_node_labels_of_the_charts_values_reach_the_operator() -> None:
    documents = rendered("nodes.acceleratorLabels.nvidia-l4-24gb[0].example\\.com/gpu={l4}")
    (container,) = one(documents, "Deployment", NAME)["spec"]["template"]["spec"]["containers"]
    settings = from_env({e["name"]: e["value"] for e in container["env"] if "value" in e})
    assert settings.accelerator_labels == {"nvidia-l4-24gb": ({"example.com/gpu": ("l4",)},)}


@pytest.mark.parametrize("read", [True, False])
def test_the_operators_setting_says_whether_it_may_list_nodes(read: bool) -> None:
    documents = rendered() if read else rendered(OFF)
    (container,) = one(documents, "Deployment", NAME)["spec"]["template"]["spec"]["containers"]
    settings = from_env({e["name"]: e["value"] for e in container["env"] if "value" in e})
    assert settings.read_nodes is read
