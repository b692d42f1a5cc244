"""Finds out which nodes a pod may use, whether a node has enough resources, and of which kind its GPUs are.

Node labels identify the kind of the GPUs (see the module ``kind_labels``). For a GPU that is not in the
catalogue of accelerators, these labels give the name and the memory:

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
"""Key and value of the node label that every pod of a run has in its node selector. The kubelet sets it."""
CPU = "cpu"
MEMORY = "memory"
VISIBLE = 0.97
"""Share of the GPU memory in a node's label that a process sees. For a T4 the label says 15,360 MiB, but
torch reports 14.6 GiB."""

_MIG = re.compile(r"^nvidia\.com/mig-(\S+)$")
_VRAM = re.compile(r"^(\d+)(?:G|GB|Gi)$")
_REPELLING = ("NoSchedule", "NoExecute")


@dataclass(frozen=True)
class Taint:
    """A taint of a Kubernetes node. It keeps pods without a matching toleration away from the node."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True)
class Node:
    """A Kubernetes node: its labels, taints and allocatable resources, and whether pods can run on it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    allocatable: Mapping[str, float] = field(default_factory=dict)
    """The node's allocatable CPUs, bytes and devices, by resource. What other pods use is not subtracted."""
    taints: tuple[Taint, ...] = ()
    schedulable: bool = True
    """Whether the node is ready and not cordoned."""
    silent_since: str = ""
    """Time at which the node became not ready, in RFC 3339. Empty: the node is ready."""


@dataclass(frozen=True)
class Kind:
    """A kind of GPU, or of MIG slice, that nodes of the cluster have."""

    resource: str
    """Name of the extended resource that a pod requests for this kind of GPU."""
    memory: float
    """Memory of one device, in bytes."""
    name: str | None = None
    """Name of this kind of GPU in the catalogue, or None if the catalogue does not have it."""
    label: tuple[str, str] | None = None
    """Key and value of the node label that identifies this kind of GPU. None: there is no such label."""

    @property
    def title(self) -> str:
        """The name of this GPU in messages: its ``name``, or else the value of its label, or its resource."""
        return self.name or (self.label[1] if self.label is not None else self.resource)


def kinds_of(node: Node, table: Table = kind_labels.TABLE) -> list[Kind]:
    """Return the kinds of GPU that a node has, with their memory.

    GPUs whose memory is not known, and GPUs that several pods share, are left out. ``table`` has the node
    labels that identify each accelerator.
    """
    offered = sorted(name for name, amount in node.allocatable.items() if amount >= 1 and is_gpu(name))
    return [kind for name in offered if (kind := _kind(node, name, table)) is not None]


def is_gpu(resource: str) -> bool:
    """Return whether an extended resource, such as ``nvidia.com/gpu``, is a GPU or a MIG slice of a GPU."""
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
    """Return the name of a node's accelerator, and the label (key and value) that identifies it.

    This is for nodes without a product label. So only labels of the cloud can identify the accelerator, by
    ``table``. Return ``None`` if they identify no accelerator with this ``resource``. The result is also
    ``None`` for MIG slices, because the labels of the cloud name the whole GPU.
    """
    found = kind_labels.known_by(labels, table)
    return found if found is not None and ACCELERATORS[found[0]].resource == resource else None


def catalogued(labels: Mapping[str, str], resource: str) -> str | None:
    """Return the name in the catalogue for the GPUs of a node, by the product name in the node's labels.

    ``resource`` is the extended resource of the GPUs. Return ``None`` if there is no product label, or the
    catalogue does not have the GPU.
    """
    label = _product_label(labels, resource)
    return _catalogued(label[1], resource) if label is not None else None


def _product_label(labels: Mapping[str, str], resource: str) -> tuple[str, str] | None:
    """Return key and value of the node label with the product name of a GPU, or None if there is no label.

    ``resource`` is the extended resource of the GPU. If it is a MIG slice without a label of its own, the
    label of the whole GPU is returned.
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

    ``product`` is the product name in the node's label. For a slice, the MIG profile is taken from the name
    of the resource, or else from the product name.
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
    """Return the nodes that a pod may use: ready, not cordoned Linux nodes whose labels and taints allow it.

    - ``selector`` and ``tolerations`` are the pod's node selector and tolerations. The pod's affinity is
      ignored.
    - ``resource`` is the extended resource that the pod requests. A taint with this key is tolerated.
    - ``terms`` are sets of node labels. A node must have all labels of at least one set. If there is no set,
      all nodes are allowed.
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
    """Return whether a pod's toleration matches a node's taint, by the rules of the Kubernetes scheduler."""
    if toleration.effect not in (None, taint.effect) or toleration.key not in (None, taint.key):
        return False
    exists = toleration.operator == "Exists"
    return exists or (toleration.key is not None and (toleration.value or "") == taint.value)


def holds(node: Node, needs: Mapping[str, float]) -> bool:
    """Return whether a node has enough resources for a pod. Other pods on the node are not considered.

    ``needs`` are the pod's requests by resource: CPUs, bytes of memory, and numbers of devices.
    """
    return all(node.allocatable.get(resource, 0.0) >= amount for resource, amount in needs.items())
