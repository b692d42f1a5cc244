"""The node labels that identify kinds of GPU: labels of GPU Feature Discovery, of AMD, and of the clouds.

A plan can require that the pod's node has one of several sets of these labels, so that the pod runs on the
planned kind of GPU. GPU Feature Discovery labels only running nodes. The labels of the clouds are needed for
node pools without nodes: an autoscaler knows which of these labels a new node will have.

The clouds label their nodes in different ways:

- GKE has the label ``cloud.google.com/gke-accelerator``.
- Karpenter and EKS Auto Mode have a label with the name of the GPU.
- AKS and EKS node groups have no label of the GPU.

Some of these labels have the same value for two kinds of GPU. In this case, and if there is no label of the
GPU, the instance type of the node identifies the kind. The labels and instance types are from the clouds'
public documentation of November 2026. None was tried in a cloud.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from rft_api.status import NodeLabel, NodeTerm
from rft_planner.accelerators import ACCELERATORS, AMD, NVIDIA

Labels = Mapping[str, tuple[str, ...]]
"""Node labels, each with its allowed values. An empty tuple means that a node must not have the label."""
Table = Mapping[str, tuple[Labels, ...]]
"""Sets of node labels by accelerator. If a node has all labels of one set, its GPUs are this accelerator."""

GKE = "cloud.google.com/gke-accelerator"
KARPENTER = "karpenter.k8s.aws/instance-gpu-name"
EKS_AUTO = "eks.amazonaws.com/instance-gpu-name"
INSTANCE = "node.kubernetes.io/instance-type"
GKE_PARTITION = "cloud.google.com/gke-gpu-partition-size"
"""Key of a label that GKE sets on nodes whose GPUs are divided into MIG slices. The value is the profile."""
GKE_SHARING = "cloud.google.com/gke-gpu-sharing-strategy"
"""Key of a label that GKE sets on nodes whose GPUs can be shared by several pods."""


def _gke(*values: str) -> Labels:
    return {GKE: values, GKE_PARTITION: (), GKE_SHARING: ()}


def _eks(name: str) -> tuple[Labels, ...]:
    return {KARPENTER: (name,)}, {EKS_AUTO: (name,)}


def _types(*values: str) -> Labels:
    return {INSTANCE: values}


def _sizes(family: str, sizes: str) -> tuple[str, ...]:
    return tuple(f"{family}.{size}" for size in sizes.split())


_G5 = "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"

_CLOUDS: Table = {
    "nvidia-t4-16gb": (
        _gke("nvidia-tesla-t4"),
        *_eks("t4"),
        _types(
            *_sizes("g4dn", "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal"),
            *(f"Standard_NC{cores}as_T4_v3" for cores in (4, 8, 16, 64)),
        ),
    ),
    "nvidia-v100-16gb": (
        _gke("nvidia-tesla-v100"),
        _types(
            *_sizes("p3", "2xlarge 8xlarge 16xlarge"),
            *(f"Standard_NC{size}_v3" for size in ("6s", "12s", "24s", "24rs")),
        ),
    ),
    "nvidia-v100-32gb": (_types("p3dn.24xlarge", "Standard_ND40rs_v2"),),
    # Smaller sizes of this family have a part of a GPU.
    "nvidia-a10-24gb": (_types("Standard_NV36ads_A10_v5", "Standard_NV72ads_A10_v5"),),
    "nvidia-a10g-24gb": (*_eks("a10g"), _types(*_sizes("g5", _G5))),
    "nvidia-l4-24gb": (
        _gke("nvidia-l4"),
        *_eks("l4"),
        _types(*_sizes("g6", _G5), *_sizes("gr6", "4xlarge 8xlarge")),
    ),
    "nvidia-l40s-48gb": (*_eks("l40s"), _types(*_sizes("g6e", _G5))),
    "nvidia-a100-40gb": (_gke("nvidia-tesla-a100"), _types("p4d.24xlarge", "Standard_ND96asr_v4")),
    "nvidia-a100-80gb": (
        _gke("nvidia-a100-80gb"),
        _types(
            "p4de.24xlarge",
            "Standard_ND96amsr_A100_v4",
            *(f"Standard_NC{cores}ads_A100_v4" for cores in (24, 48, 96)),
        ),
    ),
    "nvidia-h100-80gb": (
        _gke("nvidia-h100-80gb", "nvidia-h100-mega-80gb"),
        *_eks("h100"),
        _types("p5.4xlarge", "p5.48xlarge", "Standard_ND96isr_H100_v5"),
    ),
    "nvidia-h100-nvl-94gb": (_types("Standard_NC40ads_H100_v5", "Standard_NC80adis_H100_v5"),),
    "nvidia-h200-141gb": (
        _gke("nvidia-h200-141gb"),
        *_eks("h200"),
        _types("p5e.48xlarge", "p5en.48xlarge", "Standard_ND96isr_H200_v5"),
    ),
    "nvidia-b200-180gb": (_gke("nvidia-b200"), *_eks("b200"), _types("p6-b200.48xlarge")),
    "nvidia-rtx-pro-6000-96gb": (_gke("nvidia-rtx-pro-6000"),),
    "amd-mi300x-192gb": (_types("Standard_ND96isr_MI300X_v5"),),
}


def product_key(resource: str) -> str:
    """Return the key of the node label whose value is the product name of the node's GPUs.

    ``resource`` is the extended resource of the GPUs: ``nvidia.com/gpu`` gives ``nvidia.com/gpu.product``.
    """
    return f"{AMD}.product-name" if resource == AMD else f"{resource}.product"


def _discovered() -> Iterator[tuple[str, Labels]]:
    """Yield pairs of an accelerator's name and the product label by which a node with it is recognized.

    GPU Feature Discovery or AMD's node labeller sets this label. Accelerators without a known product name
    are left out.
    """
    for name, device in ACCELERATORS.items():
        if device.products:
            yield name, {product_key(AMD if device.resource == AMD else NVIDIA): device.products}


TABLE: Table = MappingProxyType(
    {name: (labels, *_CLOUDS.get(name, ())) for name, labels in _discovered()}
    | {name: sets for name, sets in _CLOUDS.items() if not ACCELERATORS[name].products}
)
"""The sets of node labels of each accelerator in the catalogue. MIG slices have none, because the name of
their resource already tells their size."""


def extended(more: Table) -> Table:
    """Return a table with the sets of node labels in ``TABLE`` and in ``more``, by accelerator.

    ``TABLE`` has the labels that this module knows. Its sets come first.
    """
    return MappingProxyType({name: (*TABLE.get(name, ()), *more.get(name, ())) for name in (*TABLE, *more)})


def matches(labels: Mapping[str, str], wanted: Labels) -> bool:
    """Return whether the labels of a node meet all conditions in ``wanted``.

    ``wanted`` has the allowed values by label key. No values mean that the node must not have the label.
    """
    return all(labels.get(key) in values if values else key not in labels for key, values in wanted.items())


def known_by(labels: Mapping[str, str], table: Table) -> tuple[str, tuple[str, str]] | None:
    """Return the name of the accelerator that a node's labels identify, and a label that identifies it.

    The label is a pair of key and value. ``table`` has the sets of node labels of each accelerator. Return
    ``None`` if the labels identify no accelerator.
    """
    for name, sets in table.items():
        for wanted in sets:
            if matches(labels, wanted):
                key = next((key for key, values in wanted.items() if values), "")
                return name, (key, labels.get(key, ""))
    return None


def terms(name: str | None, table: Table) -> list[NodeTerm]:
    """Return the sets of node labels that identify an accelerator, in the form that a plan stores.

    A node with this accelerator has all labels of at least one set. ``table`` has the sets by the name of the
    accelerator. Return [] if it has no set for ``name``.
    """
    return [
        NodeTerm(labels=[NodeLabel(key=key, values=list(values)) for key, values in wanted.items()])
        for wanted in table.get(name or "", ())
    ]


def meets(labels: Mapping[str, str], wanted: list[NodeTerm]) -> bool:
    """Return whether a node with ``labels`` has all labels of at least one of the sets in ``wanted``.

    Return True if ``wanted`` is empty.
    """
    return not wanted or any(
        matches(labels, {each.key: tuple(each.values) for each in term.labels}) for term in wanted
    )
