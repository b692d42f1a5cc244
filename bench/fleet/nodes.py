"""Creates fake nodes with the labels of four clouds. Their Node objects are as large as real ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.scale.api import Json

FAKE = "kwok.x-k8s.io/node"
"""kwok manages the nodes that have this annotation."""
IMAGES = 20
"""Number of images that a fake Node object lists, which are its largest part. A kubelet lists up to 50."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU, with the values that gpu-feature-discovery writes into labels. ``memory`` is in MiB."""

    product: str
    memory: int
    family: str
    compute: tuple[int, int]


H100 = Gpu("NVIDIA-H100-80GB-HBM3", 81559, "hopper", (9, 0))
H200 = Gpu("NVIDIA-H200", 143771, "hopper", (9, 0))
A100 = Gpu("NVIDIA-A100-SXM4-80GB", 81920, "ampere", (8, 0))
A100_40 = Gpu("NVIDIA-A100-SXM4-40GB", 40960, "ampere", (8, 0))
A100_PCIE = Gpu("NVIDIA-A100-80GB-PCIe", 81920, "ampere", (8, 0))
L40S = Gpu("NVIDIA-L40S", 46068, "ada-lovelace", (8, 9))
L4 = Gpu("NVIDIA-L4", 23034, "ada-lovelace", (8, 9))
A10G = Gpu("NVIDIA-A10G", 23028, "ampere", (8, 6))
T4 = Gpu("Tesla-T4", 15360, "turing", (7, 5))


@dataclass(frozen=True)
class Machine:
    """A type of node. ``labels`` and ``taints`` are set by its cloud."""

    instance: str
    gpu: Gpu
    gpus: int
    cpus: int
    gibibytes: int
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...] = field(default=())


_GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def _gke(instance: str, gpu: Gpu, gpus: int, cpus: int, gibibytes: int, accelerator: str) -> Machine:
    labels = {
        "cloud.google.com/gke-accelerator": accelerator,
        "cloud.google.com/gke-accelerator-count": str(gpus),
        "cloud.google.com/gke-gpu": "true",
        "cloud.google.com/gke-gpu-driver-version": "latest",
        "cloud.google.com/gke-nodepool": f"pool-{accelerator}",
        "cloud.google.com/gke-os-distribution": "cos",
        "cloud.google.com/gke-container-runtime": "containerd",
        "cloud.google.com/machine-family": instance.split("-")[0],
        "topology.kubernetes.io/region": "us-central1",
        "topology.kubernetes.io/zone": "us-central1-a",
    }
    return Machine(instance, gpu, gpus, cpus, gibibytes, labels, (_GPU_TAINT,))


def _eks(instance: str, gpu: Gpu, gpus: int, cpus: int, gibibytes: int, name: str) -> Machine:
    labels = {
        "eks.amazonaws.com/nodegroup": f"gpu-{name}",
        "eks.amazonaws.com/capacityType": "ON_DEMAND",
        "k8s.amazonaws.com/accelerator": f"nvidia-{name}",
        "karpenter.k8s.aws/instance-family": instance.split(".")[0],
        "karpenter.k8s.aws/instance-gpu-count": str(gpus),
        "karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia",
        "karpenter.k8s.aws/instance-gpu-memory": str(gpu.memory),
        "karpenter.k8s.aws/instance-gpu-name": name,
        "topology.kubernetes.io/region": "us-east-1",
        "topology.kubernetes.io/zone": "us-east-1a",
    }
    return Machine(instance, gpu, gpus, cpus, gibibytes, labels)


def _aks(instance: str, gpu: Gpu, gpus: int, cpus: int, gibibytes: int) -> Machine:
    labels = {
        "accelerator": "nvidia",
        "kubernetes.azure.com/accelerator": "nvidia",
        "kubernetes.azure.com/agentpool": "gpu",
        "kubernetes.azure.com/cluster": "MC_fleet_fleet_eastus",
        "kubernetes.azure.com/mode": "user",
        "kubernetes.azure.com/os-sku": "Ubuntu",
        "topology.kubernetes.io/region": "eastus",
        "topology.kubernetes.io/zone": "eastus-1",
    }
    return Machine(instance, gpu, gpus, cpus, gibibytes, labels)


def _coreweave(instance: str, gpu: Gpu, gpus: int, cpus: int, gibibytes: int, kind: str) -> Machine:
    labels = {
        "gpu.nvidia.com/class": kind,
        "gpu.nvidia.com/count": str(gpus),
        "gpu.nvidia.com/model": kind,
        "gpu.nvidia.com/vram": str(gpu.memory // 1000),
        "node.coreweave.cloud/class": "gpu",
        "node.coreweave.cloud/type": instance,
        "topology.kubernetes.io/region": "US-EAST-04",
        "topology.kubernetes.io/zone": "US-EAST-04A",
    }
    return Machine(instance, gpu, gpus, cpus, gibibytes, labels)


MACHINES = (
    _gke("a3-highgpu-8g", H100, 8, 208, 1872, "nvidia-h100-80gb"),
    _eks("p5.48xlarge", H100, 8, 192, 2048, "h100"),
    _aks("Standard_ND96isr_H200_v5", H200, 8, 96, 1850),
    _coreweave("gd-8xh100ib-i128", H100, 8, 128, 2048, "H100_NVLINK_80GB"),
    _gke("g2-standard-96", L4, 8, 96, 384, "nvidia-l4"),
    _eks("g6e.48xlarge", L40S, 8, 192, 1536, "l40s"),
    _aks("Standard_NC96ads_A100_v4", A100_PCIE, 4, 96, 880),
    _coreweave("gd-8xl40s-i128", L40S, 8, 128, 1024, "L40S"),
    _gke("a2-ultragpu-8g", A100, 8, 96, 1360, "nvidia-a100-80gb"),
    _eks("p4d.24xlarge", A100_40, 8, 96, 1152, "a100"),
    _aks("Standard_NC64as_T4_v3", T4, 4, 64, 440),
    _eks("g5.48xlarge", A10G, 8, 192, 768, "a10g"),
)
"""The types of node. The fake nodes have them in turn."""


def node(number: int) -> Json:
    """Return the fake node with this number. Its status says that it is ready."""
    machine = MACHINES[number % len(MACHINES)]
    name = f"node-{number:05}"
    has = {
        "cpu": str(machine.cpus),
        "memory": f"{machine.gibibytes}Gi",
        "ephemeral-storage": "1000Gi",
        "hugepages-2Mi": "0",
        "nvidia.com/gpu": str(machine.gpus),
        "pods": "110",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": _labels(machine, name), "annotations": {FAKE: "fake"}},
        "spec": {"taints": [dict(taint) for taint in machine.taints], "providerID": f"fleet:///{name}"},
        "status": {
            "phase": "Running",
            "capacity": has,
            "allocatable": has,
            "conditions": [_condition("Ready", "True")]
            + [_condition(kind, "False") for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")],
            "addresses": [{"type": "Hostname", "address": name}],
            "images": [_image(index) for index in range(IMAGES)],
            "nodeInfo": _node_info(),
        },
    }


def _labels(machine: Machine, name: str) -> dict[str, str]:
    gpu, (major, minor) = machine.gpu, machine.gpu.compute
    return {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": machine.instance,
        **machine.labels,
        "nvidia.com/cuda.driver-version.full": "570.133.20",
        "nvidia.com/cuda.driver-version.major": "570",
        "nvidia.com/cuda.driver-version.minor": "133",
        "nvidia.com/cuda.driver-version.revision": "20",
        "nvidia.com/cuda.runtime-version.full": "12.8",
        "nvidia.com/cuda.runtime-version.major": "12",
        "nvidia.com/cuda.runtime-version.minor": "8",
        "nvidia.com/gfd.timestamp": "1764300000",
        "nvidia.com/gpu.compute.major": str(major),
        "nvidia.com/gpu.compute.minor": str(minor),
        "nvidia.com/gpu.count": str(machine.gpus),
        "nvidia.com/gpu.family": gpu.family,
        "nvidia.com/gpu.machine": machine.instance,
        "nvidia.com/gpu.memory": str(gpu.memory),
        "nvidia.com/gpu.mode": "compute",
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": gpu.product,
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.capable": str((major == 8 and minor == 0) or major == 9).lower(),
        "nvidia.com/mig.strategy": "single",
        "nvidia.com/mps.capable": "false",
    }


def _condition(kind: str, status: str) -> Json:
    moment = "2026-11-28T00:00:00Z"
    reason = f"Kubelet{kind}" if kind == "Ready" else f"KubeletHasNo{kind}"
    times = {"lastHeartbeatTime": moment, "lastTransitionTime": moment}
    return {"type": kind, "status": status, "reason": reason, "message": f"kubelet: {kind} {status}", **times}


def _image(index: int) -> Json:
    digest = f"{index:064x}"
    repository = f"registry.example.com/platform/component-{index:02}"
    names = [f"{repository}@sha256:{digest}", f"{repository}:v1.{index}.0"]
    return {"names": names, "sizeBytes": 100_000_000 + index}


def _node_info() -> Json:
    return {
        "architecture": "amd64",
        "bootID": "8a8e3a63-4f0c-4a3e-9d58-6f5d0b1f2c11",
        "containerRuntimeVersion": "containerd://2.1.0",
        "kernelVersion": "6.8.0-1027",
        "kubeProxyVersion": "",
        "kubeletVersion": "v1.36.3",
        "machineID": "ec2a1f0b8c7d4e5f9a6b3c2d1e0f9a8b",
        "operatingSystem": "linux",
        "osImage": "Ubuntu 24.04.2 LTS",
        "systemUUID": "ec2a1f0b-8c7d-4e5f-9a6b-3c2d1e0f9a8b",
    }
