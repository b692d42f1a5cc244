"""A refresh replaces the Job and the pods of a cached state, and keeps all other objects."""

from dataclasses import replace
from typing import Any

import pytest

from rft_operator.objects.names import Owner
from rft_operator.observe import Observed, refreshed
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
        (STARTED, JOB, [pod("a", "", "Pending")]),
    ],
    ids=["the Job is gone", "another's Job", "a name was taken", "a pod is not scheduled"],
)
def test_everything_is_read_if_other_objects_may_have_changed(
    cached: Observed, job: Any, pods: list[Any]
) -> None:
    assert refreshed(OWNER, cached, job, pods) is None


def test_an_ended_pod_without_a_node_does_not_cause_a_complete_read() -> None:
    assert refreshed(OWNER, STARTED, JOB, [pod("a", "", "Failed")]) is not None
