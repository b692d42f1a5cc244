"""The plan: a rough first one, by the parameter count and the memory of the accelerator.

Bytes = the base weights twice in bf16 (trainer and sampler are both resident) plus 30 % for
activations and the cache, plus a fixed part for two CUDA contexts and graphs. On 80 GB it stays within the
published minimum for GRPO with LoRA: 7B 1, 14B 2, 32B 4, 72B 8.
"""

import difflib
from typing import Any

from rft_api.conditions import Reason
from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_api.resources import Accelerator, Resources
from rft_api.sizes import parameter_count
from rft_api.status import Plan
from rft_planner import accelerators
from rft_planner.accelerators import ACCELERATORS
from rft_planner.catalogue import shape_of
from rft_planner.sizes import GIB, gib, quantity

CPU_NAME = "cpu"
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
        Unplannable: if the model's size or the accelerator's memory is needed and not known.
    """
    resources = spec.resources or Resources()
    parameters = _parameters(spec)
    gpus, notes = _asked_for(spec, parameters) or _derived(spec, parameters)
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
        notes=notes,
        **optional,
    )


def _asked_for(spec: RFTJobSpec, parameters: float | None) -> tuple[int, list[str]] | None:
    """Return the GPUs that the spec itself says, which are obeyed, and what would be derived instead."""
    resources = spec.resources or Resources()
    if resources.gpus is None:
        accelerator = resources.accelerator
        on_cpu = accelerator is not None and accelerator.name == CPU_NAME
        return (0, ["spec.resources.accelerator.name is cpu"]) if on_cpu else None
    notes = [f"spec.resources.gpus asks for {resources.gpus}"]
    if resources.gpus:
        try:
            derived, reasons = _derived(spec, parameters)
        except Unplannable as error:
            notes.append(f"without it: {error}")
        else:
            if derived != resources.gpus:
                notes += [f"without it: {reason}" for reason in reasons]
    return resources.gpus, notes


def _derived(spec: RFTJobSpec, parameters: float | None) -> tuple[int, list[str]]:
    """Return the fewest GPUs that hold the run, and why.

    Raises:
        Unplannable: if a number is not known, or no pod may have so many.
    """
    if parameters is None:
        raise Unplannable(
            Reason.UNKNOWN_MODEL,
            f"the size of {spec.model.name} is not known;"
            " set spec.model.parameters, e.g. 7B, or spec.resources.gpus",
        )
    accelerator = spec.resources.accelerator if spec.resources is not None else None
    memory = _memory(accelerator or Accelerator())
    needed = 4 * parameters * _HEADROOM + _FIXED_GPU_BYTES
    gpus = 1
    while gpus * memory < needed:
        gpus *= 2
    size = f"{parameters / 1e9:.3g}B parameters need about {needed / GIB:.0f} GiB"
    if gpus > MAX_GPUS:
        raise Unplannable(
            Reason.DOES_NOT_FIT,
            f"{spec.model.name}: {size}, more than {MAX_GPUS} GPUs of {memory / GIB:.0f} GiB have;"
            " set spec.resources.gpus or a larger accelerator",
        )
    return gpus, [f"{size}: {gpus} GPU{'s' if gpus > 1 else ''} of {memory / GIB:.0f} GiB"]


def _parameters(spec: RFTJobSpec) -> float | None:
    """Return the parameter count: as stated, of the catalogue, or as the name says it."""
    if spec.model.parameters is not None:
        return parameter_count(spec.model.parameters)
    shape = shape_of(spec.model.name)
    return shape.parameters if shape is not None else parameter_count(spec.model.name)


def _memory(accelerator: Accelerator) -> float:
    """Return the bytes of one GPU.

    Raises:
        Unplannable: if the catalogue does not know the name and no memory is given.
    """
    if accelerator.memory is not None:
        return quantity(accelerator.memory)
    name = accelerator.name or accelerators.DEFAULT
    if name not in ACCELERATORS:
        close = difflib.get_close_matches(name.lower(), ACCELERATORS, 1, cutoff=0.5)
        meant = f"write {close[0]}, or " if close else ""
        raise Unplannable(
            Reason.UNKNOWN_ACCELERATOR,
            f"spec.resources.accelerator.name: {name!r} is not in the catalogue; {meant}for any other kind"
            " set spec.resources.accelerator.memory, e.g. 48Gi",
        )
    return ACCELERATORS[name].memory


def _host(gpus: int, parameters: float | None) -> tuple[str, str]:
    """Return CPU and memory of the trainer's container."""
    size = parameters or 3e8
    if gpus:
        return str(4 * gpus), gib(2 * size * 1.5 + gpus * 16 * GIB)
    # Float32 on both sides. 1.5 CPUs leave room on a node with two.
    return "1500m", gib(8 * size + _FIXED_CPU_BYTES)
