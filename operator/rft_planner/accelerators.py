"""The catalogue of accelerators: memory, speed, node labels and Kubernetes resource of each kind of GPU.

Each number is from a public source. This project measured none of them.

The memory of a device is what a process sees (``torch.cuda.get_device_properties().total_memory``). It is
less than the manufacturer's number, and it differs with the driver and with error correction. It comes from
these sources:

- For most devices, it is the smallest total capacity that torch reports in public out-of-memory messages,
  rounded down.
- For V100 16 GB, no source was compared.
- For MIG slices, which are parts of a GPU, it is what ``nvidia-smi mig -lgip`` lists.

A job can set another memory in ``spec.resources.accelerator.memory``.

The speed of a device means its operations per second and its memory bandwidth. Both are the manufacturer's
numbers without sparsity, which no real program reaches. If variants of a device have the same name, the
numbers are those of the slower variant.

The link of a device is the rate at which it receives data from the other devices of its node. It is half of
the manufacturer's number, which counts both directions. The link is NVLink or Infinity Fabric, if all
variants of a device have it, and else 16 lanes of PCI Express. NVLink bridges between two or four cards do
not count.

In November 2026, the speeds were compared with public copies of data sheets, and with the tables of
torchtitan (``tools/utils.py``) and Lightning (``fabric/utilities/throughput.py``). The comparison had:

- T4, V100, A10, A40, A100, L4, L40, L40S, RTX 4090, RTX A6000, H100, H20, H200, B200, GB200, MI300X and
  MI325X
- the operations per second of MI250X
- the number of processors of slices
- the links by generation of NVLink and PCI Express, and of MI300X

These were not compared with any source:

- RTX 3090, RTX 5090, RTX 6000 Ada, RTX PRO 6000 and H200 NVL
- the operations per second of A10G
- the bandwidths of T4, A100 80 GB as a PCIe card, H100 NVL and MI250X
- which generation of PCI Express a device has, and the links of MI250X and MI325X

A node has 8 devices, except for three kinds: DGX-2 has 16 V100, Google Cloud's a2-megagpu-16g has 16 A100 40
GB, and a compute tray of GB200 NVL72 has 4. These numbers were not compared with a list of machines.

Labels are taken from public manifests and node listings. Only the labels of RTX 3090, 4090, 5090 and 6000 Ada
have no source. They follow the rule of the other labels: the driver's name of the device, with hyphens for
spaces.
"""

from dataclasses import dataclass
from types import MappingProxyType

from rft_planner.sizes import GIB

NVIDIA = "nvidia.com/gpu"
AMD = "amd.com/gpu"
TERA = 1e12
NODE_GPUS = 8
"""Number of GPUs of a typical node."""
# Links in one direction, in TB/s. PCI Express has 16 lanes.
PCIE3, PCIE4, PCIE5 = 0.016, 0.032, 0.064
NVLINK4, NVLINK5 = 0.45, 0.9
INFINITY_FABRIC = 0.448


@dataclass(frozen=True)
class Device:
    """The properties of one kind of GPU, or of one kind of MIG slice (a part of a GPU)."""

    memory: float
    """Memory of one device, in bytes."""
    bf16_flops: float
    """Floating-point operations per second of the matrix units, without sparsity, in bf16. For a GPU
    without support for bf16, the number is for fp16."""
    bandwidth: float
    """Bandwidth between the device's memory and its processors, in bytes per second."""
    link: float
    """Bytes per second that the device can receive from the other devices of its node."""
    products: tuple[str, ...] = ()
    """The product names of this device in node labels: the possible values of the label
    ``nvidia.com/gpu.product``, or of ``amd.com/gpu.product-name`` for AMD.

    Empty for a MIG slice, because with the MIG strategy ``mixed`` the label names the whole GPU."""
    resource: str = NVIDIA
    """Name of the extended resource that a pod requests for this device."""
    node: int = NODE_GPUS
    """Largest number of these devices in one node that one program can use.

    For a MIG slice it is 1, because a program can use only one slice."""


def _device(
    gib: float,
    tflops: float,
    tbps: float,
    link: float,
    *products: str,
    resource: str = NVIDIA,
    node: int = NODE_GPUS,
) -> Device:
    return Device(gib * GIB, tflops * TERA, tbps * TERA, link * TERA, products, resource, node)


def _slice(profile: str, gib: float, tflops: float, tbps: float) -> Device:
    """Return the properties of a MIG slice, which is a part of an NVIDIA GPU.

    ``profile`` is a MIG profile such as 1g.10gb. The slice has ``gib`` GiB of memory, ``tflops`` TFLOPs per
    second in bf16, and a memory bandwidth of ``tbps`` TB/s. Its link is PCI Express, because slices have no
    NVLink. Its resource is ``nvidia.com/mig-PROFILE``: NVIDIA's device plugin uses this name with the MIG
    strategy ``mixed``.
    """
    return _device(gib, tflops, tbps, PCIE4, resource=f"nvidia.com/mig-{profile}", node=1)


def _a100_slice(profile: str, gib: float, processors: int, eighths: int) -> Device:
    """Return the properties of a MIG slice of an A100 80 GB.

    - ``profile``: the MIG profile, such as 1g.10gb
    - ``gib``: the memory of the slice in GiB
    - ``processors``: how many of the GPU's 108 streaming multiprocessors the slice has
    - ``eighths``: how many eighths of the GPU's memory bandwidth the slice has
    """
    return _slice(profile, gib, 312 * processors / 108, 1.935 * eighths / 8)


def _h100_slice(profile: str, gib: float, processors: int, eighths: int) -> Device:
    """Return the properties of a MIG slice of an H100 80 GB.

    - ``profile``: the MIG profile, such as 1g.10gb
    - ``gib``: the memory of the slice in GiB
    - ``processors``: how many of the GPU's 132 streaming multiprocessors the slice has
    - ``eighths``: how many eighths of the GPU's memory bandwidth the slice has
    """
    return _slice(profile, gib, 989.4 * processors / 132, 3.35 * eighths / 8)


ACCELERATORS = MappingProxyType(
    {
        "nvidia-t4-16gb": _device(14.5, 65, 0.3, PCIE3, "Tesla-T4"),
        "nvidia-v100-16gb": _device(15.7, 112, 0.9, PCIE3, "Tesla-V100-SXM2-16GB", "Tesla-V100-PCIE-16GB"),
        "nvidia-v100-32gb": _device(
            31.7,
            112,
            0.9,
            PCIE3,
            "Tesla-V100-SXM2-32GB",
            "Tesla-V100-PCIE-32GB",
            "Tesla-V100S-PCIE-32GB",
            node=16,
        ),
        "nvidia-a10-24gb": _device(21.9, 125, 0.6, PCIE4, "NVIDIA-A10"),
        "nvidia-a10g-24gb": _device(21.9, 70, 0.6, PCIE4, "NVIDIA-A10G"),
        "nvidia-a40-48gb": _device(44.3, 149.7, 0.696, PCIE4, "NVIDIA-A40"),
        "nvidia-rtx-3090-24gb": _device(23.5, 71, 0.936, PCIE4, "NVIDIA-GeForce-RTX-3090"),
        "nvidia-rtx-4090-24gb": _device(23.5, 165.2, 1.008, PCIE4, "NVIDIA-GeForce-RTX-4090"),
        "nvidia-rtx-5090-32gb": _device(31.3, 209.5, 1.792, PCIE5, "NVIDIA-GeForce-RTX-5090"),
        "nvidia-rtx-a6000-48gb": _device(47.2, 154.8, 0.768, PCIE4, "NVIDIA-RTX-A6000"),
        "nvidia-rtx-6000-ada-48gb": _device(47.2, 364.2, 0.96, PCIE4, "NVIDIA-RTX-6000-Ada-Generation"),
        "nvidia-rtx-pro-6000-96gb": _device(
            94.5,
            503.8,
            1.597,
            PCIE5,
            "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition",
            "NVIDIA-RTX-PRO-6000-Blackwell-Workstation-Edition",
        ),
        "nvidia-l4-24gb": _device(21.9, 121, 0.3, PCIE4, "NVIDIA-L4"),
        "nvidia-l40-48gb": _device(44.3, 181, 0.864, PCIE4, "NVIDIA-L40"),
        "nvidia-l40s-48gb": _device(44.3, 362, 0.864, PCIE4, "NVIDIA-L40S"),
        "nvidia-a100-40gb": _device(
            39.3, 312, 1.555, PCIE4, "NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB", node=16
        ),
        "nvidia-a100-80gb": _device(
            79.1, 312, 1.935, PCIE4, "NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"
        ),
        "nvidia-a100-80gb-mig-1g.10gb": _a100_slice("1g.10gb", 9.5, 14, 1),
        "nvidia-a100-80gb-mig-2g.20gb": _a100_slice("2g.20gb", 19.5, 28, 2),
        "nvidia-a100-80gb-mig-3g.40gb": _a100_slice("3g.40gb", 39.2, 42, 4),
        "nvidia-h100-80gb": _device(79.1, 989.4, 3.35, NVLINK4, "NVIDIA-H100-80GB-HBM3"),
        "nvidia-h100-80gb-mig-1g.10gb": _h100_slice("1g.10gb", 9.5, 16, 1),
        "nvidia-h100-80gb-mig-2g.20gb": _h100_slice("2g.20gb", 19.5, 32, 2),
        "nvidia-h100-80gb-mig-3g.40gb": _h100_slice("3g.40gb", 39.2, 60, 4),
        "nvidia-h100-pcie-80gb": _device(79.1, 756, 2.0, PCIE5, "NVIDIA-H100-PCIe"),
        "nvidia-h100-nvl-94gb": _device(93.0, 835, 3.9, PCIE5, "NVIDIA-H100-NVL"),
        "nvidia-h20-96gb": _device(95.0, 148, 4.0, NVLINK4, "NVIDIA-H20"),
        "nvidia-h200-141gb": _device(139.7, 989.4, 4.8, NVLINK4, "NVIDIA-H200"),
        "nvidia-h200-nvl-141gb": _device(139.7, 835, 4.8, PCIE5, "NVIDIA-H200-NVL"),
        "nvidia-b200-180gb": _device(178.3, 2250, 7.7, NVLINK5, "NVIDIA-B200"),
        "nvidia-gb200-186gb": _device(184.3, 2500, 8.0, NVLINK5, "NVIDIA-GB200", node=4),
        "amd-mi250x-64gb": _device(63.9, 191.5, 1.6, PCIE4, resource=AMD),  # one of the module's two devices
        "amd-mi300x-192gb": _device(
            191.6, 1307.4, 5.3, INFINITY_FABRIC, "AMD_Instinct_MI300X_OAM", resource=AMD
        ),
        "amd-mi325x-256gb": _device(
            255.6, 1307.4, 6.0, INFINITY_FABRIC, "AMD_Instinct_MI325_OAM", resource=AMD
        ),
    }
)
"""All kinds of GPU in the catalogue, by the name that a job uses in ``spec.resources.accelerator.name``."""

DEFAULT = "nvidia-h100-80gb"
"""The accelerator that a plan assumes if neither the job nor the node labels tell the kind of GPU."""


def resource_of(name: str | None) -> str:
    """Return the Kubernetes resource that a pod requests for an accelerator, such as ``nvidia.com/gpu``.

    ``name`` is the accelerator's name in the catalogue. None means the default accelerator. For a name that
    is not in the catalogue, return ``nvidia.com/gpu``.
    """
    device = ACCELERATORS.get(name or DEFAULT)
    return device.resource if device is not None else NVIDIA
