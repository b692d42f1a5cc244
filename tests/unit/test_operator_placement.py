"""Placement of a job: the kind of GPU in its plan, the nodes for its pod, and the message if no node fits."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from rft_api.conditions import CONDITION_TYPES
from rft_api.status import Plan, RFTJobStatus
from rft_api.validation import parse
from rft_operator.decision import Decision
from rft_operator.objects.config import run_config
from rft_operator.objects.job import child_job
from rft_operator.objects.names import owner_of
from rft_operator.objects.pod import Image
from rft_operator.observe import Child, Observed, Pod
from rft_operator.reconcile import reconcile
from rft_planner.nodes import Node

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
PRODUCT = "nvidia.com/gpu.product"
CHILD = Child(uid="job-1", created="2026-11-22T17:50:00Z", has_failure_policy=True, backoff_limit=3)
WAITING = Pod(
    "sums-x-1",
    "pod-1",
    "2026-11-22T17:50:05Z",
    controller="job-1",
    unschedulable="0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    requests={"cpu": 16.0, "memory": 90 * 2.0**30, "nvidia.com/gpu": 4.0},
)


def node(name: str = "gpu-1", product: str = "NVIDIA-L40S", gpus: int = 2) -> Node:
    allocatable = {"cpu": 64.0, "memory": 500 * 2.0**30, "nvidia.com/gpu": float(gpus)}
    return Node(name, {PRODUCT: product}, allocatable)


def rftjob(status: Any = None, generation: int = 1, **changes: Any) -> dict[str, Any]:
    spec = {
        "model": {"name": "Qwen/Qwen2.5-7B"},
        "dataset": {"configMap": {"name": "rows"}},
        "graders": [{"name": "right", "numeric": {}}],
        "storage": {"persistentVolumeClaim": {"claimName": "runs"}},
        **changes,
    }
    metadata = {"name": "sums", "namespace": "team", "uid": "u-1", "generation": generation}
    return {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": metadata,
        "spec": spec,
        # The status as the API server would return it.
        **({"status": json.loads(json.dumps(status))} if status is not None else {}),
    }


def decided(document: dict[str, Any], *nodes: Node, **observed: Any) -> Decision:
    return reconcile(document, Observed(nodes=nodes, ca_current=True, **observed), NOW)


def plan_of(decision: Decision) -> Plan:
    assert decision.plan is not None
    return decision.plan


def condition(decision: Decision, kind: str) -> dict[str, Any]:
    assert [c["type"] for c in decision.status["conditions"]] == list(CONDITION_TYPES)
    return next(c for c in decision.status["conditions"] if c["type"] == kind)


def test_the_plan_in_the_status_is_for_the_nodes_kind_of_gpu() -> None:
    decision = decided(rftjob(), node(gpus=8))
    planned = decision.status["plan"]
    assert (planned["accelerator"], planned["gpuResource"]) == ("nvidia-l40s-48gb", "nvidia.com/gpu")
    assert planned["notes"][0] == "planned for nvidia-l40s-48gb: chosen by the labels of the cluster's nodes"
    RFTJobStatus.model_validate(decision.status, by_alias=True, by_name=False)


def test_before_the_start_the_kind_of_gpu_changes_only_with_the_spec() -> None:
    taken = {"conflicts": ("Job sums-1",)}
    first = decided(rftjob(), node(gpus=8), **taken)
    better = (node(gpus=8), node("gpu-2", "NVIDIA-H200"))
    for nodes in ((), better):
        again = decided(rftjob(first.status), *nodes, **taken)
        assert plan_of(again).accelerator == "nvidia-l40s-48gb"
        assert again.notes == ()
    edited = decided(rftjob(first.status, generation=2), *better, **taken)
    assert plan_of(edited).accelerator == "nvidia-h200-141gb"


def test_new_nodes_do_not_change_the_plan_of_the_snapshot() -> None:
    first = decided(rftjob(), node(gpus=8))
    spec = parse(rftjob()).spec
    snapshot = run_config(owner_of(rftjob()), spec, plan_of(first), None)
    state = {"child": CHILD, "snapshot": snapshot, "config_exists": True}
    later = decided(rftjob(first.status, generation=2), node("gpu-2", "NVIDIA-H200"), **state)
    assert plan_of(later) == plan_of(first)


def test_the_pod_selects_nodes_of_the_chosen_kind() -> None:
    mine = {"nodeSelector": {"pool": "train"}, "tolerations": [{"key": "team", "value": "a"}]}
    nodes = [
        Node(n.name, {**n.labels, "pool": "train"}, n.allocatable) for n in (node(), node("b", "Tesla-T4"))
    ]
    document = rftjob(model={"name": "Qwen/Qwen2.5-0.5B"}, resources=mine)
    made = plan_of(decided(document, *nodes))
    spec, image = parse(document).spec, Image("trainer:1", "IfNotPresent")
    job = child_job(owner_of(document), spec, made, image, reports=False)
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "train", "kubernetes.io/os": "linux"}
    assert {"key": PRODUCT, "operator": "In", "values": ["NVIDIA-L40S"]} in expressions(pod)[0]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    # GPU nodes often have a taint named after the resource. The pod must tolerate it.
    assert pod["tolerations"] == [
        {"key": "team", "operator": "Equal", "value": "a"},
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    ]


def expressions(pod: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the expressions of each term of a pod's required node affinity."""
    node = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return [term["matchExpressions"] for term in node["nodeSelectorTerms"]]


def placed_pod(document: dict[str, Any], made: Plan) -> dict[str, Any]:
    image = Image("trainer:1", "IfNotPresent")
    job = child_job(owner_of(document), parse(document).spec, made, image, reports=False)
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


L4: dict[str, Any] = {
    "resources": {"accelerator": {"name": "nvidia-l4-24gb"}},
    "model": {"name": "Qwen/Qwen2.5-0.5B"},
}


def test_the_kind_is_required_also_while_its_pool_has_no_node() -> None:
    document = rftjob(**L4)
    other = Node("cpu-1", {"cloud.google.com/gke-nodepool": "default"}, {"cpu": 8.0})
    terms = expressions(placed_pod(document, plan_of(decided(document, other))))
    gke = {"key": "cloud.google.com/gke-accelerator", "operator": "In", "values": ["nvidia-l4"]}
    whole = [
        {"key": f"cloud.google.com/gke-gpu-{name}", "operator": "DoesNotExist"}
        for name in ("partition-size", "sharing-strategy")
    ]
    assert [gke, *whole] in terms
    assert [{"key": "karpenter.k8s.aws/instance-gpu-name", "operator": "In", "values": ["l4"]}] in terms


def test_each_term_of_the_users_node_affinity_is_joined_with_each_set_of_labels() -> None:
    zones = [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]} for zone in "ab"]
    required = {"nodeSelectorTerms": [{"matchExpressions": [zone]} for zone in zones]}
    theirs = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    document = rftjob(**L4, template={"affinity": theirs})
    made = plan_of(decided(document, Node("cpu-1")))
    assert made.node_terms is not None
    found = expressions(placed_pod(document, made))
    assert len(found) == 2 * len(made.node_terms)
    assert {term[0]["values"][0] for term in found} == {"a", "b"}
    assert all(len(term) > 1 for term in found)


@pytest.mark.parametrize("zones", ["", "a"])
def test_an_empty_term_of_the_users_node_affinity_still_matches_no_node(zones: str) -> None:
    kept: list[dict[str, Any]] = [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in zones
    ]
    required = {"nodeSelectorTerms": [{}, *kept]}
    theirs = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    document = rftjob(**L4, template={"affinity": theirs})
    made = plan_of(decided(document, Node("cpu-1")))
    found = placed_pod(document, made)["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    if zones:
        assert len(found) == len(made.node_terms or [])
        assert all(term["matchExpressions"][0]["key"] == "zone" for term in found)
    else:
        assert found == [{}]


@pytest.mark.parametrize(
    "broken",
    [
        {"nodeAffinity": "no"},
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": "no"}},
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": ["no"]}}},
    ],
)
def test_a_malformed_node_affinity_is_passed_on_to_the_api_server(broken: dict[str, Any]) -> None:
    document = rftjob(**L4, template={"affinity": broken})
    pod = placed_pod(document, plan_of(decided(document, Node("cpu-1"))))
    assert pod["affinity"]["nodeAffinity"] == broken["nodeAffinity"]


def test_a_job_in_a_queue_has_one_label_which_the_queue_compares_with_its_flavors() -> None:
    document = rftjob(model={"name": "Qwen/Qwen2.5-0.5B"})
    document["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}
    pod = placed_pod(document, plan_of(decided(document, node(), node("b", "Tesla-T4"))))
    assert pod["nodeSelector"] == {PRODUCT: "NVIDIA-L40S", "kubernetes.io/os": "linux"}
    assert "nodeAffinity" not in pod["affinity"]


def test_the_users_node_selector_takes_precedence() -> None:
    made = Plan(gpus=1, node_selector={PRODUCT: "NVIDIA-L40S"}, gpu_resource="nvidia.com/mig-1g.10gb")
    document = rftjob(resources={"nodeSelector": {PRODUCT: "Tesla-T4"}})
    image = Image("trainer:1", "IfNotPresent")
    job = child_job(owner_of(document), parse(document).spec, made, image, reports=False)
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {PRODUCT: "Tesla-T4", "kubernetes.io/os": "linux"}
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "1"


def test_an_unschedulable_pods_message_has_needs_largest_node_and_a_fix() -> None:
    document = rftjob(resources={"gpus": 4, "memory": "90Gi"})
    decision = decided(document, node(), child=CHILD, pods=(WAITING,), config_exists=True)
    ready = condition(decision, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Unschedulable")
    assert ready["message"].startswith(
        "The pod needs 4 nvidia.com/gpu, 16 CPU, 90Gi; the largest node that the pod may use, gpu-1, has"
        " 2 nvidia.com/gpu, 64 CPU, 500Gi. The pod fits with spec.resources.gpus: 2 "
    )
    assert ready["message"].endswith(f"The scheduler: {WAITING.unschedulable}")
    (event,) = [note for note in decision.notes if note.reason == "Unschedulable"]
    assert (event.message, event.warning) == (ready["message"], True)
    assert decision.requeue_after is not None
    again = decided(rftjob(decision.status, **document["spec"]), node(), child=CHILD, pods=(WAITING,))
    assert again.notes == ()


def test_a_pod_that_waits_for_the_end_of_its_predecessor_is_reported() -> None:
    ending = replace(
        WAITING, name="sums-x-0", phase="Running", deleting=True, scheduled=True, unschedulable=""
    )
    pods = (ending, replace(WAITING, created="2026-11-22T17:55:00Z"))
    decision = decided(rftjob(resources={"gpus": 4}), node(), child=CHILD, pods=pods, config_exists=True)
    ready = condition(decision, "Ready")
    assert ready["reason"] == "WaitingForPod"
    assert ready["message"].startswith("Pod sums-x-0 is being ended; the next pod waits for its end")


def test_without_nodes_the_message_is_the_schedulers() -> None:
    document = rftjob(resources={"gpus": 4, "memory": "90Gi"})
    decision = decided(document, child=CHILD, pods=(WAITING,), config_exists=True)
    said = f"The pod needs 4 nvidia.com/gpu, 16 CPU, 90Gi. The scheduler: {WAITING.unschedulable}"
    assert condition(decision, "Ready")["message"] == said


def test_a_gpu_number_other_than_the_plans_is_warned_about_once() -> None:
    document = rftjob(resources={"gpus": 4})
    first = decided(document, node("a", "NVIDIA-H200", 8))
    warned = [note for note in first.notes if note.warning]
    assert [note.reason for note in warned] == ["PlanOverridden"]
    assert warned[0].message == "spec.resources.gpus: 4 is used; the plan for nvidia-h200-141gb needs 1"
    assert plan_of(first).gpus == 4
    assert decided(rftjob(first.status, **document["spec"]), node("a", "NVIDIA-H200", 8)).notes == ()
