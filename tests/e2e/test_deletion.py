"""All objects of an RFTJob disappear, even if the RFTJob is deleted while the operator is stopped.

Kubernetes deletes the children of an RFTJob by their owner references. An RFTJob has no finalizer, so its
deletion does not wait for the operator.
"""

from collections.abc import Iterator
from copy import copy

import pytest

from tests.chaos.jobs import job, prerequisites
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

OPERATOR = "deployment/rft-operator"
NAME = "deleted"
# Time limit in seconds until all objects are gone. The trainer saves a checkpoint first, and then tries for
# one minute to report to the stopped operator.
GONE_SECONDS = 180.0
AWAY_SECONDS = 180.0
"""Time limit in seconds until the operator's pods are gone. A pod may take 30 s to end, and a busy node
reports the end late.
"""
CLAIM = {"claimTemplate": {"size": "1Gi", "retain": False}}


def in_namespace(kubectl: Kubectl, namespace: str) -> Kubectl:
    other = copy(kubectl)
    other.namespace = namespace
    return other


@pytest.fixture
def elsewhere(kubectl: Kubectl) -> Iterator[Kubectl]:
    """kubectl in a namespace that the test deletes."""
    other = in_namespace(kubectl, "rft-e2e-deleted")
    other.run("delete", "namespace", other.namespace, "--ignore-not-found", "--wait")
    other.run("create", "namespace", other.namespace)
    yield other
    other.run("delete", "namespace", other.namespace, "--ignore-not-found", "--wait=false")


@pytest.fixture
def operator(kubectl: Kubectl) -> Iterator[Kubectl]:
    """kubectl in the operator's namespace. The operator is started again after the test."""
    system = in_namespace(kubectl, "rft-system")
    yield system
    system.run("scale", OPERATOR, "--replicas=2")
    system.run("rollout", "status", OPERATOR, "--timeout=100s")


def started(kubectl: Kubectl) -> str:
    """Apply a job with a claim of its own. Wait until it trains. Return its UID."""
    manifest = job(NAME, "transformers")
    manifest["spec"]["storage"] = CLAIM
    manifest["spec"]["stop"] = {"maxSteps": 1000}
    manifest["spec"]["training"]["epochs"] = 10
    kubectl.apply(*prerequisites(), manifest)
    wait_until("the job trains", lambda: phase(kubectl) == "Running", 180)
    return str(kubectl.get("rftjob", NAME)["metadata"]["uid"])


def phase(kubectl: Kubectl) -> str:
    return str((kubectl.get("rftjob", NAME).get("status") or {}).get("phase"))


def children(kubectl: Kubectl, uid: str) -> list[Object]:
    kinds = ("jobs", "pods", "configmaps", "persistentvolumeclaims")
    return [child for kind in kinds for child in kubectl.list(kind, f"rft.dev/job-uid={uid}")]


def replicas(operator: Kubectl) -> int:
    selector = operator.get("deployment", "rft-operator")["spec"]["selector"]["matchLabels"]
    return len(operator.list("pods", ",".join(f"{name}={value}" for name, value in selector.items())))


def test_deletion_while_the_operator_is_stopped_leaves_no_object_behind(
    kubectl: Kubectl, elsewhere: Kubectl, operator: Kubectl
) -> None:
    uid = started(kubectl)
    started(elsewhere)
    assert len(children(kubectl, uid)) >= 5, "the job must have a Job, a pod, two ConfigMaps and a claim"
    operator.run("scale", OPERATOR, "--replicas=0")
    wait_until("the operator is stopped", lambda: not replicas(operator), AWAY_SECONDS)

    kubectl.run("delete", "rftjob", NAME, "--wait=false")
    elsewhere.run("delete", "namespace", elsewhere.namespace, "--wait=false")
    wait_until("the job's children are gone", lambda: not children(kubectl, uid), GONE_SECONDS, poll=1.0)
    gone = ("get", "namespace", elsewhere.namespace)
    wait_until("the namespace is gone", lambda: elsewhere.run(*gone, check=False).returncode, GONE_SECONDS)
    assert kubectl.run("get", "rftjob", NAME, check=False).returncode != 0
