"""Facts about nodes: which pods may use them, which resources they have, and the kind of their GPUs.

The labels are those of NVIDIA's gpu-feature-discovery and AMD's node labeller. NVIDIA's are
``nvidia.com/gpu.product`` and ``nvidia.com/gpu.memory`` in MiB; with the MIG strategy ``mixed`` also those of
``nvidia.com/mig-1g.10gb``. AMD's are ``amd.com/gpu.product-name``, and ``.vram`` such as ``192G``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rft_api.resources import Toleration
from rft_planner.accelerators import ACCELERATORS, AMD, NVIDIA
from rft_planner.sizes import GIB

CPU = "cpu"
MEMORY = "memory"
VISIBLE = 0.97
"""Share of the labelled memory that a process sees: torch reports 14.6 GiB for a T4, whose label is 15,360
MiB."""

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
    """Amounts by resource: CPUs, bytes, devices. What other pods use is not subtracted."""
    taints: tuple[Taint, ...] = ()
    schedulable: bool = True
    """Whether it is ready and not cordoned."""
    silent_since: str = ""
    """Time at which the node became not ready, RFC 3339; empty: it is ready."""


@dataclass(frozen=True)
class Kind:
    """One kind of GPU that nodes offer."""

    resource: str
    """Extended resource that a pod requests."""
    memory: float
    """Bytes of one device."""
    name: str | None = None
    """Its name in the catalogue."""
    label: tuple[str, str] | None = None
    """The node label and value that identify it."""

    @property
    def title(self) -> str:
        """Its name in messages for users."""
        return self.name or (self.label[1] if self.label is not None else self.resource)


def kinds_of(node: Node) -> list[Kind]:
    """Return the node's kinds of GPU whose memory is in its labels, without GPUs shared by several pods."""
    offered = sorted(name for name, amount in node.allocatable.items() if amount >= 1 and is_gpu(name))
    return [kind for name in offered if (kind := _kind(node, name)) is not None]


def is_gpu(resource: str) -> bool:
    """Return whether an extended resource is a GPU or a slice of one."""
    return resource in (NVIDIA, AMD) or _MIG.match(resource) is not None


def _kind(node: Node, resource: str) -> Kind | None:
    label = _product_label(node.labels, resource)
    if _is_shared(node, resource, label):
        return None
    name = _catalogued(label[1], resource) if label is not None else None
    if name is not None:
        return Kind(resource, ACCELERATORS[name].memory, name, label)
    memory = _labelled_memory(node, resource)
    return Kind(resource, memory, None, label) if memory is not None else None


def product_key(resource: str) -> str:
    """Return the label with the product name of a resource's devices."""
    return f"{AMD}.product-name" if resource == AMD else f"{resource}.product"


def catalogued(labels: Mapping[str, str], resource: str) -> str | None:
    """Return the catalogue's name of a node's devices, from its labels; ``None`` if there is none."""
    label = _product_label(labels, resource)
    return _catalogued(label[1], resource) if label is not None else None


def _product_label(labels: Mapping[str, str], resource: str) -> tuple[str, str] | None:
    """Return the label with the product name; for a slice without its own label, that of the whole device."""
    own = product_key(resource)
    keys = (own, product_key(NVIDIA)) if _MIG.match(resource) else (own,)
    return next(((key, labels[key]) for key in keys if labels.get(key)), None)


def _is_shared(node: Node, resource: str, label: tuple[str, str] | None) -> bool:
    replicas = node.labels.get(f"{resource}.replicas", "")
    return (label is not None and label[1].endswith("-SHARED")) or (replicas.isdigit() and int(replicas) > 1)


def _catalogued(product: str, resource: str) -> str | None:
    """Return the catalogue's name of a product, or of its slice in the resource or in the suffix."""
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
) -> list[Node]:
    """Return the nodes whose labels and taints allow the pod. Affinity is ignored.

    ``resource`` is the extended resource that the pod requests. The pod tolerates the taint of that name.
    """
    return [
        node
        for node in nodes
        if node.schedulable
        and all(node.labels.get(key) == value for key, value in selector.items())
        and all(taint.key == resource or _tolerated(taint, tolerations) for taint in node.taints)
    ]


def _tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    return taint.effect not in _REPELLING or any(_tolerates(toleration, taint) for toleration in tolerations)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Return whether a toleration matches, by the rules of the scheduler."""
    if toleration.effect not in (None, taint.effect) or toleration.key not in (None, taint.key):
        return False
    exists = toleration.operator == "Exists"
    return exists or (toleration.key is not None and (toleration.value or "") == taint.value)


def holds(node: Node, needs: Mapping[str, float]) -> bool:
    """Return whether a node without other pods has enough resources for a pod."""
    return all(node.allocatable.get(resource, 0.0) >= amount for resource, amount in needs.items())
