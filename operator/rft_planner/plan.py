"""The plan: a rough first one, by parameter count alone.

Bytes = the base weights twice in bf16 (trainer and sampler are both resident) plus 30 % for
activations and the cache, plus a fixed part for two CUDA contexts and graphs. It agrees with the
published minimum of 80 GB GPUs for GRPO with LoRA: 7B 1, 14B 2, 32B 4, 72B 8.
"""

from typing import Any

from rft_api.conditions import Reason
from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_api.resources import Resources
from rft_api.sizes import parameter_count
from rft_api.status import Plan
from rft_planner.sizes import GIB, gib, quantity

CPU_NAME = "cpu"
DEFAULT_GPU_MEMORY = 80e9
MAX_GPUS = 16
_HEADROOM = 1.3
_FIXED_GPU_BYTES = 16e9
_FIXED_CPU_BYTES = 8.5 * GIB
"""Two interpreters with torch, the sampler's cache, and the activations of one micro-batch."""


class Unplannable(ValueError):
    """No plan can be made; ``reason`` is one of the reasons of the condition Planned."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def plan(spec: RFTJobSpec, uid: str) -> Plan:
    """Return what the pod needs.

    Raises:
        Unplannable: if the model's size is needed and not known.
    """
    resources = spec.resources or Resources()
    parameters = parameter_count(spec.model.parameters or spec.model.name)
    gpus, note = _gpus(spec, resources, parameters)
    name = resources.accelerator.name if resources.accelerator is not None else None
    cpu, memory = _host(gpus, parameters)
    # The models take an absent field, not a null.
    optional: dict[str, Any] = {"accelerator": name} if gpus and name else {}
    return Plan(
        effective=effective(spec, uid),
        gpus=gpus,
        device="cuda" if gpus else "cpu",
        cpu=resources.cpu or cpu,
        memory=resources.memory or memory,
        notes=[note],
        **optional,
    )


def _gpus(spec: RFTJobSpec, resources: Resources, parameters: float | None) -> tuple[int, str]:
    if resources.gpus is not None:
        return resources.gpus, f"spec.resources.gpus asks for {resources.gpus}"
    accelerator = resources.accelerator
    if accelerator is not None and accelerator.name == CPU_NAME:
        return 0, "spec.resources.accelerator.name is cpu"
    if parameters is None:
        raise Unplannable(
            Reason.UNKNOWN_MODEL,
            f"the size of {spec.model.name} is not known;"
            " set spec.model.parameters, e.g. 7B, or spec.resources.gpus",
        )
    given = accelerator.memory if accelerator is not None else None
    memory = quantity(given) if given else DEFAULT_GPU_MEMORY
    needed = 4 * parameters * _HEADROOM + _FIXED_GPU_BYTES
    gpus = 1
    while gpus * memory < needed:
        gpus *= 2
    if gpus > MAX_GPUS:
        raise Unplannable(
            Reason.UNKNOWN_MODEL,
            f"{spec.model.name} needs about {needed / 1e9:.0f} GB, more than {MAX_GPUS} GPUs of"
            f" {memory / 1e9:.0f} GB have; set spec.resources.gpus or a larger accelerator",
        )
    return gpus, (
        f"{parameters / 1e9:g}B parameters need about {needed / 1e9:.0f} GB:"
        f" {gpus} GPU{'s' if gpus > 1 else ''} of {memory / 1e9:.0f} GB"
    )


def _host(gpus: int, parameters: float | None) -> tuple[str, str]:
    """Return CPU and memory of the trainer's container."""
    size = parameters or 3e8
    if gpus:
        return str(4 * gpus), gib(2 * size * 1.5 + gpus * 16 * GIB)
    # Float32 on both sides. 1.5 CPUs leave room on a node with two.
    return "1500m", gib(8 * size + _FIXED_CPU_BYTES)
