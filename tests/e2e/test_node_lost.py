"""The node of a running trainer is disconnected.

The status says that the node is lost. The run continues when the node is back.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rft_operator.leadership import LEADER_LABEL
from tests.chaos.jobs import job, prerequisites
from tests.cluster.layout import default_layout
from tests.cluster.provider import choose_provider
from tests.e2e.jobs_support import condition, ended, pods, status
from tests.kubectl import Kubectl
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]
NAME = "cut-off"


@pytest.fixture
def far_node(kubectl: Kubectl) -> str:
    """Name of a worker node of the kind cluster on which the leading operator does not run."""
    described = choose_provider(default_layout()).describe()
    nodes = described.get("nodes_for_pods", "").split(",")
    if len(nodes) < 2:
        pytest.skip(
            "needs kind with two workers: one is disconnected, and the leading operator runs on the other"
        )
    acting = f"app.kubernetes.io/name=rft-operator,{LEADER_LABEL}=true"
    everywhere = ("get", "pods", "--all-namespaces", "-l", acting)
    taken = kubectl.run(*everywhere, "-o", "jsonpath={.items[*].spec.nodeName}").stdout.split()
    return next(node for node in nodes if node not in taken)


@contextmanager
def cut_off(node: str) -> Iterator[None]:
    """Pause all processes of a node during the ``with`` block."""
    subprocess.run(["docker", "pause", node], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["docker", "unpause", node], check=True, capture_output=True)


def test_a_disconnected_node_is_reported_and_the_run_continues_on_its_return(
    kubectl: Kubectl, far_node: str
) -> None:
    manifest = job(NAME, "transformers")
    manifest["spec"]["resources"]["nodeSelector"] = {"kubernetes.io/hostname": far_node}
    kubectl.apply(*prerequisites(), manifest)
    wait_until("a step", lambda: status(kubectl, NAME).get("progress", {}).get("step", 0) >= 1, 300)
    with cut_off(far_node):
        began = time.monotonic()
        lost = wait_until(
            "the lost node is reported",
            lambda: (
                found
                if (found := condition(status(kubectl, NAME), "Ready"))["reason"] == "NodeLost"
                else None
            ),
            120,
        )
        print(f"the lost node was reported after {time.monotonic() - began:.0f} s: {lost['message']}")
        assert f"kubectl delete node {far_node}" in lost["message"]
    found = wait_until("the job ends", lambda: ended(kubectl, NAME), 300)
    assert found["phase"] == "Succeeded", found
    assert found.get("failedPods", 0) == 0
    assert len(pods(kubectl, NAME)) == 1, "the run must continue in the same pod"
