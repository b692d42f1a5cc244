"""Accelerators by name: the memory of one device, and what Kubernetes calls it.

Memory stands for what a process sees of a device (``torch.cuda.get_device_properties().total_memory``), which
is less than the maker's number. The values are common knowledge, not measured by us; a spec overrides them
with ``spec.resources.accelerator.memory``.
"""

from dataclasses import dataclass
from types import MappingProxyType

from rft_planner.sizes import GIB

NVIDIA = "nvidia.com/gpu"
AMD = "amd.com/gpu"


@dataclass(frozen=True)
class Device:
    """One kind of GPU, or a slice of one."""

    memory: float
    """Bytes of one device."""
    resource: str = NVIDIA
    """Extended resource that a pod asks for."""


def _slice(profile: str, gib: float) -> Device:
    """Return a slice as the device plugin offers it with the strategy ``mixed``."""
    return Device(gib * GIB, f"nvidia.com/mig-{profile}")


ACCELERATORS = MappingProxyType(
    {
        "nvidia-t4-16gb": Device(14.5 * GIB),
        "nvidia-v100-16gb": Device(15.7 * GIB),
        "nvidia-v100-32gb": Device(31.7 * GIB),
        "nvidia-a10-24gb": Device(22.0 * GIB),
        "nvidia-a10g-24gb": Device(22.0 * GIB),
        "nvidia-rtx-4090-24gb": Device(23.5 * GIB),
        "nvidia-l4-24gb": Device(22.0 * GIB),
        "nvidia-l40s-48gb": Device(44.4 * GIB),
        "nvidia-a100-40gb": Device(39.4 * GIB),
        "nvidia-a100-80gb": Device(79.1 * GIB),
        "nvidia-a100-80gb-mig-1g.10gb": _slice("1g.10gb", 9.5),
        "nvidia-a100-80gb-mig-2g.20gb": _slice("2g.20gb", 19.5),
        "nvidia-a100-80gb-mig-3g.40gb": _slice("3g.40gb", 39.2),
        "nvidia-h100-80gb": Device(79.1 * GIB),
        "nvidia-h100-80gb-mig-1g.10gb": _slice("1g.10gb", 9.5),
        "nvidia-h100-80gb-mig-2g.20gb": _slice("2g.20gb", 19.5),
        "nvidia-h100-80gb-mig-3g.40gb": _slice("3g.40gb", 39.2),
        "nvidia-h100-nvl-94gb": Device(93.1 * GIB),
        "nvidia-h200-141gb": Device(139.8 * GIB),
        "nvidia-b200-180gb": Device(178.0 * GIB),
        "amd-mi300x-192gb": Device(191.5 * GIB, AMD),
    }
)
"""Device by the name that ``spec.resources.accelerator.name`` takes."""

DEFAULT = "nvidia-h100-80gb"
"""What a plan is made for where the spec does not say another."""


def resource_of(name: str | None) -> str:
    """Return the extended resource that a pod asks for; of a kind that is not known, NVIDIA's."""
    device = ACCELERATORS.get(name or DEFAULT)
    return device.resource if device is not None else NVIDIA
