"""Tests with Kueue installed: the status says within seconds why a job waits.

The pods of these jobs fit on no node. Kueue admits the jobs nevertheless: it compares their requests with its
quotas, and does not look at nodes.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rft_planner.sizes import quantity
from tests.integration.kueue_release_support import CONTROLLER, KUEUE, KueueRelease, installed
from tests.integration.kueue_support import (
    PRIORITY,
    PRODUCT_LABEL,
    QUEUE_NAME,
    WORKLOADS,
    Kueue,
    WaitMessages,
    gone,
)
from tests.integration.operator_support import CONFIG_MAPS, JOBS, RFTJOBS, Api, Object, Operator, Run
from tests.tables import table
from tests.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.kueue, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def messages(request: pytest.FixtureRequest) -> WaitMessages:
    return WaitMessages(
        table(request.config, "Kueue: why a job waits", "case", "what its user reads", "seconds")
    )


@pytest.fixture
def running(request: pytest.FixtureRequest, api: Api, kubeconfig: Path) -> KueueRelease:
    return installed(request.config, kubeconfig)


@pytest.fixture
def kueue(running: KueueRelease, api: Api) -> Iterator[Kueue]:
    """Kueue with a ClusterQueue of four CPUs, and the LocalQueue "team" that uses it."""
    kueue = Kueue(api)
    kueue.flavor("cpu")
    kueue.cluster_queue("all", "cpu", "4")
    kueue.local_queue("team", "all")
    yield kueue
    kueue.remove()


@pytest.fixture
def queue(
    kueue: Kueue, api: Api, operator: Operator, manifest: Callable[..., Object]
) -> Iterator[Callable[..., Run]]:
    """Return a function that creates an RFTJob in a queue. The RFTJob is deleted after the test."""
    made: list[Run] = []

    def create(cpu: str, name: str = "team", priority: str | None = None, **resources: Any) -> Run:
        accelerator = {} if "gpus" in resources else {"accelerator": {"name": "cpu"}}
        placed = {"cpu": cpu, "memory": "12Gi", "nodeSelector": {"rft.dev/none": "here"}}
        document = manifest(resources={**accelerator, **placed, **resources})
        document["metadata"]["name"] += f"-{len(made)}"
        document["metadata"]["labels"] = {QUEUE_NAME: name, **({PRIORITY: priority} if priority else {})}
        made.append(Run(api, api.create(RFTJOBS, document)))
        return made[-1]

    yield create
    operator.check()
    for run in made:
        if api.find(RFTJOBS, run.name) is not None:
            api.delete(RFTJOBS, run.name)
    for run in made:
        wait_until("the Job is gone", partial(gone, api, JOBS, run.child_name), 60)


def admitted(run: Run) -> None:
    """Wait until Kueue has admitted the child Job and the RFTJob's status shows it."""
    wait_until("admission", lambda: run.child()["spec"].get("suspend") is not True, 90)
    wait_until("the status is updated", lambda: run.status.get("phase") != "Queued")


def test_a_job_waits_for_quota_until_another_job_releases_it(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run]
) -> None:
    first = queue("3")
    admitted(first)
    second = queue("2")
    status = messages.until("quota short", second, "insufficient unused quota for cpu")
    assert (status["phase"], second.condition("Ready")["reason"]) == ("Queued", "Queued")
    messages.until("its place in the queue", second, "The child Job is number 1 in this LocalQueue.")
    first.api.patch(RFTJOBS, first.name, {"spec": {"cancel": True}})
    admitted(second)


def test_a_missing_local_queue_is_reported_until_it_is_created(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run]
) -> None:
    run = queue("1", "later")
    messages.until("LocalQueue missing", run, "LocalQueue later doesn't exist")
    assert run.condition("Ready")["reason"] == "Inadmissible"
    kueue.local_queue("later", "all")
    admitted(run)


def test_a_wrong_queue_label_can_be_corrected_while_the_job_waits(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api
) -> None:
    run = queue("1", "tema")
    messages.until("label wrong, then corrected", run, "LocalQueue tema doesn't exist")
    api.patch(RFTJOBS, run.name, {"metadata": {"labels": {QUEUE_NAME: "team"}}})
    admitted(run)


def test_a_job_in_a_held_cluster_queue_waits_until_it_is_released(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api
) -> None:
    api.patch(f"{KUEUE}/clusterqueues", "all", {"spec": {"stopPolicy": "Hold"}})
    run = queue("1")
    messages.until("ClusterQueue held", run, "ClusterQueue all is inactive")
    api.patch(f"{KUEUE}/clusterqueues", "all", {"spec": {"stopPolicy": "None"}})
    admitted(run)


def test_ten_preemptions_by_a_higher_priority_do_not_count_as_failures(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api
) -> None:
    for name, value in (("low", 1), ("high", 100)):
        body = {"kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": value}
        kueue.make(f"{KUEUE}/workloadpriorityclasses", body)
    preemption = {"withinClusterQueue": "LowerPriority"}
    api.patch(f"{KUEUE}/clusterqueues", "all", {"spec": {"preemption": preemption}})
    patient = queue("3", priority="low")
    for number in range(10):
        admitted(patient)
        patient.start_pod(patient.pod())
        urgent = queue("3", priority="high")
        if number == 0:
            messages.until("preempted by a higher priority", patient, "Kueue stopped the child Job at ")
            assert patient.condition("Ready")["reason"] == "Preempted"
        else:
            patient.wait_for_phase("Queued")
        # As on a real node: SIGTERM ends the trainer, and the pod fails with exit code 143.
        for pod in patient.pods():
            if pod["status"]["phase"] == "Running":
                patient.end_pod(pod, 143)
        api.delete(RFTJOBS, urgent.name)
        wait_until("the urgent Job is gone", partial(gone, api, JOBS, urgent.child_name), 60)
    admitted(patient)
    status = patient.status
    assert status.get("failedPods", 0) == 0
    assert status["phase"] in ("Pending", "Starting", "Running")


def test_a_deactivated_workload_is_reported_until_it_is_active_again(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api
) -> None:
    run = queue("1")
    admitted(run)
    name = kueue.workload(run)["metadata"]["name"]
    api.patch(WORKLOADS, name, {"spec": {"active": False}})
    messages.until("Workload deactivated", run, "is deactivated (spec.active is false)")
    api.patch(WORKLOADS, name, {"spec": {"active": True}})
    admitted(run)


@pytest.mark.parametrize("state", ["Pending", "Retry", "Rejected"])
def test_an_admission_check_that_is_not_ready_is_reported(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api, state: str
) -> None:
    check = {
        "kind": "AdmissionCheck",
        "metadata": {"name": "budget"},
        "spec": {"controllerName": "test/none"},
    }
    kueue.make(f"{KUEUE}/admissionchecks", check)
    at = "2026-11-28T00:00:00Z"
    active = {"type": "Active", "status": "True", "reason": "Active", "message": "", "lastTransitionTime": at}
    api.patch(f"{KUEUE}/admissionchecks", "budget/status", {"status": {"conditions": [active]}})
    api.patch(f"{KUEUE}/clusterqueues", "all", {"spec": {"admissionChecks": ["budget"]}})
    run = queue("1")
    messages.until(f"AdmissionCheck, then {state}", run, "AdmissionCheck budget says Pending")
    if state == "Pending":
        return
    workload = kueue.workload(run)
    checks = workload["status"]["admissionChecks"]
    checks[0] |= {"state": state, "message": "no budget this month"}
    api.patch(WORKLOADS, f"{workload['metadata']['name']}/status", {"status": {"admissionChecks": checks}})
    # Kueue resets a check with state Retry to Pending. It deactivates a Workload with a Rejected check.
    expected = "(spec.active is false)" if state == "Rejected" else "Previously: Retry"
    messages.until(f"AdmissionCheck {state}", run, expected)


def test_a_queued_job_can_be_suspended_and_resumed_by_its_user(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api
) -> None:
    blocking = queue("4")
    admitted(blocking)
    run = queue("1")
    messages.until("queued, before its user suspends it", run, "insufficient unused quota")
    api.patch(RFTJOBS, run.name, {"spec": {"suspend": True}})
    run.wait_for_phase("Suspended")
    api.patch(RFTJOBS, run.name, {"spec": {"suspend": False}})
    messages.until("resumed, queued again", run, "insufficient unused quota")
    api.delete(RFTJOBS, blocking.name)
    admitted(run)


def test_deletion_of_a_queued_job_deletes_all_its_objects(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api
) -> None:
    run = queue("9")
    messages.until("requests more than the quota", run, "insufficient quota for cpu")
    child = run.child_name
    api.delete(RFTJOBS, run.name)
    wait_until("the Job is gone", lambda: api.find(JOBS, child) is None)
    wait_until("the ConfigMap is gone", lambda: api.find(CONFIG_MAPS, child) is None)
    wait_until(
        "the Workload is gone",
        lambda: not any(child in w["metadata"]["name"] for w in api.call("GET", WORKLOADS)["items"]),
    )


def test_kueue_counts_the_gpus_of_the_plan(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api
) -> None:
    kueue.flavor("gpu")
    kueue.cluster_queue("gpus", "gpu", "64", gpus="2")
    kueue.local_queue("gpus", "gpus")
    first = queue("2", "gpus", gpus=2, accelerator={"name": "nvidia-l40s-48gb"})
    admitted(first)
    counted = kueue.workload(first)["status"]["admission"]["podSetAssignments"][0]["resourceUsage"]
    plan = first.status["plan"]
    assert counted["nvidia.com/gpu"] == str(plan["gpus"]) == "2"
    asked: dict[str, float] = {}
    for container in first.child()["spec"]["template"]["spec"]["containers"]:
        resources = container["resources"]
        for name, amount in {**resources.get("limits", {}), **resources["requests"]}.items():
            asked[name] = asked.get(name, 0.0) + quantity(amount)
    assert {name: quantity(amount) for name, amount in counted.items()} == asked
    second = queue("2", "gpus", gpus=1, accelerator={"name": "nvidia-l40s-48gb"})
    messages.until(
        "GPU quota short", second, "insufficient unused quota for nvidia.com/gpu in flavor gpu, 1 more"
    )


def test_kueue_chooses_the_flavor_with_the_gpu_of_the_plan(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api
) -> None:
    products = {"l40s": "NVIDIA-L40S", "t4": "Tesla-T4"}
    for name, product in products.items():
        kueue.flavor(name, product)
    kueue.cluster_queue("kinds", tuple(products), "64", gpus="1")
    kueue.local_queue("kinds", "kinds")
    small = {"rft.dev/none": "here", PRODUCT_LABEL: "Tesla-T4"}
    # No node has this kind of GPU, as in a node pool scaled to zero. So the plan sets no node label, and the
    # user must set one.
    first = queue("2", "kinds", gpus=1, accelerator={"name": "nvidia-t4-16gb"}, nodeSelector=small)
    admitted(first)
    (assigned,) = kueue.workload(first)["status"]["admission"]["podSetAssignments"]
    assert assigned["flavors"]["nvidia.com/gpu"] == "t4"
    pod = first.pod()["spec"]
    assert pod["nodeSelector"][PRODUCT_LABEL] == "Tesla-T4"
    assert any(one.get("key") == "rft.dev/dedicated" for one in pod["tolerations"])
    second = queue("2", "kinds", gpus=1, accelerator={"name": "nvidia-t4-16gb"}, nodeSelector=small)
    messages.until("the other flavor has quota", second, "flavor l40s doesn't match node affinity")


def test_a_flavor_with_another_gpu_than_the_plans_is_reported(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api
) -> None:
    kueue.flavor("t4", "Tesla-T4")
    kueue.cluster_queue("small", "t4", "64", gpus="1")
    kueue.local_queue("small", "small")
    run = queue("2", "small", gpus=1, accelerator={"name": "nvidia-l40s-48gb"})
    admitted(run)
    messages.until("admitted to another kind of GPU", run, "but the plan is made for nvidia-l40s-48gb")


def test_a_job_on_borrowed_quota_is_preempted_when_the_owner_needs_it(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api
) -> None:
    for name in ("left", "right"):
        reclaim = {"reclaimWithinCohort": "Any"}
        kueue.cluster_queue(name, "cpu", "2", cohort="both", preemption=reclaim)
        kueue.local_queue(name, name)
    borrower = queue("3", "left")
    admitted(borrower)
    owner = queue("2", "right")
    messages.until("reclaimed by the other queue of the cohort", borrower, "Kueue stopped the child Job at ")
    admitted(owner)


def test_a_failure_of_kueues_webhook_is_reported_and_the_job_recovers(
    messages: WaitMessages, kueue: Kueue, queue: Callable[..., Run], api: Api
) -> None:
    api.call("PATCH", CONTROLLER, {"spec": {"replicas": 0}})
    try:
        wait_until(
            "Kueue is gone", lambda: not api.call("GET", CONTROLLER).get("status", {}).get("replicas"), 60
        )
        began = time.monotonic()
        run = queue("1")
        messages.until("Kueue's webhook down", run, "kueue", within=30.0, since=began)
        assert run.condition("Ready")["reason"] == "FailedCreate"
    finally:
        api.call("PATCH", CONTROLLER, {"spec": {"replicas": 1}})
    wait_until("admission", lambda: api.find(JOBS, run.child_name), 180)
    admitted(run)


def test_a_job_whose_pods_are_not_ready_in_time_is_evicted(
    messages: WaitMessages,
    kueue: Kueue,
    queue: Callable[..., Run],
    running: KueueRelease,
) -> None:
    running.configure(waitForPodsReady={"timeout": "5s", "requeuingStrategy": {"backoffBaseSeconds": 600}})
    run = queue("1")
    admitted(run)
    began = wait_until(
        "eviction", lambda: time.monotonic() if run.child()["spec"].get("suspend") else None, 60
    )
    status = messages.until("pods not ready in time", run, "(PodsReadyTimeout)", since=began)
    assert "Kueue does not consider the child Job until" in status["message"]


def test_the_operator_logged_no_error_during_these_tests(
    messages: WaitMessages, kueue: Kueue, operator: Operator
) -> None:
    assert "the reconciliation failed" not in operator.log.read_text()
