"""The operator's cache of the cluster's nodes.

It reads the nodes rarely. A failed read does not stop the operator.
"""

import logging
from typing import Any

import pytest

from rft_operator.cluster import ClusterError
from rft_operator.nodes import Nodes
from rft_operator.observe import node, pod
from rft_planner.nodes import Node, Taint

RAW: dict[str, Any] = {
    "metadata": {"name": "gpu-1", "labels": {"nvidia.com/gpu.product": "Tesla-T4"}},
    "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
    "status": {
        "allocatable": {"cpu": "7910m", "memory": "32Gi", "nvidia.com/gpu": "2", "odd": "1e3"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}


class Server:
    """A fake API server that lists nodes, or raises the error that a test sets. ``now`` is the time in s."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = [RAW]
        self.error: ClusterError | None = None
        self.reads, self.now = 0, 0.0
        self.nodes = Nodes(self._read, lambda: self.now)

    def _read(self) -> list[dict[str, Any]]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.items

    def names(self, max_age: float = 60.0) -> list[str]:
        return [found.name for found in self.nodes.get(max_age)]


def test_resources_and_labels_of_a_node_are_parsed() -> None:
    assert node(RAW) == Node(
        "gpu-1",
        {"nvidia.com/gpu.product": "Tesla-T4"},
        {"cpu": 7.91, "memory": 32 * 2**30, "nvidia.com/gpu": 2, "odd": 0},
        (Taint("nvidia.com/gpu"),),
    )


@pytest.mark.parametrize(
    "change",
    [{"spec": {"unschedulable": True}}, {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}],
    ids=["cordoned", "not ready"],
)
def test_a_node_that_is_cordoned_or_not_ready_is_not_schedulable(change: dict[str, Any]) -> None:
    assert node(RAW).schedulable
    assert not node({**RAW, **change}).schedulable


@pytest.mark.parametrize("status", ["Unknown", "False"])
def test_the_time_since_when_a_node_is_not_ready_is_parsed(status: str) -> None:
    assert node(RAW).silent_since == ""
    ready = {"type": "Ready", "status": status, "lastTransitionTime": "2026-11-22T17:58:00Z"}
    assert node({**RAW, "status": {"conditions": [ready]}}).silent_since == "2026-11-22T17:58:00Z"


def test_a_pods_requests_are_the_sum_of_its_containers() -> None:
    def container(**requests: str) -> dict[str, Any]:
        return {"name": "x", "resources": {"requests": requests}}

    containers = [container(cpu="4", memory="1Gi"), container(cpu="100m", memory="256Mi"), {"name": "y"}]
    seen = pod({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": containers}})
    assert seen.requests == {"cpu": 4.1, "memory": 1280 * 2**20}


def test_nodes_are_read_again_only_after_their_maximum_age() -> None:
    server = Server()
    assert server.names() == server.names() == ["gpu-1"]
    assert server.reads == 1
    server.now = 30
    assert server.names(max_age=60) == ["gpu-1"]
    assert server.reads == 1
    server.items = []
    assert server.names(max_age=10) == []
    assert server.reads == 2


def test_a_plan_sees_the_first_node_with_a_gpu_within_seconds() -> None:
    server = Server()
    bare = {**RAW, "metadata": {"name": "cpu-1", "labels": {}}}
    server.items = [bare]
    assert [each.name for each in server.nodes.for_a_plan()] == ["cpu-1"]
    server.items, server.now = [bare, RAW], 11
    assert [each.name for each in server.nodes.for_a_plan()] == ["cpu-1", "gpu-1"]
    assert server.reads == 2
    server.now = 70
    server.nodes.for_a_plan()
    assert server.reads == 2, "with GPUs, nodes are read at most once a minute"


def test_nodes_that_cannot_be_read_are_empty_and_the_error_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    server.error = ClusterError(403, "nodes is forbidden")
    with caplog.at_level(logging.WARNING):
        for server.now in (0, 1, 100, 200):
            assert server.names() == []
    assert server.reads == 3, "after a failed read the next read must be delayed"
    assert [record.message for record in caplog.records] == [
        "the nodes cannot be read, so plans use the last ones that were read, if any: 403: nodes is forbidden"
    ]


def test_a_failed_read_keeps_the_nodes_of_the_last_one() -> None:
    server = Server()
    assert server.names() == ["gpu-1"]
    server.error, server.now = ClusterError(503, "away"), 100
    assert server.names() == ["gpu-1"]


def test_a_cluster_without_nodes_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.items = []
    with caplog.at_level(logging.WARNING):
        for server.now in (0, 100):
            assert server.names() == []
    assert len(caplog.records) == 1


def test_a_disabled_cache_has_no_nodes() -> None:
    assert Nodes(None).get(0.0) == ()
