"""A refresh replaces the Job and the pods of a cached state, and keeps all other objects."""

from dataclasses import replace
from typing import Any

import pytest

from rft_operator.objects.names import Owner
from rft_operator.observe import Observed, refreshed, waits_for_a_node, with_claim
from tests.unit.reconcile_support import STARTED

OWNER = Owner("sums", "team", "uid-1")
JOB: dict[str, Any] = {
    "metadata": {"uid": "job-2", "ownerReferences": [OWNER.reference]},
    "status": {"failed": 1},
}


def pod(
    name: str, node: str, phase: str = "Running", created: str = "2026-11-22T10:00:00Z"
) -> dict[str, Any]:
    controller = {"uid": "job-2", "kind": "Job", "controller": True}
    metadata = {"name": name, "uid": name, "creationTimestamp": created, "ownerReferences": [controller]}
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": {"phase": phase}}


def test_job_and_pods_are_refreshed_and_the_rest_is_kept() -> None:
    newer, older = pod("b", "n1"), pod("a", "n1", "Failed", "2026-11-22T09:00:00Z")
    found = refreshed(OWNER, STARTED, JOB, [newer, older])
    assert found is not None
    assert found.child is not None
    assert (found.child.uid, found.child.failed_pods) == ("job-2", 1)
    assert [each.name for each in found.pods] == ["a", "b"]
    assert replace(found, child=STARTED.child, pods=STARTED.pods) == STARTED


@pytest.mark.parametrize(
    ("cached", "job", "pods"),
    [
        (STARTED, None, []),
        (STARTED, {**JOB, "metadata": {"uid": "job-3"}}, []),
        (replace(STARTED, conflicts=("Job x",)), JOB, []),
    ],
    ids=["the Job is gone", "another's Job", "a name was taken"],
)
def test_everything_is_read_if_other_objects_may_have_changed(
    cached: Observed, job: Any, pods: list[Any]
) -> None:
    assert refreshed(OWNER, cached, job, pods) is None


@pytest.mark.parametrize(("phase", "waits"), [("Pending", True), ("Failed", False)])
def test_only_a_pod_that_has_not_ended_waits_for_a_node(phase: str, waits: bool) -> None:
    found = refreshed(OWNER, STARTED, JOB, [pod("a", "", phase)])
    assert found is not None
    assert waits_for_a_node(found) == waits


def test_the_claim_of_a_waiting_pod_is_refreshed_unless_it_has_another_owner() -> None:
    assert with_claim(OWNER, replace(STARTED, claim_exists=True), None) == replace(
        STARTED, claim_exists=False
    )
    retained = {"metadata": {"name": OWNER.child, "labels": OWNER.labels}}
    assert with_claim(OWNER, STARTED, retained) == replace(STARTED, claim_exists=True)
    assert with_claim(OWNER, STARTED, {"metadata": {"name": OWNER.child}}) is None
