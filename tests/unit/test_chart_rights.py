"""An operator of some namespaces has the same rights there as a cluster-wide operator.

At cluster scope it has only a few rights.
"""

from typing import Any

import pytest

from tests.unit.chart_support import one, rendered

Json = dict[str, Any]
NAME = "rft-rft-operator"
SINGLE = "watch.namespaces={a,b}"


def resources(rules: list[Json]) -> set[str]:
    return {resource for rule in rules for resource in rule["resources"]}


@pytest.mark.parametrize("namespace", ["a", "b"])
def test_a_namespaced_operator_has_the_same_rights_as_a_cluster_wide_one(namespace: str) -> None:
    everywhere = one(rendered(), "ClusterRole", f"sys-{NAME}")["rules"]
    roles = [d for d in rendered(SINGLE) if d["kind"] == "Role" and d["metadata"]["namespace"] == namespace]
    (role,) = roles
    cluster_wide_only = [rule for rule in everywhere if rule not in role["rules"]]
    assert resources(cluster_wide_only) == {"tokenreviews", "nodes"}


def test_a_namespaced_operator_has_only_reviews_and_nodes_at_cluster_scope() -> None:
    rules = one(rendered(SINGLE), "ClusterRole", f"sys-{NAME}")["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [
        (["tokenreviews"], ["create"]),
        (["nodes"], ["list"]),
    ]


def test_no_rule_has_a_wildcard() -> None:
    for document in rendered("webhook.enabled=true"):
        for rule in document.get("rules", []) if "Role" in document["kind"] else []:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
