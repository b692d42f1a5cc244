"""Finds out which nodes a pod may use, which resources a node has, and which kind its GPUs are.

The labels in ``kind_labels`` identify the kind of a GPU. For an unknown GPU, other labels give its name and
memory:

- NVIDIA's gpu-feature-discovery sets ``nvidia.com/gpu.product``, and ``nvidia.com/gpu.memory`` in MiB. With
  the MIG strategy ``mixed``, it also sets labels such as ``nvidia.com/mig-1g.10gb.memory``.
- AMD's node labeller sets ``amd.com/gpu.product-name``, and ``amd.com/gpu.vram``, for example ``192G``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rft_api.resources import Toleration
from rft_api.status import NodeTerm
from rft_planner import kind_labels
from rft_planner.accelerators import ACCELERATORS, AMD, NVIDIA
from rft_planner.kind_labels import GKE_SHARING, Table, product_key
from rft_planner.sizes import GIB

OS_LABEL, LINUX = "kubernetes.io/os", "linux"
"""The node label, with its value, that every pod of a run selects. The kubelet sets it."""
CPU = "cpu"
MEMORY = "memory"
VISIBLE = 0.97
"""Share of the memory in a node's label that a process sees. For a T4 the label says 15,360 MiB, but torch
reports 14.6 GiB."""

_MIG = re.compile(r"^nvidia\.com/mig-(\S+)$")
_VRAM = re.compile(r"^(\d+)(?:G|GB|Gi)$")
_REPELLING = ("NoSchedule", "NoExecute")


@dataclass(frozen=True)
class Taint:
    """A taint of a node."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True)
class Node:
    """The facts about a node that the planner needs."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    allocatable: Mapping[str, float] = field(default_factory=dict)
    """The node's allocatable CPUs, bytes and devices, by resource, including those that other pods use."""
    taints: tuple[Taint, ...] = ()
    schedulable: bool = True
    """Whether the node is ready and not cordoned."""
    silent_since: str = ""
    """Time at which the node became not ready, in RFC 3339. Empty: the node is ready."""


@dataclass(frozen=True)
class Kind:
    """One kind of GPU that nodes offer."""

    resource: str
    """Name of the extended resource that a pod requests for this kind of GPU."""
    memory: float
    """Memory of one device, in bytes."""
    name: str | None = None
    """Name of this kind of GPU in the catalogue, or None if the catalogue does not have it."""
    label: tuple[str, str] | None = None
    """The node label, with its value, that identifies this kind of GPU."""

    @property
    def title(self) -> str:
        """The name of this kind of GPU in messages to users."""
        return self.name or (self.label[1] if self.label is not None else self.resource)


def kinds_of(node: Node, table: Table = kind_labels.TABLE) -> list[Kind]:
    """Return the kinds of GPU of a node. Left out are kinds whose memory is not known, and GPUs that several
    pods share.
    """
    offered = sorted(name for name, amount in node.allocatable.items() if amount >= 1 and is_gpu(name))
    return [kind for name in offered if (kind := _kind(node, name, table)) is not None]


def is_gpu(resource: str) -> bool:
    """Return whether an extended resource is a GPU or a slice of one."""
    return resource in (NVIDIA, AMD) or _MIG.match(resource) is not None


def _kind(node: Node, resource: str, table: Table) -> Kind | None:
    label = _product_label(node.labels, resource)
    if _is_shared(node, resource, label):
        return None
    name = _catalogued(label[1], resource) if label is not None else None
    if name is not None:
        return Kind(resource, ACCELERATORS[name].memory, name, label)
    if label is None and (known := _by_cloud(node.labels, resource, table)) is not None:
        return Kind(resource, ACCELERATORS[known[0]].memory, *known)
    memory = _labelled_memory(node, resource)
    return Kind(resource, memory, None, label) if memory is not None else None


def _by_cloud(labels: Mapping[str, str], resource: str, table: Table) -> tuple[str, tuple[str, str]] | None:
    """Return the accelerator of a node, and the label that names this accelerator. Only labels of the cloud
    are used.

    Return ``None`` if no such label is known. Also return ``None`` for slices of GPUs, because these labels
    name the whole GPU.
    """
    found = kind_labels.known_by(labels, table)
    return found if found is not None and ACCELERATORS[found[0]].resource == resource else None


def catalogued(labels: Mapping[str, str], resource: str) -> str | None:
    """Return the catalogue's name for the GPUs of a node, found by the node's labels. Return ``None`` if the
    catalogue has none.
    """
    label = _product_label(labels, resource)
    return _catalogued(label[1], resource) if label is not None else None


def _product_label(labels: Mapping[str, str], resource: str) -> tuple[str, str] | None:
    """Return the node label with the product name of the GPUs that ``resource`` requests, or None.

    A MIG slice may have no label of its own. Then the label of the whole GPU is returned.
    """
    own = product_key(resource)
    keys = (own, product_key(NVIDIA)) if _MIG.match(resource) else (own,)
    return next(((key, labels[key]) for key in keys if labels.get(key)), None)


def _is_shared(node: Node, resource: str, label: tuple[str, str] | None) -> bool:
    replicas = node.labels.get(f"{resource}.replicas", "")
    if GKE_SHARING in node.labels:
        return True
    return (label is not None and label[1].endswith("-SHARED")) or (replicas.isdigit() and int(replicas) > 1)


def _catalogued(product: str, resource: str) -> str | None:
    """Return the name of a GPU or a MIG slice in the catalogue, or None if the catalogue does not have it.

    ``product`` is the product name in the node's label. A slice's MIG profile is in the name of its resource
    or in its product name.
    """
    whole, _, slice_ = product.partition("-MIG-")
    mixed = _MIG.match(resource)
    profile = mixed[1] if mixed is not None else slice_
    name = next((name for name, device in ACCELERATORS.items() if whole in device.products), None)
    if name is None or not profile:
        return name
    return sliced if (sliced := f"{name}-mig-{profile}") in ACCELERATORS else None


def _labelled_memory(node: Node, resource: str) -> float | None:
    if resource == AMD:
        found = _VRAM.match(node.labels.get(f"{AMD}.vram", ""))
        return VISIBLE * int(found[1]) * GIB if found is not None else None
    mebibytes = node.labels.get(f"{resource}.memory", "")
    return VISIBLE * int(mebibytes) * 2**20 if mebibytes.isdigit() and int(mebibytes) else None


def usable(
    nodes: Sequence[Node],
    selector: Mapping[str, str],
    tolerations: Sequence[Toleration],
    resource: str | None = None,
    terms: Sequence[NodeTerm] = (),
) -> list[Node]:
    """Return the Linux nodes that are ready and not cordoned, and whose labels and taints allow a pod.

    - ``selector`` and ``tolerations`` are those of the pod. The user's affinity is ignored.
    - ``resource`` is the extended resource that the pod requests. A taint whose key is this name is
      tolerated.
    - ``terms`` are sets of node labels from the plan. A node must have all labels of at least one set.
    """
    return [
        node
        for node in nodes
        if node.schedulable
        and node.labels.get(OS_LABEL, LINUX) == LINUX
        and all(node.labels.get(key) == value for key, value in selector.items())
        and kind_labels.meets(node.labels, list(terms))
        and all(taint.key == resource or _tolerated(taint, tolerations) for taint in node.taints)
    ]


def _tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    return taint.effect not in _REPELLING or any(_tolerates(toleration, taint) for toleration in tolerations)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Return whether a toleration matches a taint, by the rules of the Kubernetes scheduler."""
    if toleration.effect not in (None, taint.effect) or toleration.key not in (None, taint.key):
        return False
    exists = toleration.operator == "Exists"
    return exists or (toleration.key is not None and (toleration.value or "") == taint.value)


def holds(node: Node, needs: Mapping[str, float]) -> bool:
    """Return whether a pod's needs fit on an empty node. Other pods on the node are not considered."""
    return all(node.allocatable.get(resource, 0.0) >= amount for resource, amount in needs.items())
