"""Nodes with simulated GPUs: the scheduler counts them when it places pods, but no pod computes on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.integration.operator_support import Api, Object

NODES = "api/v1/nodes"
GPU = "nvidia.com/gpu"
PRODUCT = f"{GPU}.product"


def ready_nodes(api: Api) -> list[Object]:
    """Return the nodes on which pods can run."""
    items: list[Object] = api.call("GET", NODES).get("items") or []
    return [node for node in items if not node["spec"].get("taints")]


@contextmanager
def gpus(api: Api, count: int, product: str | None = None) -> Iterator[Object]:
    """Make the first ready node advertise ``count`` GPUs during the ``with`` block. Yield the node.

    ``product`` is the value of the node's label for the kind of GPU. If it is None, the node has no such
    label.
    """
    name = ready_nodes(api)[0]["metadata"]["name"]
    try:
        yield _offer(api, name, str(count), product)
    finally:
        _offer(api, name, None, None)


def _offer(api: Api, name: str, count: str | None, product: str | None) -> Object:
    # In a merge patch null removes a field.
    amounts = {"capacity": {GPU: count}, "allocatable": {GPU: count}}
    api.patch(NODES, name, {"metadata": {"labels": {PRODUCT: product}}})
    return api.patch(NODES, f"{name}/status", {"status": amounts})


@contextmanager
def fake_node(api: Api, name: str, product: str, count: int) -> Iterator[None]:
    """Add a node object with ``count`` GPUs, but no machine. A taint keeps all pods away from the node."""
    amounts = {"cpu": "64", "memory": "512Gi", "pods": "100", GPU: str(count)}
    status: dict[str, Any] = {"capacity": amounts, "allocatable": amounts}
    body = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"rft.dev/fake": "", PRODUCT: product}},
        "spec": {"taints": [{"key": "rft.dev/fake", "effect": "NoSchedule"}]},
        "status": status,
    }
    api.call("POST", NODES, body)
    try:
        api.patch(NODES, f"{name}/status", {"status": status})
        yield
    finally:
        api.delete(NODES, name)
